//! A machine: one disk, one log, and the storage nodes whose directories lie on that disk.
//!
//! This is the driver of `proto::Copy`, the log device and the node stores, as `proto::copy` asks for it: receive, log
//! and sync, trade the token for the acknowledgement, hand the fresh records to the page store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_page::Lsn;
use aurora_proto::{ClusterId, Manifest, NodeId, NodeSet};
use aurora_redo::{BlobId, PgId};
use aurora_store::{
    Disk, LogConfig, LogDevice, LogEntry, LogError, MemDisk, NodeConfig, NodeIdentity, NodeStore,
    Roots,
};

use crate::accept::Accepting;
use crate::blobs::reference;
use crate::config::{Config, Planted};
use crate::disk::LyingDisk;
use crate::messages::{InstanceId, ToInstance, ToNode};
use crate::node::Node;

/// The cluster of every world.
pub const CLUSTER: ClusterId = ClusterId(7);
const LOG_DIR: &str = "/disk/log";

/// What a machine wants done.
#[derive(Debug)]
pub enum Out {
    /// An answer to an instance.
    Reply {
        /// The instance.
        to: InstanceId,
        /// From this node.
        node: NodeId,
        /// The answer.
        message: ToInstance,
    },
    /// A message to another node, on behalf of an instance.
    Peer {
        /// The node.
        to: NodeId,
        /// Who gets the answer.
        from: InstanceId,
        /// The message.
        message: ToNode,
    },
    /// Something that must never happen.
    Violation(String),
    /// The disk failed: the machine stops.
    Failed(String),
    /// For the trace.
    Note(String),
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Its disk.
    pub disk: LyingDisk,
    /// Its log while it runs; none if it cannot be read.
    pub log: Option<LogDevice>,
    /// Its nodes while it runs.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Which nodes it has, running or not.
    pub ids: NodeSet,
    /// Does it run?
    pub up: bool,
    /// How often it has started.
    pub boot: u64,
    /// Accepted and not yet on disk.
    pub(crate) pending: Vec<Accepting>,
    /// Does a copy's SCL say more, or less, than the links of its records? Then only its state keeps it, which must be
    /// written before it answers.
    pub(crate) unlinked: bool,
    /// Is a sync on its way?
    pub(crate) syncing: bool,
    /// The highest SCL that each copy has told anybody, while its promise stands [8].
    pub told: BTreeMap<(NodeId, PgId), Lsn>,
    /// The highest epoch that each copy has answered a fence of [12].
    pub promised: BTreeMap<(NodeId, PgId), u64>,
    /// The blobs that its nodes have told anybody that they have.
    pub(crate) blobs: BTreeSet<(NodeId, BlobId)>,
    /// Its disk takes so many times as long.
    pub slow: u64,
    salt: u64,
    pub(crate) config: Config,
}

impl Machine {
    /// A new machine with an empty log and new directories.
    pub fn create(config: &Config, ids: NodeSet, salt: u64) -> Result<Machine, String> {
        let disk = LyingDisk::new(MemDisk::faulty());
        let mut machine = Machine {
            disk,
            log: None,
            nodes: BTreeMap::new(),
            ids,
            up: true,
            boot: 1,
            pending: Vec::new(),
            syncing: false,
            unlinked: false,
            told: BTreeMap::new(),
            promised: BTreeMap::new(),
            blobs: BTreeSet::new(),
            slow: 1,
            salt,
            config: config.clone(),
        };
        machine.create_log()?;
        for id in ids {
            machine.create_node(id, 1, None)?;
        }
        Ok(machine)
    }

    fn arc(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn log_config(&self) -> LogConfig {
        LogConfig {
            file_bytes: self.config.log_file_bytes,
            spare_files_max: 2,
        }
    }

    fn node_config(&self) -> NodeConfig {
        let mut config = NodeConfig::new(self.config.page_bytes, self.config.segment_pages);
        config.cache_bytes = 64 << 10;
        config.fan_in = 3;
        config
    }

    fn create_log(&mut self) -> Result<(), String> {
        let dir = Path::new(LOG_DIR);
        if self.disk.exists(dir) {
            self.disk.remove_dir_all(dir).map_err(|e| e.to_string())?;
        }
        self.salt = self.salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let log = LogDevice::create(self.arc(), dir, self.ids, self.salt, self.log_config());
        self.log = Some(log.map_err(|e| e.to_string())?);
        Ok(())
    }

    /// Makes a node's directory anew. If even the log was lost, it is made anew too.
    /// In the place of a lost one, for the recovery of the manifest given, it is of nothing before that: the log still has what the
    /// one before it wrote.
    pub fn create_node(
        &mut self,
        id: NodeId,
        incarnation: u64,
        anew_for: Option<&Manifest>,
    ) -> Result<(), String> {
        if self.log.is_none() {
            self.create_log()?;
        }
        let dir = node_dir(id);
        self.wipe(id).map_err(|e| e.to_string())?;
        let identity = NodeIdentity {
            cluster: CLUSTER,
            node: id,
            incarnation,
        };
        let store = NodeStore::create(self.arc(), &dir, identity, self.node_config())
            .map_err(|e| e.to_string())?;
        self.pending
            .retain(|accepting| !accepting.entry.nodes().contains(id));
        self.forget(id);
        let mut node = Node::new(id, dir, Some(store));
        if let Some(manifest) = anew_for {
            node.begin_anew(manifest)?;
        }
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Removes a node's directory. A real file system brings a removed directory back as a whole or not at all; the memory
    /// disk knows names only, so each removal is made durable.
    pub fn wipe(&mut self, id: NodeId) -> std::io::Result<()> {
        let dir = node_dir(id);
        if !self.disk.exists(&dir) {
            return Ok(());
        }
        let files = self.disk.mem().files(&dir);
        self.disk.remove_dir_all(&dir)?;
        let parents: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        parents
            .into_iter()
            .try_for_each(|parent| self.disk.sync_dir(parent))
    }

    /// What a node has told no longer binds it: it is lost.
    pub fn forget(&mut self, id: NodeId) {
        self.told.retain(|(node, _), _| *node != id);
        self.promised.retain(|(node, _), _| *node != id);
        self.blobs.retain(|(node, _)| *node != id);
    }

    /// The power goes. What was not synced may be lost or half there, as `seed` decides.
    pub fn crash(&mut self, seed: u64) {
        self.up = false;
        self.log = None;
        self.nodes.clear();
        self.pending.clear();
        self.syncing = false;
        self.unlinked = false;
        self.disk = LyingDisk::new(self.disk.mem().crash(seed));
    }

    /// Starts again from what is on disk. Gives what is worth a note.
    pub fn start(&mut self) -> Result<Vec<String>, String> {
        self.up = true;
        self.boot += 1;
        let mut notes = Vec::new();
        for id in self.ids {
            let dir = node_dir(id);
            let store = NodeStore::open(self.arc(), &dir, CLUSTER, id, self.node_config());
            let store = store
                .map_err(|e| notes.push(format!("{id} is lost: {e}")))
                .ok();
            self.nodes.insert(id, Node::new(id, dir, store));
        }
        let opened = LogDevice::open(
            self.arc(),
            Path::new(LOG_DIR),
            self.ids,
            self.salt,
            self.log_config(),
        );
        match opened {
            Ok((log, replay)) => {
                self.log = Some(log);
                notes.push(format!(
                    "{} entries, healed {:?}, cut {}",
                    replay.entries.len(),
                    replay.healed,
                    replay.cut
                ));
                for node in self.nodes.values_mut() {
                    // Without its links a copy does not know what it has: it is lost.
                    if let Err(error) = node.restore(&replay.entries) {
                        notes.push(format!("{} is lost: {error}", node.id));
                        node.store = None;
                        node.copies.clear();
                    }
                }
            }
            Err(error @ (LogError::Missing { .. } | LogError::Damaged { .. })) => {
                notes.push(format!("the log is lost: {error}"));
                self.nodes.values_mut().for_each(|node| node.store = None);
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(notes)
    }

    /// Checks that no copy has forgotten what it told [8]: `lacks` says whether something of the group lies between
    /// two LSNs.
    pub fn check_told(&self, lacks: impl Fn(PgId, Lsn, Lsn) -> bool) -> Result<(), String> {
        for ((id, pg), told) in &self.told {
            let Some(node) = self.nodes.get(id).filter(|node| node.store.is_some()) else {
                continue;
            };
            let scl = node.copies.get(pg).map_or(Lsn::NONE, |copy| copy.scl());
            if scl < *told && lacks(*pg, scl, *told) {
                return Err(format!(
                    "[8] {id} told that {pg} is complete to {told}, and has it to {scl} after a crash"
                ));
            }
        }
        Ok(())
    }

    /// Checks that no copy has forgotten what it promised [12].
    pub fn check_promised(&self) -> Result<(), String> {
        for ((id, pg), promised) in &self.promised {
            let Some(node) = self.nodes.get(id).filter(|node| node.store.is_some()) else {
                continue;
            };
            let copy = node.copies.get(pg).map(|copy| copy.state().epoch);
            let have = copy.unwrap_or(node.promised);
            if have < *promised {
                return Err(format!(
                    "[12] {id} promised e{promised} for {pg}, and knows of e{have} after a crash"
                ));
            }
        }
        Ok(())
    }

    /// Puts the nodes' memory into layers, and gives up the log before them.
    pub fn flush(&mut self) -> Result<(), String> {
        let Some(log) = &self.log else { return Ok(()) };
        let position = log.position();
        if self.config.has(Planted::TrimBeforeFlush) {
            return log.trim(position).map_err(|e| e.to_string());
        }
        for node in self.nodes.values() {
            if let Some(store) = &node.store
                && store.is_alive()
            {
                store.flush(&node.states()).map_err(|e| e.to_string())?;
            }
        }
        log.trim(position).map_err(|e| e.to_string())?;
        log.prepare().map(drop).map_err(|e| e.to_string())
    }

    /// Is a flush due?
    pub fn wants_flush(&self) -> bool {
        let unflushed = self
            .nodes
            .values()
            .filter_map(|node| node.store.as_ref())
            .map(NodeStore::unflushed_bytes);
        unflushed.max().unwrap_or(0) >= self.config.flush_bytes
    }

    /// Background work on layers. Damage is not its business.
    pub fn tend_layers(&mut self, roots: &Roots) -> Result<(), String> {
        // The store does not know yet of what is on its way to disk, and would take its blobs for remains.
        let refers = |accepting: &Accepting| match &accepting.entry {
            LogEntry::Batch { batch, .. } => batch.records.iter().any(|r| reference(r).is_some()),
            _ => false,
        };
        if self.pending.iter().any(refers) {
            return Ok(());
        }
        for node in self.nodes.values().filter(|node| node.alive()) {
            let Some(store) = &node.store else { continue };
            let hint = node.vdl_hint();
            let roots = Roots {
                vdl: roots.vdl.min(hint),
                ..roots.clone()
            };
            for result in [
                store.compact(64 << 10, &roots),
                store.collect(64 << 10, &roots),
            ] {
                match result {
                    Ok(_) => {}
                    Err(error) if error.other_copy_may_have_it() => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        Ok(())
    }

    /// Which making of a node it is, if it can speak.
    pub fn incarnation(&self, id: NodeId) -> Option<u64> {
        let store = self.nodes.get(&id)?.store.as_ref()?;
        store.is_alive().then(|| store.identity().incarnation)
    }

    /// Is there still to come, or to show, that a write into the node's layers goes astray?
    pub fn is_armed(&self, id: NodeId) -> bool {
        let store = self.nodes.get(&id).and_then(|node| node.store.as_ref());
        let layers = store.map(|store| store.layers()).unwrap_or_default();
        let names: Vec<String> = layers
            .iter()
            .map(|layer| format!("layer-{:016}", layer.layer))
            .collect();
        let in_use = |path: &Path| names.iter().any(|name| path.ends_with(name));
        self.disk.is_armed(&node_dir(id).join("layers"), in_use)
    }

    /// A node that can speak.
    pub fn alive(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&id).filter(|node| node.alive())
    }
}

/// Where a node's directory is.
pub fn node_dir(id: NodeId) -> PathBuf {
    PathBuf::from(format!("/disk/node{}", id.0))
}
