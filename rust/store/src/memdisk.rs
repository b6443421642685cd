//! A file system in memory, with the faults of a real one.
//!
//! [`MemDisk::new`] is the disk of `memory=True`: fast, never fails. [`MemDisk::faulty`] also remembers what was not
//! synced, so that [`MemDisk::crash`] can lose it the way a power cut does: names not synced by `sync_dir` go from some
//! point on, unsynced writes survive sector by sector as a seeded coin decides.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::memfile::{Inode, MemFile};

/// A disk in memory. Cloning gives another handle of the same disk.
#[derive(Clone, Debug)]
pub struct MemDisk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Mutex<Names>,
    pub(crate) faults: Arc<FaultState>,
}

/// Directory entries as they are, as they would be after a crash, and what lies between.
#[derive(Debug, Default)]
struct Names {
    live: BTreeMap<PathBuf, Arc<Inode>>,
    durable: BTreeMap<PathBuf, Arc<Inode>>,
    pending: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    devices: Vec<(PathBuf, u64)>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(PathBuf, Arc<Inode>),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            NameChange::Put(p, _) | NameChange::Remove(p) => p.parent() == Some(dir),
            NameChange::Rename(a, b) => a.parent() == Some(dir) || b.parent() == Some(dir),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Arc<Inode>>) {
        match self {
            NameChange::Put(p, inode) => drop(names.insert(p.clone(), inode.clone())),
            NameChange::Remove(p) => drop(names.remove(p)),
            NameChange::Rename(a, b) => {
                if let Some(inode) = names.remove(a) {
                    names.insert(b.clone(), inode);
                }
            }
        }
    }
}

/// Faults that are switched on; shared by all files of a disk.
#[derive(Debug)]
pub(crate) struct FaultState {
    pub(crate) track: bool,
    /// Changing operations until the machine stops; `u64::MAX` for never.
    countdown: AtomicU64,
    changes: AtomicU64,
    fail_syncs: AtomicU64,
    /// Bytes that may be in use; `u64::MAX` for no limit.
    capacity: AtomicU64,
    pub(crate) used: AtomicU64,
    pub(crate) written: AtomicU64,
}

impl FaultState {
    /// Every operation that changes the disk passes here first.
    pub(crate) fn change(&self) -> io::Result<()> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        if self.countdown.load(Ordering::Relaxed) == u64::MAX {
            return Ok(());
        }
        let left = self
            .countdown
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        left.map(|_| ())
            .map_err(|_| io::Error::other("the machine has stopped"))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        let due = self
            .fail_syncs
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if due.is_ok() {
            return Err(io::Error::other("sync failed (fault)"));
        }
        Ok(())
    }

    /// Takes room for `bytes` more.
    pub(crate) fn grow(&self, bytes: u64) -> io::Result<()> {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed);
        if used.saturating_add(bytes) > capacity {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn shrink(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for MemDisk {
    fn default() -> Self {
        MemDisk::new()
    }
}

impl MemDisk {
    /// A disk that never fails and does not remember what was unsynced.
    pub fn new() -> MemDisk {
        MemDisk::with(false, BTreeMap::new(), BTreeSet::new())
    }

    /// A disk for tests and the simulator: crashes and faults can be asked for.
    pub fn faulty() -> MemDisk {
        MemDisk::with(true, BTreeMap::new(), BTreeSet::new())
    }

    fn with(track: bool, names: BTreeMap<PathBuf, Arc<Inode>>, dirs: BTreeSet<PathBuf>) -> MemDisk {
        let faults = Arc::new(FaultState {
            track,
            countdown: AtomicU64::new(u64::MAX),
            changes: AtomicU64::new(0),
            fail_syncs: AtomicU64::new(0),
            capacity: AtomicU64::new(u64::MAX),
            used: AtomicU64::new(names.values().map(|i| i.len()).sum()),
            written: AtomicU64::new(0),
        });
        let names = Names {
            live: names.clone(),
            durable: names,
            dirs,
            ..Names::default()
        };
        MemDisk {
            inner: Arc::new(Inner {
                names: Mutex::new(names),
                faults,
            }),
        }
    }

    /// The machine stops after `changes` more changing operations: later ones fail.
    pub fn stop_after(&self, changes: u64) {
        self.inner
            .faults
            .countdown
            .store(changes, Ordering::Relaxed);
    }

    /// Changing operations so far: the range that a countdown has to cover.
    pub fn changes(&self) -> u64 {
        self.inner.faults.changes.load(Ordering::Relaxed)
    }

    /// Bytes written so far, by all files.
    pub fn written_bytes(&self) -> u64 {
        self.inner.faults.written.load(Ordering::Relaxed)
    }

    /// The next `n` syncs fail.
    pub fn fail_syncs(&self, n: u64) {
        self.inner.faults.fail_syncs.store(n, Ordering::Relaxed);
    }

    /// Limits the bytes in use; beyond, writes fail as on a full disk. `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner
            .faults
            .capacity
            .store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.inner.faults.used.load(Ordering::Relaxed)
    }

    /// Says that paths below `prefix` lie on another device.
    pub fn set_device(&self, prefix: &Path, device: u64) {
        self.inner
            .names
            .lock()
            .devices
            .push((prefix.to_path_buf(), device));
    }

    /// Inverts the bits of `mask` in one byte, on the medium itself.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        self.lookup(path)?.flip(offset, mask)
    }

    /// The files at and below a path.
    pub fn files(&self, below: &Path) -> Vec<PathBuf> {
        self.inner
            .names
            .lock()
            .live
            .keys()
            .filter(|p| p.starts_with(below))
            .cloned()
            .collect()
    }

    /// What is left after a power cut: a new disk without faults set. `seed` decides which unsynced parts survive.
    pub fn crash(&self, seed: u64) -> MemDisk {
        let mut coin = Coin(seed ^ 0x9e37_79b9_7f4a_7c15);
        let names = self.inner.names.lock();
        let mut kept = names.durable.clone();
        let survive = coin.below(names.pending.len() as u64 + 1) as usize;
        for change in &names.pending[..survive] {
            change.apply(&mut kept);
        }
        let mut copies: BTreeMap<*const Inode, Arc<Inode>> = BTreeMap::new();
        for inode in kept.values_mut() {
            let copy = copies
                .entry(Arc::as_ptr(inode))
                .or_insert_with(|| Arc::new(inode.crash(&mut coin)));
            *inode = copy.clone();
        }
        let crashed = MemDisk::with(true, kept, names.dirs.clone());
        crashed.inner.names.lock().devices = names.devices.clone();
        for inode in crashed.inner.names.lock().live.values() {
            inode.named();
        }
        crashed
    }

    fn lookup(&self, path: &Path) -> io::Result<Arc<Inode>> {
        self.inner
            .names
            .lock()
            .live
            .get(path)
            .cloned()
            .ok_or_else(|| not_found(path))
    }

    fn record(&self, names: &mut Names, change: NameChange) {
        change.apply(&mut names.live);
        if self.inner.faults.track {
            names.pending.push(change);
        }
    }

    fn forget(&self, inode: &Inode) {
        if inode.unnamed() {
            self.inner.faults.shrink(inode.len());
        }
    }
}

/// A small generator for what a crash keeps; the same seed keeps the same.
#[derive(Debug)]
pub(crate) struct Coin(pub(crate) u64);

impl Coin {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("no such file: {}", path.display()),
    )
}

fn taken(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("exists: {}", path.display()),
    )
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let faults = self.inner.faults.clone();
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => self.lookup(path)?,
            OpenMode::Create => {
                faults.change()?;
                let mut names = self.inner.names.lock();
                if names.live.contains_key(path) || names.dirs.contains(path) {
                    return Err(taken(path));
                }
                if !path.parent().is_some_and(|d| names.dirs.contains(d)) {
                    return Err(not_found(path));
                }
                let inode = Arc::new(Inode::default());
                inode.named();
                self.record(
                    &mut names,
                    NameChange::Put(path.to_path_buf(), inode.clone()),
                );
                inode
            }
        };
        Ok(Arc::new(MemFile::new(
            inode,
            faults,
            mode != OpenMode::Read,
        )))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = self.inner.names.lock();
        for dir in path.ancestors() {
            names.dirs.insert(dir.to_path_buf());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.faults.change()?;
        let mut names = self.inner.names.lock();
        if !names.live.contains_key(from) {
            return Err(not_found(from));
        }
        if let Some(old) = names.live.get(to).cloned() {
            self.forget(&old);
        }
        self.record(
            &mut names,
            NameChange::Rename(from.to_path_buf(), to.to_path_buf()),
        );
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.faults.change()?;
        let mut names = self.inner.names.lock();
        let inode = names
            .live
            .get(from)
            .cloned()
            .ok_or_else(|| not_found(from))?;
        if names.live.contains_key(to) {
            return Err(taken(to));
        }
        inode.named();
        self.record(&mut names, NameChange::Put(to.to_path_buf(), inode));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.faults.change()?;
        let mut names = self.inner.names.lock();
        let inode = names
            .live
            .get(path)
            .cloned()
            .ok_or_else(|| not_found(path))?;
        self.forget(&inode);
        self.record(&mut names, NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.faults.change()?;
        let mut names = self.inner.names.lock();
        if !names.dirs.contains(path) {
            return Err(not_found(path));
        }
        let gone: Vec<_> = names
            .live
            .keys()
            .filter(|p| p.starts_with(path))
            .cloned()
            .collect();
        for file in gone {
            if let Some(inode) = names.live.get(&file).cloned() {
                self.forget(&inode);
            }
            self.record(&mut names, NameChange::Remove(file));
        }
        names.dirs.retain(|d| !d.starts_with(path));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.inner.names.lock();
        if !names.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let all = names.live.keys().chain(names.dirs.iter());
        let mut found: Vec<String> = all
            .filter(|p| p.parent() == Some(dir))
            .filter_map(|p| p.file_name().and_then(|n| n.to_str()).map(String::from))
            .collect();
        found.sort();
        Ok(found)
    }

    fn exists(&self, path: &Path) -> bool {
        let names = self.inner.names.lock();
        names.live.contains_key(path) || names.dirs.contains(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let faults = &self.inner.faults;
        faults.change()?;
        faults.sync()?;
        let mut guard = self.inner.names.lock();
        let names = &mut *guard;
        let durable = &mut names.durable;
        names.pending.retain(|change| {
            let synced = change.touches(dir);
            if synced {
                change.apply(durable);
            }
            !synced
        });
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let faults = &self.inner.faults;
        Ok(faults
            .capacity
            .load(Ordering::Relaxed)
            .saturating_sub(faults.used.load(Ordering::Relaxed)))
    }

    fn device_of(&self, path: &Path) -> io::Result<u64> {
        let names = self.inner.names.lock();
        let found = names
            .devices
            .iter()
            .rev()
            .find(|(prefix, _)| path.starts_with(prefix));
        Ok(found.map_or(1, |(_, device)| *device))
    }
}
