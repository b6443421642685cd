//! Recovery of an embedded cluster: the driver of [`aurora_proto::Recovery`], in the order of its duties.
//!
//! No redo is replayed into pages: what this takes does not depend on the age or size of the volume [13].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_control::{Opening, Policy, Seen, opening};
use aurora_page::Lsn;
use aurora_proto::{
    Ack, Inventory, Job, Manifest, MetaStore, NodeId, NodeInfo, NodeSet, Plan, Recovery,
    RecoveryError, Replacement, Writer,
};
use aurora_redo::{History, PgId};
use aurora_store::{Disk, LogEntry, NodeIdentity, NodeStore, Ticket};

use crate::Error;
use crate::create::make_log;
use crate::device::Device;
use crate::hydrate::Hydration;
use crate::layout;
use crate::metastore::DirMetaStore;
use crate::node::Node;
use crate::open::{BYTES_IN_FLIGHT_MAX, OpenLog, Opened, Site, identity, node_config};
use crate::restore::{anew, restore_copies};

/// Six directories of one machine are rebuilt as soon as a read quorum is there: waiting would not bring them back.
const REBUILD: Policy = Policy {
    rebuild_from_read_quorum: true,
};

/// Brings the cluster of a manifest to work again, or opens it for reading where too few copies are left to write.
pub(crate) fn recover(
    site: Site,
    meta: DirMetaStore,
    manifest: Manifest,
    logs: Vec<OpenLog>,
    read_only: bool,
) -> Result<Opened, Error> {
    let found = survey(&site, &manifest, &logs)?;
    if read_only {
        let reason = "it was opened with read_only=True".into();
        return open_for_reading(site, meta, manifest, found, logs, reason);
    }
    // Decided before anything is changed: a cluster that cannot open is left as it was found.
    let seen: Vec<_> = manifest
        .nodes
        .iter()
        .map(|info| (info.id, look(&site, info, &found)))
        .collect();
    let replace = match opening(&manifest, &seen, REBUILD) {
        Opening::RecreateAndHydrate { replace, .. } => replace,
        Opening::ReadOnly { .. } => {
            let reason = too_few(&manifest, ids(&found)).to_string();
            return open_for_reading(site, meta, manifest, found, logs, reason);
        }
        Opening::Refuse { .. } => return Err(too_few(&manifest, ids(&found))),
    };
    let recovering = manifest.recovering();
    meta.cas(manifest.version, &recovering)?;
    let (nodes, replace, failed) = all_nodes(&site, &recovering, found, replace);
    let devices = make_devices(&site, &recovering, logs, &replace)?;
    nodes
        .iter()
        .filter(|node| device_of(&devices, node.id()).is_none())
        .for_each(|node| node.silence("its log is gone"));
    let mut recovery = Recovery::new(&recovering, &replace)
        .map_err(|error| refused(&recovering, &nodes, error))?;
    for inventory in fence(&recovering, &nodes, &devices, &replace)? {
        recovery
            .on_inventory(inventory)
            .map_err(|error| refused(&recovering, &nodes, error))?;
    }
    let mut plan = recovery
        .plan()
        .map_err(|error| refused(&recovering, &nodes, error))?;
    if !plan.can_open() {
        if let Some(error) = failed {
            return Err(error);
        }
        let reason = too_few(&recovering, ids(&nodes)).to_string();
        let writer = plan.writer_start(&recovering, BYTES_IN_FLIGHT_MAX);
        let manifest = recovering;
        return Ok(Opened {
            site,
            meta,
            manifest,
            writer,
            nodes,
            devices,
            jobs: vec![],
            read_only: Some(reason),
            borrowed: None,
        });
    }
    let jobs = replicate(&recovering, &nodes, &devices, &mut plan)?;
    let opened = plan.opened().map_err(|error| Error::Corrupt {
        detail: error.to_string(),
    })?;
    meta.cas(recovering.version, &opened)?;
    install(&opened, &nodes, &devices)?;
    let writer = plan.writer_start(&opened, BYTES_IN_FLIGHT_MAX);
    Ok(Opened {
        site,
        meta,
        manifest: opened,
        writer,
        nodes,
        devices,
        jobs,
        read_only: None,
        borrowed: None,
    })
}

/// The nodes whose directories are there and theirs, each with its copies.
fn survey(site: &Site, manifest: &Manifest, logs: &[OpenLog]) -> Result<Vec<Arc<Node>>, Error> {
    let mut nodes = Vec::new();
    for info in &manifest.nodes {
        let Some(log) = logs.iter().find(|log| log.nodes.contains(info.id)) else {
            continue;
        };
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
fn open_node(
    site: &Site,
    manifest: &Manifest,
    info: &NodeInfo,
    entries: &[LogEntry],
) -> Result<Option<Node>, Error> {
    let dir = layout::node_dir(&site.dir, info);
    match NodeIdentity::read(&*site.disk, &dir) {
        Ok(found) if found == identity(manifest, info) => {}
        Err(aurora_store::StoreError::NewerFormat {
            path,
            expected,
            got,
        }) => {
            return Err(Error::NewerFormat {
                path,
                expected: expected.into(),
                got: got.into(),
            });
        }
        Ok(_) | Err(_) => return Ok(None),
    }
    let opened = NodeStore::open(
        site.disk.clone(),
        &dir,
        manifest.cluster,
        info.id,
        node_config(manifest),
    );
    let store = match opened {
        Ok(store) => store,
        Err(aurora_store::StoreError::NewerFormat {
            path,
            expected,
            got,
        }) => {
            return Err(Error::NewerFormat {
                path,
                expected: expected.into(),
                got: got.into(),
            });
        }
        Err(_) => return Ok(None),
    };
    let Ok(copies) = restore_copies(manifest, info.id, &store, entries) else {
        return Ok(None);
    };
    let device = site
        .disk
        .device_of(&dir)
        .map_err(|source| Error::io(&dir, source))?;
    Ok(Some(Node::new(info.clone(), dir, device, store, copies)))
}

/// What is where a node should be. Device numbers change between mounts: living neighbours of the same recorded device tell what
/// its number is now.
pub(crate) fn look(site: &Site, info: &NodeInfo, found: &[Arc<Node>]) -> Seen {
    if found.iter().any(|node| node.id() == info.id) {
        return Seen::Living;
    }
    let dir = layout::node_dir(&site.dir, info);
    let standing = dir.ancestors().find(|path| site.disk.exists(path));
    let Some(device) = standing.and_then(|path| site.disk.device_of(path).ok()) else {
        return Seen::Unknown;
    };
    let mut neighbours = found
        .iter()
        .filter(|node| node.info.device == info.device)
        .peekable();
    let renumbered = neighbours.peek().is_some();
    match neighbours.any(|node| node.device == device) {
        true => Seen::Lost {
            device: info.device,
        },
        false if renumbered => Seen::Unknown,
        false => Seen::Lost { device },
    }
}

/// The nodes that answer.
fn ids(nodes: &[Arc<Node>]) -> NodeSet {
    nodes
        .iter()
        .filter(|node| node.acknowledges())
        .map(|node| node.id())
        .collect()
}

/// The nodes found, and empty ones in the place of those to be rebuilt; which those are, and what kept the others from being made:
/// a disk that is broken or full leaves its nodes away, and the cluster opens if the rest is enough.
fn all_nodes(
    site: &Site,
    manifest: &Manifest,
    found: Vec<Arc<Node>>,
    replace: Vec<Replacement>,
) -> (Vec<Arc<Node>>, Vec<Replacement>, Option<Error>) {
    let mut nodes = found;
    let mut failed = None;
    let mut made = Vec::with_capacity(replace.len());
    for replacement in replace {
        // Of nothing before the fence that is to come.
        match make_anew(site, manifest, &replacement.with, 0) {
            Ok(node) => {
                nodes.push(Arc::new(node));
                made.push(replacement);
            }
            Err(error) => failed = Some(error),
        }
    }
    nodes.sort_by_key(|node| node.id());
    (nodes, made, failed)
}

/// An empty node in the place of a lost one, with this epoch installed.
pub(crate) fn make_anew(
    site: &Site,
    manifest: &Manifest,
    info: &NodeInfo,
    installed: u64,
) -> Result<Node, Error> {
    let dir = layout::node_dir(&site.dir, info);
    if site.disk.exists(&dir) {
        set_aside(site, manifest, info, &dir)?;
    }
    let io = |source| Error::io(&dir, source);
    layout::make_dir(&*site.disk, &dir).map_err(io)?;
    let made = NodeStore::create(
        site.disk.clone(),
        &dir,
        identity(manifest, info),
        node_config(manifest),
    );
    let begun = made.and_then(|store| {
        store
            .flush(&anew(manifest, info.id, installed))
            .map(|_| store)
    });
    let store = begun.inspect_err(|_| {
        // Half a node would be set aside as if it had been one; when it cannot even be removed, it is.
        let _ = site.disk.remove_dir_all(&dir);
    })?;
    let copies = restore_copies(manifest, info.id, &store, &[])?;
    let device = site.disk.device_of(&dir).map_err(io)?;
    Ok(Node::new(info.clone(), dir, device, store, copies))
}

/// What is in the way of a rebuilt node is kept beside it, for whoever wants to know what happened to it: it may hold the last
/// copy of something, so nothing that was set aside earlier is overwritten. Only what an earlier attempt at rebuilding left goes.
fn set_aside(site: &Site, manifest: &Manifest, info: &NodeInfo, dir: &Path) -> Result<(), Error> {
    let io = |source| Error::io(dir, source);
    let attempt = |found: NodeIdentity| {
        (found.cluster, found.node) == (manifest.cluster, info.id)
            && found.incarnation >= info.incarnation
    };
    if NodeIdentity::read(&*site.disk, dir).is_ok_and(attempt) {
        return site.disk.remove_dir_all(dir).map_err(io);
    }
    let free = (1..)
        .map(|n| kept_name(dir, n))
        .find(|kept| !site.disk.exists(kept));
    free.map_or(Ok(()), |kept| site.disk.rename(dir, &kept))
        .map_err(io)
}

/// The name under which a node's directory is kept that was in the way.
fn kept_name(dir: &Path, n: usize) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".damaged-{n}"));
    PathBuf::from(name)
}

/// How many directories of a node are kept aside.
pub(crate) fn set_aside_already(disk: &dyn Disk, dir: &Path) -> usize {
    (1..)
        .take_while(|n| disk.exists(&kept_name(dir, *n)))
        .count()
}

fn make_devices(
    site: &Site,
    manifest: &Manifest,
    logs: Vec<OpenLog>,
    replace: &[Replacement],
) -> Result<Vec<Arc<Device>>, Error> {
    let rebuilt: Vec<PathBuf> = replace
        .iter()
        .map(|r| layout::node_dir(&site.dir, &r.with))
        .collect();
    let mut devices = Vec::new();
    for OpenLog {
        path, nodes, log, ..
    } in logs
    {
        let others = nodes.len() < manifest.nodes.len();
        // A log within a directory that was set aside or is gone went with it.
        let log = match log.filter(|_| rebuilt.iter().all(|dir| !path.starts_with(dir))) {
            Some(log) => log,
            None if path.parent().is_some_and(|node| site.disk.exists(node)) => {
                match make_log(site, manifest, &path, nodes) {
                    Ok(log) => log,
                    Err(_) if others => continue,
                    Err(error) => return Err(error.into()),
                }
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
fn fence(
    manifest: &Manifest,
    nodes: &[Arc<Node>],
    devices: &[Arc<Device>],
    replace: &[Replacement],
) -> Result<Vec<Inventory>, Error> {
    let history = Arc::new(manifest.history.clone());
    let mut inventories = Vec::new();
    for device in devices {
        let here: Vec<_> = nodes
            .iter()
            .filter(|node| device.nodes.contains(node.id()))
            .collect();
        match fence_device(manifest, &history, &here, device, replace) {
            Ok(answers) => inventories.extend(answers),
            Err(error) => give_up(&here, devices, error)?,
        }
    }
    Ok(inventories)
}

/// A device that fails while the cluster opens is lost with its nodes, as long as there are others.
fn give_up(nodes: &[&Arc<Node>], devices: &[Arc<Device>], error: Error) -> Result<(), Error> {
    if devices.len() == 1 {
        return Err(error);
    }
    let why = error.to_string();
    nodes.iter().for_each(|node| node.silence(&why));
    Ok(())
}

fn fence_device(
    manifest: &Manifest,
    history: &Arc<History>,
    nodes: &[&Arc<Node>],
    device: &Device,
    replace: &[Replacement],
) -> Result<Vec<Inventory>, Error> {
    let mut tickets = Vec::new();
    for node in nodes {
        let fenced = node.with_copies(|copies| {
            copies
                .iter_mut()
                .map(|copy| copy.fence(manifest.epoch, history))
                .collect::<Result<Vec<_>, _>>()
        });
        let fenced = fenced.map_err(|refuse| Error::Corrupt {
            detail: format!("{}: {refuse}", node.id()),
        })?;
        let ticket = |(pg, fence): (usize, &aurora_proto::FenceTicket)| Ticket {
            node: node.id(),
            pg: PgId(pg as u32),
            number: fence.ticket,
        };
        tickets.extend(fenced.iter().enumerate().map(ticket));
    }
    let of: NodeSet = nodes.iter().map(|node| node.id()).collect();
    let tickets = tickets.into();
    // What the log has of a lost node is none of the one that was made in its place.
    let anew = replace.iter().filter(|made| of.contains(made.with.id));
    let mut entries: Vec<LogEntry> = anew
        .map(|made| LogEntry::Anew {
            node: made.with.id,
            incarnation: made.with.incarnation,
        })
        .collect();
    entries.push(LogEntry::Fence {
        nodes: of,
        tickets,
        epoch: manifest.epoch,
        history: manifest.history.clone(),
    });
    let tokens = device.append(&entries)?.tokens;
    let answers = tokens.into_iter().filter_map(|token| {
        let node = nodes.iter().find(|node| node.id() == token.node())?;
        node.with_copies(|copies| {
            copies
                .get_mut(token.pg().0 as usize)
                .and_then(|copy| copy.fenced(token))
        })
    });
    Ok(answers.collect())
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
            Err(error) => {
                failed = Some(error);
                later.push(job);
            }
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
    hydration(manifest, nodes, devices, job, vdl, fenced)?.run(job)
}

/// What does a job, at once or step by step.
pub(crate) fn hydration<'a>(
    manifest: &Manifest,
    nodes: &'a [Arc<Node>],
    devices: &'a [Arc<Device>],
    job: &Job,
    vdl: Lsn,
    fenced: bool,
) -> Result<Hydration<'a>, Error> {
    let find = |id: NodeId| {
        let node = nodes.iter().find(|node| node.id() == id);
        node.filter(|node| node.answers())
    };
    let (Some(from), Some(to), Some(device)) =
        (find(job.from), find(job.to), device_of(devices, job.to))
    else {
        return Err(Error::Corrupt {
            detail: format!("no way from {} to {}", job.from, job.to),
        });
    };
    let epoch = manifest.epoch;
    Ok(Hydration {
        from,
        to,
        device,
        epoch,
        vdl,
        nodes,
        segment_pages: manifest.segment_pages,
        fenced,
    })
}

/// Every copy takes the epoch with its History, and logs it, before it takes anything of the epoch.
fn install(manifest: &Manifest, nodes: &[Arc<Node>], devices: &[Arc<Device>]) -> Result<(), Error> {
    let history = Arc::new(manifest.history.clone());
    for device in devices {
        let here: Vec<_> = nodes
            .iter()
            .filter(|node| device.nodes.contains(node.id()))
            .collect();
        let of: NodeSet = here.iter().map(|node| node.id()).collect();
        let entry = LogEntry::Install {
            nodes: of,
            tickets: Default::default(),
            epoch: manifest.epoch,
            history: manifest.history.clone(),
        };
        device
            .append(&[entry])
            .map(drop)
            .or_else(|error| give_up(&here, devices, error.into()))?;
    }
    for node in nodes {
        let installed = node.with_copies(|copies| {
            copies
                .iter_mut()
                .try_for_each(|c| c.install(manifest.epoch, &history))
        });
        installed.map_err(|refuse| Error::Corrupt {
            detail: format!("{}: {refuse}", node.id()),
        })?;
    }
    Ok(())
}

/// Opens what is there for reading: nothing is fenced or written, and another owner may open the cluster afterwards.
fn open_for_reading(
    site: Site,
    meta: DirMetaStore,
    manifest: Manifest,
    nodes: Vec<Arc<Node>>,
    logs: Vec<OpenLog>,
    reason: String,
) -> Result<Opened, Error> {
    let recovering = manifest.recovering();
    let mut recovery =
        Recovery::new(&recovering, &[]).map_err(|error| refused(&manifest, &nodes, error))?;
    for node in &nodes {
        for inventory in node.with_copies(|copies| {
            copies
                .iter()
                .map(|copy| copy.survey(recovering.epoch))
                .collect::<Vec<_>>()
        }) {
            recovery
                .on_inventory(inventory)
                .map_err(|error| refused(&manifest, &nodes, error))?;
        }
    }
    let plan = recovery
        .plan()
        .map_err(|error| refused(&manifest, &nodes, error))?;
    let writer = plan.writer_start(&manifest, BYTES_IN_FLIGHT_MAX);
    let devices = logs
        .into_iter()
        .filter_map(|log| log.log)
        .map(|log| Arc::new(Device::new(log)))
        .collect();
    Ok(Opened {
        site,
        meta,
        manifest,
        writer,
        nodes,
        devices,
        jobs: Vec::new(),
        read_only: Some(reason),
        borrowed: None,
    })
}

/// The first acknowledgements of a writer: what every copy has, so that reads find their copies.
pub(crate) fn first_acks(writer: &mut Writer, nodes: &[Arc<Node>]) {
    for node in nodes.iter().filter(|node| node.has_log()) {
        for ack in node.with_copies(|copies| {
            copies
                .iter()
                .map(aurora_proto::Copy::ack)
                .collect::<Vec<_>>()
        }) {
            writer.on_ack(
                ack.node,
                &Ack {
                    epoch: writer.epoch(),
                    ..ack
                },
            );
        }
    }
}

fn refused(manifest: &Manifest, nodes: &[Arc<Node>], error: RecoveryError) -> Error {
    match error {
        RecoveryError::NotEnough { .. } => too_few(manifest, ids(nodes)),
        other => Error::Corrupt {
            detail: other.to_string(),
        },
    }
}

/// The error that names the missing nodes, when these are there.
pub(crate) fn too_few(manifest: &Manifest, living: NodeSet) -> Error {
    let missing = |info: &&NodeInfo| !living.contains(info.id);
    Error::QuorumLost {
        have: living.len(),
        of: manifest.nodes.len(),
        need: manifest.nodes.len() / 2 + 1,
        missing: manifest.nodes.iter().filter(missing).map(|info| info.path.clone()).collect(),
        hint: "bring the directories back (mount their disks, restore them) and open the cluster again".into(),
    }
}
