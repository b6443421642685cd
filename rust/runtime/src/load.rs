//! Bulk load: the driver of the engine's load steps. Rows go in on the caller's thread; pages are sealed and stored at the copies on
//! others, so that building, sealing and disks work at the same time.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use aurora_engine::{Commit, Engine, EngineError, Load, LoadBlob, Stop, Table};
use aurora_page::{KeyBuf, Lsn, PageError, Value, ValueRef, read_row};
use aurora_proto::NodeSet;
use aurora_redo::{BlobId, PgId};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::Error;
use crate::clock::wall_us;
use crate::cluster::{Cluster, Shared};
use crate::load_follow::{Following, in_row};
use crate::volume::EmbeddedVolume;

/// Threads that seal and store blobs: while one waits for the disks, another seals.
const STORING_THREADS: usize = 3;
/// Blobs that may be sealed, stored or waiting for it before the builder waits for them.
const BLOBS_AHEAD: usize = STORING_THREADS + 2;

/// A bulk load. Its rows appear all at once with [`BulkLoad::finish`]; dropping it before leaves nothing.
pub struct BulkLoad {
    cluster: Cluster,
    load: Option<Load>,
    /// `None` once no more blobs come.
    blobs: Option<SyncSender<LoadBlob>>,
    stored: Receiver<Result<BlobId, Error>>,
    waiting: usize,
    threads: Vec<JoinHandle<()>>,
    /// What the rows bring with them.
    following: Option<Following>,
    /// The number of the row that is pushed next, among those of the load; of a row that is in the table it has none.
    number: Option<u64>,
    /// Rows that were pushed as those of the load, where nobody numbers them.
    pushed: u64,
}

impl Cluster {
    /// Begins a bulk load into a table without rows. Entries of its indexes are sorted within `memory_bytes`.
    ///
    /// # Errors
    /// `TableNotEmpty`, or whatever keeps the cluster from writing.
    pub fn bulk_load(
        &self,
        table: &Arc<Table>,
        memory_bytes: usize,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<BulkLoad, Error> {
        self.check_writable()?;
        let load = self.run(interrupt, |engine| engine.begin_load(table, wall_us()))?;
        self.drive_load(load, memory_bytes, interrupt)
    }

    /// Begins a bulk load into a table that may have rows: those at [`BulkLoad::base`] are to be pushed among its own.
    pub(crate) fn bulk_load_over(
        &self,
        table: &Arc<Table>,
        memory_bytes: usize,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<BulkLoad, Error> {
        self.check_writable()?;
        let load = self.run(interrupt, |engine| engine.begin_load_over(table, wall_us()))?;
        self.drive_load(load, memory_bytes, interrupt)
    }

    fn drive_load(
        &self,
        mut load: Load,
        memory_bytes: usize,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<BulkLoad, Error> {
        let following = match Following::new(self, &load, memory_bytes, interrupt) {
            Ok(following) => following,
            Err(error) => {
                self.engine().load_abort(&mut load);
                return Err(error);
            }
        };
        let (blobs, to_store) = sync_channel::<LoadBlob>(BLOBS_AHEAD);
        let (done, stored) = sync_channel(BLOBS_AHEAD * 2);
        let to_store = Arc::new(Mutex::new(to_store));
        let mut bulk = BulkLoad {
            cluster: self.clone(),
            load: Some(load),
            blobs: Some(blobs),
            stored,
            waiting: 0,
            threads: Vec::with_capacity(STORING_THREADS),
            following,
            number: None,
            pushed: 0,
        };
        for _ in 0..STORING_THREADS {
            let (shared, to_store, done) = (self.shared().clone(), to_store.clone(), done.clone());
            let store = move || {
                loop {
                    // The lock goes to the next thread as soon as a blob has come.
                    let blob = to_store.lock().recv();
                    let Ok(blob) = blob else { return };
                    if done.send(shared.store_blob(&blob)).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new()
                .name("aurora-load".into())
                .spawn(store)
                .map_err(|source| Error::io(Path::new("aurora-load"), source))?;
            bulk.threads.push(thread);
        }
        Ok(bulk)
    }
}

impl BulkLoad {
    /// Adds a row; keys ascend.
    ///
    /// # Errors
    /// `LoadOrder`, a value its column does not take, or what the disks answered. The load cannot go on after one.
    pub fn push(&mut self, row: &[Value], interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        let number = self.pushed;
        self.pushed += 1;
        self.push_row(row, Some(number), interrupt)
    }

    /// The same with the row's number among those of the load; a row that is in the table has none.
    pub(crate) fn push_row(
        &mut self,
        row: &[Value],
        number: Option<u64>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.number = number;
        self.step(interrupt, |engine, load| {
            engine.load_push(load, row, wall_us())
        })?;
        if let (Some(following), Some(load)) = (&mut self.following, &self.load) {
            let values: Vec<ValueRef<'_>> = row.iter().map(Value::as_ref).collect();
            following.take(load, &values, number)?;
        }
        self.hand_over(interrupt)
    }

    /// Adds a row that is encoded already, with its key; keys ascend.
    ///
    /// # Errors
    /// As [`BulkLoad::push`].
    pub fn push_encoded(
        &mut self,
        key: &KeyBuf,
        row: &[u8],
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let number = self.pushed;
        self.pushed += 1;
        self.push_encoded_row(key, row, Some(number), interrupt)
    }

    /// The same with the row's number among those of the load; a row that is in the table has none.
    pub(crate) fn push_encoded_row(
        &mut self,
        key: &KeyBuf,
        row: &[u8],
        number: Option<u64>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.number = number;
        self.step(interrupt, |engine, load| {
            engine.load_push_encoded(load, key, row, wall_us())
        })?;
        if let (Some(following), Some(load)) = (&mut self.following, &self.load) {
            let table = load.table();
            let named = |source| PageError::Row {
                page: table.root,
                source,
            };
            let values = read_row(&table.schema, row)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|source| EngineError::from(named(source)))?;
            following.take(load, &values, number)?;
        }
        self.hand_over(interrupt)
    }

    /// Adds an entry of an index; keys ascend.
    pub(crate) fn push_entry(
        &mut self,
        index: usize,
        key: &KeyBuf,
        entry: &[u8],
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.number = None;
        self.step(interrupt, |engine, load| {
            engine.load_push_entry(load, index, key, entry, wall_us())
        })?;
        self.hand_over(interrupt)
    }

    /// A row of the load refers to this parent, which was found.
    pub(crate) fn note_parent(&mut self, reference: usize, key: &KeyBuf) -> Result<(), Error> {
        let load = self.load.as_mut().ok_or(Error::Closed)?;
        load.note_parent(reference, key);
        Ok(())
    }

    /// The engine's part of it.
    pub(crate) fn load_ref(&self) -> Result<&Load, Error> {
        self.load.as_ref().ok_or(Error::Closed)
    }

    /// Where it loads.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The state that the rows of the load are to be merged with.
    pub(crate) fn base(&self) -> Option<Lsn> {
        self.load.as_ref().and_then(Load::base)
    }

    /// How many rows there are at the base.
    pub(crate) fn note_base_rows(&mut self, rows: u64) {
        if let Some(load) = &mut self.load {
            load.note_base_rows(rows);
        }
    }

    /// There is a row for this key at the base, and in the load too.
    pub(crate) fn note_overlap(&mut self, key: &[u8]) {
        if let Some(load) = &mut self.load {
            load.note_overlap(key);
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.load.as_ref().map_or(0, Load::rows)
    }

    /// Makes the rows appear, durably and all at once.
    ///
    /// # Errors
    /// `LoadConflict` when rows came into the table meanwhile; otherwise as [`BulkLoad::push`]. Nothing appears then.
    pub fn finish(mut self, interrupt: &dyn Fn() -> bool) -> Result<Commit, Error> {
        if let Some(following) = self.following.take() {
            following.finish(&mut self, interrupt)?;
        }
        self.step(interrupt, |engine, load| {
            engine.load_finish(load, wall_us())
        })?;
        self.hand_over(interrupt)?;
        self.blobs = None;
        while self.waiting > 0 {
            self.take_stored(true, interrupt)?;
        }
        let commit = self.step(interrupt, |engine, load| engine.load_link(load, wall_us()))?;
        self.cluster.wait_durable(commit.lsn, interrupt)?;
        Ok(commit)
    }

    fn step<T>(
        &mut self,
        interrupt: &dyn Fn() -> bool,
        mut step: impl FnMut(&Engine<EmbeddedVolume>, &mut Load) -> Result<T, Stop>,
    ) -> Result<T, Error> {
        let load = self.load.as_mut().ok_or(Error::Closed)?;
        loop {
            let writer = self.cluster.engine();
            match step(&writer, load) {
                Ok(done) => return Ok(done),
                // A row that a check refuses is named as it came.
                Err(Stop::Failed(error @ EngineError::CheckViolation { .. })) => {
                    return Err(in_row(self.number, error).into());
                }
                Err(stop) => self.cluster.settle(&writer, stop, interrupt)?,
            }
        }
    }

    /// Gives full blobs to the storing thread and logs those that it has stored.
    fn hand_over(&mut self, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        while let Some(blob) = self.load.as_mut().and_then(Load::take_blob) {
            while self.waiting >= BLOBS_AHEAD {
                self.take_stored(true, interrupt)?;
            }
            let sent = self
                .blobs
                .as_ref()
                .is_some_and(|blobs| blobs.send(blob).is_ok());
            if !sent {
                return Err(Error::Closed);
            }
            self.waiting += 1;
            if interrupt() {
                return Err(Error::Interrupted);
            }
        }
        while self.waiting > 0 && self.take_stored(false, interrupt)? {}
        Ok(())
    }

    /// Logs the references to one stored blob; true when there was one.
    fn take_stored(&mut self, wait: bool, interrupt: &dyn Fn() -> bool) -> Result<bool, Error> {
        let stored = match wait {
            true => self.stored.recv().map_err(|_| Error::Closed)?,
            false => match self.stored.try_recv() {
                Ok(stored) => stored,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Err(Error::Closed),
            },
        };
        let blob = stored?;
        self.step(interrupt, |engine, load| {
            engine.load_stored(load, blob, wall_us())
        })?;
        self.waiting -= 1;
        Ok(true)
    }
}

impl Drop for BulkLoad {
    fn drop(&mut self) {
        self.blobs = None;
        if let Some(mut load) = self.load.take() {
            self.cluster.engine().load_abort(&mut load);
        }
        // The threads end with their channel; what they still send must not block them.
        while self.stored.recv().is_ok() {}
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Stores a blob at every living copy of its group, all at once; right once a write quorum has it, for only then may a
    /// reference be logged. A copy that failed, was away, or comes later gets it from its peers before it takes the reference.
    fn store_blob(&self, blob: &LoadBlob) -> Result<BlobId, Error> {
        let pages: Vec<Bytes> = blob.seal().into_iter().map(Bytes::from).collect();
        let epoch = self.volume.epoch();
        let mut stored = NodeSet::EMPTY;
        let mut failed = None;
        let nodes = self.volume.nodes();
        std::thread::scope(|scope| {
            let living = nodes
                .iter()
                .filter(|node| node.answers() && node.is_alive());
            let puts: Vec<_> = living
                .map(|node| {
                    (
                        node.id(),
                        scope.spawn(|| node.store.put_blob(blob.id, epoch, &pages)),
                    )
                })
                .collect();
            for (node, put) in puts {
                match put.join() {
                    Ok(Ok(_)) => drop(stored.insert(node)),
                    Ok(Err(error)) => failed = Some(Error::from(error)),
                    Err(_) => {
                        failed = Some(Error::Corrupt {
                            detail: format!("storing blob {} at {node} panicked", blob.id),
                        })
                    }
                }
            }
        });
        if self
            .volume
            .is_write_quorum(PgId(blob.segment as u32), stored)
        {
            return Ok(blob.id);
        }
        Err(failed.unwrap_or_else(|| self.volume.quorum_lost()))
    }
}
