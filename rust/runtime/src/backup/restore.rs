//! A new cluster from a backup: a clone whose layers come from the object store [3].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_page::{Lsn, VolumeId};
use aurora_proto::{ClusterId, Copy, CopyState, Manifest, NewCluster, NodeInfo, WriterStart};
use aurora_redo::{BlobId, PgId};
use aurora_store::{Disk, ForkTarget, NodeStore, OpenMode, blob_path, layer_path};

use super::BackupOptions;
use super::catalog::{BackupList, Catalog, Found, RestoreAt, RestorePlan, Wanted};
use crate::Error;
use crate::clone::{Seed, check_new, clone_manifest};
use crate::cluster::Cluster;
use crate::create::{announce, begin, make_logs};
use crate::layout;
use crate::node::Node;
use crate::open::{BYTES_IN_FLIGHT_MAX, Opened, Site, identity, node_config, prepare_site};
use crate::options::OpenOptions;

impl Cluster {
    /// A new cluster, in a new directory or in memory, as a backed-up one was at a moment. The source need not live.
    ///
    /// # Errors
    /// [`Error::Backup`] naming the object that is missing or damaged; [`Error::OutsideWindow`], [`Error::UnknownSnapshot`]; as
    /// [`Cluster::open`] for the place.
    pub fn restore(
        options: OpenOptions,
        from: &BackupOptions,
        to: &RestoreAt,
    ) -> Result<(Cluster, RestorePlan), Error> {
        options.check()?;
        let catalog = Catalog::open(from)?;
        let found = catalog.find(to)?;
        let plan = catalog.plan(&found)?;
        let opened = build(&options, &catalog, &found)?;
        Ok((Cluster::start(options, opened)?, plan))
    }

    /// What a restore to a moment would read.
    ///
    /// # Errors
    /// As [`Cluster::restore`].
    pub fn explain_restore(from: &BackupOptions, to: &RestoreAt) -> Result<RestorePlan, Error> {
        let catalog = Catalog::open(from)?;
        let found = catalog.find(to)?;
        catalog.plan(&found)
    }

    /// What a backup can give back.
    ///
    /// # Errors
    /// [`Error::Backup`] where there is none, or it cannot be read.
    pub fn backups(from: &BackupOptions) -> Result<BackupList, Error> {
        Ok(Catalog::open(from)?.list())
    }
}

fn build(options: &OpenOptions, catalog: &Catalog, found: &Found) -> Result<Opened, Error> {
    let wanted = catalog.wanted(found)?;
    let site = prepare_site(options)?;
    check_new(&site, options)?;
    announce(&site, options)?;
    let seed = Seed {
        history: found.history.clone(),
        at: found.lsn,
        tails: vec![found.lsn; wanted.base.segments.max(catalog.manifest.volume.segments) as usize],
        sources: Vec::new(),
    };
    let parent = parent(catalog, &wanted, &seed)?;
    let manifest = clone_manifest(&site, options, &parent, &seed)?;
    let files = fetch(&site, &manifest, catalog, &wanted)?;
    let mut nodes = Vec::with_capacity(manifest.nodes.len());
    for info in &manifest.nodes {
        let floor = (Lsn(wanted.base.floor), wanted.base.floor_commit());
        nodes.push(Arc::new(make_node(
            &site, &manifest, info, &seed, &files, floor,
        )?));
    }
    let devices = make_logs(&site, &manifest)?;
    let meta = begin(&site, &manifest)?;
    let writer = WriterStart::of_branch(&manifest, seed.at, &seed.tails, BYTES_IN_FLIGHT_MAX);
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

/// The cluster that was backed up, as far as a clone of it asks.
fn parent(catalog: &Catalog, wanted: &Wanted<'_>, seed: &Seed) -> Result<Manifest, Error> {
    let volume = &catalog.manifest.volume;
    let cluster = u128::from_str_radix(&catalog.manifest.cluster, 16).map_err(|error| {
        catalog
            .options
            .failed(format!("expected a cluster's id, got {error}"))
    })?;
    let mut parent = Manifest::create(NewCluster {
        cluster: ClusterId(cluster),
        origin: VolumeId(volume.origin),
        region: volume.region.clone(),
        page_bytes: volume.page_bytes,
        segment_pages: volume.segment_pages,
        window: volume.window,
        nodes: Vec::new(),
        config: volume.config.clone(),
        created_us: volume.created_us,
    });
    parent.epoch = catalog.manifest.epoch;
    parent.pgs = vec![parent.pgs[0].clone(); seed.tails.len()];
    parent.collection_floor = Lsn(wanted.base.floor);
    Ok(parent)
}

/// What the nodes begin with, as it lies in the directory of the first one.
struct Files {
    layers: std::collections::BTreeSet<u64>,
    blobs: Vec<BlobId>,
    first: PathBuf,
}

/// Brings everything into the directory of the first node.
fn fetch(
    site: &Site,
    manifest: &Manifest,
    catalog: &Catalog,
    wanted: &Wanted<'_>,
) -> Result<Files, Error> {
    let first = layout::node_dir(&site.dir, &manifest.nodes[0]);
    let layers = wanted
        .layers()
        .map_err(|detail| catalog.options.failed(detail))?;
    for (number, name) in &layers {
        write(
            &*site.disk,
            &layer_path(&first, *number),
            &catalog.object(name)?,
        )?;
    }
    let mut blobs = Vec::new();
    for name in wanted.blobs() {
        let id = name
            .strip_prefix("blob/")
            .and_then(|id| u128::from_str_radix(id, 16).ok());
        let id = id.ok_or_else(|| {
            catalog
                .options
                .failed(format!("expected a blob's name, got {name:?}"))
        })?;
        write(
            &*site.disk,
            &blob_path(&first, BlobId(id)),
            &catalog.object(&name)?,
        )?;
        blobs.push(BlobId(id));
    }
    Ok(Files {
        layers: layers.into_keys().collect(),
        blobs,
        first,
    })
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let made = || {
        if let Some(dir) = path.parent() {
            disk.create_dir_all(dir)?;
        }
        let file = disk.open(path, OpenMode::Create)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()
    };
    made().map_err(|source| Error::io(path, source))
}

fn make_node(
    site: &Site,
    manifest: &Manifest,
    info: &NodeInfo,
    seed: &Seed,
    files: &Files,
    (floor, floor_commit): (Lsn, Option<aurora_store::CommitPoint>),
) -> Result<Node, Error> {
    let dir = layout::node_dir(&site.dir, info);
    let disk = &*site.disk;
    if dir != files.first {
        let layers = files
            .layers
            .iter()
            .map(|n| (layer_path(&files.first, *n), layer_path(&dir, *n)));
        let blobs = files
            .blobs
            .iter()
            .map(|id| (blob_path(&files.first, *id), blob_path(&dir, *id)));
        layers
            .chain(blobs)
            .try_for_each(|(from, to)| give(disk, &from, &to))?;
    }
    let history = Arc::new(manifest.history.clone());
    let state = |(pg, scl): (u32, &Lsn)| CopyState {
        pg: PgId(pg),
        node: info.id,
        epoch: manifest.epoch,
        installed: manifest.epoch,
        history: history.clone(),
        scl: *scl,
        vdl_hint: seed.at,
    };
    let states: Vec<CopyState> = (0..).zip(&seed.tails).map(state).collect();
    let target = ForkTarget {
        disk: site.disk.clone(),
        dir: dir.clone(),
        identity: identity(manifest, info),
        config: node_config(manifest),
        blobs: None,
    };
    let store = NodeStore::adopt(&target, &files.layers, floor, floor_commit, &states)?;
    let copies = states
        .into_iter()
        .map(|state| Copy::restore(state, []))
        .collect();
    Ok(Node::new(info.clone(), dir, info.device, store, copies))
}

/// A second name for a file; on another disk, a copy of it.
fn give(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    let io = |source| Error::io(to, source);
    if let Some(dir) = to.parent() {
        disk.create_dir_all(dir).map_err(io)?;
    }
    match disk.link(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            let file = disk.open(from, OpenMode::Read).map_err(io)?;
            let mut bytes = vec![0; file.len().map_err(io)? as usize];
            file.read_exact_at(&mut bytes, 0).map_err(io)?;
            write(disk, to, &bytes)
        }
        linked => linked.map_err(io),
    }
}
