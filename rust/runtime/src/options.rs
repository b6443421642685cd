//! What a caller asks for when it opens a cluster, and the checks that need no disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::backup::BackupOptions;
use crate::instances::REPLICAS_MAX;

/// Page sizes a volume may have, in bytes.
pub const PAGE_BYTES_ALLOWED: [usize; 3] = [16 << 10, 32 << 10, 64 << 10];
/// A buffer pool below this cannot hold one root-to-leaf path for a few concurrent transactions.
pub const CACHE_BYTES_MIN: u64 = 4 << 20;
/// A segment of fewer pages has no room for its own extent map and some data.
pub const SEGMENT_PAGES_MIN: u64 = 32;
/// The size of a volume's segment unless the caller sets it: 10 GiB, as in Aurora [P17].
pub const SEGMENT_BYTES_DEFAULT: u64 = 10 << 30;
/// An instance that is silent for so long is taken for dead, unless the caller says otherwise.
pub const DETECTION_DEFAULT: Duration = Duration::from_secs(1);
/// A shorter silence happens to the living.
pub const DETECTION_MIN: Duration = Duration::from_millis(10);
/// What is lost together, a zone with its directories, is then found lost together, and what was only moved about may be back.
pub const REBUILD_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// The largest volume: 128 TiB, as in Aurora.
pub const VOLUME_BYTES_MAX: u64 = 128 << 40;

/// The Availability Zone and directory of one storage node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlacement {
    /// The name of the Availability Zone, such as `az1`.
    pub az: String,
    /// The node's directory; relative paths are below the cluster's directory.
    pub path: PathBuf,
}

/// How a cluster is opened. Build it with [`OpenOptions::memory`] or [`OpenOptions::at`], then set fields.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The cluster's directory; `None` keeps everything on memory disks.
    pub path: Option<PathBuf>,
    /// Make the cluster if the directory is missing or empty.
    pub create: bool,
    /// Open without taking an epoch: nothing is written, and writes raise.
    pub read_only: bool,
    /// End the process that holds the directory and take its place.
    pub takeover: bool,
    /// The one region the cluster lives in; fixed when it is made.
    pub region: Option<String>,
    /// Budget of the buffer pool, in bytes.
    pub cache_bytes: u64,
    /// Budget for remembering which keys were changed since the oldest open snapshot, in bytes.
    pub conflict_bytes: u64,
    /// Page size of a new volume, in bytes.
    pub page_bytes: Option<usize>,
    /// Segment size of a new volume, in bytes.
    pub segment_bytes: Option<u64>,
    /// How far back reads at an older LSN or time are served.
    pub window: Option<Duration>,
    /// Six placements for a new volume, two per zone; `None` for `az1/node1` to `az3/node6`.
    pub nodes: Option<Vec<NodePlacement>>,
    /// Background bytes per second that compaction and scrub may use, over all nodes.
    pub background_bytes_per_s: u64,
    /// Replicas to begin with.
    pub replicas: usize,
    /// An instance that is silent for so long is taken for dead.
    pub detection: Duration,
    /// A node that is lost while the cluster is open is made anew after so long; with [`Duration::MAX`] when it is opened again.
    pub rebuild_after: Duration,
    /// Where backups go; without one, the loss of every copy is the loss of everything.
    pub backup: Option<BackupOptions>,
}

impl OpenOptions {
    /// Options of a cluster on memory disks: the same code, nothing kept after close.
    pub fn memory() -> OpenOptions {
        OpenOptions {
            path: None,
            create: true,
            read_only: false,
            takeover: false,
            region: None,
            cache_bytes: 64 << 20,
            conflict_bytes: 16 << 20,
            page_bytes: None,
            segment_bytes: None,
            window: None,
            nodes: None,
            background_bytes_per_s: 256 << 20,
            replicas: 0,
            detection: DETECTION_DEFAULT,
            rebuild_after: REBUILD_AFTER_DEFAULT,
            backup: None,
        }
    }

    /// Options of a cluster in a directory, made if it is missing.
    pub fn at(path: impl Into<PathBuf>) -> OpenOptions {
        OpenOptions {
            path: Some(path.into()),
            ..OpenOptions::memory()
        }
    }

    /// Bytes of leaves that scans may keep: as many as the buffer pool has. It holds none until there is a scan.
    pub(crate) fn scan_cache_bytes(&self) -> u64 {
        self.cache_bytes
    }

    /// Checks what can be checked without looking at a disk.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the option, what it accepts and what it got.
    pub fn check(&self) -> Result<(), Error> {
        self.check_place()?;
        if self.cache_bytes < CACHE_BYTES_MIN {
            return Err(invalid(
                "cache_bytes",
                format!("at least {CACHE_BYTES_MIN}"),
                self.cache_bytes,
            ));
        }
        if let Some(page_bytes) = self.page_bytes
            && !PAGE_BYTES_ALLOWED.contains(&page_bytes)
        {
            return Err(invalid(
                "page_bytes",
                "16384, 32768 or 65536".into(),
                page_bytes,
            ));
        }
        let page_bytes = self.page_bytes.unwrap_or(32 << 10) as u64;
        if let Some(bytes) = self.segment_bytes {
            let least = SEGMENT_PAGES_MIN * page_bytes;
            if bytes < least || bytes % page_bytes != 0 || bytes > SEGMENT_BYTES_DEFAULT {
                let accepts = format!(
                    "a multiple of page_bytes ({page_bytes}) from {least} to {SEGMENT_BYTES_DEFAULT}"
                );
                return Err(invalid("segment_bytes", accepts, bytes));
            }
        }
        if let Some(window) = self.window
            && window > crate::backtrack::WINDOW_MAX
        {
            return Err(invalid(
                "window",
                "0 to 72 hours".into(),
                format!("{window:?}"),
            ));
        }
        if self.background_bytes_per_s == 0 {
            return Err(invalid("background_bytes_per_s", "at least 1".into(), 0));
        }
        if self.replicas > REPLICAS_MAX {
            let accepts = format!("at most {REPLICAS_MAX}");
            return Err(invalid("replicas", accepts, self.replicas));
        }
        if self.detection < DETECTION_MIN {
            let accepts = format!("at least {DETECTION_MIN:?}");
            return Err(invalid(
                "detection",
                accepts,
                format!("{:?}", self.detection),
            ));
        }
        if let Some(backup) = &self.backup {
            backup.check()?;
            self.path
                .iter()
                .try_for_each(|path| backup.check_beside(path))?;
        }
        self.check_nodes()
    }

    /// Where it is, and how it is owned.
    fn check_place(&self) -> Result<(), Error> {
        let placed = self.nodes.iter().flatten().map(|node| &node.path);
        if let Some(path) = self.path.iter().chain(placed).find(|path| has_nul(path)) {
            let accepts = "a path without a NUL byte".into();
            return Err(invalid("path", accepts, format!("{path:?}")));
        }
        if self.read_only && self.takeover {
            let accepts = "False with read_only=True, which takes no ownership".into();
            return Err(invalid("takeover", accepts, "True"));
        }
        match self.region.as_deref().map(str::trim) {
            Some("") => Err(invalid("region", "a name".into(), "an empty one")),
            _ => Ok(()),
        }
    }

    /// Six copies, two in each of three zones, each in a directory of its own [10].
    fn check_nodes(&self) -> Result<(), Error> {
        let Some(nodes) = &self.nodes else {
            return Ok(());
        };
        if nodes.len() != 6 {
            return Err(invalid(
                "nodes",
                "6 placements, two in each of 3 zones".into(),
                nodes.len(),
            ));
        }
        for node in nodes {
            let in_zone = nodes.iter().filter(|other| other.az == node.az).count();
            if in_zone != 2 {
                return Err(invalid(
                    "nodes",
                    "two placements in each zone".into(),
                    format!("{in_zone} in {}", node.az),
                ));
            }
            if nodes.iter().filter(|other| other.path == node.path).count() > 1 {
                return Err(invalid(
                    "nodes",
                    "six different directories".into(),
                    format!("{} twice", node.path.display()),
                ));
            }
        }
        Ok(())
    }
}

fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

fn invalid(option: &'static str, expected: String, got: impl ToString) -> Error {
    Error::InvalidOption {
        option,
        expected,
        got: got.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: OpenOptions) -> &'static str {
        match options.check() {
            Err(Error::InvalidOption { option, .. }) => option,
            other => panic!("expected InvalidOption, got {other:?}"),
        }
    }

    #[test]
    fn each_bad_option_is_named() {
        assert!(OpenOptions::memory().check().is_ok());
        assert_eq!(refused(OpenOptions::at("a\0b")), "path");
        assert_eq!(
            refused(OpenOptions {
                read_only: true,
                takeover: true,
                ..OpenOptions::at("a")
            }),
            "takeover"
        );
        assert_eq!(
            refused(OpenOptions {
                region: Some(" ".into()),
                ..OpenOptions::memory()
            }),
            "region"
        );
        assert_eq!(
            refused(OpenOptions {
                cache_bytes: 1,
                ..OpenOptions::memory()
            }),
            "cache_bytes"
        );
        assert_eq!(
            refused(OpenOptions {
                page_bytes: Some(4096),
                ..OpenOptions::memory()
            }),
            "page_bytes"
        );
        assert_eq!(
            refused(OpenOptions {
                segment_bytes: Some(32768),
                ..OpenOptions::memory()
            }),
            "segment_bytes"
        );
        let node = |az: &str, path: &str| NodePlacement {
            az: az.into(),
            path: path.into(),
        };
        let same = vec![node("a", "x"); 6];
        assert_eq!(
            refused(OpenOptions {
                nodes: Some(same),
                ..OpenOptions::memory()
            }),
            "nodes"
        );
        let five = (0..5).map(|n| node("a", &n.to_string())).collect();
        assert_eq!(
            refused(OpenOptions {
                nodes: Some(five),
                ..OpenOptions::memory()
            }),
            "nodes"
        );
    }
}
