//! Notices that files were removed, without asking for each of them at every commit.
//!
//! Whether six directories and the lock are still there is asked before every acknowledgement [8]. As seven calls that was 6 us of a
//! commit. The kernel tells of an unlinked file before the unlinking call returns (inotify), so one call that finds nothing to read
//! is as good; after anything was read the files are asked again, each time.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use parking_lot::Mutex;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::{Errno, read};

/// A watch on files that should stay.
#[derive(Debug, Default)]
pub(crate) struct Removals(Mutex<Option<OwnedFd>>);

impl Removals {
    /// Watches the files. Where that cannot be done (no inotify, too many watches, a file that is gone), every question is answered
    /// by "perhaps". `present` says, once the watch has begun, that nothing was removed before; nobody is answered until it has.
    pub(crate) fn watch(
        &self,
        files: impl Iterator<Item = PathBuf>,
        present: impl FnOnce() -> bool,
    ) {
        let watched = || {
            let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let what = WatchFlags::ATTRIB | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            for file in files {
                add_watch(&fd, &file, what)?;
            }
            Ok::<_, Errno>(fd)
        };
        let mut watch = self.0.lock();
        *watch = watched().ok().filter(|_| present());
    }

    /// True when nothing has happened to any of the files since the watch began; false when they must be asked.
    pub(crate) fn none(&self) -> bool {
        let mut watch = self.0.lock();
        let quiet = watch
            .as_ref()
            .is_some_and(|fd| read(fd, &mut [0u8; 1024]) == Err(Errno::AGAIN));
        if !quiet {
            *watch = None;
        }
        quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_removed_file_is_noticed_and_stays_noticed() {
        let dir = std::env::temp_dir().join(format!("aurora-removals-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let files = [dir.join("a"), dir.join("b")];
        for file in &files {
            fs::write(file, "x").expect("written");
        }
        let removals = Removals::default();
        assert!(!removals.none(), "nothing is watched yet");
        removals.watch(files.iter().cloned(), || false);
        assert!(!removals.none(), "something was removed before");
        removals.watch(files.iter().cloned(), || true);
        assert!(removals.none());
        // A handle that is still open does not hide the removal of the name.
        let _open = fs::File::open(&files[1]).expect("opened");
        fs::remove_file(&files[1]).expect("removed");
        assert!(!removals.none());
        assert!(!removals.none());
        removals.watch(files.iter().cloned(), || true);
        assert!(!removals.none(), "a file that is gone cannot be watched");
        fs::remove_dir_all(dir).expect("removed");
    }
}
