//! Which keys were changed lately, and when: the answer to "did someone commit this first?".
//!
//! In memory only: a new engine has no old transactions. Keys are kept as 64-bit hashes; two keys of one hash can at
//! worst make a transaction run again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

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
    /// The same in key order, while serializable transactions are open.
    ordered: Option<Ordered>,
    /// Shared by the serializable transactions that are open.
    watchers: Arc<()>,
    load_watches: Vec<LoadWatch>,
}

/// Most keys that are watched: more than one MTR should carry over.
const WATCHED_MAX: usize = 10_000;

/// The same of tables that a load's rows refer to: they are looked up only if they are among the parents.
const PARENTS_WATCHED_MAX: usize = 1 << 18;

/// Which keys of a table are changed while a load merges its rows or rests on them, or a rule is checked.
#[derive(Debug)]
struct LoadWatch {
    load: u64,
    object: ObjectId,
    max: usize,
    /// `None` once there were too many.
    keys: Option<BTreeSet<KeyBuf>>,
}

/// Keys in their order with the newest commit that changed them: whether something changed in a range.
#[derive(Debug)]
struct Ordered {
    /// Nothing is known of commits up to here.
    floor: Lsn,
    keys: BTreeMap<(ObjectId, KeyBuf), Lsn>,
    bytes: u64,
    /// Keys that the last sweep left.
    swept: usize,
}

/// Held by a serializable transaction: as long as one is there, changes are kept in key order.
pub(crate) type Watch = Arc<()>;

/// Bytes of a key kept in order beside the key itself.
const ORDERED_BYTES: u64 = 96;
/// Keys below which no sweep is worth while.
const SWEEP_MIN: usize = 1024;

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
            ordered: None,
            watchers: Arc::new(()),
            load_watches: Vec::new(),
        }
    }

    /// From now on, changes are kept in key order too; everything up to `published` is older than whoever asks.
    pub fn watch(&mut self, published: Lsn) -> Watch {
        self.ordered.get_or_insert_with(|| Ordered::new(published));
        self.watchers.clone()
    }

    /// Whether a key of the table from `low` on and below `high` was changed after `snapshot`.
    pub fn range_since(
        &self,
        object: ObjectId,
        low: Option<&KeyBuf>,
        high: Option<&KeyBuf>,
        snapshot: Lsn,
    ) -> Verdict {
        let Some(ordered) = &self.ordered else {
            return Verdict::Unknown(snapshot.next());
        };
        let low = Bound::Included((object, low.cloned().unwrap_or_default()));
        let high = Bound::Excluded(match high {
            Some(high) => (object, high.clone()),
            None => (ObjectId(object.0 + 1), KeyBuf::new()),
        });
        if let (Bound::Included(low), Bound::Excluded(high)) = (&low, &high)
            && low >= high
        {
            return Verdict::Unchanged;
        }
        let found = ordered.keys.range((low, high));
        match found.map(|(_, lsn)| *lsn).find(|lsn| *lsn > snapshot) {
            Some(lsn) => Verdict::Changed(lsn),
            None if ordered.floor > snapshot => Verdict::Unknown(ordered.floor),
            None => Verdict::Unchanged,
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
        let watches = self.load_watches.iter_mut();
        watches
            .filter(|watch| watch.object == object)
            .for_each(|watch| watch.keys = None);
    }

    /// From here on the keys of the table that commits change are kept for this load.
    pub fn watch_for_load(&mut self, object: ObjectId, load: u64) {
        self.watch_keys(object, load, WATCHED_MAX);
    }

    /// The same of a table that the load's rows refer to.
    pub fn watch_parents(&mut self, object: ObjectId, load: u64) {
        self.watch_keys(object, load, PARENTS_WATCHED_MAX);
    }

    fn watch_keys(&mut self, object: ObjectId, load: u64, max: usize) {
        let keys = Some(BTreeSet::new());
        self.load_watches.push(LoadWatch {
            load,
            object,
            max,
            keys,
        });
    }

    /// The load has ended.
    pub fn unwatch(&mut self, load: u64) {
        self.load_watches.retain(|watch| watch.load != load);
    }

    fn note_for_loads(&mut self, object: ObjectId, key: &KeyBuf) {
        let watches = self.load_watches.iter_mut();
        for watch in watches.filter(|watch| watch.object == object) {
            if let Some(keys) = &mut watch.keys {
                keys.insert(key.clone());
                if keys.len() > watch.max {
                    watch.keys = None;
                }
            }
        }
    }

    /// The keys of a table that were changed since the load began to watch; `None` if they were too many.
    pub fn watched(&self, object: ObjectId, load: u64) -> Option<&BTreeSet<KeyBuf>> {
        let is_it = |watch: &&LoadWatch| watch.load == load && watch.object == object;
        let watch = self.load_watches.iter().find(is_it)?;
        watch.keys.as_ref()
    }

    /// The same, and from here on only those that are changed from now on. It is `None` too where nobody has watched: another
    /// engine has taken over the writing.
    pub fn take_watched(&mut self, object: ObjectId, load: u64) -> Option<BTreeSet<KeyBuf>> {
        let is_it = |watch: &&mut LoadWatch| watch.load == load && watch.object == object;
        let Some(watch) = self.load_watches.iter_mut().find(is_it) else {
            self.watch_parents(object, load);
            return None;
        };
        watch.keys.replace(BTreeSet::new())
    }

    /// A commit at `lsn` changed the key.
    pub fn note(&mut self, object: ObjectId, key: &KeyBuf, lsn: Lsn) {
        let hash = key_hash(object, key);
        if self.ordered.is_some() {
            self.note_in_order(object, key, lsn);
        }
        if !self.load_watches.is_empty() {
            self.note_for_loads(object, key);
        }
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
        if let Some(ordered) = &mut self.ordered
            && ordered.keys.len() > 2 * ordered.swept.max(SWEEP_MIN)
        {
            ordered.sweep(oldest);
        }
    }

    fn note_in_order(&mut self, object: ObjectId, key: &KeyBuf, lsn: Lsn) {
        let Some(ordered) = &mut self.ordered else {
            return;
        };
        if Arc::strong_count(&self.watchers) == 1 {
            self.ordered = None;
            return;
        }
        let bytes_max = self.entries_max as u64 * ENTRY_BYTES;
        ordered.bytes += ORDERED_BYTES + key.len() as u64;
        ordered.keys.insert((object, key.clone()), lsn);
        if ordered.bytes > bytes_max {
            self.ordered = Some(Ordered::new(lsn));
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

impl Ordered {
    fn new(floor: Lsn) -> Ordered {
        Ordered {
            floor,
            keys: BTreeMap::new(),
            bytes: 0,
            swept: 0,
        }
    }

    /// Forgets what nobody can ask about, and counts what is left.
    fn sweep(&mut self, oldest: Lsn) {
        self.keys.retain(|_, lsn| *lsn > oldest);
        self.swept = self.keys.len();
        let bytes = |(_, key): &(ObjectId, KeyBuf)| ORDERED_BYTES + key.len() as u64;
        self.bytes = self.keys.keys().map(bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Conflicts {
        fn note_key(&mut self, key: u8, lsn: u64) {
            let key = KeyBuf::from_slice(&[key]);
            self.note(ObjectId(1), &key, Lsn(lsn));
        }

        fn key_since(&self, key: u8, snapshot: u64) -> Verdict {
            self.since(key_hash(ObjectId(1), &[key]), Lsn(snapshot))
        }

        fn range(&self, low: u8, high: Option<u8>, snapshot: u64) -> Verdict {
            let key = |key: u8| KeyBuf::from_slice(&[key]);
            self.range_since(
                ObjectId(1),
                Some(&key(low)),
                high.map(key).as_ref(),
                Lsn(snapshot),
            )
        }
    }

    #[test]
    fn ranges_are_known_while_somebody_watches() {
        let mut conflicts = Conflicts::new(1 << 20, Lsn(10));
        conflicts.note_key(5, 12);
        let watch = conflicts.watch(Lsn(12));
        conflicts.note_key(7, 13);
        assert_eq!(conflicts.range(0, None, 12), Verdict::Changed(Lsn(13)));
        assert_eq!(conflicts.range(0, Some(7), 12), Verdict::Unchanged);
        assert_eq!(conflicts.range(7, Some(8), 12), Verdict::Changed(Lsn(13)));
        assert_eq!(conflicts.range(7, Some(8), 13), Verdict::Unchanged);
        assert_eq!(conflicts.range(8, Some(8), 12), Verdict::Unchanged);
        // Of what was before nothing is known.
        assert_eq!(conflicts.range(0, Some(7), 11), Verdict::Unknown(Lsn(12)));
        drop(watch);
        conflicts.note_key(7, 14);
        assert!(conflicts.ordered.is_none());
    }

    #[test]
    fn ranges_over_budget_are_unknown() {
        let mut conflicts = Conflicts::new(3 * ORDERED_BYTES, Lsn(10));
        let _watch = conflicts.watch(Lsn(10));
        for key in 0..3 {
            conflicts.note_key(key, 11 + u64::from(key));
        }
        assert_eq!(conflicts.range(0, None, 10), Verdict::Unknown(Lsn(13)));
        assert_eq!(conflicts.range(0, None, 13), Verdict::Unchanged);
    }

    #[test]
    fn first_committer_wins_and_old_snapshots_are_told() {
        let mut conflicts = Conflicts::new(3 * ENTRY_BYTES, Lsn(10));
        assert_eq!(conflicts.key_since(1, 9), Verdict::Unknown(Lsn(10)));
        assert_eq!(conflicts.key_since(1, 10), Verdict::Unchanged);
        conflicts.note_key(1, 12);
        assert_eq!(conflicts.key_since(1, 11), Verdict::Changed(Lsn(12)));
        assert_eq!(conflicts.key_since(1, 12), Verdict::Unchanged);
        assert_eq!(conflicts.key_since(2, 11), Verdict::Unchanged);
        conflicts.note_key(1, 13);
        conflicts.note_key(2, 14);
        conflicts.note_key(3, 15);
        // The note of 12 went over budget; what is asked at 11 can no longer be answered, unless by a newer note.
        assert_eq!(conflicts.key_since(4, 11), Verdict::Unknown(Lsn(12)));
        assert_eq!(conflicts.key_since(1, 11), Verdict::Changed(Lsn(13)));
        assert_eq!(conflicts.key_since(4, 12), Verdict::Unchanged);
    }

    #[test]
    fn what_nobody_can_ask_about_is_dropped_without_raising_the_floor() {
        let mut conflicts = Conflicts::new(1024, Lsn(10));
        conflicts.note_key(1, 12);
        conflicts.note_key(2, 13);
        conflicts.trim(Lsn(12));
        assert_eq!(conflicts.key_since(2, 12), Verdict::Changed(Lsn(13)));
        assert_eq!(conflicts.key_since(1, 12), Verdict::Unchanged);
        assert_eq!(conflicts.log.len(), 1);
    }

    #[test]
    fn keys_of_different_objects_differ() {
        assert_ne!(key_hash(ObjectId(1), b"key"), key_hash(ObjectId(2), b"key"));
        assert_ne!(key_hash(ObjectId(1), b"key"), key_hash(ObjectId(1), b"kez"));
    }
}
