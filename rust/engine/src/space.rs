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

    /// The segment in which to look for a free extent next, with the first map page to look at: near another one, else
    /// the first that may have some, else one that is not known, of which `looks` more may be looked into. A segment
    /// that turns out to have none is to be noted ([`Space::is_full`]) before asking again.
    pub fn candidate(&self, near: Option<u64>, looks: &mut usize) -> Option<(u64, u64)> {
        let place = |segment: usize| match self.segments.get(segment)? {
            Hint::Free { map_page } => Some((segment as u64, *map_page)),
            _ => None,
        };
        let near = near.and_then(|segment| place(usize::try_from(segment).ok()?));
        if let Some(found) = near.or_else(|| (0..self.segments.len()).find_map(place)) {
            return Some(found);
        }
        *looks = looks.checked_sub(1)?;
        // The newest segment is the likeliest to have room.
        let unknown = |segment: &usize| self.segments[*segment] == Hint::Unknown;
        let newest = self.segments.len().checked_sub(1).filter(unknown);
        let found = newest.or_else(|| (0..self.segments.len()).find(unknown))?;
        Some((found as u64, 0))
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
        if let Some(slot) = usize::try_from(segment)
            .ok()
            .and_then(|segment| self.segments.get_mut(segment))
        {
            *slot = hint;
        }
    }

    /// Extents in which the object may have free pages: that of `near`, and the one it filled last.
    pub fn extents_of(
        &self,
        object: ObjectId,
        near: PageId,
        geometry: &Geometry,
    ) -> impl Iterator<Item = u64> + use<> {
        let current = self.current.get(&object).copied();
        let near = geometry
            .extent_of(near)
            .filter(|near| Some(*near) != current);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_to_be_free_comes_before_what_is_unknown_and_few_unknown_are_looked_at() {
        let mut space = Space::default();
        space.grow_to(10);
        let mut looks = LOOKS_MAX;
        let mut looked = Vec::new();
        while let Some((segment, _)) = space.candidate(Some(3), &mut looks) {
            looked.push(segment);
            space.is_full(segment);
        }
        assert_eq!(looked, [9, 0, 1, 2]);
        space.has_free(5, 1);
        space.has_free(3, 0);
        let mut looks = LOOKS_MAX;
        assert_eq!(space.candidate(Some(3), &mut looks), Some((3, 0)));
        assert_eq!(space.candidate(Some(4), &mut looks), Some((3, 0)));
        space.is_full(3);
        assert_eq!(space.candidate(Some(3), &mut looks), Some((5, 1)));
        assert_eq!(looks, LOOKS_MAX);
        // A segment that was added is looked at first.
        space.is_full(5);
        space.grow_to(11);
        assert_eq!(space.candidate(None, &mut looks), Some((10, 0)));
    }
}
