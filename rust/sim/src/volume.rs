//! The volume of an instance: the production writer behind `trait Volume`, and a note of every MTR that it numbered.
//!
//! Both drivers use it: worlds of bare pages append to it directly, worlds of a database through an engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_page::{Geometry, Lsn, VolumeId};
use aurora_proto::{Next, Numbered, Redo, RedoLog, Refused, Volume, Writer};
use aurora_redo::{Mtr, Record};
use parking_lot::{Mutex, MutexGuard};

use crate::config::Planted;

/// An MTR as the volume numbered it.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Its LSNs.
    pub numbered: Numbered,
    /// Its commit time.
    pub time_us: i64,
    /// Its records.
    pub records: Vec<Record>,
}

/// Bytes of MTRs that are kept for replicas: few, so that some fall behind.
const STREAM_BYTES_MAX: usize = 48 << 10;

/// What a writer and an engine above it share. One thread; the locks are what `Sync` asks for.
#[derive(Debug)]
pub struct SimVolume {
    writer: Mutex<Writer>,
    appended: Mutex<Vec<Appended>>,
    /// For replicas, once there are any.
    stream: Mutex<Option<RedoLog>>,
    geometry: Geometry,
    segments: AtomicU64,
    planted: Option<Planted>,
}

impl SimVolume {
    /// A volume that this writer writes.
    pub fn new(writer: Writer, geometry: Geometry, planted: Option<Planted>) -> Arc<SimVolume> {
        Arc::new(SimVolume {
            segments: AtomicU64::new(writer.pgs() as u64),
            writer: Mutex::new(writer),
            appended: Mutex::default(),
            stream: Mutex::default(),
            geometry,
            planted,
        })
    }

    /// The writer.
    pub fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }

    /// The volume has grown by a group.
    pub fn grown(&self) {
        let pgs = self.writer.lock().pgs() as u64;
        self.segments.store(pgs, Ordering::Relaxed);
    }

    /// What was appended since the last call.
    pub fn take_appended(&self) -> Vec<Appended> {
        std::mem::take(&mut *self.appended.lock())
    }

    /// Somebody follows from now on: everything that is numbered after this will be told.
    pub fn join_stream(&self) -> Lsn {
        let writer = self.writer.lock();
        let tip = writer.numbered();
        let mut stream = self.stream.lock();
        stream.get_or_insert_with(|| RedoLog::new(STREAM_BYTES_MAX, tip));
        tip
    }

    /// What a follower does next.
    pub fn next_redo(&self, applied: Lsn, vdl: Lsn, count_max: usize) -> Next {
        match &*self.stream.lock() {
            Some(log) => log.next(applied, vdl, count_max),
            None => Next::Nothing,
        }
    }

    /// All followers have everything up to here.
    pub fn trim_redo(&self, slowest: Lsn) {
        if let Some(log) = &mut *self.stream.lock() {
            log.trim(slowest);
        }
    }

    /// An MTR for those who follow, under the lock that numbered it.
    fn tell(&self, numbered: Numbered, origin: VolumeId, mtr: Mtr) {
        let mut stream = self.stream.lock();
        let Some(log) = &mut *stream else { return };
        let mut push = |numbered, mtr| {
            let redo = Redo::new(numbered, origin, mtr);
            log.push(Arc::new(redo));
        };
        if self.planted == Some(Planted::RedoInParts) && mtr.records.len() > 1 {
            let (first, second) = halves(mtr);
            let middle = numbered.base.offset(first.records.len() as u64 - 1);
            let Numbered { base, last } = numbered;
            let of_first = Numbered { base, last: middle };
            push(of_first, first);
            let base = middle.next();
            return push(Numbered { base, last }, second(of_first));
        }
        push(numbered, mtr);
    }

    fn number(&self, mtr: Mtr) -> Result<Numbered, Refused> {
        let time_us = mtr.time_us;
        let copy = mtr.clone();
        let mut writer = self.writer.lock();
        let numbered = writer.append(mtr)?;
        let origin = writer.origin();
        self.tell(numbered, origin, copy.clone());
        drop(writer);
        let record = |index: usize| {
            let lsn = numbered.base.offset(index as u64);
            Record {
                lsn,
                origin,
                prev_pg: Lsn::NONE,
                prev_page: copy.prev_page(index, numbered.base),
                page: copy.records[index].page,
                cpl: (lsn == numbered.last).then_some(time_us),
                op: copy.records[index].op.clone(),
            }
        };
        let records = (0..copy.records.len()).map(record).collect();
        self.appended.lock().push(Appended {
            numbered,
            time_us,
            records,
        });
        Ok(numbered)
    }
}

/// The planted fault of a commit in two parts: the first half of the records, and then the others.
fn halves(mut mtr: Mtr) -> (Mtr, impl FnOnce(Numbered) -> Mtr) {
    use aurora_redo::Prev;
    let at = mtr.records.len() / 2;
    let rest = mtr.records.split_off(at);
    let time_us = mtr.time_us;
    let second = move |first: Numbered| {
        let mut mtr = Mtr::new(time_us);
        for mut record in rest {
            record.prev = match record.prev {
                Prev::InMtr(index) if (index as usize) < at => {
                    Prev::Lsn(first.base.offset(u64::from(index)))
                }
                Prev::InMtr(index) => Prev::InMtr(index - at as u32),
                other => other,
            };
            mtr.records.push(record);
        }
        mtr
    };
    (mtr, second)
}

impl Volume for SimVolume {
    fn origin(&self) -> VolumeId {
        self.writer.lock().origin()
    }

    fn vdl(&self) -> Lsn {
        self.writer.lock().vdl()
    }

    fn numbered(&self) -> Lsn {
        self.writer.lock().numbered()
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    fn append(&self, mtr: Mtr) -> Result<Numbered, Refused> {
        if self.planted == Some(Planted::CommitInTwoParts) && mtr.records.len() > 1 {
            let (first, second) = halves(mtr);
            let first = self.number(first)?;
            let second = self.number(second(first))?;
            return Ok(Numbered {
                base: first.base,
                last: second.last,
            });
        }
        self.number(mtr)
    }
}
