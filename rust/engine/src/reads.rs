//! What a serializable transaction has read: keys and ranges, to be checked at its commit.

use std::sync::Arc;

use aurora_page::KeyBuf;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::conflicts::{Watch, key_hash};
use crate::error::EngineError;
use crate::table::Table;

/// Bytes of a note beside its key.
const NOTE_BYTES: u64 = 96;

/// A range of keys that was read: from `low` (included; `None` is the start) to `high` (left out; `None` is the end).
#[derive(Clone)]
pub(crate) struct ReadRange {
    pub table: Arc<Table>,
    pub low: Option<KeyBuf>,
    pub high: Option<KeyBuf>,
}

#[derive(Default)]
struct Noted {
    keys: FxHashMap<u64, (Arc<Table>, KeyBuf)>,
    ranges: Vec<ReadRange>,
    bytes: u64,
}

/// The keys and ranges that a transaction has read, within a budget. Shared with its cursors.
pub(crate) struct Reads {
    noted: Mutex<Noted>,
    bytes_max: u64,
    /// Keeps what the ranges are checked against.
    _watch: Watch,
}

impl Reads {
    pub fn new(bytes_max: u64, watch: Watch) -> Reads {
        Reads {
            noted: Mutex::default(),
            bytes_max,
            _watch: watch,
        }
    }

    /// A key was looked up.
    pub fn note_key(&self, table: &Arc<Table>, key: &[u8]) -> Result<(), EngineError> {
        let mut noted = self.noted.lock();
        let hash = key_hash(table.id, key);
        if noted.keys.contains_key(&hash) {
            return Ok(());
        }
        self.charge(&mut noted, key.len())?;
        let key = KeyBuf::from_slice(key);
        noted.keys.insert(hash, (table.clone(), key));
        Ok(())
    }

    /// A range was read. The next stretch of the range that was noted last makes that one longer.
    pub fn note_range(&self, range: ReadRange) -> Result<(), EngineError> {
        let mut noted = self.noted.lock();
        if let Some(last) = noted.ranges.last_mut()
            && last.table.id == range.table.id
        {
            if last.high.is_some() && last.high == range.low {
                last.high = range.high;
                return Ok(());
            }
            if last.low.is_some() && last.low == range.high {
                last.low = range.low;
                return Ok(());
            }
        }
        let bytes = [&range.low, &range.high];
        let bytes = bytes.into_iter().flatten().map(|key| key.len()).sum();
        self.charge(&mut noted, bytes)?;
        noted.ranges.push(range);
        Ok(())
    }

    fn charge(&self, noted: &mut Noted, key_bytes: usize) -> Result<(), EngineError> {
        let got = noted.bytes + NOTE_BYTES + key_bytes as u64;
        if got > self.bytes_max {
            return Err(EngineError::TransactionTooLarge {
                what: "bytes of keys read (a serializable transaction remembers them)",
                limit: self.bytes_max,
                got,
            });
        }
        noted.bytes = got;
        Ok(())
    }

    /// Asks about every key with its hash, then about every range, until an answer is an error.
    pub fn check<E>(
        &self,
        key: impl Fn(u64, &Table, &KeyBuf) -> Result<(), E>,
        range: impl Fn(&ReadRange) -> Result<(), E>,
    ) -> Result<(), E> {
        let noted = self.noted.lock();
        noted
            .keys
            .iter()
            .try_for_each(|(hash, (table, read))| key(*hash, table, read))?;
        noted.ranges.iter().try_for_each(range)
    }
}

impl ReadRange {
    /// The range for a message.
    pub fn show(&self) -> String {
        let show = |key: &Option<KeyBuf>, end: &str| {
            let shown = key.as_ref().map(|key| self.table.show_key(key));
            shown.unwrap_or_else(|| end.to_owned())
        };
        format!(
            "range from {} to {}",
            show(&self.low, "the start"),
            show(&self.high, "the end")
        )
    }
}
