//! One owner per cluster directory: an OS lock that dies with its process.
//!
//! The lock file holds the owner's process id for the message `AlreadyOpen`; the lock itself is what counts, so a stale id
//! in a file nobody has locked means nothing. The file must stay while the cluster is open: whoever removes it lets a second
//! owner in, so an owner looks at its name before it acknowledges anything, and stops when it is gone.
//!
//! A lock belongs to the open file, which a forked child shares and would keep after its parent has died: [`release_in_fork`]
//! closes the child's end.

use std::fs::{File, Metadata, OpenOptions, metadata, read_dir};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::Error;
use crate::osdisk::is_linked;

/// Name of the lock file in the cluster's directory.
pub const LOCK_FILE: &str = "owner.lock";

/// How long a takeover waits for the ended owner's lock to be free.
const TAKEOVER_WAIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// The held lock; dropping it gives the directory free.
#[derive(Debug)]
pub struct DirectoryLock {
    /// Closing the file releases the lock.
    file: File,
}

/// Descriptors of the locks that this process holds; -1 where there is none.
static HELD: [AtomicI32; HELD_MAX] = [const { AtomicI32::new(NONE) }; HELD_MAX];
/// Locks that can be told to a fork. A lock beyond that is held all the same; only a fork keeps it longer.
const HELD_MAX: usize = 256;
const NONE: RawFd = -1;

/// To be called in the child of a fork, and nowhere else: closes the child's descriptors of its parent's locks, so that they end
/// with the parent. Async-signal-safe.
pub fn release_in_fork() {
    for place in &HELD {
        let fd = place.swap(NONE, Ordering::Relaxed);
        if fd != NONE {
            // SAFETY: the descriptor is the parent's lock file, which the child has by inheritance only: its handle is never
            // dropped here, as the cluster that owns it is not used in a fork.
            unsafe { rustix::io::close(fd) };
        }
    }
}

impl DirectoryLock {
    fn hold(file: File) -> DirectoryLock {
        let fd = file.as_raw_fd();
        let free = |place: &&AtomicI32| {
            place
                .compare_exchange(NONE, fd, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        let _ = HELD.iter().find(free);
        DirectoryLock { file }
    }

    /// Whether the lock file still has its name: without it, somebody else can own the directory.
    pub fn is_held(&self) -> bool {
        is_linked(&self.file).unwrap_or(false)
    }

    /// Takes the directory, or says who holds it.
    ///
    /// With `takeover` the holding process is killed first (SIGKILL) and its lock waited for, so there are never two owners.
    ///
    /// # Errors
    /// [`Error::AlreadyOpen`] with the owner's process id; [`Error::Io`] when the file cannot be made (a read-only directory).
    pub fn take(dir: &Path, takeover: bool) -> Result<DirectoryLock, Error> {
        let path = dir.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(|source| match source.kind() {
            ErrorKind::PermissionDenied => {
                let reason = format!(
                    "{} cannot be written ({source}); open it with read_only=True",
                    path.display()
                );
                Error::ReadOnly { reason }
            }
            _ => Error::io(&path, source),
        })?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = owner(&mut file);
            if !takeover || pid == Some(std::process::id()) {
                return Err(Error::AlreadyOpen {
                    path: dir.to_path_buf(),
                    pid,
                });
            }
            end_owner(&file, dir, pid)?;
        }
        write_owner(&mut file).map_err(|source| Error::io(&path, source))?;
        Ok(DirectoryLock::hold(file))
    }

    /// Shares the directory with other readers, and keeps owners away meanwhile. Writes nothing.
    ///
    /// # Errors
    /// [`Error::AlreadyOpen`] when an owner has it.
    pub fn share(dir: &Path) -> Result<Option<DirectoryLock>, Error> {
        // A cluster whose lock file is gone has no owner to keep away that a reader could see.
        let Ok(mut file) = File::open(dir.join(LOCK_FILE)) else {
            return Ok(None);
        };
        if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            return Err(Error::AlreadyOpen {
                path: dir.to_path_buf(),
                pid: owner(&mut file),
            });
        }
        Ok(Some(DirectoryLock::hold(file)))
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let fd = self.file.as_raw_fd();
        let ours = |place: &&AtomicI32| {
            place
                .compare_exchange(fd, NONE, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        let _ = HELD.iter().find(ours);
    }
}

fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_owner(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

/// Whether a process has the lock file open. Somebody who came to have an old owner's number has not, and must not be ended.
fn has_open(process: Pid, file: &File) -> bool {
    let place = |data: &Metadata| (data.dev(), data.ino());
    let Ok(ours) = file.metadata().as_ref().map(place) else {
        return false;
    };
    let Ok(descriptors) = read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())) else {
        return false;
    };
    // Reading the link of a descriptor opens nothing, whatever it is.
    descriptors
        .flatten()
        .any(|entry| metadata(entry.path()).is_ok_and(|data| place(&data) == ours))
}

fn end_owner(file: &File, dir: &Path, pid: Option<u32>) -> Result<(), Error> {
    let still_held = || Error::AlreadyOpen {
        path: dir.to_path_buf(),
        pid,
    };
    let target = pid
        .and_then(|pid| Pid::from_raw(pid as i32))
        .ok_or_else(still_held)?;
    // A descriptor of the process, so that what is below is about it and no other of the same number.
    if let Ok(process) = pidfd_open(target, PidfdFlags::empty()) {
        if !has_open(target, file) {
            // The number is that of an earlier owner: readers hold the lock, or an owner of another machine or container.
            return Err(still_held());
        }
        let _ = kill_process(target, Signal::KILL);
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut ended, Some(&TAKEOVER_WAIT)).map_err(|source| Error::io(dir, source.into()))?;
    }
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|_| still_held())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_fork_lets_go_and_its_parent_keeps() {
        let dir = std::env::temp_dir().join(format!("aurora-lock-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let lock = DirectoryLock::take(&dir, false).expect("nobody has it");
        let mut child = Command::new("true");
        // SAFETY: what runs between fork and exec only swaps atomics and closes descriptors.
        unsafe {
            child.pre_exec(|| {
                release_in_fork();
                Ok(())
            });
        }
        assert!(child.status().expect("the child ran").success());
        assert!(lock.is_held());
        assert!(matches!(
            DirectoryLock::take(&dir, false),
            Err(Error::AlreadyOpen { .. })
        ));
        drop(lock);
        DirectoryLock::take(&dir, false).expect("given free");
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
