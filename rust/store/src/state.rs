//! What a node keeps besides layers: its copies as of the last flush, and the floor of what it has collected.
//!
//! ```text
//!   state    magic "AUst" | crc u32 of what follows | format u16 | then varints:
//!            floor, 0 or 1 x (lsn, origin, time) of the newest commit at or below it,
//!            histories, each: length, bytes;  copies, each: pg, node, epoch, installed, history, scl, vdl hint;
//!            the quiet LSN, left away where there is none
//! ```
//! Written to a temporary file, synced, renamed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_page::{Lsn, VolumeId, crc32c};
use aurora_proto::{CopyState, NodeId};
use aurora_redo::varint::{Reader, put_i64, put_u64};
use aurora_redo::{History, Interval, PgId, RedoError};

use crate::disk::{Disk, OpenMode};
use crate::error::StoreError;
use crate::types::CommitPoint;

const NAME: &str = "state";
const TEMP: &str = "state.new";
const MAGIC: &[u8; 4] = b"AUst";
const FORMAT: u16 = 1;

/// The content of the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) copies: Vec<CopyState>,
    pub(crate) floor: Lsn,
    pub(crate) floor_commit: Option<CommitPoint>,
    /// At or below it, no layer has a record above the lower of its copy's SCL and VDL hint.
    pub(crate) quiet: Lsn,
}

impl State {
    /// Up to where no layer has a link that a copy in this state is restored with: what the state file says, unless the copy
    /// counts records now that it did not count when that was written.
    pub(crate) fn quiet_for(&self, copy: &CopyState) -> Lsn {
        let floor = |c: &CopyState| c.scl.min(c.vdl_hint);
        match self.copies.iter().find(|c| c.pg == copy.pg) {
            // A group of which nothing had come yet.
            None => self.quiet,
            Some(c) if floor(copy) >= floor(c) && within(&copy.history, &c.history, self.quiet) => {
                self.quiet
            }
            Some(_) => Lsn::NONE,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = FORMAT.to_le_bytes().to_vec();
        put_u64(&mut body, self.floor.0);
        put_u64(&mut body, self.floor_commit.iter().count() as u64);
        if let Some(commit) = &self.floor_commit {
            put_u64(&mut body, commit.lsn.0);
            put_u64(&mut body, commit.origin.0);
            put_i64(&mut body, commit.time_us);
        }
        let mut histories: Vec<&History> = Vec::new();
        let mut index = Vec::new();
        for copy in &self.copies {
            let at = histories.iter().rposition(|h| **h == *copy.history);
            index.push(at.unwrap_or(histories.len()));
            if at.is_none() {
                histories.push(&copy.history);
            }
        }
        put_u64(&mut body, histories.len() as u64);
        for history in histories {
            let bytes = history.encode();
            put_u64(&mut body, bytes.len() as u64);
            body.extend_from_slice(&bytes);
        }
        put_u64(&mut body, self.copies.len() as u64);
        for (c, history) in self.copies.iter().zip(index) {
            let numbers = [
                u64::from(c.pg.0),
                u64::from(c.node.0),
                c.epoch,
                c.installed,
                history as u64,
            ];
            numbers
                .into_iter()
                .chain([c.scl.0, c.vdl_hint.0])
                .for_each(|n| put_u64(&mut body, n));
        }
        if !self.quiet.is_none() {
            put_u64(&mut body, self.quiet.0);
        }
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&crc32c(&body).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    fn decode(bytes: &[u8]) -> Result<State, RedoError> {
        let mut r = Reader::new("node state", bytes);
        let floor = Lsn(r.u64()?);
        let mut floor_commit = None;
        for _ in 0..r.u64()?.min(1) {
            let commit = CommitPoint {
                lsn: Lsn(r.u64()?),
                origin: VolumeId(r.u64()?),
                time_us: r.i64()?,
            };
            floor_commit = Some(commit);
        }
        let mut histories = Vec::new();
        for _ in 0..r.u64()? {
            let len = r.length()?;
            histories.push(Arc::new(History::decode(r.bytes(len)?)?));
        }
        let mut copies = Vec::new();
        for _ in 0..r.u64()? {
            let (pg, node) = (PgId(r.narrow("group")?), NodeId(r.narrow("node")?));
            let (epoch, installed, history) = (r.u64()?, r.u64()?, r.u64()?);
            let history =
                histories
                    .get(history as usize)
                    .cloned()
                    .ok_or(RedoError::OutOfRange {
                        what: "node state",
                        field: "history",
                        got: history,
                    })?;
            let (scl, vdl_hint) = (Lsn(r.u64()?), Lsn(r.u64()?));
            copies.push(CopyState {
                pg,
                node,
                epoch,
                installed,
                history,
                scl,
                vdl_hint,
            });
        }
        let quiet = match r.remaining() {
            0 => Lsn::NONE,
            _ => Lsn(r.u64()?),
        };
        r.finish()?;
        Ok(State {
            copies,
            floor,
            floor_commit,
            quiet,
        })
    }

    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<u64, StoreError> {
        let (temp, path): (PathBuf, PathBuf) = (dir.join(TEMP), dir.join(NAME));
        if disk.exists(&temp) {
            disk.remove_file(&temp).map_err(StoreError::io(&temp))?;
        }
        let file = disk
            .open(&temp, OpenMode::Create)
            .map_err(StoreError::io(&temp))?;
        let bytes = self.encode();
        file.write_all_at(&bytes, 0)
            .map_err(StoreError::io(&temp))?;
        file.sync_data().map_err(StoreError::io(&temp))?;
        disk.rename(&temp, &path).map_err(StoreError::io(&path))?;
        disk.sync_dir(dir).map_err(StoreError::io(dir))?;
        Ok(bytes.len() as u64)
    }

    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<State, StoreError> {
        let path = dir.join(NAME);
        let file = disk
            .open(&path, OpenMode::Read)
            .map_err(StoreError::io(&path))?;
        let mut bytes = vec![0; file.len().map_err(StoreError::io(&path))? as usize];
        file.read_exact_at(&mut bytes, 0)
            .map_err(StoreError::io(&path))?;
        if bytes.len() < 10 || bytes[0..4] != *MAGIC {
            return Err(StoreError::corrupt(
                &path,
                0,
                "magic AUst",
                format!("{} bytes", bytes.len()),
            ));
        }
        let (stored, got) = (
            u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            crc32c(&bytes[8..]),
        );
        if stored != got {
            return Err(StoreError::corrupt(
                &path,
                0,
                format!("crc {stored:08x}"),
                format!("crc {got:08x}"),
            ));
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        if format != FORMAT {
            return Err(StoreError::NewerFormat {
                path,
                expected: FORMAT,
                got: format,
            });
        }
        State::decode(&bytes[10..]).map_err(|e| StoreError::corrupt(&path, 10, "a node's state", e))
    }
}

/// Did everything up to an LSN that happened in one History happen in another?
fn within(inner: &History, outer: &History, upto: Lsn) -> bool {
    let mut below = inner.intervals().iter().filter(|i| i.first <= upto);
    below.all(|i| {
        let holds =
            |o: &Interval| o.origin == i.origin && o.first <= i.first && o.last >= i.last.min(upto);
        outer.intervals().iter().any(holds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDisk;

    #[test]
    fn comes_back_and_sees_damage() {
        let disk = MemDisk::new();
        let dir = Path::new("n");
        disk.create_dir_all(dir).expect("dir");
        let copy = |pg, epoch| CopyState {
            pg: PgId(pg),
            node: NodeId(3),
            epoch,
            installed: epoch - 1,
            history: Arc::new(History::new(VolumeId(epoch))),
            scl: Lsn(77),
            vdl_hint: Lsn(70),
        };
        let floor_commit = Some(CommitPoint {
            lsn: Lsn(5),
            origin: VolumeId(1),
            time_us: -9,
        });
        let state = State {
            copies: vec![copy(0, 4), copy(1, 4), copy(2, 5)],
            floor: Lsn(6),
            floor_commit,
            quiet: Lsn(66),
        };
        state.write(&disk, dir).expect("written");
        assert_eq!(State::read(&disk, dir).expect("read"), state);
        let len = disk
            .open(&dir.join(NAME), OpenMode::Read)
            .and_then(|f| f.len())
            .expect("len");
        for at in 0..len {
            disk.flip(&dir.join(NAME), at, 1).expect("flip");
            assert!(State::read(&disk, dir).is_err(), "byte {at}");
            disk.flip(&dir.join(NAME), at, 1).expect("flip");
        }
    }
}
