//! The files of a log: made, attached to a generation, recycled.
//!
//! Generation `g` of the log is the stripes `[g * stripes_per_file, (g + 1) * stripes_per_file)`. A file is bound to a
//! generation by the first stripe that is written to it, so that attaching a spare file changes no directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{LogError, is_full};

const NAME: &str = "log-";
const TEMP: &str = "new-";

#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

#[derive(Debug)]
pub(super) struct LogFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_bytes: u64,
    spare_files_max: usize,
    state: Mutex<State>,
    /// Held while a file is made, so that two callers do not make two.
    making: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<(u64, LogFile)>,
    free: Vec<LogFile>,
    next_name: u64,
}

impl LogFiles {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        file_bytes: u64,
        spare_files_max: usize,
    ) -> LogFiles {
        LogFiles {
            disk,
            dir: dir.to_path_buf(),
            file_bytes,
            spare_files_max,
            state: Mutex::default(),
            making: Mutex::new(()),
        }
    }

    /// Opens all files that are there; remains of unfinished ones are removed.
    pub(super) fn open_all(&self) -> Result<Vec<LogFile>, LogError> {
        if !self.disk.exists(&self.dir) {
            return Err(LogError::Missing {
                path: self.dir.clone(),
            });
        }
        let mut files = Vec::new();
        for name in self.disk.list(&self.dir).map_err(LogError::io(&self.dir))? {
            let path = self.dir.join(&name);
            if name.starts_with(TEMP) {
                self.disk.remove_file(&path).map_err(LogError::io(&path))?;
            } else if let Some(number) = name.strip_prefix(NAME).and_then(|n| n.parse::<u64>().ok())
            {
                let file = self
                    .disk
                    .open(&path, OpenMode::ReadWrite)
                    .map_err(LogError::io(&path))?;
                files.push(LogFile { path, file });
                let mut state = self.state.lock();
                state.next_name = state.next_name.max(number + 1);
            }
        }
        if files.is_empty() {
            return Err(LogError::Missing {
                path: self.dir.clone(),
            });
        }
        Ok(files)
    }

    pub(super) fn set(&self, live: Vec<(u64, LogFile)>, free: Vec<LogFile>) {
        let mut state = self.state.lock();
        state.live = live;
        state.free = free;
    }

    /// Makes a zero-filled file and keeps it as a spare, unless there is one.
    pub(super) fn prepare(&self) -> Result<bool, LogError> {
        let _making = self.making.lock();
        if !self.state.lock().free.is_empty() {
            return Ok(false);
        }
        let file = self.make()?;
        self.state.lock().free.push(file);
        Ok(true)
    }

    fn make(&self) -> Result<LogFile, LogError> {
        let number = {
            let mut state = self.state.lock();
            state.next_name += 1;
            state.next_name - 1
        };
        let temp = self.dir.join(format!("{TEMP}{number:08}"));
        let path = self.dir.join(format!("{NAME}{number:08}"));
        let made = self.zero_filled(&temp).and_then(|file| {
            self.disk.rename(&temp, &path)?;
            self.disk.sync_dir(&self.dir)?;
            Ok(file)
        });
        made.map(|file| LogFile { path, file }).map_err(|source| {
            // A leftover is also removed at the next open; failing to remove it now changes nothing.
            let _ = self.disk.remove_file(&temp);
            self.not_made(temp, source)
        })
    }

    fn not_made(&self, temp: PathBuf, source: io::Error) -> LogError {
        match is_full(&source) {
            true => LogError::Full {
                path: self.dir.clone(),
                needed: self.file_bytes,
                source,
            },
            false => LogError::Io { path: temp, source },
        }
    }

    fn zero_filled(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, OpenMode::Create)?;
        file.allocate(self.file_bytes)?;
        file.sync_data()?;
        Ok(file)
    }

    /// The file of a generation; a generation that is new takes a spare, or a new file when there is none.
    pub(super) fn attach(&self, generation: u64) -> Result<LogFile, LogError> {
        if let Some(file) = self.attached(generation) {
            return Ok(file);
        }
        let _making = self.making.lock();
        let spare = {
            let mut state = self.state.lock();
            if state.free.is_empty() {
                None
            } else {
                Some(state.free.remove(0))
            }
        };
        let file = match spare {
            Some(file) => file,
            None => self.make()?,
        };
        self.state.lock().live.push((generation, file.clone()));
        Ok(file)
    }

    fn attached(&self, generation: u64) -> Option<LogFile> {
        let state = self.state.lock();
        state
            .live
            .iter()
            .rev()
            .find(|(g, _)| *g == generation)
            .map(|(_, f)| f.clone())
    }

    /// Files of generations below `generation` become spares; beyond the number kept they are removed.
    pub(super) fn release(&self, generation: u64) -> Result<(), LogError> {
        let extra = {
            let mut state = self.state.lock();
            let (old, live) = std::mem::take(&mut state.live)
                .into_iter()
                .partition(|(g, _)| *g < generation);
            state.live = live;
            state
                .free
                .extend(old.into_iter().map(|(_, file): (u64, LogFile)| file));
            let keep = state.free.len().min(self.spare_files_max);
            state.free.split_off(keep)
        };
        for file in extra {
            self.disk
                .remove_file(&file.path)
                .map_err(LogError::io(&file.path))?;
        }
        Ok(())
    }

    /// Bytes of all files, live and spare.
    pub(super) fn bytes(&self) -> u64 {
        let state = self.state.lock();
        (state.live.len() + state.free.len()) as u64 * self.file_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDisk;

    #[test]
    fn a_file_that_a_quota_refuses_is_one_that_finds_no_room() {
        let files = LogFiles::new(Arc::new(MemDisk::new()), Path::new("log"), 1 << 20, 1);
        let refused = |kind: io::ErrorKind| files.not_made(PathBuf::from("log/new-1"), kind.into());
        for kind in [io::ErrorKind::QuotaExceeded, io::ErrorKind::StorageFull] {
            assert!(matches!(refused(kind), LogError::Full { .. }), "{kind}");
        }
        assert!(matches!(
            refused(io::ErrorKind::NotFound),
            LogError::Io { .. }
        ));
    }
}
