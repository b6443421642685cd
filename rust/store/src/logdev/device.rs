//! Appending to the log: the commit path.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_proto::NodeSet;
use parking_lot::Mutex;

use super::block::{self, BLOCK_BYTES, FRAGMENT_HEADER_BYTES, Fragment, HEADER_BYTES, Place};
use super::files::LogFiles;
use super::replay::{self, Replay};
use super::{LogEntry, Position};
use crate::disk::Disk;
use crate::error::LogError;
use crate::token::PersistedToken;

/// Sizes of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Bytes of a file, rounded down to whole stripes.
    pub file_bytes: u64,
    /// Spare files kept for reuse; more are removed.
    pub spare_files_max: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            file_bytes: 16 << 20,
            spare_files_max: 4,
        }
    }
}

/// What is fixed for the life of a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) nodes: NodeSet,
    pub(super) salt: u64,
    pub(super) stripes_per_file: u64,
}

impl Shape {
    pub(super) fn new(nodes: NodeSet, salt: u64, config: LogConfig) -> Shape {
        let stripe_bytes = (nodes.len().max(1) * BLOCK_BYTES) as u64;
        Shape {
            nodes,
            salt,
            stripes_per_file: (config.file_bytes / stripe_bytes).max(1),
        }
    }

    pub(super) fn stripe_bytes(&self) -> usize {
        self.nodes.len() * BLOCK_BYTES
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.stripes_per_file * self.stripe_bytes() as u64
    }

    pub(super) fn generation(&self, stripe: u64) -> u64 {
        stripe / self.stripes_per_file
    }

    pub(super) fn offset(&self, stripe: u64) -> u64 {
        stripe % self.stripes_per_file * self.stripe_bytes() as u64
    }
}

/// The stripe that is being filled.
#[derive(Debug)]
pub(super) struct Tail {
    /// Its bytes as they are on disk; during an append, those of the stripes after it too.
    pub(super) buf: Vec<u8>,
    pub(super) stripe: u64,
    /// Bytes used in each of its blocks.
    pub(super) at: usize,
    /// The next group.
    pub(super) group: u64,
    pub(super) body: Vec<u8>,
    pub(super) scratch: Vec<u8>,
    pub(super) poison: Option<String>,
}

impl Tail {
    pub(super) fn new(buf: Vec<u8>, stripe: u64, at: usize, group: u64) -> Tail {
        Tail {
            buf,
            stripe,
            at,
            group,
            body: Vec::new(),
            scratch: Vec::new(),
            poison: None,
        }
    }

    fn position(&self) -> Position {
        Position {
            group: self.group,
            stripe: self.stripe,
        }
    }
}

/// What an append gave.
#[derive(Debug)]
pub struct Appended {
    /// One token per ticket, in the order of entries and tickets.
    pub tokens: Vec<PersistedToken>,
    /// The end of the log after it.
    pub end: Position,
}

/// Buffers beyond this are given back after a large append.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// The log of the nodes on one disk.
///
/// One append at a time; `used_bytes`, `position`, `trim` and `prepare` never wait for one.
#[derive(Debug)]
pub struct LogDevice {
    dir: PathBuf,
    shape: Shape,
    files: LogFiles,
    tail: Mutex<Tail>,
    points: Mutex<Points>,
}

#[derive(Clone, Copy, Debug)]
struct Points {
    end: Position,
    trimmed: Position,
    /// The newest trim mark that is on disk: only what is before it may be overwritten or removed.
    trimmed_durable: Position,
}

impl LogDevice {
    /// Makes an empty log in `dir` for the nodes of one disk. `salt` is any number that other logs are unlikely to have.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        nodes: NodeSet,
        salt: u64,
        config: LogConfig,
    ) -> Result<LogDevice, LogError> {
        assert!(!nodes.is_empty(), "a log belongs to at least one node");
        let shape = Shape::new(nodes, salt, config);
        disk.create_dir_all(dir).map_err(LogError::io(dir))?;
        let files = LogFiles::new(
            disk.clone(),
            dir,
            shape.file_bytes(),
            config.spare_files_max,
        );
        files.prepare()?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).map_err(LogError::io(parent))?;
        }
        let mut buf = Vec::new();
        block::push_stripe(&mut buf, nodes, salt, 0, Position::START);
        let tail = Tail::new(buf, 0, HEADER_BYTES, Position::START.group);
        Ok(LogDevice::with(dir, shape, files, tail, Position::START))
    }

    /// Opens a log and gives back what nodes had accepted since the last trim. A torn tail is cut, damaged blocks are
    /// healed from those of other nodes; what is damaged in all of them is an error.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        nodes: NodeSet,
        salt: u64,
        config: LogConfig,
    ) -> Result<(LogDevice, Replay), LogError> {
        let shape = Shape::new(nodes, salt, config);
        let files = LogFiles::new(disk, dir, shape.file_bytes(), config.spare_files_max);
        let (tail, trimmed, replay) = replay::replay(&files, &shape)?;
        Ok((LogDevice::with(dir, shape, files, tail, trimmed), replay))
    }

    fn with(dir: &Path, shape: Shape, files: LogFiles, tail: Tail, trimmed: Position) -> LogDevice {
        let points = Points {
            end: tail.position(),
            trimmed,
            trimmed_durable: trimmed,
        };
        LogDevice {
            dir: dir.to_path_buf(),
            shape,
            files,
            tail: Mutex::new(tail),
            points: Mutex::new(points),
        }
    }

    /// Writes the entries to the blocks of all nodes and syncs once: when it returns, they are on disk [8].
    ///
    /// A failed write or sync poisons the device for ever. [`LogError::Full`] is the exception: it is noticed before
    /// anything is written.
    pub fn append(&self, entries: &[LogEntry]) -> Result<Appended, LogError> {
        let mut tail = self.tail.lock();
        let tail = &mut *tail;
        if let Some(reason) = &tail.poison {
            return Err(LogError::Poisoned {
                path: self.dir.clone(),
                reason: reason.clone(),
            });
        }
        if entries.is_empty() {
            return Ok(Appended {
                tokens: Vec::new(),
                end: tail.position(),
            });
        }
        tail.body.clear();
        for entry in entries {
            entry.encode_into(&mut tail.body, &mut tail.scratch);
        }
        let last = last_stripe(tail.stripe, tail.at, tail.body.len());
        if self.shape.generation(tail.stripe) != self.shape.generation(last) {
            self.release()?;
        }
        for generation in self.shape.generation(tail.stripe)..=self.shape.generation(last) {
            self.files.attach(generation)?;
        }
        let trimmed = self.points.lock().trimmed;
        let (was, first) = (tail.stripe, self.lay_out(tail, trimmed));
        if let Err(error) = self.write(first, &tail.buf) {
            tail.poison = Some(error.to_string());
            return Err(LogError::Poisoned {
                path: self.dir.clone(),
                reason: error.to_string(),
            });
        }
        self.keep_last_stripe(tail);
        {
            let mut points = self.points.lock();
            points.end = tail.position();
            if tail.stripe > was {
                points.trimmed_durable = trimmed;
            }
        }
        let mut tokens = Vec::with_capacity(entries.len() * self.shape.nodes.len());
        entries.iter().for_each(|entry| entry.redeem(&mut tokens));
        Ok(Appended {
            tokens,
            end: tail.position(),
        })
    }

    /// Cuts the group in `tail.body` into fragments behind what the tail holds; gives the first stripe to write.
    fn lay_out(&self, tail: &mut Tail, trimmed: Position) -> u64 {
        let stripe_bytes = self.shape.stripe_bytes();
        let mut first = tail.stripe;
        let mut rest = &tail.body[..];
        let mut index = 0;
        while !rest.is_empty() {
            let len = block::room(tail.at, rest.len());
            if len == 0 {
                if index == 0 {
                    // The tail was full: it stays as it is on disk.
                    tail.buf.clear();
                    first += 1;
                }
                tail.stripe += 1;
                tail.at = HEADER_BYTES;
                block::push_stripe(
                    &mut tail.buf,
                    self.shape.nodes,
                    self.shape.salt,
                    tail.stripe,
                    trimmed,
                );
                continue;
            }
            let (body, behind) = rest.split_at(len);
            let start = tail.buf.len() - stripe_bytes;
            let place = Place {
                salt: self.shape.salt,
                stripe: tail.stripe,
                at: tail.at,
            };
            let fragment = Fragment {
                group: tail.group,
                index,
                last: behind.is_empty(),
                len,
            };
            block::put_fragment(&mut tail.buf[start..], place, fragment, body);
            tail.at += FRAGMENT_HEADER_BYTES + len;
            index += 1;
            rest = behind;
        }
        tail.group += 1;
        first
    }

    /// One write and one sync for each file that the stripes lie in: one, but for a group that crosses into the next.
    fn write(&self, first: u64, stripes: &[u8]) -> Result<(), LogError> {
        let mut stripe = first;
        let mut rest = stripes;
        while !rest.is_empty() {
            let generation = self.shape.generation(stripe);
            let in_file = (generation + 1) * self.shape.stripes_per_file - stripe;
            let len = rest.len().min(in_file as usize * self.shape.stripe_bytes());
            let target = self.files.attach(generation)?;
            target
                .file
                .write_durable_at(&rest[..len], self.shape.offset(stripe))
                .map_err(LogError::io(&target.path))?;
            // Bytes in a file without a name are gone with this process: that is not on disk [8].
            if !target
                .file
                .is_linked()
                .map_err(LogError::io(&target.path))?
            {
                let path = target.path.clone();
                return Err(LogError::Missing { path });
            }
            rest = &rest[len..];
            stripe += in_file;
        }
        Ok(())
    }

    fn keep_last_stripe(&self, tail: &mut Tail) {
        let stripe_bytes = self.shape.stripe_bytes();
        let start = tail.buf.len() - stripe_bytes;
        tail.buf.copy_within(start.., 0);
        tail.buf.truncate(stripe_bytes);
        if tail.buf.capacity() > BUFFER_KEPT_BYTES {
            tail.buf.shrink_to(BUFFER_KEPT_BYTES);
            tail.body = Vec::new();
            tail.scratch = Vec::new();
        }
    }

    /// Makes the next file ahead of need, so that no append waits for zeros. The shell calls it in the background;
    /// true when a file was made.
    pub fn prepare(&self) -> Result<bool, LogError> {
        self.release()?;
        self.files.prepare()
    }

    /// The end of the log: everything appended so far is before it.
    pub fn position(&self) -> Position {
        self.points.lock().end
    }

    /// Gives up what is before `position`. To be called when all nodes of the device have it in layers that are on
    /// disk. The mark itself becomes durable with a later stripe: until then a replay gives entries that are already
    /// in layers, which is harmless.
    pub fn trim(&self, position: Position) -> Result<(), LogError> {
        let mut points = self.points.lock();
        assert!(
            position <= points.end,
            "only what was appended can be trimmed"
        );
        points.trimmed = points.trimmed.max(position);
        drop(points);
        self.release()
    }

    /// Recycles files that a replay would not look at.
    fn release(&self) -> Result<(), LogError> {
        let durable = self.points.lock().trimmed_durable;
        self.files.release(self.shape.generation(durable.stripe))
    }

    /// Bytes between the trim position and the end: what opening would have to read.
    pub fn used_bytes(&self) -> u64 {
        let points = *self.points.lock();
        if points.end.group == points.trimmed.group {
            return 0;
        }
        (points.end.stripe - points.trimmed.stripe + 1) * self.shape.stripe_bytes() as u64
    }

    /// Bytes of all files of the log.
    pub fn file_bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The nodes whose log it is.
    pub fn nodes(&self) -> NodeSet {
        self.shape.nodes
    }

    /// Why the device takes nothing more, if it does not. Waits for an append in progress.
    pub fn poisoned(&self) -> Option<String> {
        self.tail.lock().poison.clone()
    }
}

/// The stripe in which a group of `len` bytes ends when it begins behind `at` in `stripe`.
fn last_stripe(mut stripe: u64, mut at: usize, mut len: usize) -> u64 {
    while len > 0 {
        let room = block::room(at, len);
        if room == 0 {
            stripe += 1;
            at = HEADER_BYTES;
        } else {
            len -= room;
            at += FRAGMENT_HEADER_BYTES + room;
        }
    }
    stripe
}
