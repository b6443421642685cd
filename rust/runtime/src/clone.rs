//! Clones: a new cluster that begins as another one was at a moment, copy-on-write.
//!
//! A branch of another volume [3]: the same History up to the moment, then LSNs under an origin of its own. Its nodes begin with the
//! layers of the other's nodes: on the same disk as second names of the same files (hard links), in memory as the same open files.
//! So nothing is copied but what is in no layer yet, and each may be deleted first. See `store::fork`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aurora_page::{Lsn, VolumeId};
use aurora_proto::{
    ClusterId, Copy, CopyState, Manifest, Membership, NewCluster, NodeId, NodeInfo, WriterStart,
};
use aurora_redo::{History, PgId};
use aurora_store::{Disk, ForkTarget};

use crate::Error;
use crate::backtrack::{Place, Target, history_of};
use crate::cluster::{Cluster, Shared};
use crate::create::{WINDOW_KEY, announce, begin, make_directories, make_logs, random_u64};
use crate::layout;
use crate::metastore::DirMetaStore;
use crate::node::Node;
use crate::open::{
    BYTES_IN_FLIGHT_MAX, Opened, Site, check_empty, clear_unfinished, identity, node_config,
    prepare_site,
};
use crate::options::OpenOptions;

/// Directory of the names of what clones in memory read from this cluster's disk.
const CLONES_DIR: &str = "clones";

/// A directory that goes with the clone that reads it.
#[derive(Debug)]
pub(crate) struct Borrowed {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // What cannot be removed now, the next owner of the cluster removes.
        let _ = self.disk.remove_dir_all(&self.dir);
    }
}

impl Cluster {
    /// A cluster of its own that begins as this one was at a moment, now if `at` is `None`; in a new directory, or in memory.
    ///
    /// # Errors
    /// As [`Cluster::open`] for the place of the clone, as [`Cluster::backtrack`] for the moment. A directory on another disk is
    /// refused: nothing could be shared.
    pub fn clone_to(&self, options: OpenOptions, at: Option<&Target>) -> Result<Cluster, Error> {
        self.check_open()?;
        options.check()?;
        let opened = self.shared().fork(&options, at)?;
        Cluster::start(options, opened)
    }
}

/// What a clone begins with.
pub(crate) struct Seed {
    pub(crate) history: History,
    pub(crate) at: Lsn,
    /// The last record of each group that counts, or an LSN above it up to which nothing else is.
    pub(crate) tails: Vec<Lsn>,
    /// Nodes that have everything up to `at`.
    pub(crate) sources: Vec<Arc<Node>>,
}

impl Shared {
    fn fork(&self, options: &OpenOptions, at: Option<&Target>) -> Result<Opened, Error> {
        // No layer comes or goes, no branch and no growth happens meanwhile.
        let _work = self.work.lock();
        let meta = self.meta.lock();
        let parent = &meta.manifest;
        let seed = self.seed(parent, at)?;
        if options.path.is_some() && self.in_memory {
            return Err(Error::InvalidOption {
                option: "path",
                expected: "memory=True for the clone of a cluster in memory".into(),
                got: format!("{:?}", options.path),
            });
        }
        let site = prepare_site(options)?;
        check_new(&site, options)?;
        announce(&site, options)?;
        let manifest = clone_manifest(&site, options, parent, &seed)?;
        let borrowed = match &options.path {
            Some(_) => None,
            None => Some(Borrowed {
                disk: self.disk.clone(),
                dir: self.dir.join(CLONES_DIR).join(format!(
                    "{}-{:016x}",
                    std::process::id(),
                    random_u64()?
                )),
            }),
        };
        let mut nodes = Vec::with_capacity(manifest.nodes.len());
        for (index, info) in manifest.nodes.iter().enumerate() {
            let source = &seed.sources[index % seed.sources.len()];
            nodes.push(Arc::new(fork_node(
                &site, &manifest, info, source, &seed, &borrowed,
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
            borrowed: borrowed.filter(|borrowed| borrowed.disk.exists(&borrowed.dir)),
        })
    }

    fn seed(&self, parent: &Manifest, at: Option<&Target>) -> Result<Seed, Error> {
        let (place, lsn) = match at {
            Some(target) => self.resolve(parent, target, false)?,
            None => (Place::Present, aurora_proto::Volume::vdl(&*self.volume)),
        };
        let known = self.known_of(parent, &place);
        let mut tails = Vec::with_capacity(parent.pgs.len());
        for pg in (0..parent.pgs.len() as u32).map(PgId) {
            let tail = self.volume.tail(pg);
            tails.push(match place {
                Place::Abandoned(_) => lsn,
                _ => tail.min(lsn),
            });
        }
        let has_all = |node: &&Arc<Node>| match place {
            Place::Abandoned(_) => known.contains(&node.id()),
            _ => {
                let groups = (0_u32..).map(PgId).zip(&tails);
                groups
                    .into_iter()
                    .all(|(pg, tail)| self.scl(node, pg) >= *tail)
            }
        };
        let mut sources = self.living();
        sources.retain(|node| has_all(&node));
        if sources.is_empty() {
            return Err(self.volume.quorum_lost());
        }
        Ok(Seed {
            history: history_of(parent, &place).clone(),
            at: lsn,
            tails,
            sources,
        })
    }
}

/// A clone is only made where nothing is that it could hide or destroy.
pub(crate) fn check_new(site: &Site, options: &OpenOptions) -> Result<(), Error> {
    let known = DirMetaStore::discover(&site.disk, &site.dir);
    if !matches!(known, Ok(None)) {
        return Err(Error::NotACluster {
            path: site.dir.clone(),
            expected: "a new directory".into(),
            got: "one with a cluster".into(),
        });
    }
    check_empty(&site.disk, &site.dir, options)?;
    clear_unfinished(site)
}

/// The first manifest of a clone: a volume of its own origin whose History is the parent's up to the moment.
pub(crate) fn clone_manifest(
    site: &Site,
    options: &OpenOptions,
    parent: &Manifest,
    seed: &Seed,
) -> Result<Manifest, Error> {
    let nodes = make_directories(site, options)?;
    let mut config: BTreeMap<_, _> = layout::assign_logs(&site.disk, &site.dir, &nodes)?;
    if let Some(window) = parent.config.get(WINDOW_KEY) {
        config.insert(WINDOW_KEY.into(), window.clone());
    }
    let members: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
    let mut manifest = Manifest::create(NewCluster {
        cluster: ClusterId(u128::from(random_u64()?) << 64 | u128::from(random_u64()?)),
        origin: VolumeId(random_u64()?.max(1)),
        region: options
            .region
            .clone()
            .unwrap_or_else(|| parent.region.clone()),
        page_bytes: parent.page_bytes,
        segment_pages: parent.segment_pages,
        window: parent.window,
        nodes,
        config,
        created_us: parent.created_us,
    });
    // Blobs that a clone begins with are of earlier epochs than its own.
    manifest.epoch = parent.epoch + 1;
    manifest.history = seed.history.branch(seed.at, manifest.origin, parent.window);
    manifest.pgs = vec![Membership::new(1, members); parent.pgs.len()];
    manifest.collection_floor = parent.collection_floor.min(seed.at);
    Ok(manifest)
}

fn fork_node(
    site: &Site,
    manifest: &Manifest,
    info: &NodeInfo,
    source: &Node,
    seed: &Seed,
    borrowed: &Option<Borrowed>,
) -> Result<Node, Error> {
    let dir = layout::node_dir(&site.dir, info);
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
        blobs: borrowed
            .as_ref()
            .map(|borrowed| borrowed.dir.join(info.id.0.to_string())),
    };
    let store = match borrowed {
        Some(_) => source.store.fork_shared(&target, &states)?,
        None => source.store.fork_linked(&target, &states)?,
    };
    let copies = states
        .into_iter()
        .map(|state| Copy::restore(state, []))
        .collect();
    Ok(Node::new(info.clone(), dir, info.device, store, copies))
}

/// Removes what clones in memory of processes that are gone have left behind.
pub(crate) fn clear_borrowed(disk: &dyn Disk, dir: &std::path::Path) {
    let clones = dir.join(CLONES_DIR);
    for name in disk.list(&clones).unwrap_or_default() {
        let pid = name
            .split('-')
            .next()
            .and_then(|pid| pid.parse::<u32>().ok());
        let runs = |pid: u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        if pid.is_some_and(|pid| !runs(pid)) {
            let _ = disk.remove_dir_all(&clones.join(name));
        }
    }
}
