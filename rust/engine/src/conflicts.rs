//! Which keys were changed lately, and when: the answer to "did someone commit this first?".
//!
//! In memory only: a new engine has no old transactions. Keys are kept as 64-bit hashes; two keys of one hash can at
//! worst make a transaction run again.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use aurora_page::{KeyBuf, Lsn, ObjectId};
use rustc_hash::{FxHashMap, FxHasher};

/// Bytes of an entry: once in the map, which is half empty at worst, and once in the log.
const ENTRY_BYTES: u64 = 64;

/// What is known of a key since a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nobody has changed it.
    Unchanged,
    /// Someone has, at this LSN.
    Changed(Lsn),
    /// The index no longer reaches back to the snapshot, but to this LSN.
    Unknown(Lsn),
}

/// Key hash -> newest commit that changed it, within a byte budget.
#[derive(Debug)]
pub(crate) struct Conflicts {
    newest: FxHashMap<u64, Lsn>,
    /// Every note in LSN order, so that the oldest go first.
    log: VecDeque<(Lsn, u64)>,
    entries_max: usize,
    /// Notes at or below it are gone although someone may ask.
    floor: Lsn,
    /// Tables that were loaded as a whole, and when.
    loads: FxHashMap<ObjectId, Lsn>,
    watches: Vec<Watch>,
}

/// Most keys that are watched: more than one MTR should carry over.
const WATCHED_MAX: usize = 10_000;

/// Which keys of a table are changed while a load merges its rows.
#[derive(Debug)]
struct Watch {
    load: u32,
    object: ObjectId,
    /// `None` once there were too many.
    keys: Option<BTreeSet<KeyBuf>>,
}

/// The hash under which a key is kept.
pub(crate) fn key_hash(object: ObjectId, key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    object.hash(&mut hasher);
    key.hash(&mut hasher);
    hasher.finish()
}

impl Conflicts {
    /// An empty index; nothing is known of commits up to `floor`.
    pub fn new(bytes_max: u64, floor: Lsn) -> Conflicts {
        let entries_max = usize::try_from((bytes_max / ENTRY_BYTES).max(1)).unwrap_or(usize::MAX);
        Conflicts {
            newest: FxHashMap::default(),
            log: VecDeque::new(),
            entries_max,
            floor,
            loads: FxHashMap::default(),
            watches: Vec::new(),
        }
    }

    /// Whether the key was changed after `snapshot`.
    pub fn since(&self, hash: u64, snapshot: Lsn) -> Verdict {
        match self.newest.get(&hash) {
            Some(&lsn) if lsn > snapshot => Verdict::Changed(lsn),
            _ if self.floor > snapshot => Verdict::Unknown(self.floor),
            _ => Verdict::Unchanged,
        }
    }

    /// The load of the table after `snapshot`, if there was one: it changed every key.
    pub fn load_since(&self, object: ObjectId, snapshot: Lsn) -> Option<Lsn> {
        self.loads
            .get(&object)
            .copied()
            .filter(|lsn| *lsn > snapshot)
    }

    /// A load of the table was linked at `lsn`.
    pub fn note_load(&mut self, object: ObjectId, lsn: Lsn) {
        self.loads.insert(object, lsn);
        for watch in self.watches.iter_mut().filter(|it| it.object == object) {
            watch.keys = None;
        }
    }

    /// From here on the keys of the table that commits change are kept for this load.
    pub fn watch(&mut self, object: ObjectId, load: u32) {
        let keys = Some(BTreeSet::new());
        self.watches.push(Watch { load, object, keys });
    }

    /// The load has ended.
    pub fn unwatch(&mut self, load: u32) {
        self.watches.retain(|watch| watch.load != load);
    }

    /// Whether any table is watched.
    pub fn is_watching(&self) -> bool {
        !self.watches.is_empty()
    }

    /// A commit changed this key.
    pub fn note_key(&mut self, object: ObjectId, key: &KeyBuf) {
        for watch in self.watches.iter_mut().filter(|it| it.object == object) {
            if let Some(keys) = &mut watch.keys {
                keys.insert(key.clone());
                if keys.len() > WATCHED_MAX {
                    watch.keys = None;
                }
            }
        }
    }

    /// The keys that were changed since the load began to watch; `None` if they were too many.
    pub fn watched(&self, load: u32) -> Option<&BTreeSet<KeyBuf>> {
        let watch = self.watches.iter().find(|watch| watch.load == load)?;
        watch.keys.as_ref()
    }

    /// A commit at `lsn` changed the key.
    pub fn note(&mut self, hash: u64, lsn: Lsn) {
        self.newest.insert(hash, lsn);
        self.log.push_back((lsn, hash));
        while self.log.len() > self.entries_max {
            self.floor = self.floor.max(self.drop_oldest());
        }
    }

    /// No snapshot below `oldest` is open or will be.
    pub fn trim(&mut self, oldest: Lsn) {
        while self.log.front().is_some_and(|(lsn, _)| *lsn <= oldest) {
            self.drop_oldest();
        }
        if !self.loads.is_empty() {
            self.loads.retain(|_, lsn| *lsn > oldest);
        }
    }

    fn drop_oldest(&mut self) -> Lsn {
        let Some((lsn, hash)) = self.log.pop_front() else {
            return Lsn::NONE;
        };
        if self.newest.get(&hash) == Some(&lsn) {
            self.newest.remove(&hash);
        }
        lsn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_committer_wins_and_old_snapshots_are_told() {
        let mut conflicts = Conflicts::new(3 * ENTRY_BYTES, Lsn(10));
        assert_eq!(conflicts.since(1, Lsn(9)), Verdict::Unknown(Lsn(10)));
        assert_eq!(conflicts.since(1, Lsn(10)), Verdict::Unchanged);
        conflicts.note(1, Lsn(12));
        assert_eq!(conflicts.since(1, Lsn(11)), Verdict::Changed(Lsn(12)));
        assert_eq!(conflicts.since(1, Lsn(12)), Verdict::Unchanged);
        assert_eq!(conflicts.since(2, Lsn(11)), Verdict::Unchanged);
        conflicts.note(1, Lsn(13));
        conflicts.note(2, Lsn(14));
        conflicts.note(3, Lsn(15));
        // The note of 12 went over budget; what is asked at 11 can no longer be answered, unless by a newer note.
        assert_eq!(conflicts.since(4, Lsn(11)), Verdict::Unknown(Lsn(12)));
        assert_eq!(conflicts.since(1, Lsn(11)), Verdict::Changed(Lsn(13)));
        assert_eq!(conflicts.since(4, Lsn(12)), Verdict::Unchanged);
    }

    #[test]
    fn what_nobody_can_ask_about_is_dropped_without_raising_the_floor() {
        let mut conflicts = Conflicts::new(1024, Lsn(10));
        conflicts.note(1, Lsn(12));
        conflicts.note(2, Lsn(13));
        conflicts.trim(Lsn(12));
        assert_eq!(conflicts.since(2, Lsn(12)), Verdict::Changed(Lsn(13)));
        assert_eq!(conflicts.since(1, Lsn(12)), Verdict::Unchanged);
        assert_eq!(conflicts.log.len(), 1);
    }

    #[test]
    fn keys_of_different_objects_differ() {
        assert_ne!(key_hash(ObjectId(1), b"key"), key_hash(ObjectId(2), b"key"));
        assert_ne!(key_hash(ObjectId(1), b"key"), key_hash(ObjectId(1), b"kez"));
    }
}
