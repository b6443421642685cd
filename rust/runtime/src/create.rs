//! Making a cluster: six empty copies, their log, and the first manifest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_page::VolumeId;
use aurora_proto::{
    ClusterId, Copy, Manifest, MetaStore, NewCluster, NodeId, NodeInfo, NodeSet, WriterStart,
};
use aurora_redo::PgId;
use aurora_store::{LogConfig, LogDevice, LogError, NodeStore};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::Error;
use crate::clock::wall_us;
use crate::device::Device;
use crate::layout;
use crate::metastore::DirMetaStore;
use crate::node::Node;
use crate::open::{BYTES_IN_FLIGHT_MAX, Opened, Site, identity, node_config, salt};
use crate::options::{OpenOptions, SEGMENT_BYTES_DEFAULT};
use crate::unfinished;

/// LSNs that may be handed out above the VDL, as in Aurora [P17].
const LAL_WINDOW: u64 = 10_000_000;
/// Region of a cluster whose maker names none.
const REGION_DEFAULT: &str = "local";
/// Page size of a cluster whose maker names none.
const PAGE_BYTES_DEFAULT: usize = 32 << 10;
/// The setting that keeps the read window, in microseconds.
pub(crate) const WINDOW_KEY: &str = "window_us";

/// Makes a cluster in an empty directory. Its manifest is written last: a directory without one was never a cluster.
pub(crate) fn create(site: Site, options: &OpenOptions) -> Result<Opened, Error> {
    announce(&site, options)?;
    // Whoever made the directory may not have synced its name.
    layout::sync_name(&*site.disk, &site.dir).map_err(|source| Error::io(&site.dir, source))?;
    let manifest = first_manifest(&site, options)?;
    let history = Arc::new(manifest.history.clone());
    let mut nodes = Vec::new();
    for info in &manifest.nodes {
        let dir = layout::node_dir(&site.dir, info);
        let store = NodeStore::create(
            site.disk.clone(),
            &dir,
            identity(&manifest, info),
            node_config(&manifest),
        )?;
        let copies = vec![Copy::new(PgId(0), info.id, manifest.epoch, history.clone())];
        nodes.push(Arc::new(Node::new(
            info.clone(),
            dir,
            info.device,
            store,
            copies,
        )));
    }
    let devices = make_logs(&site, &manifest)?;
    let meta = begin(&site, &manifest)?;
    let writer = WriterStart::of_new(&manifest, BYTES_IN_FLIGHT_MAX);
    Ok(Opened {
        site,
        meta,
        manifest,
        writer,
        nodes,
        devices,
        jobs: Vec::new(),
        read_only: None,
        borrowed: None,
    })
}

/// Empty logs of all nodes.
pub(crate) fn make_logs(site: &Site, manifest: &Manifest) -> Result<Vec<Arc<Device>>, Error> {
    layout::logs(&site.dir, manifest)
        .into_iter()
        .map(|(path, nodes)| {
            let log = make_log(site, manifest, &path, nodes)?;
            Ok(Arc::new(Device::new(log)))
        })
        .collect()
}

/// An empty log of some nodes.
pub(crate) fn make_log(
    site: &Site,
    manifest: &Manifest,
    path: &Path,
    nodes: NodeSet,
) -> Result<LogDevice, LogError> {
    let (disk, config) = (site.disk.clone(), LogConfig::default());
    LogDevice::create(disk, path, nodes, salt(manifest), config)
}

/// Writes the first manifest: from then on there is a cluster, and not what a crash left of its making.
pub(crate) fn begin(site: &Site, manifest: &Manifest) -> Result<DirMetaStore, Error> {
    let places = layout::places(&site.dir, &manifest.nodes);
    let meta = DirMetaStore::new(site.disk.clone(), places);
    meta.cas(0, manifest)?;
    unfinished::unmark(&*site.disk, &site.dir).map_err(|source| Error::io(&site.dir, source))?;
    Ok(meta)
}

/// Leaves a mark, so that what a crash leaves of this making can be cleared away. Only what is empty now may be in it.
pub(crate) fn announce(site: &Site, options: &OpenOptions) -> Result<(), Error> {
    let nodes = options.nodes.clone().unwrap_or_else(layout::default_nodes);
    for dir in nodes
        .iter()
        .map(|place| site.dir.join(&place.path))
        .filter(|dir| site.disk.exists(dir))
    {
        if !site
            .disk
            .list(&dir)
            .map_err(|source| Error::io(&dir, source))?
            .is_empty()
        {
            return Err(not_empty(dir));
        }
    }
    let places = nodes
        .iter()
        .filter_map(|place| place.path.to_str())
        .chain([layout::LOG_DIR]);
    unfinished::mark(&*site.disk, &site.dir, places).map_err(|source| Error::io(&site.dir, source))
}

fn not_empty(path: PathBuf) -> Error {
    let expected = "an empty directory for a new node".into();
    Error::NotACluster {
        path,
        expected,
        got: "a directory with entries".into(),
    }
}

fn first_manifest(site: &Site, options: &OpenOptions) -> Result<Manifest, Error> {
    let page_bytes = options.page_bytes.unwrap_or(PAGE_BYTES_DEFAULT);
    let nodes = make_directories(site, options)?;
    let mut config = layout::assign_logs(&site.disk, &site.dir, &nodes)?;
    if let Some(window) = options.window {
        config.insert(WINDOW_KEY.into(), window.as_micros().to_string());
    }
    Ok(Manifest::create(NewCluster {
        cluster: ClusterId(u128::from(random_u64()?) << 64 | u128::from(random_u64()?)),
        origin: VolumeId(random_u64()?.max(1)),
        region: options
            .region
            .clone()
            .unwrap_or_else(|| REGION_DEFAULT.into()),
        page_bytes: page_bytes as u32,
        segment_pages: options.segment_bytes.unwrap_or(SEGMENT_BYTES_DEFAULT) / page_bytes as u64,
        window: LAL_WINDOW,
        nodes,
        config,
        created_us: wall_us(),
    }))
}

pub(crate) fn make_directories(site: &Site, options: &OpenOptions) -> Result<Vec<NodeInfo>, Error> {
    let places = options.nodes.clone().unwrap_or_else(layout::default_nodes);
    let mut nodes = Vec::with_capacity(places.len());
    for (index, place) in places.into_iter().enumerate() {
        let path = place.path.to_str().ok_or_else(|| Error::InvalidOption {
            option: "nodes",
            expected: "paths in UTF-8".into(),
            got: place.path.display().to_string(),
        })?;
        let dir = site.dir.join(path);
        let make = || {
            layout::make_dir(&*site.disk, &dir)?;
            if !site.disk.list(&dir)?.is_empty() {
                return Ok(None);
            }
            site.disk.device_of(&dir).map(Some)
        };
        let device = make()
            .map_err(|source| Error::io(&dir, source))?
            .ok_or_else(|| not_empty(dir.clone()))?;
        nodes.push(NodeInfo {
            id: NodeId(index as u16),
            az: place.az,
            path: path.into(),
            device,
            incarnation: 1,
        });
    }
    Ok(nodes)
}

/// A number that nobody else has.
pub(crate) fn random_u64() -> Result<u64, Error> {
    let mut bytes = [0_u8; 8];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|source| Error::io(Path::new("getrandom(2)"), source.into()))?;
    Ok(u64::from_le_bytes(bytes))
}
