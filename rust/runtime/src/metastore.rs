//! The manifest of an embedded cluster: numbered files in seven places, the cluster's directory and the six nodes'.
//!
//! ```text
//!   <place>/manifest-00000000000000000042     one version, created by link(2), never changed
//!   <place>/manifest.tmp                      a version being written
//! ```
//! A version counts when four of the seven places hold it, so an AZ and one directory more may go. Only the holder of the
//! directory's lock writes, so a version that reached fewer than four places can only be the last holder's unfinished change:
//! the next holder completes it. It must not be dropped, because its writer may have seen it succeed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use aurora_proto::{Manifest, ManifestError, MetaError, MetaStore};
use aurora_store::{Disk, OpenMode};
use parking_lot::Mutex;

/// First part of the name of every version.
const PREFIX: &str = "manifest-";
/// A version that is being written.
const TEMP: &str = "manifest.tmp";
/// Old versions kept in each place, for whoever must find out what happened.
const KEPT: usize = 2;

/// Manifests in directories.
pub(crate) struct DirMetaStore {
    disk: Arc<dyn Disk>,
    places: Vec<PathBuf>,
    /// The version seen or written last; the lock on the directory makes this the only writer.
    latest: Mutex<u64>,
}

impl DirMetaStore {
    /// A store in the cluster's directory and its nodes' directories.
    pub(crate) fn new(disk: Arc<dyn Disk>, places: Vec<PathBuf>) -> DirMetaStore {
        DirMetaStore {
            disk,
            places,
            latest: Mutex::new(0),
        }
    }

    /// Any readable manifest below a cluster's directory, to learn where the nodes' directories are: from the directory itself,
    /// else from two levels below it, where nodes lie by default. An error is the reason why none of those found could be read.
    pub(crate) fn discover(
        disk: &Arc<dyn Disk>,
        dir: &Path,
    ) -> Result<Option<Manifest>, ManifestError> {
        let mut unreadable = None;
        let mut places = vec![dir.to_path_buf()];
        for az in disk.list(dir).unwrap_or_default() {
            let az = dir.join(az);
            places.extend(
                disk.list(&az)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|node| az.join(node)),
            );
        }
        let mut best: Option<Manifest> = None;
        for place in places {
            for held in versions_in(disk, &place) {
                match held {
                    Ok(manifest) if best.as_ref().is_none_or(|b| b.version < manifest.version) => {
                        best = Some(manifest)
                    }
                    Ok(_) => {}
                    Err(error) => unreadable = Some(error),
                }
            }
        }
        match (best, unreadable) {
            (_, Some(error @ ManifestError::NewerFormat { .. })) => Err(error),
            (None, Some(error)) => Err(error),
            (best, _) => Ok(best),
        }
    }

    /// The newest version for somebody who writes nothing: not completed where it is unfinished.
    pub(crate) fn peek_latest(&self) -> Result<Option<Manifest>, MetaError> {
        Ok(self.newest()?.map(|(manifest, _)| manifest))
    }

    /// The newest version and how many places hold it. A change that failed may have left another content with the same number
    /// behind: the one that more places hold is the one that counted.
    fn newest(&self) -> Result<Option<(Manifest, usize)>, MetaError> {
        let readable = self
            .places
            .iter()
            .filter(|place| self.disk.list(place).is_ok())
            .count();
        if readable < self.needed() {
            return Err(MetaError::TooFew {
                got: readable,
                needed: self.needed(),
                of: self.places.len(),
            });
        }
        let mut newest: Vec<(Manifest, usize)> = Vec::new();
        let mut unreadable = None;
        for held in self
            .places
            .iter()
            .flat_map(|place| versions_in(&self.disk, place))
        {
            let manifest = match held {
                Ok(manifest) => manifest,
                Err(error @ ManifestError::NewerFormat { .. }) => return Err(error.into()),
                Err(error) => {
                    unreadable = Some(error);
                    continue;
                }
            };
            let version = newest.first().map_or(0, |(known, _)| known.version);
            if manifest.version > version {
                newest.clear();
            }
            match newest.iter_mut().find(|(known, _)| *known == manifest) {
                Some((_, copies)) => *copies += 1,
                None if manifest.version >= version => newest.push((manifest, 1)),
                None => {}
            }
        }
        match (
            newest.into_iter().max_by_key(|(_, copies)| *copies),
            unreadable,
        ) {
            (None, Some(error)) => Err(error.into()),
            (newest, _) => Ok(newest),
        }
    }

    /// How many places must hold a version: four of seven.
    fn needed(&self) -> usize {
        self.places.len() / 2 + 1
    }

    /// Writes a version into every place that can be written; how many there were. The cluster's directory first, then the nodes'
    /// all at once: that takes hardly longer than one of them, as a file system syncs them together.
    fn write_everywhere(&self, manifest: &Manifest) -> (usize, Option<std::io::Error>) {
        let bytes = manifest.encode();
        let write = |place: &PathBuf| self.write_one(place, manifest.version, &bytes);
        let (home, nodes) = self.places.split_at(1);
        let mut results: Vec<_> = home.iter().map(write).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = nodes
                .iter()
                .map(|place| scope.spawn(move || write(place)))
                .collect();
            let ended = |thread: ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(std::io::Error::other("the writing thread panicked")))
            };
            results.extend(threads.into_iter().map(ended));
        });
        let written = results.iter().filter(|result| result.is_ok()).count();
        (written, results.into_iter().find_map(Result::err))
    }

    fn write_one(&self, place: &Path, version: u64, bytes: &[u8]) -> std::io::Result<()> {
        let (temp, target) = (place.join(TEMP), place.join(name_of(version)));
        if self.disk.exists(&target) {
            // A damaged file of the same version stands in the way; this holder's content is the version's only one.
            self.disk.remove_file(&target)?;
        }
        if self.disk.exists(&temp) {
            self.disk.remove_file(&temp)?;
        }
        let file = self.disk.open(&temp, OpenMode::Create)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.disk.link(&temp, &target)?;
        self.disk.remove_file(&temp)?;
        self.disk.sync_dir(place)?;
        self.drop_old(place);
        Ok(())
    }

    /// Removes all but the newest versions; what cannot be removed now goes at the next change.
    fn drop_old(&self, place: &Path) {
        let versions = numbers_in(&self.disk, place);
        for &version in versions.iter().rev().skip(KEPT) {
            let _ = self.disk.remove_file(&place.join(name_of(version)));
        }
    }
}

impl MetaStore for DirMetaStore {
    fn read_latest(&self) -> Result<Option<Manifest>, MetaError> {
        let Some((manifest, copies)) = self.newest()? else {
            return Ok(None);
        };
        if copies < self.needed() {
            let (written, _) = self.write_everywhere(&manifest);
            if written < self.needed() {
                return Err(MetaError::TooFew {
                    got: written,
                    needed: self.needed(),
                    of: self.places.len(),
                });
            }
        }
        *self.latest.lock() = manifest.version;
        Ok(Some(manifest))
    }

    fn cas(&self, expected: u64, next: &Manifest) -> Result<(), MetaError> {
        let mut latest = self.latest.lock();
        if *latest != expected {
            return Err(MetaError::Conflict {
                expected,
                found: *latest,
            });
        }
        let (written, failed) = self.write_everywhere(next);
        if written < self.needed() {
            return Err(match failed {
                Some(error) => MetaError::Store(Box::new(error)),
                None => MetaError::TooFew {
                    got: written,
                    needed: self.needed(),
                    of: self.places.len(),
                },
            });
        }
        *latest = next.version;
        Ok(())
    }
}

fn name_of(version: u64) -> String {
    format!("{PREFIX}{version:020}")
}

fn numbers_in(disk: &Arc<dyn Disk>, place: &Path) -> Vec<u64> {
    let names = disk.list(place).unwrap_or_default();
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The newest versions of a place, readable or not.
fn versions_in(disk: &Arc<dyn Disk>, place: &Path) -> Vec<Result<Manifest, ManifestError>> {
    let read = |version: u64| {
        let file = disk
            .open(&place.join(name_of(version)), OpenMode::Read)
            .ok()?;
        let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Some(Manifest::decode(&bytes))
    };
    numbers_in(disk, place)
        .into_iter()
        .rev()
        .take(KEPT + 1)
        .filter_map(read)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aurora_page::VolumeId;
    use aurora_proto::{ClusterId, NewCluster, NodeId, NodeInfo};
    use aurora_store::MemDisk;

    fn places() -> Vec<PathBuf> {
        std::iter::once(PathBuf::from("/c"))
            .chain((1..=6).map(|n| PathBuf::from(format!("/c/az/node{n}"))))
            .collect()
    }

    fn store(disk: &Arc<dyn Disk>) -> DirMetaStore {
        for place in places() {
            disk.create_dir_all(&place).unwrap();
        }
        DirMetaStore::new(disk.clone(), places())
    }

    fn first() -> Manifest {
        let node = |n: u16| NodeInfo {
            id: NodeId(n),
            az: "az".into(),
            path: format!("az/node{}", n + 1),
            device: 0,
            incarnation: 1,
        };
        Manifest::create(NewCluster {
            cluster: ClusterId(7),
            origin: VolumeId(1),
            region: "eu-central-1".into(),
            page_bytes: 32 << 10,
            segment_pages: 1024,
            window: 100,
            nodes: (0..6).map(node).collect(),
            config: Default::default(),
            created_us: 1,
        })
    }

    #[test]
    fn a_version_survives_three_places_and_is_refused_with_four_gone() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let meta = store(&disk);
        assert!(meta.read_latest().unwrap().is_none());
        meta.cas(0, &first()).unwrap();
        let second = first().recovering();
        meta.cas(1, &second).unwrap();
        for gone in ["/c/az/node1", "/c/az/node2", "/c/az/node3"] {
            disk.remove_dir_all(Path::new(gone)).unwrap();
        }
        let again = DirMetaStore::new(disk.clone(), places());
        assert_eq!(again.read_latest().unwrap(), Some(second));
        disk.remove_dir_all(Path::new("/c/az/node4")).unwrap();
        let error = DirMetaStore::new(disk, places()).read_latest().unwrap_err();
        assert!(
            matches!(
                error,
                MetaError::TooFew {
                    got: 3,
                    needed: 4,
                    of: 7
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_version_that_reached_one_place_is_completed_by_the_next_holder() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let meta = store(&disk);
        meta.cas(0, &first()).unwrap();
        let second = first().recovering();
        meta.write_one(&places()[3], second.version, &second.encode())
            .unwrap();
        let next = DirMetaStore::new(disk.clone(), places());
        assert_eq!(next.read_latest().unwrap(), Some(second.clone()));
        let copies = places()
            .iter()
            .filter(|p| disk.exists(&p.join(name_of(second.version))))
            .count();
        assert_eq!(copies, 7);
        assert!(matches!(
            next.cas(1, &second),
            Err(MetaError::Conflict {
                expected: 1,
                found: 2
            })
        ));
    }

    #[test]
    fn of_two_contents_with_one_number_the_one_in_more_places_counts() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let meta = store(&disk);
        meta.cas(0, &first()).unwrap();
        let (failed, second) = (first().with_config("a", "1"), first().recovering());
        for (n, place) in places().iter().enumerate() {
            let content = if n < 3 { &failed } else { &second };
            meta.write_one(place, content.version, &content.encode())
                .unwrap();
        }
        assert_eq!(
            DirMetaStore::new(disk, places()).read_latest().unwrap(),
            Some(second)
        );
    }

    #[test]
    fn damaged_copies_do_not_count_and_do_not_hide_the_others() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        store(&disk).cas(0, &first()).unwrap();
        for place in &places()[..3] {
            let file = disk
                .open(&place.join(name_of(1)), OpenMode::ReadWrite)
                .unwrap();
            file.write_all_at(b"x", 30).unwrap();
        }
        assert_eq!(
            DirMetaStore::new(disk.clone(), places())
                .read_latest()
                .unwrap(),
            Some(first())
        );
        assert_eq!(
            DirMetaStore::discover(&disk, Path::new("/c")).unwrap(),
            Some(first())
        );
    }
}
