//! What the rows of a load bring with them: entries of indexes, and parents that must be there.
//!
//! ```text
//!   each row ──> its entry of each index ──> a sorter each ──> neighbours compared, if unique ──> the index's tree
//!            └─> its parent's key, for each foreign key ──> a sorter each ──> looked up in order, each once
//! ```
//! All of it before anything is linked: what is found wrong leaves the table as it was. The sorters share a budget of memory,
//! and go to files beyond it.

use aurora_engine::{EngineError, LoadEntry, Mode, Txn};
use aurora_page::{KeyBuf, ValueRef};

use crate::Error;
use crate::cluster::Cluster;
use crate::load::BulkLoad;
use crate::sort::{Merge, SortedRow, Sorter};

/// Least memory of a sorter.
const SORTER_BYTES_MIN: usize = 256 << 10;
/// Parents that are looked up at one time.
const ROUND: usize = 256;
/// The number of a row that is in the table, and not of the load.
const STORED: u64 = u64::MAX;
/// The mark of an entry that other rows may have too.
const NOT_UNIQUE: u16 = u16::MAX;
/// Bytes of an entry's head: bytes of the key that are unique u16 | number of the row u64.
const HEAD_BYTES: usize = 10;

/// Entries and parents of the rows that have come so far.
pub(crate) struct Following {
    /// By index.
    entries: Vec<Sorter>,
    /// By foreign key.
    parents: Vec<Sorter>,
    /// Keys of the rows, where they may be parents themselves.
    keys: Option<Sorter>,
    /// Keeps the state readable in which parents are looked for.
    txn: Option<Txn>,
    scratch: Vec<u8>,
}

impl Following {
    /// Of a load that brings something with its rows; `None` of one that does not.
    pub(crate) fn new(
        cluster: &Cluster,
        load: &aurora_engine::Load,
        memory_bytes: usize,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Option<Following>, Error> {
        let (indexes, references) = (load.indexes().len(), load.references().len());
        if indexes == 0 {
            // A foreign key has an index too.
            return Ok(None);
        }
        let own = load
            .references()
            .any(|(_, parent)| parent.id == load.table().id);
        let count = indexes + references + usize::from(own);
        let bytes = (memory_bytes / count).max(SORTER_BYTES_MIN);
        let shared = cluster.shared();
        let sorter = || Sorter::new(shared.disk.clone(), &shared.dir, bytes);
        let at = Some(load.seen());
        let txn = (references > 0)
            .then(|| cluster.run(interrupt, |engine| engine.begin(Mode::ReadOnly { at })));
        Ok(Some(Following {
            entries: (0..indexes).map(|_| sorter()).collect(),
            parents: (0..references).map(|_| sorter()).collect(),
            keys: own.then(sorter),
            txn: txn.transpose()?,
            scratch: Vec::new(),
        }))
    }

    /// Takes what a row brings along. `number` is its place in the load; one that is in the table has none.
    pub(crate) fn take(
        &mut self,
        load: &aurora_engine::Load,
        row: &[ValueRef<'_>],
        number: Option<u64>,
    ) -> Result<(), Error> {
        let at_row = |error: EngineError| in_row(number, error);
        for (place, sorter) in self.entries.iter_mut().enumerate() {
            let entry = match load.entry(place, row) {
                Ok(entry) => entry,
                // Older than the index that is being built, and too long for it: the build says so.
                Err(EngineError::IndexKey { .. } | EngineError::IndexExpr { .. })
                    if number.is_none() && !load.indexes()[place].is_ready() =>
                {
                    continue;
                }
                Err(error) => return Err(at_row(error).into()),
            };
            pack(&mut self.scratch, &entry, number);
            sorter.push(&entry.key, &self.scratch)?;
        }
        // Rows that are in the table have their parents.
        if let Some(number) = number {
            for (place, sorter) in self.parents.iter_mut().enumerate() {
                if let Some(key) = load.parent_key(place, row).map_err(at_row)? {
                    sorter.push(&key, &number.to_le_bytes())?;
                }
            }
        }
        if let Some(keys) = &mut self.keys {
            let values: Vec<_> = row.iter().map(|value| (*value).to_owned()).collect();
            keys.push(&load.table().key_of(&values)?, &[])?;
        }
        Ok(())
    }

    /// All rows have come: parents are looked up, and the trees of the indexes filled.
    pub(crate) fn finish(
        mut self,
        bulk: &mut BulkLoad,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        for (place, sorter) in self.parents.iter_mut().enumerate() {
            let load = bulk.load_ref()?;
            let own = load
                .references()
                .nth(place)
                .is_some_and(|(_, parent)| parent.id == load.table().id);
            let mut wanted = Wanted::new(sorter.sorted()?);
            match (&mut self.keys, &self.txn) {
                (Some(keys), _) if own => look_among(bulk, place, &mut wanted, keys.sorted()?)?,
                (_, Some(txn)) => look_up(bulk, place, &mut wanted, txn, interrupt)?,
                _ => {}
            }
        }
        for (place, sorter) in self.entries.iter_mut().enumerate() {
            build(bulk, place, sorter.sorted()?, interrupt)?;
        }
        Ok(())
    }
}

/// An error about a row, which is named if it is one of the load.
pub(crate) fn in_row(number: Option<u64>, error: EngineError) -> EngineError {
    match number {
        Some(row) => EngineError::LoadRow {
            row,
            source: Box::new(error),
        },
        None => error,
    }
}

fn pack(into: &mut Vec<u8>, entry: &LoadEntry, number: Option<u64>) {
    // A key has at most 1,024 bytes.
    let unique = entry.unique.map_or(NOT_UNIQUE, |len| len as u16);
    into.clear();
    into.extend_from_slice(&unique.to_le_bytes());
    into.extend_from_slice(&number.unwrap_or(STORED).to_le_bytes());
    into.extend_from_slice(&entry.row);
}

/// What [`pack`] has made: how many bytes of the key are unique, the row's number, the entry.
fn unpack(row: &[u8]) -> Option<(Option<usize>, u64, &[u8])> {
    let (unique, rest) = row.split_first_chunk::<2>()?;
    let (number, entry) = rest.split_first_chunk::<{ HEAD_BYTES - 2 }>()?;
    let unique = u16::from_le_bytes(*unique);
    let unique = (unique != NOT_UNIQUE).then_some(usize::from(unique));
    Some((unique, u64::from_le_bytes(*number), entry))
}

/// Fills the tree of an index, unless two rows have the same values in a unique one.
fn build(
    bulk: &mut BulkLoad,
    place: usize,
    mut entries: Merge<'_>,
    interrupt: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let damaged = || Error::Corrupt {
        detail: "a run of a load: expected an entry of an index, got fewer bytes".into(),
    };
    let mut last: Option<(KeyBuf, u64)> = None;
    while let Some(SortedRow { key, row, .. }) = entries.next()? {
        let (unique, number, entry) = unpack(&row).ok_or_else(damaged)?;
        let prefix = unique.and_then(|len| key.get(..len));
        if let (Some(prefix), Some((other, before))) = (prefix, &last)
            && prefix == &other[..]
        {
            let error = bulk.load_ref()?.duplicate_entry(place, &key);
            // Of a row of the table and one of the load it is the load's that is too many; of two of the load the later.
            let row = match (number, *before) {
                (STORED, other) | (other, STORED) => other,
                (one, other) => one.max(other),
            };
            return Err(in_row((row != STORED).then_some(row), error).into());
        }
        last = prefix.map(|prefix| (KeyBuf::from_slice(prefix), number));
        bulk.push_entry(place, &key, entry, interrupt)?;
    }
    Ok(())
}

/// Parents that rows refer to, each once, with the first row that does.
struct Wanted<'s> {
    rows: Merge<'s>,
    last: Option<KeyBuf>,
}

impl<'s> Wanted<'s> {
    fn new(rows: Merge<'s>) -> Wanted<'s> {
        Wanted { rows, last: None }
    }

    fn next(&mut self) -> Result<Option<(KeyBuf, u64)>, Error> {
        while let Some(SortedRow { key, row, .. }) = self.rows.next()? {
            if self.last.as_ref() == Some(&key) {
                continue;
            }
            self.last = Some(key.clone());
            let number = row
                .first_chunk()
                .map_or(STORED, |number| u64::from_le_bytes(*number));
            return Ok(Some((key, number)));
        }
        Ok(None)
    }
}

/// Finds the parents among the rows of the load and those that it is merged with.
fn look_among(
    bulk: &mut BulkLoad,
    place: usize,
    wanted: &mut Wanted<'_>,
    mut keys: Merge<'_>,
) -> Result<(), Error> {
    let mut there = keys.next()?;
    while let Some((key, number)) = wanted.next()? {
        while there.as_ref().is_some_and(|row| row.key < key) {
            there = keys.next()?;
        }
        if there.as_ref().is_none_or(|row| row.key != key) {
            let missing = bulk.load_ref()?.parent_missing(place, &key);
            return Err(in_row(Some(number), missing).into());
        }
        bulk.note_parent(place, &key)?;
    }
    Ok(())
}

/// Finds the parents in their table.
fn look_up(
    bulk: &mut BulkLoad,
    place: usize,
    wanted: &mut Wanted<'_>,
    txn: &Txn,
    interrupt: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let parent = bulk.load_ref()?.references().nth(place);
    let Some(parent) = parent.map(|(_, parent)| parent.clone()) else {
        return Ok(());
    };
    let cluster = bulk.cluster().clone();
    loop {
        let (mut keys, mut numbers) = (Vec::with_capacity(ROUND), Vec::with_capacity(ROUND));
        while keys.len() < ROUND
            && let Some((key, number)) = wanted.next()?
        {
            keys.push(key);
            numbers.push(number);
        }
        if keys.is_empty() {
            return Ok(());
        }
        let found = cluster.run(interrupt, |engine| engine.get_many(txn, &parent, &keys))?;
        for ((key, number), found) in keys.iter().zip(numbers).zip(found) {
            if found.is_none() {
                let missing = bulk.load_ref()?.parent_missing(place, key);
                return Err(in_row(Some(number), missing).into());
            }
            bulk.note_parent(place, key)?;
        }
    }
}
