//! Sorting rows within a budget of memory: what goes beyond it is written to files as sorted runs, and merged on the way out.
//!
//! ```text
//!   push ──> arena ── full: sorted ──> run 0, run 1, ...          each in a file
//!                └───────── sorted ─┬──────┴──────┘
//!                                merge ──> rows by key, those of one key in the order in which they came
//!   block    length u32 | CRC-32C u32 of what follows | rows          as many rows as make 64 KiB, one at the least
//!   row      key length u16 | row length u32 | number u64 | key | row
//! ```
//! A run's file loses its name as soon as it is made, so the operating system takes it back whenever and however this process ends.
//! The rows can be read more than once.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Memory};

use aurora_page::{KeyBuf, crc32c};
use aurora_store::{Disk, DiskFile, OpenMode};

use crate::Error;

/// Directory of the runs, below the cluster's. Empty but for the moment in which a run is made.
const SORT_DIR: &str = "sort";
/// Bytes of rows in a block of a run.
const BLOCK_BYTES: usize = 64 << 10;
const BLOCK_HEAD_BYTES: usize = 8;
const ROW_HEAD_BYTES: usize = 14;
/// Runs that are merged at one time; more are merged into one first.
const RUNS_MAX: usize = 64;

/// Files made by this process, so that each has a name of its own.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Removes what a process that was killed between making a run and taking its name away has left.
pub(crate) fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let dir = dir.join(SORT_DIR);
    if !disk.exists(&dir) {
        return Ok(());
    }
    disk.remove_dir_all(&dir)
        .map_err(|source| Error::io(&dir, source))
}

/// A row on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SortedRow {
    /// Its key.
    pub(crate) key: KeyBuf,
    /// All of it, encoded.
    pub(crate) row: Vec<u8>,
    /// Which it was among the rows that came in.
    pub(crate) number: u64,
}

/// Where a row lies in the arena.
struct Place {
    /// The first bytes of the key, in its order: most comparisons need no more.
    prefix: u64,
    at: usize,
    row_len: u32,
    key_len: u16,
    number: u64,
}

/// Rows that come in any order.
pub(crate) struct Sorter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    memory_bytes: usize,
    arena: Vec<u8>,
    places: Vec<Place>,
    in_order: bool,
    runs: Vec<Run>,
    rows: u64,
    bytes: u64,
}

impl Sorter {
    /// Nothing yet. Runs go to files below `dir`, each of about `memory_bytes`.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, memory_bytes: usize) -> Sorter {
        Sorter {
            disk,
            dir: dir.join(SORT_DIR),
            memory_bytes,
            arena: Vec::new(),
            places: Vec::new(),
            in_order: true,
            runs: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of keys and rows so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing was written to a file.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether the keys have ascended so far; told of what is in memory only.
    pub(crate) fn is_in_order(&self) -> bool {
        self.in_order && self.is_in_memory()
    }

    pub(crate) fn push(&mut self, key: &[u8], row: &[u8]) -> Result<(), Error> {
        let needed = self.arena.len() + key.len() + row.len();
        if !self.places.is_empty()
            && needed + (self.places.len() + 1) * size_of::<Place>() > self.memory_bytes
        {
            self.spill()?;
        }
        let place = Place {
            prefix: prefix(key),
            at: self.arena.len(),
            row_len: row.len() as u32,
            key_len: key.len() as u16,
            number: self.rows,
        };
        if let Some(last) = self.places.last() {
            self.in_order &= self.key(last) < key;
        }
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(row);
        self.places.push(place);
        self.rows += 1;
        self.bytes += (key.len() + row.len()) as u64;
        Ok(())
    }

    fn key(&self, place: &Place) -> &[u8] {
        &self.arena[place.at..place.at + usize::from(place.key_len)]
    }

    fn row(&self, place: &Place) -> &[u8] {
        let at = place.at + usize::from(place.key_len);
        &self.arena[at..at + place.row_len as usize]
    }

    fn sort(&mut self) {
        if self.in_order {
            return;
        }
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by(|a, b| {
            let by_key = || self.key(a).cmp(self.key(b));
            a.prefix
                .cmp(&b.prefix)
                .then_with(by_key)
                .then(a.number.cmp(&b.number))
        });
        self.places = places;
        self.in_order = true;
    }

    /// Writes what is in memory to a run.
    fn spill(&mut self) -> Result<(), Error> {
        if self.runs.len() == RUNS_MAX {
            self.merge_runs()?;
        }
        self.sort();
        let mut run = RunWriter::create(&self.disk, &self.dir)?;
        for place in &self.places {
            run.push(self.key(place), self.row(place), place.number)?;
        }
        self.runs.push(run.finish()?);
        self.arena.clear();
        self.places.clear();
        Ok(())
    }

    /// Makes one run of all.
    fn merge_runs(&mut self) -> Result<(), Error> {
        let mut merged = RunWriter::create(&self.disk, &self.dir)?;
        let mut rows = Merge::new(
            self.runs
                .iter()
                .map(|run| Input::Run(run.reader()))
                .collect(),
        )?;
        while let Some(row) = rows.next()? {
            merged.push(&row.key, &row.row, row.number)?;
        }
        drop(rows);
        self.runs = vec![merged.finish()?];
        Ok(())
    }

    /// All rows by key, those of one key in the order in which they came.
    pub(crate) fn sorted(&mut self) -> Result<Merge<'_>, Error> {
        self.sort();
        let mut inputs: Vec<Input<'_>> = self
            .runs
            .iter()
            .map(|run| Input::Run(run.reader()))
            .collect();
        inputs.push(Input::Memory {
            sorter: self,
            next: 0,
        });
        Merge::new(inputs)
    }
}

fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

/// A sorted run in a file that has no name.
struct Run {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
}

impl Run {
    fn reader(&self) -> RunReader<'_> {
        RunReader {
            run: self,
            at: 0,
            block: Vec::new(),
            next: 0,
        }
    }

    fn damaged(&self, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
        let path = self.path.display();
        Error::Corrupt {
            detail: format!("{path}, a run of a load: expected {expected}, got {got}"),
        }
    }
}

struct RunWriter {
    run: Run,
    block: Vec<u8>,
}

impl RunWriter {
    fn create(disk: &Arc<dyn Disk>, dir: &Path) -> Result<RunWriter, Error> {
        let io = |source| Error::io(dir, source);
        disk.create_dir_all(dir).map_err(io)?;
        let serial = SERIAL.fetch_add(1, Memory::Relaxed);
        let path = dir.join(format!("run-{}-{serial}", std::process::id()));
        let io = |source| Error::io(&path, source);
        let file = disk.open(&path, OpenMode::Create).map_err(io)?;
        disk.remove_file(&path).map_err(io)?;
        Ok(RunWriter {
            block: vec![0; BLOCK_HEAD_BYTES],
            run: Run { path, file, len: 0 },
        })
    }

    fn push(&mut self, key: &[u8], row: &[u8], number: u64) -> Result<(), Error> {
        let block = &mut self.block;
        block.extend_from_slice(&(key.len() as u16).to_le_bytes());
        block.extend_from_slice(&(row.len() as u32).to_le_bytes());
        block.extend_from_slice(&number.to_le_bytes());
        block.extend_from_slice(key);
        block.extend_from_slice(row);
        if block.len() >= BLOCK_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        let (block, run) = (&mut self.block, &mut self.run);
        let len = (block.len() - BLOCK_HEAD_BYTES) as u32;
        let crc = crc32c(&block[BLOCK_HEAD_BYTES..]);
        block[0..4].copy_from_slice(&len.to_le_bytes());
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        run.file
            .write_all_at(block, run.len)
            .map_err(|source| Error::io(&run.path, source))?;
        run.len += block.len() as u64;
        block.truncate(BLOCK_HEAD_BYTES);
        Ok(())
    }

    fn finish(mut self) -> Result<Run, Error> {
        if self.block.len() > BLOCK_HEAD_BYTES {
            self.write()?;
        }
        Ok(self.run)
    }
}

struct RunReader<'s> {
    run: &'s Run,
    at: u64,
    block: Vec<u8>,
    next: usize,
}

impl RunReader<'_> {
    fn next(&mut self) -> Result<Option<SortedRow>, Error> {
        if self.next == self.block.len() && !self.read_block()? {
            return Ok(None);
        }
        let rest = &self.block[self.next..];
        let parsed = || {
            let (key_len, rest) = rest.split_first_chunk::<2>()?;
            let (row_len, rest) = rest.split_first_chunk::<4>()?;
            let (number, rest) = rest.split_first_chunk::<8>()?;
            let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*key_len).into())?;
            let row = rest.get(..u32::from_le_bytes(*row_len) as usize)?;
            Some(SortedRow {
                key: KeyBuf::from_slice(key),
                row: row.to_vec(),
                number: u64::from_le_bytes(*number),
            })
        };
        let row = parsed().ok_or_else(|| self.run.damaged("a row", "the end of its block"))?;
        self.next += ROW_HEAD_BYTES + row.key.len() + row.row.len();
        Ok(Some(row))
    }

    fn read_block(&mut self) -> Result<bool, Error> {
        if self.at == self.run.len {
            return Ok(false);
        }
        let io = |source| Error::io(&self.run.path, source);
        let mut head = [0; BLOCK_HEAD_BYTES];
        self.run
            .file
            .read_exact_at(&mut head, self.at)
            .map_err(io)?;
        let [a, b, c, d, crc @ ..] = head;
        let (len, crc) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(crc));
        let left = self.run.len - self.at - BLOCK_HEAD_BYTES as u64;
        if u64::from(len) > left {
            return Err(self
                .run
                .damaged(format!("a block of at most {left} bytes"), len));
        }
        self.block.resize(len as usize, 0);
        let at = self.at + BLOCK_HEAD_BYTES as u64;
        self.run
            .file
            .read_exact_at(&mut self.block, at)
            .map_err(io)?;
        let got = crc32c(&self.block);
        if got != crc {
            return Err(self
                .run
                .damaged(format!("crc {crc:08x}"), format!("{got:08x}")));
        }
        (self.at, self.next) = (at + u64::from(len), 0);
        Ok(true)
    }
}

enum Input<'s> {
    Run(RunReader<'s>),
    Memory { sorter: &'s Sorter, next: usize },
}

impl Input<'_> {
    fn next(&mut self) -> Result<Option<SortedRow>, Error> {
        match self {
            Input::Run(run) => run.next(),
            Input::Memory { sorter, next } => {
                let place = sorter.places.get(*next);
                *next += 1;
                Ok(place.map(|place| SortedRow {
                    key: KeyBuf::from_slice(sorter.key(place)),
                    row: sorter.row(place).to_vec(),
                    number: place.number,
                }))
            }
        }
    }
}

/// The next row of an input. The heap gives the largest: the order is turned around.
struct Head {
    row: SortedRow,
    input: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        let (a, b) = (&other.row, &self.row);
        a.key.cmp(&b.key).then(a.number.cmp(&b.number))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Rows by key out of sorted inputs.
pub(crate) struct Merge<'s> {
    inputs: Vec<Input<'s>>,
    heads: BinaryHeap<Head>,
}

impl<'s> Merge<'s> {
    fn new(inputs: Vec<Input<'s>>) -> Result<Merge<'s>, Error> {
        let mut merge = Merge {
            heads: BinaryHeap::with_capacity(inputs.len()),
            inputs,
        };
        for input in 0..merge.inputs.len() {
            merge.fill(input)?;
        }
        Ok(merge)
    }

    fn fill(&mut self, input: usize) -> Result<(), Error> {
        if let Some(row) = self.inputs[input].next()? {
            self.heads.push(Head { row, input });
        }
        Ok(())
    }

    /// The next row.
    pub(crate) fn next(&mut self) -> Result<Option<SortedRow>, Error> {
        if let [only] = &mut self.inputs[..] {
            // Nothing to compare with: what is in the heap comes first.
            return match self.heads.pop() {
                Some(head) => Ok(Some(head.row)),
                None => only.next(),
            };
        }
        let Some(head) = self.heads.pop() else {
            return Ok(None);
        };
        self.fill(head.input)?;
        Ok(Some(head.row))
    }
}

#[cfg(test)]
mod tests {
    use aurora_store::MemDisk;

    use super::*;

    fn sorter(disk: &Arc<dyn Disk>, memory_bytes: usize) -> Sorter {
        Sorter::new(disk.clone(), Path::new("/cluster"), memory_bytes)
    }

    fn shuffled(count: u64, keys: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seed = 7u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        };
        (0..count)
            .map(|number| {
                let key = (next() % keys).to_be_bytes()[3..].to_vec();
                (key, vec![number as u8; (next() % 200) as usize])
            })
            .collect()
    }

    /// A model is a stable sort; runs of any number, also more than are merged at one time, give the same, twice.
    #[test]
    fn rows_come_out_by_key_and_then_as_they_came_in() {
        for (rows, keys, memory_bytes) in [
            (0, 1, 1 << 20),
            (1, 1, 1 << 20),
            (3_000, 1_000_000, 1 << 20),
            (3_000, 40, 10_000),
            (6_000, 1_000_000, 4_000),
        ] {
            let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
            disk.create_dir_all(Path::new("/cluster")).unwrap();
            let mut sorter = sorter(&disk, memory_bytes);
            let input = shuffled(rows, keys);
            for (key, row) in &input {
                sorter.push(key, row).unwrap();
            }
            assert_eq!(sorter.is_in_memory(), memory_bytes == 1 << 20);
            assert!(sorter.runs.len() <= RUNS_MAX);
            let mut model: Vec<(Vec<u8>, u64)> = input
                .iter()
                .zip(0..)
                .map(|((key, _), number)| (key.clone(), number))
                .collect();
            model.sort();
            for _ in 0..2 {
                let mut merge = sorter.sorted().unwrap();
                for (key, number) in &model {
                    let row = merge.next().unwrap().unwrap();
                    assert_eq!((&row.key[..], row.number), (&key[..], *number));
                    assert_eq!(row.row, input[*number as usize].1);
                }
                assert_eq!(merge.next().unwrap(), None);
            }
            let left = disk.list(Path::new("/cluster/sort")).unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    #[test]
    fn order_is_noticed() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let mut sorter = sorter(&disk, 1 << 20);
        sorter.push(b"a", b"").unwrap();
        sorter.push(b"b", b"").unwrap();
        assert!(sorter.is_in_order());
        sorter.push(b"b", b"").unwrap();
        assert!(
            !sorter.is_in_order(),
            "keys ascend, or the order is not that of keys"
        );
    }

    #[test]
    fn a_damaged_run_is_an_error() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        disk.create_dir_all(Path::new("/cluster")).unwrap();
        let mut sorter = sorter(&disk, 2_000);
        for (key, row) in shuffled(100, 1_000) {
            sorter.push(&key, &row).unwrap();
        }
        sorter.runs[0].file.write_all_at(&[0xFF], 40).unwrap();
        let Err(error) = sorter.sorted().and_then(|mut merge| merge.next()) else {
            panic!("a damaged run was read");
        };
        assert!(error.to_string().contains("expected crc"), "{error}");
    }
}
