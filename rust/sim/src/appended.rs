//! What engines have numbered: the model gets to know of it, and the copies.

use std::collections::BTreeMap;

use aurora_page::{Lsn, PageId, unseal};
use aurora_redo::{History, Record};

use crate::blobs::reference;
use crate::instance::Instance;
use crate::model::{Change, Numbered};
use crate::world::{ORIGIN, World};

impl World {
    /// What engines have numbered goes to the model, and to the copies.
    pub(crate) fn collect_appended(&mut self) {
        let Some(base) = &self.base else { return };
        for session in base.sessions.clone() {
            let appended = session.volume.take_appended();
            if appended.is_empty() {
                continue;
            }
            for one in appended {
                let (id, epoch) = (session.id, session.epoch);
                let aurora_proto::Numbered { base, last } = one.numbered;
                self.note(format_args!("{id} numbers {base}..{last}"));
                let page_bytes = self.config.page_bytes;
                if let Some(what) = self.unchained(&session.history, &one.records) {
                    self.fail(what);
                }
                if let Some(what) = self.unstored(epoch, &one.records) {
                    self.fail(what);
                }
                let changes: Vec<(PageId, Change)> = one
                    .records
                    .into_iter()
                    .map(|record| (record.page, self.change_of(record, page_bytes)))
                    .collect();
                let mtr = Numbered {
                    origin: ORIGIN,
                    base,
                    last,
                    time_us: one.time_us,
                    epoch,
                    acknowledged: false,
                };
                if let Some(earlier) = self.model.newest_time(epoch, base)
                    && earlier >= mtr.time_us
                {
                    self.fail(format!(
                        "a commit at {} follows one at {earlier}",
                        mtr.time_us
                    ));
                }
                if let Err(what) = self.model.numbered(mtr, &changes) {
                    self.fail(what);
                }
            }
            let mut sends = Vec::new();
            if let Some(writing) = self
                .instances
                .get_mut(&session.id)
                .and_then(Instance::writing)
            {
                writing.send(&mut sends);
            }
            self.send(session.id, sends);
        }
    }

    /// What a record means: one that refers to a blob, what was put there for its page.
    fn change_of(&self, record: Record, page_bytes: usize) -> Change {
        let base = self.base.as_ref();
        let loaded = reference(&record).and_then(|(blob, index)| {
            let blobs = base?.hub.blobs.borrow();
            let sealed = blobs.get(&blob)?.pages.get(index)?.clone();
            unseal(&sealed, record.page, page_bytes).ok()
        });
        match loaded {
            Some(page) => Change::Loaded(Box::new(record), Box::new(page)),
            None => Change::Logged(Box::new(record), page_bytes),
        }
    }

    /// A record that does not follow the newest one of its page [5].
    fn unchained(&self, history: &History, records: &[Record]) -> Option<String> {
        let mut newest: BTreeMap<PageId, Lsn> = BTreeMap::new();
        for record in records {
            let before = newest.insert(record.page, record.lsn);
            if record.starts_life() {
                continue;
            }
            let before = before
                .unwrap_or_else(|| self.model.newest_change(record.page, record.lsn, history));
            if record.prev_page != before {
                return Some(format!(
                    "[5] record {} of page {} follows {}, but the page's newest change is {before}",
                    record.lsn, record.page, record.prev_page
                ));
            }
        }
        None
    }
}
