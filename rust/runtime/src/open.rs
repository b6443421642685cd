//! Opening a cluster: lock, manifest, logs, then recovery or creation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_proto::{Job, Manifest, ManifestError, MetaStore, NodeInfo, NodeSet, WriterStart};
use aurora_store::{Disk, LogConfig, LogDevice, LogEntry, LogError, MemDisk, NodeConfig, NodeIdentity};

use crate::Error;
use crate::create::create;
use crate::device::Device;
use crate::layout;
use crate::lock::DirectoryLock;
use crate::metastore::DirMetaStore;
use crate::node::Node;
use crate::options::OpenOptions;
use crate::osdisk::OsDisk;
use crate::recover;

/// Bytes of records above the VDL: a slow disk holds commits back before memory runs out.
pub(crate) const BYTES_IN_FLIGHT_MAX: u64 = 64 << 20;
/// Where a cluster on memory disks lies.
const MEMORY_DIR: &str = "/memory";

/// A volume that is open for this process, or only for reading.
pub(crate) struct Opened {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) lock: Option<DirectoryLock>,
    pub(crate) meta: DirMetaStore,
    pub(crate) manifest: Manifest,
    pub(crate) writer: WriterStart,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) devices: Vec<Arc<Device>>,
    /// Copies that still lack something.
    pub(crate) jobs: Vec<Job>,
    /// Why nothing may be written, if so.
    pub(crate) read_only: Option<String>,
}

/// A hot log as it was found.
pub(crate) struct OpenLog {
    pub(crate) path: PathBuf,
    pub(crate) nodes: NodeSet,
    /// `None` where it is gone, and what was only in it.
    pub(crate) log: Option<LogDevice>,
    pub(crate) entries: Vec<LogEntry>,
}

/// What opening works with.
pub(crate) struct Site {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) lock: Option<DirectoryLock>,
}

/// Opens the cluster that the options name, making it if there is none and they allow it.
pub(crate) fn open(options: &OpenOptions) -> Result<Opened, Error> {
    options.check()?;
    let site = prepare_site(options)?;
    let known = DirMetaStore::discover(&site.disk, &site.dir).map_err(|error| manifest_error(&site.dir, error))?;
    match known {
        Some(known) => open_existing(site, known, options),
        None => {
            check_empty(&site, options)?;
            create(site, options)
        }
    }
}

fn prepare_site(options: &OpenOptions) -> Result<Site, Error> {
    let Some(path) = &options.path else {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = PathBuf::from(MEMORY_DIR);
        disk.create_dir_all(&dir).map_err(|source| Error::io(&dir, source))?;
        return Ok(Site { disk, dir, lock: None });
    };
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    if path.exists() && !path.is_dir() {
        return Err(not_a_cluster(path, "a file"));
    }
    if !path.exists() {
        if !options.create || options.read_only {
            return Err(not_a_cluster(path, "nothing"));
        }
        disk.create_dir_all(path).map_err(|source| Error::io(path, source))?;
    }
    let dir = path.canonicalize().map_err(|source| Error::io(path, source))?;
    let lock = match options.read_only {
        true => DirectoryLock::share(&dir)?,
        false => Some(DirectoryLock::take(&dir, options.takeover)?),
    };
    Ok(Site { disk, dir, lock })
}

fn not_a_cluster(path: &Path, got: &str) -> Error {
    let expected = "a directory with a manifest, as au.open() makes".into();
    Error::NotACluster { path: path.to_path_buf(), expected, got: got.into() }
}

fn manifest_error(dir: &Path, error: ManifestError) -> Error {
    match error {
        ManifestError::NewerFormat { expected, got } => Error::NewerFormat { path: dir.to_path_buf(), expected, got },
        ManifestError::Magic { .. } => not_a_cluster(dir, &format!("a file named like a manifest ({error})")),
        other => Error::Corrupt { detail: format!("every manifest in {}: {other}", dir.display()) },
    }
}

/// A new cluster is only made where nothing is that it could hide or destroy.
fn check_empty(site: &Site, options: &OpenOptions) -> Result<(), Error> {
    let names = site.disk.list(&site.dir).map_err(|source| Error::io(&site.dir, source))?;
    let foreign: Vec<String> = names.into_iter().filter(|name| name != crate::lock::LOCK_FILE).collect();
    if !foreign.is_empty() {
        let shown = foreign.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(not_a_cluster(&site.dir, &format!("a directory with {} entries: {shown}", foreign.len())));
    }
    if !options.create || options.read_only {
        return Err(not_a_cluster(&site.dir, "an empty directory"));
    }
    Ok(())
}

/// Opens a cluster that exists, with whatever of it is left.
fn open_existing(site: Site, known: Manifest, options: &OpenOptions) -> Result<Opened, Error> {
    check_against(&known, options)?;
    let meta = DirMetaStore::new(site.disk.clone(), layout::places(&site.dir, &known.nodes));
    let manifest = meta.read_latest()?.unwrap_or(known);
    let mut logs = Vec::new();
    for (path, nodes) in layout::logs(&site.dir, &manifest) {
        logs.push(open_log(&site, &manifest, path, nodes)?);
    }
    recover::recover(site, meta, manifest, logs, options.read_only)
}

/// A log with what its nodes had accepted; `None` where it is gone and its nodes with it.
fn open_log(site: &Site, manifest: &Manifest, path: PathBuf, nodes: NodeSet) -> Result<OpenLog, Error> {
    match LogDevice::open(site.disk.clone(), &path, nodes, salt(manifest), LogConfig::default()) {
        Ok((log, replay)) => Ok(OpenLog { path, nodes, log: Some(log), entries: replay.entries }),
        // The log of a node on a device of its own goes with it; that of nodes which are still there may not.
        Err(LogError::Missing { .. }) if nodes.len() < manifest.nodes.len() => {
            Ok(OpenLog { path, nodes, log: None, entries: Vec::new() })
        }
        Err(error) => Err(error.into()),
    }
}

/// Options that are fixed when a cluster is made must not contradict it.
fn check_against(manifest: &Manifest, options: &OpenOptions) -> Result<(), Error> {
    let fixed = |option: &'static str, expected: String, got: Option<String>| match got {
        Some(got) if got != expected => {
            let expected = format!("{expected}, fixed when the cluster was made");
            Err(Error::InvalidOption { option, expected, got })
        }
        _ => Ok(()),
    };
    let segment_bytes = manifest.segment_pages * u64::from(manifest.page_bytes);
    fixed("region", manifest.region.clone(), options.region.clone())?;
    fixed("page_bytes", manifest.page_bytes.to_string(), options.page_bytes.map(|bytes| bytes.to_string()))?;
    fixed("segment_bytes", segment_bytes.to_string(), options.segment_bytes.map(|bytes| bytes.to_string()))
}

/// Sizes and thresholds of every node of the volume.
pub(crate) fn node_config(manifest: &Manifest) -> NodeConfig {
    NodeConfig::new(manifest.page_bytes as usize, manifest.segment_pages)
}

/// Whose directory a node's directory is.
pub(crate) fn identity(manifest: &Manifest, info: &NodeInfo) -> NodeIdentity {
    NodeIdentity { cluster: manifest.cluster, node: info.id, incarnation: info.incarnation }
}

/// The seed of the log's checksums: blocks of another cluster do not pass.
pub(crate) fn salt(manifest: &Manifest) -> u64 {
    manifest.cluster.0 as u64
}
