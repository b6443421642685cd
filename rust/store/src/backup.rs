//! What a backup takes from a node, and a node that begins with what a backup has.
//!
//! ```text
//!   sealed()          the layers as they are now; they stay readable for as long as the answer is held
//!   records_in()      what came since, of all groups
//!   LogRange          such records as one delta layer, and several of them as one
//!   adopt()           a node whose layers are files that are there already
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_proto::CopyState;
use aurora_redo::{BlobId, History, Record};

use crate::disk::{DiskFile, OpenMode};
use crate::error::StoreError;
use crate::fork::ForkTarget;
use crate::inventory;
use crate::layer::iter::{LayerRecords, Merge, Records};
use crate::layer::writer::referenced;
use crate::layer::{DeltaWriter, Layer, LayerDir};
use crate::memdisk::MemDisk;
use crate::memlayer::commit_of;
use crate::node::{BLOBS, LAYERS, NodeStore};
use crate::state::State;
use crate::types::{CommitPoint, LayerKind};

/// A file of a node that does not change any more.
#[derive(Clone, Debug)]
pub struct SealedFile {
    /// Its name, unique at its node while it is there.
    pub name: String,
    /// Its content: readable also when the name is gone.
    pub file: Arc<dyn DiskFile>,
    /// Its length.
    pub bytes: u64,
}

/// The layers of a node at one moment.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The layers.
    pub layers: Vec<SealedFile>,
    /// The blobs that are there; some may go while the answer is held.
    pub blobs: Vec<BlobId>,
    /// Versions below it may be missing.
    pub floor: Lsn,
    /// The newest commit at or below the floor.
    pub floor_commit: Option<CommitPoint>,
}

impl NodeStore {
    /// The layers as they are now.
    pub fn sealed(&self) -> Result<Sealed, StoreError> {
        let set = self.map.set();
        self.check_readable(&set)?;
        // After the set was taken: nothing was dropped from its layers under a higher floor.
        let state = self.state();
        let sealed = |layer: &Arc<Layer>| SealedFile {
            name: format!("layer-{:016}", layer.layer),
            file: layer.file(),
            bytes: layer.bytes,
        };
        Ok(Sealed {
            layers: set.all().map(sealed).collect(),
            blobs: self.blobs()?,
            floor: state.floor,
            floor_commit: state.floor_commit,
        })
    }

    /// A blob as it lies on the disk.
    pub fn sealed_blob(&self, id: BlobId) -> Result<SealedFile, StoreError> {
        let path = self.blobs.path(id);
        let file = self
            .disk
            .open(&path, OpenMode::Read)
            .map_err(StoreError::io(&path))?;
        Ok(SealedFile {
            name: format!("{:032x}", id.0),
            bytes: file.len().map_err(StoreError::io(&path))?,
            file,
        })
    }

    /// Records of all groups with an LSN in `(after, upto]` that count in one of these Histories, and up to which LSN they are all
    /// of them: less than `upto` where they would be more than about `max_bytes`.
    pub fn records_in(
        &self,
        after: Lsn,
        upto: Lsn,
        histories: &[History],
        max_bytes: u64,
    ) -> Result<(Vec<Record>, Lsn), StoreError> {
        let mut found: BTreeMap<(Lsn, VolumeId), Record> = BTreeMap::new();
        let (mut bytes, mut complete) = (0, upto);
        let all = PageId(0)..=PageId(u64::MAX);
        self.visit_pages(&all, after, |record| {
            let counts = |history: &History| history.contains(record.origin, record.lsn);
            if record.lsn > complete || !histories.iter().any(counts) {
                return;
            }
            let weight = record.weight() as u64;
            if found
                .insert((record.lsn, record.origin), record.clone())
                .is_none()
            {
                bytes += weight;
            }
            while bytes > max_bytes && found.len() > 1 {
                if let Some((_, gone)) = found.pop_last() {
                    bytes -= gone.weight() as u64;
                    complete = complete.min(gone.lsn.prev());
                }
            }
        })?;
        found.retain(|(lsn, _), _| *lsn <= complete);
        Ok((found.into_values().collect(), complete))
    }

    /// A node in an empty directory whose layers and blobs are files that lie in `<dir>/layers` and `<dir>/blobs` already, by these
    /// numbers, with copies in these states. Until its identity is written, last, the directory is no node.
    pub fn adopt(
        target: &ForkTarget,
        layers: &BTreeSet<u64>,
        floor: Lsn,
        floor_commit: Option<CommitPoint>,
        states: &[CopyState],
    ) -> Result<NodeStore, StoreError> {
        let ForkTarget { disk, dir, .. } = target;
        for sub in [LAYERS, BLOBS] {
            let sub = dir.join(sub);
            disk.create_dir_all(&sub).map_err(StoreError::io(&sub))?;
            disk.sync_dir(&sub).map_err(StoreError::io(&sub))?;
        }
        let quiet = |copy: &CopyState| copy.history.first_new_lsn().prev();
        let state = State {
            copies: states.to_vec(),
            floor,
            floor_commit,
            quiet: states.first().map_or(Lsn::NONE, quiet),
        };
        state.write(&**disk, dir)?;
        inventory::write(&**disk, &dir.join(LAYERS), layers)?;
        target.identity.write(&**disk, dir)?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).map_err(StoreError::io(parent))?;
        }
        let identity = &target.identity;
        NodeStore::open(
            disk.clone(),
            dir,
            identity.cluster,
            identity.node,
            target.config,
        )
    }
}

/// Where a node's layer of this number lies.
pub fn layer_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(LAYERS).join(format!("layer-{number:016}"))
}

/// Where a node's blob lies.
pub fn blob_path(dir: &Path, id: BlobId) -> PathBuf {
    dir.join(BLOBS).join(format!("blob-{:032x}", id.0))
}

/// The numbers of the layers that the footer of a layer file says it replaces.
pub fn replaced_by(file: &dyn DiskFile, path: &Path) -> Result<Vec<u64>, StoreError> {
    Ok(crate::layer::footer::Footer::read(file, path)?.replaced)
}

/// Records of one stretch of LSNs as the bytes of a delta layer.
#[derive(Clone, Debug, Default)]
pub struct LogRange {
    /// The layer file.
    pub bytes: Vec<u8>,
    /// Records in it.
    pub records: u64,
    /// Its commits, ascending by LSN.
    pub commits: Vec<CommitPoint>,
    /// Blobs that its records refer to.
    pub blobs: BTreeSet<BlobId>,
}

/// The number that a layer has while it is made in memory.
const SCRATCH: u64 = 1;

impl LogRange {
    /// A range of these records.
    pub fn of(mut records: Vec<Record>) -> Result<LogRange, StoreError> {
        records.sort_by_key(|record| (record.page, record.lsn, record.origin));
        write(Merge::new(vec![Records::Memory(records.into_iter())]))
    }

    /// One range of everything in these layer files.
    pub fn merge(files: &[Vec<u8>]) -> Result<LogRange, StoreError> {
        let dir = scratch();
        let mut sources = Vec::new();
        for (number, bytes) in (SCRATCH + 1..).zip(files) {
            let layer = Arc::new(open(&dir, number, bytes)?);
            sources.push(Records::Layer(LayerRecords::new(
                layer,
                PageId(0),
                Arc::default(),
            )?));
        }
        write(Merge::new(sources))
    }

    /// The commits in a layer file, ascending by LSN; a layer of images has none.
    pub fn commits_in(bytes: &[u8]) -> Result<Vec<CommitPoint>, StoreError> {
        let layer = open(&scratch(), SCRATCH, bytes)?;
        if layer.kind() == LayerKind::Image {
            return Ok(Vec::new());
        }
        let mut commits = Vec::new();
        for block in &layer.meta()?.commits {
            commits.extend(layer.commits(block)?);
        }
        Ok(commits)
    }
}

fn scratch() -> LayerDir {
    LayerDir {
        disk: Arc::new(MemDisk::new()),
        dir: PathBuf::from("/range"),
    }
}

fn open(dir: &LayerDir, number: u64, bytes: &[u8]) -> Result<Layer, StoreError> {
    let path = dir.path(number);
    dir.disk
        .create_dir_all(&dir.dir)
        .map_err(StoreError::io(&dir.dir))?;
    let file = dir
        .disk
        .open(&path, OpenMode::Create)
        .map_err(StoreError::io(&path))?;
    file.write_all_at(bytes, 0).map_err(StoreError::io(&path))?;
    Layer::open(dir, number)
}

fn write(mut records: Merge<Records>) -> Result<LogRange, StoreError> {
    let dir = scratch();
    dir.disk
        .create_dir_all(&dir.dir)
        .map_err(StoreError::io(&dir.dir))?;
    let mut writer = DeltaWriter::create(&dir, SCRATCH)?;
    let mut range = LogRange::default();
    while let Some(record) = records.next()? {
        range.commits.extend(commit_of(&record));
        range.blobs.extend(referenced(&record));
        range.records += 1;
        writer.push(&record)?;
    }
    range
        .commits
        .sort_by_key(|commit| (commit.lsn, commit.origin));
    let commits = range.commits.iter().copied().map(Ok);
    let layer = writer.finish(commits, Lsn::NONE, &[])?;
    range.bytes = vec![0; layer.bytes as usize];
    let file = layer.file();
    file.read_exact_at(&mut range.bytes, 0)
        .map_err(StoreError::io(&layer.path))?;
    Ok(range)
}
