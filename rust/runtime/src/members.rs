//! The nodes of a volume: who is there, who is lost, and who comes in the place of a lost one.

use std::path::Path;
use std::sync::Arc;

use aurora_proto::{NodeId, NodeSet};
use aurora_store::{IDENTITY_FILE, LogError};

use crate::Error;
use crate::device::Device;
use crate::lock::{DirectoryLock, LOCK_FILE};
use crate::node::Node;
use crate::volume::{EmbeddedVolume, Failure, Owner};

impl EmbeddedVolume {
    /// Members that are not here, were found lost, or answer nobody: nothing can be read there.
    pub(crate) fn lost(&self) -> NodeSet {
        self.without(Node::answers)
    }

    /// Members that take no part in commits: those lost, those whose log has failed, those that a fault keeps away.
    pub(crate) fn mute(&self) -> NodeSet {
        self.without(Node::acknowledges)
    }

    /// Members that are lost, and those whose log has failed: they do not come back by themselves.
    pub(crate) fn gone(&self) -> NodeSet {
        self.without(Node::has_log)
    }

    fn without(&self, holds: impl Fn(&Node) -> bool) -> NodeSet {
        let nodes = self.nodes();
        let here = |id: NodeId| nodes.iter().any(|node| node.id() == id && holds(node));
        self.members
            .iter()
            .map(|info| info.id)
            .filter(|id| !here(*id))
            .collect()
    }

    /// The error that names the missing nodes.
    pub(crate) fn quorum_lost(&self) -> Error {
        let lost = self.mute();
        let missing = self.members.iter().filter(|info| lost.contains(info.id));
        Error::QuorumLost {
            have: self.members.len() - lost.len(),
            of: self.members.len(),
            need: self.members.len() / 2 + 1,
            missing: missing.map(|info| info.path.clone()).collect(),
            hint: if self.nodes().iter().any(|node| node.gate.is_on()) {
                "injected faults keep nodes away, which are back when those end".into()
            } else {
                "open the cluster again to rebuild lost directories from the copies that are left, or bring the directories back first"
                    .into()
            },
        }
    }

    /// Names the lock that makes this process the owner of the directory.
    pub(crate) fn set_owner(&self, lock: &Arc<DirectoryLock>, dir: &Path) {
        let _ = self.owner.set(Owner {
            lock: Arc::downgrade(lock),
            file: dir.join(LOCK_FILE),
        });
        self.watch();
    }

    /// Watches the files that are asked for before every acknowledgement, as long as all of them are there.
    fn watch(&self) {
        let Some(owner) = self.owner.get() else {
            return;
        };
        let nodes = self.nodes();
        let identities = nodes.iter().map(|node| node.dir.join(IDENTITY_FILE));
        self.removals
            .watch(identities.chain([owner.file.clone()]), || {
                let held = owner.lock.upgrade().is_some_and(|lock| lock.is_held());
                held && nodes.iter().all(|node| node.is_alive())
            });
    }

    /// The log of a device takes nothing more, and its nodes with it.
    pub(crate) fn device_failed(&self, nodes: &[Arc<Node>], device: &Device, error: &LogError) {
        for node in nodes.iter().filter(|node| device.nodes.contains(node.id())) {
            node.silence(&error.to_string());
        }
        if self.update_lost() {
            self.fail(Failure::LogFailed {
                detail: error.to_string(),
            });
        }
    }

    /// A node is gone: it is not counted any more, and when too few are left, the volume takes no more commits.
    pub(crate) fn lose(&self, node: &Node, why: &str) {
        if node.lose(why) && self.update_lost() {
            self.fail(Failure::QuorumLost);
        }
    }

    /// Tells the writer who is lost; true when a group cannot reach its write quorum any more, whatever comes back.
    pub(crate) fn update_lost(&self) -> bool {
        {
            let mut writer = self.writer.lock();
            // Under the lock: what is newer must not be overwritten by what is older.
            writer.set_lost(self.mute());
        }
        self.is_blocked_without(self.gone())
    }

    /// The directory of a member, as the manifest names it.
    pub(crate) fn path_of(&self, id: NodeId) -> String {
        let info = self.members.iter().find(|info| info.id == id);
        info.map_or_else(|| id.to_string(), |info| info.path.clone())
    }

    /// The nodes that are here, in order of their ids.
    pub(crate) fn nodes(&self) -> Arc<[Arc<Node>]> {
        self.nodes.read().clone()
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.nodes
            .read()
            .iter()
            .find(|node| node.id() == id)
            .cloned()
    }

    /// What these nodes have acknowledged counts no more: they are lost or silent, and are to be made anew. False while there is
    /// something durable that is not on a write quorum of the others.
    pub(crate) fn forget(&self, ids: NodeSet) -> bool {
        self.writer.lock().forget(ids)
    }

    /// A node that was made anew takes the place of the one that was lost. From the next round on it is offered what the others are.
    /// The caller holds the manifest, in which the node is, so the volume does not grow meanwhile, and no branch begins.
    pub(crate) fn replace(&self, node: Arc<Node>) {
        {
            let mut nodes = self.nodes.write();
            let mut next = nodes.to_vec();
            next.retain(|other| other.id() != node.id());
            next.push(node);
            next.sort_by_key(|node| node.id());
            *nodes = next.into();
        }
        self.update_lost();
        self.watch();
    }
}
