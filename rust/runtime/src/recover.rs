//! Recovery of an embedded cluster: the driver of [`aurora_proto::Recovery`], in the order of its duties.
//!
//! No redo is replayed into pages: what this takes does not depend on the age or size of the volume [13].

use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::{
    Ack, Inventory, Job, Manifest, MetaStore, NodeId, NodeInfo, NodeSet, Plan, Recovery, RecoveryError, Replacement,
    Writer,
};
use aurora_redo::PgId;
use aurora_store::{LogConfig, LogDevice, LogEntry, NodeIdentity, NodeStore, Ticket};

use crate::Error;
use crate::device::Device;
use crate::hydrate::Hydration;
use crate::layout;
use crate::metastore::DirMetaStore;
use crate::node::Node;
use crate::open::{BYTES_IN_FLIGHT_MAX, OpenLog, Opened, Site, identity, node_config, salt};
use crate::restore::restore_copies;

/// Brings the cluster of a manifest to work again, or opens it for reading where too few copies are left to write.
pub(crate) fn recover(
    site: Site,
    meta: DirMetaStore,
    manifest: Manifest,
    logs: Vec<OpenLog>,
    read_only: bool,
) -> Result<Opened, Error> {
    let found = survey(&site, &manifest, &logs)?;
    let recovering = manifest.recovering();
    if read_only {
        return open_for_reading(site, meta, manifest, recovering, found, logs);
    }
    meta.cas(manifest.version, &recovering)?;
    let replace = rebuild_plan(&site, &recovering, &found);
    let nodes = all_nodes(&site, &recovering, found, &replace)?;
    let devices = make_devices(&site, &recovering, logs)?;
    let mut recovery = Recovery::new(&recovering, &replace).map_err(|error| refused(&recovering, &nodes, error))?;
    for inventory in fence(&recovering, &nodes, &devices)? {
        recovery.on_inventory(inventory).map_err(|error| refused(&recovering, &nodes, error))?;
    }
    let mut plan = recovery.plan().map_err(|error| refused(&recovering, &nodes, error))?;
    let Site { disk, dir, lock } = site;
    if !plan.can_open() {
        let reason = too_few(&recovering, &nodes).to_string();
        let writer = plan.writer_start(&recovering, BYTES_IN_FLIGHT_MAX);
        let manifest = recovering;
        return Ok(Opened { disk, dir, lock, meta, manifest, writer, nodes, devices, jobs: vec![], read_only: Some(reason) });
    }
    let jobs = replicate(&recovering, &nodes, &devices, &mut plan)?;
    let opened = plan.opened().map_err(|error| Error::Corrupt { detail: error.to_string() })?;
    meta.cas(recovering.version, &opened)?;
    install(&opened, &nodes, &devices)?;
    let writer = plan.writer_start(&opened, BYTES_IN_FLIGHT_MAX);
    Ok(Opened { disk, dir, lock, meta, manifest: opened, writer, nodes, devices, jobs, read_only: None })
}

/// The nodes whose directories are there and theirs, each with its copies.
fn survey(site: &Site, manifest: &Manifest, logs: &[OpenLog]) -> Result<Vec<Arc<Node>>, Error> {
    let mut nodes = Vec::new();
    for info in &manifest.nodes {
        let Some(log) = logs.iter().find(|log| log.nodes.contains(info.id)) else { continue };
        if log.log.is_none() {
            continue;
        }
        if let Some(node) = open_node(site, manifest, info, &log.entries)? {
            nodes.push(Arc::new(node));
        }
    }
    Ok(nodes)
}

/// A node as its directory has it; `None` when the directory is gone, damaged, or of another node or making of it: a lost copy.
fn open_node(site: &Site, manifest: &Manifest, info: &NodeInfo, entries: &[LogEntry]) -> Result<Option<Node>, Error> {
    let dir = layout::node_dir(&site.dir, info);
    match NodeIdentity::read(&*site.disk, &dir) {
        Ok(found) if found == identity(manifest, info) => {}
        Err(aurora_store::StoreError::NewerFormat { path, expected, got }) => {
            return Err(Error::NewerFormat { path, expected: expected.into(), got: got.into() });
        }
        Ok(_) | Err(_) => return Ok(None),
    }
    let opened = NodeStore::open(site.disk.clone(), &dir, manifest.cluster, info.id, node_config(manifest));
    let store = match opened {
        Ok(store) => store,
        Err(aurora_store::StoreError::NewerFormat { path, expected, got }) => {
            return Err(Error::NewerFormat { path, expected: expected.into(), got: got.into() });
        }
        Err(_) => return Ok(None),
    };
    let Ok(copies) = restore_copies(manifest, info.id, &store, entries) else { return Ok(None) };
    let device = site.disk.device_of(&dir).map_err(|source| Error::io(&dir, source))?;
    Ok(Some(Node::new(info.clone(), dir, device, store, copies)))
}

/// Lost nodes whose directories can be made anew: those on a device that is there. A device that is not mounted may come back with
/// its copy, so its nodes are left alone.
fn rebuild_plan(site: &Site, manifest: &Manifest, found: &[Arc<Node>]) -> Vec<Replacement> {
    let lost = manifest.nodes.iter().filter(|info| found.iter().all(|node| node.id() != info.id));
    lost.filter_map(|info| {
        let dir = layout::node_dir(&site.dir, info);
        let standing = dir.ancestors().find(|path| site.disk.exists(path))?;
        let device = site.disk.device_of(standing).ok()?;
        // Device numbers change between mounts: a living neighbour of the same recorded device tells the present one.
        let neighbour = found.iter().find(|node| node.info.device == info.device);
        let here = device == info.device || neighbour.is_some_and(|node| node.device == device);
        let with = NodeInfo { device, incarnation: info.incarnation + 1, ..info.clone() };
        here.then_some(Replacement { lost: info.id, with })
    })
    .collect()
}

/// The nodes found, and empty ones in the place of those to be rebuilt.
fn all_nodes(
    site: &Site,
    manifest: &Manifest,
    found: Vec<Arc<Node>>,
    replace: &[Replacement],
) -> Result<Vec<Arc<Node>>, Error> {
    let mut nodes = found;
    for replacement in replace {
        let info = &replacement.with;
        let dir = layout::node_dir(&site.dir, info);
        if site.disk.exists(&dir) {
            set_aside(site, &dir)?;
        }
        site.disk.create_dir_all(&dir).map_err(|source| Error::io(&dir, source))?;
        let store = NodeStore::create(site.disk.clone(), &dir, identity(manifest, info), node_config(manifest))?;
        let copies = restore_copies(manifest, info.id, &store, &[])?;
        nodes.push(Arc::new(Node::new(info.clone(), dir, info.device, store, copies)));
    }
    nodes.sort_by_key(|node| node.id());
    Ok(nodes)
}

/// What is in the way of a rebuilt node is kept beside it, for whoever wants to know what happened to it.
fn set_aside(site: &Site, dir: &std::path::Path) -> Result<(), Error> {
    let io = |source| Error::io(dir, source);
    let mut kept = dir.as_os_str().to_owned();
    kept.push(".damaged");
    let kept = std::path::PathBuf::from(kept);
    if site.disk.exists(&kept) {
        site.disk.remove_dir_all(&kept).map_err(io)?;
    }
    site.disk.rename(dir, &kept).map_err(io)
}

fn make_devices(site: &Site, manifest: &Manifest, logs: Vec<OpenLog>) -> Result<Vec<Arc<Device>>, Error> {
    let mut devices = Vec::new();
    for OpenLog { path, nodes, log, .. } in logs {
        let log = match log {
            Some(log) => log,
            None if path.parent().is_some_and(|node| site.disk.exists(node)) => {
                LogDevice::create(site.disk.clone(), &path, nodes, salt(manifest), LogConfig::default())?
            }
            None => continue,
        };
        devices.push(Arc::new(Device::new(log)));
    }
    Ok(devices)
}

/// The log device of a node.
pub(crate) fn device_of(devices: &[Arc<Device>], node: NodeId) -> Option<&Arc<Device>> {
    devices.iter().find(|device| device.nodes.contains(node))
}

/// Fences every copy, and gives the inventories that came in answer: one append for each device.
fn fence(manifest: &Manifest, nodes: &[Arc<Node>], devices: &[Arc<Device>]) -> Result<Vec<Inventory>, Error> {
    let history = Arc::new(manifest.history.clone());
    let mut inventories = Vec::new();
    for device in devices {
        let mut tickets = Vec::new();
        let here: Vec<_> = nodes.iter().filter(|node| device.nodes.contains(node.id())).collect();
        for node in &here {
            let fenced = node.with_copies(|copies| {
                copies.iter_mut().map(|copy| copy.fence(manifest.epoch, &history)).collect::<Result<Vec<_>, _>>()
            });
            let fenced = fenced.map_err(|refuse| Error::Corrupt { detail: format!("{}: {refuse}", node.id()) })?;
            let ticket = |(pg, fence): (usize, &aurora_proto::FenceTicket)| Ticket {
                node: node.id(),
                pg: PgId(pg as u32),
                number: fence.ticket,
            };
            tickets.extend(fenced.iter().enumerate().map(ticket));
        }
        let of: NodeSet = here.iter().map(|node| node.id()).collect();
        let tickets = tickets.into();
        let entry = LogEntry::Fence { nodes: of, tickets, epoch: manifest.epoch, history: manifest.history.clone() };
        for token in device.log.append(&[entry])?.tokens {
            let node = here.iter().find(|node| node.id() == token.node());
            let answer = node.and_then(|node| {
                node.with_copies(|copies| copies.get_mut(token.pg().0 as usize).and_then(|copy| copy.fenced(token)))
            });
            inventories.extend(answer);
        }
    }
    Ok(inventories)
}

/// Does the jobs that are needed to open; gives those that can go on beside the writer.
fn replicate(
    manifest: &Manifest,
    nodes: &[Arc<Node>],
    devices: &[Arc<Device>],
    plan: &mut Plan,
) -> Result<Vec<Job>, Error> {
    let jobs = plan.jobs().to_vec();
    let mut later = Vec::new();
    let mut failed = None;
    for job in jobs {
        if plan.ready() {
            later.push(job);
            continue;
        }
        match hydrate(manifest, nodes, devices, &job, plan.vdl(), true) {
            Ok(ack) => plan.on_ack(&ack),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if !plan.ready() => Err(error),
        _ => Ok(later),
    }
}

/// Does one job.
pub(crate) fn hydrate(
    manifest: &Manifest,
    nodes: &[Arc<Node>],
    devices: &[Arc<Device>],
    job: &Job,
    vdl: Lsn,
    fenced: bool,
) -> Result<Ack, Error> {
    let find = |id: NodeId| nodes.iter().find(|node| node.id() == id);
    let (Some(from), Some(to), Some(device)) = (find(job.from), find(job.to), device_of(devices, job.to)) else {
        return Err(Error::Corrupt { detail: format!("no way from {} to {}", job.from, job.to) });
    };
    let epoch = manifest.epoch;
    Hydration { from, to, device, epoch, vdl, segment_pages: manifest.segment_pages, fenced }.run(job)
}

/// Every copy takes the epoch with its History, and logs it, before it takes anything of the epoch.
fn install(manifest: &Manifest, nodes: &[Arc<Node>], devices: &[Arc<Device>]) -> Result<(), Error> {
    let history = Arc::new(manifest.history.clone());
    for device in devices {
        let of: NodeSet = nodes.iter().map(|node| node.id()).filter(|id| device.nodes.contains(*id)).collect();
        let entry = LogEntry::Install {
            nodes: of,
            tickets: Default::default(),
            epoch: manifest.epoch,
            history: manifest.history.clone(),
        };
        device.log.append(&[entry])?;
    }
    for node in nodes {
        let installed = node.with_copies(|copies| copies.iter_mut().try_for_each(|c| c.install(manifest.epoch, &history)));
        installed.map_err(|refuse| Error::Corrupt { detail: format!("{}: {refuse}", node.id()) })?;
    }
    Ok(())
}

/// Opens what is there for reading: nothing is fenced or written, and another owner may open the cluster afterwards.
fn open_for_reading(
    site: Site,
    meta: DirMetaStore,
    manifest: Manifest,
    recovering: Manifest,
    nodes: Vec<Arc<Node>>,
    logs: Vec<OpenLog>,
) -> Result<Opened, Error> {
    let mut recovery = Recovery::new(&recovering, &[]).map_err(|error| refused(&manifest, &nodes, error))?;
    for node in &nodes {
        for inventory in node.with_copies(|copies| copies.iter().map(|copy| copy.survey(recovering.epoch)).collect::<Vec<_>>()) {
            recovery.on_inventory(inventory).map_err(|error| refused(&manifest, &nodes, error))?;
        }
    }
    let plan = recovery.plan().map_err(|error| refused(&manifest, &nodes, error))?;
    let writer = plan.writer_start(&manifest, BYTES_IN_FLIGHT_MAX);
    let devices = logs.into_iter().filter_map(|log| log.log).map(|log| Arc::new(Device::new(log))).collect();
    let Site { disk, dir, lock } = site;
    let read_only = Some("it was opened with read_only=True".into());
    Ok(Opened { disk, dir, lock, meta, manifest, writer, nodes, devices, jobs: Vec::new(), read_only })
}

/// The first acknowledgements of a writer: what every copy has, so that reads find their copies.
pub(crate) fn first_acks(writer: &mut Writer, nodes: &[Arc<Node>]) {
    for node in nodes {
        for ack in node.with_copies(|copies| copies.iter().map(aurora_proto::Copy::ack).collect::<Vec<_>>()) {
            writer.on_ack(ack.node, &Ack { epoch: writer.epoch(), ..ack });
        }
    }
}

fn refused(manifest: &Manifest, nodes: &[Arc<Node>], error: RecoveryError) -> Error {
    match error {
        RecoveryError::NotEnough { .. } => too_few(manifest, nodes),
        other => Error::Corrupt { detail: other.to_string() },
    }
}

fn too_few(manifest: &Manifest, nodes: &[Arc<Node>]) -> Error {
    let missing = |info: &&NodeInfo| nodes.iter().all(|node| node.id() != info.id);
    Error::QuorumLost {
        have: nodes.len(),
        of: manifest.nodes.len(),
        need: manifest.nodes.len() / 2 + 1,
        missing: manifest.nodes.iter().filter(missing).map(|info| info.path.clone()).collect(),
        hint: "bring the directories back (mount their disks, restore them) and open the cluster again".into(),
    }
}
