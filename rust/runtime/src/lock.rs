//! One owner per cluster directory: an OS lock that dies with its process.
//!
//! The lock file holds the owner's process id for the message `AlreadyOpen`; the lock itself is what counts, so a stale id
//! in a file nobody has locked means nothing. Safety does not rest on this lock alone: the next owner takes a new epoch.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::Error;

/// Name of the lock file in the cluster's directory.
pub const LOCK_FILE: &str = "owner.lock";

/// How long a takeover waits for the ended owner's lock to be free.
const TAKEOVER_WAIT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The held lock; dropping it gives the directory free.
#[derive(Debug)]
pub struct DirectoryLock {
    /// Closing the file releases the lock.
    _file: File,
}

impl DirectoryLock {
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
                let reason = format!("{} cannot be written ({source}); open it with read_only=True", path.display());
                Error::ReadOnly { reason }
            }
            _ => Error::io(&path, source),
        })?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = owner(&mut file);
            if !takeover || pid == Some(std::process::id()) {
                return Err(Error::AlreadyOpen { path: dir.to_path_buf(), pid });
            }
            end_owner(&file, dir, pid)?;
        }
        write_owner(&mut file).map_err(|source| Error::io(&path, source))?;
        Ok(DirectoryLock { _file: file })
    }

    /// Shares the directory with other readers, and keeps owners away meanwhile. Writes nothing.
    ///
    /// # Errors
    /// [`Error::AlreadyOpen`] when an owner has it.
    pub fn share(dir: &Path) -> Result<Option<DirectoryLock>, Error> {
        // A cluster whose lock file is gone has no owner to keep away that a reader could see.
        let Ok(mut file) = File::open(dir.join(LOCK_FILE)) else { return Ok(None) };
        if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            return Err(Error::AlreadyOpen { path: dir.to_path_buf(), pid: owner(&mut file) });
        }
        Ok(Some(DirectoryLock { _file: file }))
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

fn end_owner(file: &File, dir: &Path, pid: Option<u32>) -> Result<(), Error> {
    let still_held = || Error::AlreadyOpen { path: dir.to_path_buf(), pid };
    let target = pid.and_then(|pid| Pid::from_raw(pid as i32)).ok_or_else(still_held)?;
    // A descriptor of the process, so that the wait below ends with it and with no other of the same number.
    if let Ok(process) = pidfd_open(target, PidfdFlags::empty()) {
        let _ = kill_process(target, Signal::KILL);
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut ended, Some(&TAKEOVER_WAIT)).map_err(|source| Error::io(dir, source.into()))?;
    }
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|_| still_held())
}
