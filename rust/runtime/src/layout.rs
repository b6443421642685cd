//! Where things lie in a cluster's directory.
//!
//! ```text
//!   <cluster>/owner.lock                      who has it open
//!   <cluster>/manifest-<version>              one of seven places
//!   <cluster>/sort/                           where loads make the files in which they sort: they have no names for long
//!   <cluster>/log/                            the hot log of all nodes on the cluster directory's device
//!   <cluster>/az1/node1/ ... az3/node6/       a storage node each: manifest, identity, layers, blobs
//!   <node>/log/                               the hot log of a node on a device of its own
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_proto::{Manifest, NodeId, NodeInfo, NodeSet};
use aurora_store::Disk;

use crate::Error;
use crate::options::NodePlacement;

/// Directory of a hot log.
pub(crate) const LOG_DIR: &str = "log";
/// Before the directory of a log in the manifest's settings; the value lists its nodes.
const LOG_KEY: &str = "log:";

/// Makes a directory that stays: the names of all that are made, and its own in any case, are on disk when this returns. What is
/// synced below a name that a crash takes away is gone with it.
pub(crate) fn make_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let made: Vec<&Path> = dir
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !disk.exists(path))
        .collect();
    disk.create_dir_all(dir)?;
    made.into_iter()
        .try_for_each(|path| sync_name(disk, path))?;
    sync_name(disk, dir)
}

/// Makes the name of a directory durable, where the one that holds it may be read.
pub(crate) fn sync_name(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    match disk.sync_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Two nodes in each of three zones, below the cluster's directory.
pub(crate) fn default_nodes() -> Vec<NodePlacement> {
    let place = |n: usize| {
        let az = format!("az{}", n / 2 + 1);
        NodePlacement {
            path: PathBuf::from(format!("{az}/node{}", n + 1)),
            az,
        }
    };
    (0..6).map(place).collect()
}

/// A node's directory.
pub(crate) fn node_dir(cluster: &Path, info: &NodeInfo) -> PathBuf {
    cluster.join(&info.path)
}

/// The seven places of the manifest.
pub(crate) fn places(cluster: &Path, nodes: &[NodeInfo]) -> Vec<PathBuf> {
    std::iter::once(cluster.to_path_buf())
        .chain(nodes.iter().map(|info| node_dir(cluster, info)))
        .collect()
}

/// Decides which nodes share a log: those on the cluster directory's device; a node elsewhere has its own. Kept in the manifest,
/// for device numbers change when disks are mounted anew.
pub(crate) fn assign_logs(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    nodes: &[NodeInfo],
) -> Result<BTreeMap<String, String>, Error> {
    let home = disk
        .device_of(dir)
        .map_err(|source| Error::io(dir, source))?;
    let mut shared = Vec::new();
    let mut config = BTreeMap::new();
    for node in nodes {
        if node.device == home {
            shared.push(node.id.0.to_string());
        } else {
            let own = Path::new(&node.path).join(LOG_DIR);
            config.insert(format!("{LOG_KEY}{}", own.display()), node.id.0.to_string());
        }
    }
    if !shared.is_empty() {
        config.insert(format!("{LOG_KEY}{LOG_DIR}"), shared.join(","));
    }
    Ok(config)
}

/// The logs of a cluster: directory and nodes of each.
pub(crate) fn logs(dir: &Path, manifest: &Manifest) -> Vec<(PathBuf, NodeSet)> {
    let nodes = |list: &String| {
        list.split(',')
            .filter_map(|id| id.parse().ok())
            .map(NodeId)
            .collect()
    };
    let entries = manifest
        .config
        .iter()
        .filter_map(|(key, list)| Some((key.strip_prefix(LOG_KEY)?, list)));
    entries
        .map(|(path, list)| (dir.join(path), nodes(list)))
        .collect()
}
