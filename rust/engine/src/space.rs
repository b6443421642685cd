//! What the engine remembers about free space. Hints only: the extent maps have the last word.
//!
//! Opening reads no map. A segment is looked at when a page is needed and what is known does not help; at most
//! [`LOOKS_MAX`] unknown ones before the volume is asked to grow, so that a full volume of a thousand segments costs no
//! thousand reads, and yet each is looked at in time.

use aurora_page::{Geometry, ObjectId, PageId};
use rustc_hash::FxHashMap;

/// Unknown segments that one search looks into.
pub(crate) const LOOKS_MAX: usize = 4;

/// Whether a segment may have free extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hint {
    /// Not looked at.
    Unknown,
    /// Looked at: this map page, counted within the segment, or a later one may have some.
    Free { map_page: u64 },
    /// Looked at: none.
    Full,
}

/// Hints for finding free pages and extents.
#[derive(Debug, Default)]
pub(crate) struct Space {
    segments: Vec<Hint>,
    /// The extent that each object filled last.
    current: FxHashMap<ObjectId, u64>,
    /// The run of extents that each object was given last: first, count.
    runs: FxHashMap<ObjectId, (u64, u64)>,
}

impl Space {
    /// The volume has so many segments.
    pub fn grow_to(&mut self, segments: u64) {
        let segments = usize::try_from(segments).unwrap_or(usize::MAX);
        if self.segments.len() < segments {
            self.segments.resize(segments, Hint::Unknown);
        }
    }

    /// Segments in which to look for a free extent, best first, each with the first map page to look at.
    pub fn candidates(&self, near: Option<u64>) -> Vec<(u64, u64)> {
        let place = |segment: usize| match self.segments[segment] {
            Hint::Free { map_page } => Some((segment as u64, map_page)),
            _ => None,
        };
        let mut found = Vec::new();
        let near = near.and_then(|segment| usize::try_from(segment).ok()).filter(|s| *s < self.segments.len());
        found.extend(near.and_then(place));
        found.extend((0..self.segments.len()).find_map(place));
        // The newest segment is the likeliest to have room, so it comes first among the unknown.
        let unknown = (0..self.segments.len()).filter(|segment| self.segments[*segment] == Hint::Unknown);
        let newest = self.segments.len().checked_sub(1).filter(|s| self.segments[*s] == Hint::Unknown);
        found.extend(newest.into_iter().chain(unknown).take(LOOKS_MAX).map(|segment| (segment as u64, 0)));
        found.dedup();
        found
    }

    /// Map page `map_page` of the segment has free extents, earlier ones have none.
    pub fn has_free(&mut self, segment: u64, map_page: u64) {
        self.set(segment, Hint::Free { map_page });
    }

    /// The segment has no free extents.
    pub fn is_full(&mut self, segment: u64) {
        self.set(segment, Hint::Full);
    }

    /// Nothing is known about the segment: what was noted may be wrong.
    pub fn forget(&mut self, segment: u64) {
        self.set(segment, Hint::Unknown);
    }

    fn set(&mut self, segment: u64, hint: Hint) {
        if let Some(slot) = usize::try_from(segment).ok().and_then(|segment| self.segments.get_mut(segment)) {
            *slot = hint;
        }
    }

    /// Extents in which the object may have free pages: that of `near`, and the one it filled last.
    pub fn extents_of(&self, object: ObjectId, near: PageId, geometry: &Geometry) -> impl Iterator<Item = u64> + use<> {
        let current = self.current.get(&object).copied();
        let near = geometry.extent_of(near).filter(|near| Some(*near) != current);
        current.into_iter().chain(near)
    }

    /// The object fills this extent now.
    pub fn fills(&mut self, object: ObjectId, extent: u64) {
        self.current.insert(object, extent);
    }

    /// The run of extents that the object was given last.
    pub fn run_of(&self, object: ObjectId) -> Option<(u64, u64)> {
        self.runs.get(&object).copied()
    }

    /// The object was given this run of extents.
    pub fn set_run(&mut self, object: ObjectId, first: u64, count: u64) {
        self.runs.insert(object, (first, count));
    }

    /// The object is gone, or its hints may be wrong.
    pub fn forget_object(&mut self, object: ObjectId) {
        self.current.remove(&object);
        self.runs.remove(&object);
    }
}
