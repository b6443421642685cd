//! Who a directory belongs to.
//!
//! ```text
//!   identity   magic "AUid" | crc u32 of what follows | format u16 | node u16 | zero u32 | incarnation u64 | cluster u128
//! ```
//! A node that is made anew in an empty directory gets a new incarnation: it never speaks for what the old one had. The
//! file stays open while the node runs: when its last name is gone, the directory is gone, and the node is a lost copy.

use std::path::Path;
use std::sync::Arc;

use aurora_page::crc32c;
use aurora_proto::{ClusterId, NodeId};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::StoreError;

/// Name of the file in a node's directory.
pub const IDENTITY_FILE: &str = "identity";
const TEMP: &str = "identity.new";
const MAGIC: &[u8; 4] = b"AUid";
const FORMAT: u16 = 1;
const BYTES: usize = 40;

/// The node that a directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number there.
    pub node: NodeId,
    /// Which making of it.
    pub incarnation: u64,
}

impl NodeIdentity {
    fn encode(&self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[0..4].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[10..12].copy_from_slice(&self.node.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.incarnation.to_le_bytes());
        out[24..40].copy_from_slice(&self.cluster.0.to_le_bytes());
        let crc = crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Writes the identity of a new directory. Whoever finds it half written finds none.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
        let (temp, path) = (dir.join(TEMP), dir.join(IDENTITY_FILE));
        if disk.exists(&temp) {
            disk.remove_file(&temp).map_err(StoreError::io(&temp))?;
        }
        let file = disk
            .open(&temp, OpenMode::Create)
            .map_err(StoreError::io(&temp))?;
        file.write_all_at(&self.encode(), 0)
            .map_err(StoreError::io(&temp))?;
        file.sync_data().map_err(StoreError::io(&temp))?;
        disk.rename(&temp, &path).map_err(StoreError::io(&path))?;
        disk.sync_dir(dir).map_err(StoreError::io(dir))
    }

    /// Reads the identity of a directory.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<NodeIdentity, StoreError> {
        NodeIdentity::read_open(disk, dir).map(|(identity, _)| identity)
    }

    pub(crate) fn read_open(
        disk: &dyn Disk,
        dir: &Path,
    ) -> Result<(NodeIdentity, Arc<dyn DiskFile>), StoreError> {
        let path = dir.join(IDENTITY_FILE);
        if !disk.exists(&path) {
            let (expected, got) = ("a node's directory".into(), "no identity file".into());
            return Err(StoreError::Identity {
                path,
                expected,
                got,
            });
        }
        let file = disk
            .open(&path, OpenMode::Read)
            .map_err(StoreError::io(&path))?;
        let len = file.len().map_err(StoreError::io(&path))?;
        if len != BYTES as u64 {
            return Err(StoreError::corrupt(&path, 0, format!("{BYTES} bytes"), len));
        }
        let mut bytes = [0; BYTES];
        file.read_exact_at(&mut bytes, 0)
            .map_err(StoreError::io(&path))?;
        let stored = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if bytes[0..4] != *MAGIC || crc32c(&bytes[8..]) != stored {
            let got = format!("crc {stored:08x}");
            return Err(StoreError::corrupt(
                &path,
                0,
                format!("AUid, crc {:08x}", crc32c(&bytes[8..])),
                got,
            ));
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        if format != FORMAT {
            return Err(StoreError::NewerFormat {
                path,
                expected: FORMAT,
                got: format,
            });
        }
        let mut incarnation = [0; 8];
        incarnation.copy_from_slice(&bytes[16..24]);
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[24..40]);
        let identity = NodeIdentity {
            cluster: ClusterId(u128::from_le_bytes(cluster)),
            node: NodeId(u16::from_le_bytes([bytes[10], bytes[11]])),
            incarnation: u64::from_le_bytes(incarnation),
        };
        Ok((identity, file))
    }
}
