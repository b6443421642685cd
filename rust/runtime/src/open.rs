//! Opening a cluster: lock, manifest, logs, then recovery or creation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_proto::{
    Job, Manifest, ManifestError, MetaError, MetaStore, NodeInfo, NodeSet, WriterStart,
};
use aurora_store::{
    Disk, LogConfig, LogDevice, LogEntry, LogError, MemDisk, NodeConfig, NodeIdentity,
};

use crate::Error;
use crate::create::create;
use crate::device::Device;
use crate::faults::disk::{DiskFaults, FaultDisk};
use crate::layout;
use crate::lock::DirectoryLock;
use crate::metastore::DirMetaStore;
use crate::node::Node;
use crate::options::OpenOptions;
use crate::osdisk::OsDisk;
use crate::readonly::ReadOnlyDisk;
use crate::recover;
use crate::unfinished;

/// Bytes of records above the VDL: a slow disk holds commits back before memory runs out.
pub(crate) const BYTES_IN_FLIGHT_MAX: u64 = 64 << 20;
/// Where a cluster on memory disks lies.
pub(crate) const MEMORY_DIR: &str = "/memory";

/// A volume that is open for this process, or only for reading.
pub(crate) struct Opened {
    pub(crate) site: Site,
    pub(crate) meta: DirMetaStore,
    pub(crate) manifest: Manifest,
    pub(crate) writer: WriterStart,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) devices: Vec<Arc<Device>>,
    /// Copies that still lack something.
    pub(crate) jobs: Vec<Job>,
    /// Why nothing may be written, if so.
    pub(crate) read_only: Option<String>,
    /// What it reads from another cluster's disk.
    pub(crate) borrowed: Option<crate::clone::Borrowed>,
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
    /// What goes wrong on it when it is told to.
    pub(crate) disk_faults: Arc<DiskFaults>,
    pub(crate) dir: PathBuf,
    pub(crate) lock: Option<DirectoryLock>,
}

/// Opens the cluster that the options name, making it if there is none and they allow it.
pub(crate) fn open(options: &OpenOptions) -> Result<Opened, Error> {
    options.check()?;
    open_site(prepare_site(options)?, options)
}

/// The same on a disk that is handed in. Who does so sees to it that there is one owner.
pub(crate) fn open_on(options: &OpenOptions, disk: Arc<dyn Disk>) -> Result<Opened, Error> {
    options.check()?;
    let dir = options.path.clone().ok_or_else(|| Error::InvalidOption {
        option: "path",
        expected: "the cluster's directory on the disk that is handed in".into(),
        got: "none".into(),
    })?;
    if !disk.exists(&dir) {
        if !options.create || options.read_only {
            return Err(not_a_cluster(&dir, "nothing"));
        }
        layout::make_dir(&*disk, &dir).map_err(|source| Error::io(&dir, source))?;
    }
    let (disk, disk_faults) = FaultDisk::over(disk);
    open_site(
        Site {
            disk,
            disk_faults,
            dir,
            lock: None,
        },
        options,
    )
}

fn open_site(mut site: Site, options: &OpenOptions) -> Result<Opened, Error> {
    if options.read_only {
        site.disk = Arc::new(ReadOnlyDisk(site.disk));
    }
    let known = DirMetaStore::discover(&site.disk, &site.dir)
        .map_err(|error| manifest_error(&site.dir, error))?;
    match known {
        Some(known) => open_existing(site, known, options),
        None => {
            check_empty(&site.disk, &site.dir, options)?;
            clear_unfinished(&site)?;
            create(site, options)
        }
    }
}

pub(crate) fn prepare_site(options: &OpenOptions) -> Result<Site, Error> {
    let Some(path) = &options.path else {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = PathBuf::from(MEMORY_DIR);
        disk.create_dir_all(&dir)
            .map_err(|source| Error::io(&dir, source))?;
        let (disk, disk_faults) = FaultDisk::over(disk);
        return Ok(Site {
            disk,
            disk_faults,
            dir,
            lock: None,
        });
    };
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    if path.exists() && !path.is_dir() {
        return Err(not_a_cluster(path, "a file"));
    }
    if !path.exists() {
        if !options.create || options.read_only {
            return Err(not_a_cluster(path, "nothing"));
        }
        layout::make_dir(&*disk, path).map_err(|source| Error::io(path, source))?;
    }
    let dir = path
        .canonicalize()
        .map_err(|source| Error::io(path, source))?;
    if !dir.join(crate::lock::LOCK_FILE).exists() {
        refuse_foreign(&disk, &dir, options)?;
    }
    let lock = match options.read_only {
        true => DirectoryLock::share(&dir)?,
        false => Some(DirectoryLock::take(&dir, options.takeover)?),
    };
    let (disk, disk_faults) = FaultDisk::over(disk);
    Ok(Site {
        disk,
        disk_faults,
        dir,
        lock,
    })
}

fn not_a_cluster(path: &Path, got: &str) -> Error {
    let expected = "a directory with a manifest, as au.open() makes".into();
    Error::NotACluster {
        path: path.to_path_buf(),
        expected,
        got: got.into(),
    }
}

fn manifest_error(dir: &Path, error: ManifestError) -> Error {
    match error {
        ManifestError::NewerFormat { expected, got } => Error::NewerFormat {
            path: dir.to_path_buf(),
            expected,
            got,
        },
        ManifestError::Magic { .. } => {
            not_a_cluster(dir, &format!("a file named like a manifest ({error})"))
        }
        other => Error::Corrupt {
            detail: format!("every manifest in {}: {other}", dir.display()),
        },
    }
}

/// Not even a lock file is left in a directory that is somebody else's.
fn refuse_foreign(disk: &Arc<dyn Disk>, dir: &Path, options: &OpenOptions) -> Result<(), Error> {
    match DirMetaStore::discover(disk, dir).map_err(|error| manifest_error(dir, error))? {
        Some(_) => Ok(()),
        None => check_empty(disk, dir, options),
    }
}

/// A new cluster is only made where nothing is that it could hide or destroy.
pub(crate) fn check_empty(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &OpenOptions,
) -> Result<(), Error> {
    let names = disk.list(dir).map_err(|source| Error::io(dir, source))?;
    let unfinished = unfinished::marked(&**disk, dir)
        .map_err(|source| Error::io(dir, source))?
        .is_some();
    let ours = |name: &str| [crate::lock::LOCK_FILE, unfinished::TEMP].contains(&name);
    let foreign: Vec<String> = names.into_iter().filter(|name| !ours(name)).collect();
    if !foreign.is_empty() && !unfinished {
        let shown = foreign
            .iter()
            .take(3)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(not_a_cluster(
            dir,
            &format!("a directory with {} entries: {shown}", foreign.len()),
        ));
    }
    if !options.create || options.read_only {
        return Err(not_a_cluster(dir, "an empty directory"));
    }
    Ok(())
}

/// What a making that was interrupted left behind is in nobody's way.
pub(crate) fn clear_unfinished(site: &Site) -> Result<(), Error> {
    let io = |source| Error::io(&site.dir, source);
    match unfinished::marked(&*site.disk, &site.dir).map_err(io)? {
        Some(places) => unfinished::clear(&*site.disk, &site.dir, &places).map_err(io),
        None => Ok(()),
    }
}

/// Opens a cluster that exists, with whatever of it is left.
fn open_existing(site: Site, known: Manifest, options: &OpenOptions) -> Result<Opened, Error> {
    check_against(&known, options)?;
    let meta = DirMetaStore::new(site.disk.clone(), layout::places(&site.dir, &known.nodes));
    let latest = if options.read_only {
        meta.peek_latest()
    } else {
        meta.read_latest()
    };
    let manifest = latest
        .map_err(|error| too_few_places(&site, &known, error))?
        .unwrap_or(known);
    if !options.read_only {
        unfinished::unmark(&*site.disk, &site.dir)
            .map_err(|source| Error::io(&site.dir, source))?;
        crate::sort::clear(&*site.disk, &site.dir)?;
    }
    let mut logs = Vec::new();
    for (path, nodes) in layout::logs(&site.dir, &manifest) {
        logs.push(open_log(&site, &manifest, path, nodes)?);
    }
    recover::recover(site, meta, manifest, logs, options.read_only)
}

/// Too few directories are left even for the manifest: the error says which are missing.
fn too_few_places(site: &Site, known: &Manifest, error: MetaError) -> Error {
    if !matches!(error, MetaError::TooFew { .. }) {
        return error.into();
    }
    let here = |info: &&NodeInfo| site.disk.list(&layout::node_dir(&site.dir, info)).is_ok();
    let living: NodeSet = known
        .nodes
        .iter()
        .filter(here)
        .map(|info| info.id)
        .collect();
    if living.len() == known.nodes.len() {
        error.into()
    } else {
        recover::too_few(known, living)
    }
}

/// A log with what its nodes had accepted; `None` where it is gone or beyond reading, and its nodes with it.
fn open_log(
    site: &Site,
    manifest: &Manifest,
    path: PathBuf,
    nodes: NodeSet,
) -> Result<OpenLog, Error> {
    match LogDevice::open(
        site.disk.clone(),
        &path,
        nodes,
        salt(manifest),
        LogConfig::default(),
    ) {
        Ok((log, replay)) => Ok(OpenLog {
            path,
            nodes,
            log: Some(log),
            entries: replay.entries,
        }),
        Err(error @ LogError::NewerFormat { .. }) => Err(error.into()),
        // The log of a device goes with its nodes, as long as there are others; the only log may not.
        Err(_) if nodes.len() < manifest.nodes.len() => Ok(OpenLog {
            path,
            nodes,
            log: None,
            entries: Vec::new(),
        }),
        Err(LogError::Missing { path }) => Err(Error::Corrupt {
            detail: format!(
                "{}: expected the hot log, found none; what was committed last is in it alone: bring it back",
                path.display()
            ),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Options that are fixed when a cluster is made must not contradict it.
fn check_against(manifest: &Manifest, options: &OpenOptions) -> Result<(), Error> {
    let fixed = |option: &'static str, expected: String, got: Option<String>| match got {
        Some(got) if got != expected => {
            let expected = format!("{expected}, fixed when the cluster was made");
            Err(Error::InvalidOption {
                option,
                expected,
                got,
            })
        }
        _ => Ok(()),
    };
    let segment_bytes = manifest.segment_pages * u64::from(manifest.page_bytes);
    fixed("region", manifest.region.clone(), options.region.clone())?;
    fixed(
        "page_bytes",
        manifest.page_bytes.to_string(),
        options.page_bytes.map(|bytes| bytes.to_string()),
    )?;
    fixed(
        "segment_bytes",
        segment_bytes.to_string(),
        options.segment_bytes.map(|bytes| bytes.to_string()),
    )
}

/// Sizes and thresholds of every node of the volume.
pub(crate) fn node_config(manifest: &Manifest) -> NodeConfig {
    NodeConfig::new(manifest.page_bytes as usize, manifest.segment_pages)
}

/// Whose directory a node's directory is.
pub(crate) fn identity(manifest: &Manifest, info: &NodeInfo) -> NodeIdentity {
    NodeIdentity {
        cluster: manifest.cluster,
        node: info.id,
        incarnation: info.incarnation,
    }
}

/// The seed of the log's checksums: blocks of another cluster do not pass.
pub(crate) fn salt(manifest: &Manifest) -> u64 {
    manifest.cluster.0 as u64
}
