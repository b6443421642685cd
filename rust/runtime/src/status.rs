//! What a cluster reports about itself.

use aurora_engine::Role;
use aurora_page::Lsn;
use aurora_proto::{NodeId, NodeInfo, Points, Volume};
use aurora_redo::PgId;

use crate::cluster::{Cluster, Shared};
use crate::instance::Instance;

/// A node on a disk of its own is always a little behind; so many records are more than that.
const LAG_MAX: u64 = 10_000;

/// How one storage node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It has everything that its peers have.
    Healthy,
    /// It answers, and is catching up from its peers, or has damage that is being mended from them.
    Repairing,
    /// Its directory is gone or its files or its log refuse; it acknowledges nothing.
    Lost,
    /// An injected fault keeps it away; it catches up when that ends.
    Unreachable,
}

/// One storage node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// The node's id.
    pub id: NodeId,
    /// Its Availability Zone.
    pub az: String,
    /// Its directory.
    pub path: String,
    /// The device it lies on: nodes of equal devices fail together.
    pub device: u64,
    /// How it is.
    pub state: NodeState,
    /// Bytes of its layers and blobs.
    pub bytes: u64,
    /// Layers it reads from.
    pub layers: usize,
    /// The lowest segment complete LSN over its copies that are behind, or the VDL.
    pub complete_to: Lsn,
    /// How much of what its peers have has come, from 0 to 1, while it is made anew and filled.
    pub progress: Option<f64>,
}

/// The buffer pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheStatus {
    /// Look-ups that found their page.
    pub hits: u64,
    /// Look-ups that had to ask storage.
    pub misses: u64,
    /// Pages that were fetched before a reader came to them, by all instances together.
    pub prefetched: u64,
    /// Bytes of pages held.
    pub bytes: u64,
    /// The budget.
    pub bytes_max: u64,
}

impl CacheStatus {
    /// Share of look-ups that found their page, from 0 to 1; 1 before the first look-up.
    pub fn hit_ratio(&self) -> f64 {
        let looked = self.hits + self.misses;
        if looked == 0 {
            1.0
        } else {
            self.hits as f64 / looked as f64
        }
    }
}

/// Work in the background since the cluster was opened.
#[derive(Clone, Debug, Default)]
pub struct BackgroundStatus {
    /// Bytes written to delta layers.
    pub flushed_bytes: u64,
    /// Bytes written by compaction.
    pub compacted_bytes: u64,
    /// Bytes read by scrub.
    pub scrubbed_bytes: u64,
    /// Records given to copies that lacked them.
    pub repaired_records: u64,
    /// The last thing that went wrong in the background, if anything did.
    pub last_error: Option<String>,
}

/// One instance.
#[derive(Clone, Debug)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// `writer`, `replica`, `fenced` or `crashed`.
    pub role: &'static str,
    /// Its promotion tier.
    pub tier: u8,
    /// Its class.
    pub class: String,
    /// What its readers see.
    pub readable: Lsn,
    /// How far it is behind, in milliseconds: the age of the oldest durable commit that it does not show.
    pub lag_ms: f64,
    /// How far it is behind, in LSNs.
    pub lag_lsns: u64,
    /// From a commit's number to the moment at which the instance showed it: the middle of the latest ones, in milliseconds.
    pub shown_ms_p50: f64,
    /// The same for all but the slowest hundredth.
    pub shown_ms_p99: f64,
    /// How often it was too far behind and began with an empty cache.
    pub rejoins: u64,
    /// Views and transactions open through its endpoints.
    pub connections: usize,
    /// Its buffer pool.
    pub cache: CacheStatus,
}

/// A cluster at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster: String,
    /// Its directory; `None` on memory disks.
    pub path: Option<String>,
    /// Its region.
    pub region: String,
    /// `open`, `read-only` with the reason, `failed` with the reason, or `closed`.
    pub state: String,
    /// The volume epoch of this owner.
    pub epoch: u64,
    /// VDL, VCL, allocated, LAL.
    pub points: Points,
    /// The lowest LSN that can still be read.
    pub floor: Lsn,
    /// Segments of the volume.
    pub segments: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// The storage nodes.
    pub nodes: Vec<NodeStatus>,
    /// How many devices the copies really lie on.
    pub devices: usize,
    /// Bytes of the hot logs that are not yet in layers, over all devices.
    pub log_bytes: u64,
    /// The buffer pool.
    pub cache: CacheStatus,
    /// Writer and replicas, the writer first.
    pub instances: Vec<InstanceStatus>,
    /// Background work.
    pub background: BackgroundStatus,
}

impl Status {
    /// What the loss of one device, or of one zone, would do, in a sentence.
    pub fn fault_domains(&self) -> String {
        let zones: std::collections::BTreeSet<&str> =
            self.nodes.iter().map(|node| node.az.as_str()).collect();
        match (self.path.is_some(), self.devices) {
            (false, _) => format!(
                "{} directories on memory disks: nothing survives this process",
                self.nodes.len()
            ),
            (true, 1) => format!(
                "{} directories in {} zones on 1 device: the device is a single point of failure",
                self.nodes.len(),
                zones.len()
            ),
            (true, devices) => {
                format!(
                    "{} directories in {} zones on {devices} devices",
                    self.nodes.len(),
                    zones.len()
                )
            }
        }
    }
}

impl Cluster {
    /// What the cluster is like now.
    pub fn status(&self) -> Status {
        let shared = self.shared();
        let volume = &shared.volume;
        shared.find_lost();
        let vdl = volume.vdl();
        let meta = shared.meta.lock();
        let manifest = &meta.manifest;
        let nodes: Vec<NodeStatus> = manifest
            .nodes
            .iter()
            .map(|info| node_status(shared, info, vdl))
            .collect();
        let devices: std::collections::BTreeSet<u64> =
            nodes.iter().map(|node| node.device).collect();
        let cache = shared.instances.writer().cache_stats();
        Status {
            cluster: manifest.cluster.to_string(),
            path: (!shared.in_memory).then(|| shared.dir.display().to_string()),
            region: manifest.region.clone(),
            state: state(self),
            epoch: volume.epoch(),
            points: volume.points(),
            floor: manifest.collection_floor,
            segments: volume.segments(),
            segment_bytes: manifest.segment_pages * u64::from(manifest.page_bytes),
            page_bytes: manifest.page_bytes as usize,
            nodes,
            devices: devices.len(),
            log_bytes: volume
                .devices
                .iter()
                .map(|device| device.log().used_bytes())
                .sum(),
            cache: CacheStatus {
                hits: cache.hits,
                misses: cache.misses,
                prefetched: shared.prefetcher.fetched(),
                bytes: cache.bytes,
                bytes_max: cache.bytes_max,
            },
            instances: shared
                .instances
                .all()
                .iter()
                .map(|instance| instance_status(self, instance))
                .collect(),
            background: shared.maintenance.status(),
        }
    }
}

fn instance_status(cluster: &Cluster, instance: &Instance) -> InstanceStatus {
    let role = match instance.role() {
        Role::Writer => "writer",
        Role::Replica { .. } => "replica",
        Role::Fenced { .. } => "fenced",
        Role::Crashed => "crashed",
    };
    let (lag_ms, lag_lsns) = cluster.lag(instance);
    let cache = instance.cache_stats();
    InstanceStatus {
        name: instance.name().to_owned(),
        role,
        tier: instance.tier(),
        class: instance.class().to_owned(),
        readable: instance.readable(),
        lag_ms,
        lag_lsns,
        shown_ms_p50: f64::from(instance.lag_us(50)) / 1000.0,
        shown_ms_p99: f64::from(instance.lag_us(99)) / 1000.0,
        rejoins: instance.progress().rejoins,
        connections: instance.connections(),
        cache: CacheStatus {
            hits: cache.hits,
            misses: cache.misses,
            prefetched: cluster.shared().prefetcher.fetched(),
            bytes: cache.bytes,
            bytes_max: cache.bytes_max,
        },
    }
}

fn state(cluster: &Cluster) -> String {
    if cluster.is_closed() {
        return "closed".into();
    }
    match (cluster.read_only(), cluster.shared().volume.failure()) {
        (Some(reason), _) => format!("read-only: {reason}"),
        (None, Some(_)) => match cluster.shared().volume.check() {
            Err(error) => format!("failed: {error}"),
            Ok(()) => "open".into(),
        },
        (None, None) => "open".into(),
    }
}

fn node_status(shared: &Shared, info: &NodeInfo, vdl: Lsn) -> NodeStatus {
    let status = |state, device, bytes, layers, complete_to| NodeStatus {
        id: info.id,
        az: info.az.clone(),
        path: info.path.clone(),
        device,
        state,
        bytes,
        layers,
        complete_to,
        progress: shared.rebuilds.progress(info.id),
    };
    let Some(node) = shared.volume.node(info.id).filter(|node| node.has_log()) else {
        return status(NodeState::Lost, info.device, 0, 0, Lsn::NONE);
    };
    let scls = node.with_copies(|copies| {
        copies
            .iter()
            .map(aurora_proto::Copy::scl)
            .collect::<Vec<_>>()
    });
    let behind = (0_u32..)
        .zip(scls)
        .filter(|(pg, scl)| *scl < shared.volume.pgcl(PgId(*pg)).min(vdl))
        .map(|(_, scl)| scl);
    let complete_to = behind.min().unwrap_or(vdl);
    let repairing = shared.maintenance.repairs(info.id)
        || shared.rebuilds.fills(info.id)
        || vdl.0 - complete_to.0 > LAG_MAX
        || !node.store.damage().is_empty();
    let state = if node.gate.is_cut() {
        NodeState::Unreachable
    } else if repairing {
        NodeState::Repairing
    } else {
        NodeState::Healthy
    };
    status(
        state,
        node.device,
        node.store.used_bytes(),
        node.store.layers().len(),
        complete_to,
    )
}
