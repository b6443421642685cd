//! Bytes of a page that rot on one node's disk.

use std::path::PathBuf;

use aurora_store::OpenMode;

use crate::Error;
use crate::cluster::Cluster;

/// Sector that is spoilt.
const SECTOR: usize = 512;

/// What was spoilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Cluster {
    /// Spoils a sector of a layer on a node's disk, drawn by the faults' dice. What is in memory is put into layers first, so that
    /// there is one. Reads go to another copy; scrub, or the first read that comes upon it, has it rebuilt from one.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a node that is not there or has nothing on disk; what the disk says.
    pub fn corrupt_page(&self, node: &str) -> Result<Corruption, Error> {
        self.check_open()?;
        let shared = self.shared();
        let meant = shared.nodes_of(Some(node))?;
        let dice = &shared.volume.late;
        let mut nodes = shared.living();
        nodes.retain(|node| meant.contains(node.id()));
        self.flush_now()?;
        let mut files = Vec::new();
        for node in &nodes {
            let dir = node.dir.join("layers");
            let names = shared.disk.list(&dir);
            let names = names.map_err(|source| Error::io(&dir, source))?;
            files.extend(names.into_iter().map(|name| dir.join(name)));
        }
        if files.is_empty() {
            return Err(Error::InvalidOption {
                option: "node",
                expected: "a node that has pages on disk".into(),
                got: node.to_owned(),
            });
        }
        let path = files.swap_remove(dice.dice().below(files.len() as u64) as usize);
        let io = |source| Error::io(&path, source);
        let file = shared.disk.open(&path, OpenMode::ReadWrite).map_err(io)?;
        // The first half: that is data, the directory of a layer is at its end.
        let len = file.len().map_err(io)? / 2;
        let offset = dice.dice().below(len.max(1));
        let mut sector = vec![0; SECTOR.min((len - offset).max(1) as usize)];
        file.read_exact_at(&mut sector, offset).map_err(io)?;
        sector.iter_mut().for_each(|byte| *byte ^= 0x5a);
        file.write_all_at(&sector, offset).map_err(io)?;
        file.sync_data().map_err(io)?;
        let done = Corruption {
            bytes: sector.len() as u64,
            offset,
            path,
        };
        let detail = format!("{} at {}", done.path.display(), done.offset);
        let events = &shared.instances.events;
        events.note("page corrupted", node, Some(detail), None);
        Ok(done)
    }
}
