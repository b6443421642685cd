//! Extents: giving pages to objects and taking them back.
//!
//! The truth lies in the extent-map pages at the start of each segment, changed by records like any page. A user
//! table's extents are listed in the system table `aurora.extents` too, run by run, so that dropping or scanning a table
//! does not search the maps of the whole volume. The system tables' own extents are not listed: they are never dropped,
//! and listing them would need pages while pages are being given.

use aurora_page::planted::{self, Fault};
use aurora_page::{
    ExtentEntry, ExtentRef, ExtentState, InnerRef, LeafRef, Lsn, ObjectId, Page, PageId, PageKind,
    Value, ValueRef, prefix_end,
};
use aurora_proto::Volume;
use aurora_redo::Op;

use crate::btree::{Pages, descend, descend_below, descend_with};
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::space::LOOKS_MAX;
use crate::table::{FIRST_USER_OBJECT, Table, extents_column};

/// Runs that one MTR gives back.
const FREE_RUNS_MAX: usize = 64;

/// A run of extents of one object, within one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first extent.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// The bulk load that fills them; 0 once they are linked.
    pub load: u32,
}

impl Run {
    /// The run in a row of `aurora.extents`.
    pub(crate) fn of_row(leaf: &LeafRef<'_>, rank: usize) -> Run {
        let number = |column: usize| match leaf.value_at(rank, column) {
            ValueRef::Int(number) => number as u64,
            _ => 0,
        };
        Run {
            first: number(extents_column::FIRST),
            count: number(extents_column::COUNT),
            load: number(extents_column::LOAD) as u32,
        }
    }

    fn row(self, object: ObjectId) -> [Value; 4] {
        let number = |number: u64| Value::Int(number as i64);
        [
            number(object.0),
            number(self.first),
            number(self.count),
            number(u64::from(self.load)),
        ]
    }

    pub(crate) fn contains(self, extent: u64) -> bool {
        (self.first..self.first + self.count).contains(&extent)
    }
}

impl Edit<'_> {
    /// Takes a page for `object`, near another one of it if that is possible.
    pub fn allocate(&mut self, object: ObjectId, near: PageId) -> Attempt<PageId> {
        let tried: Vec<u64> = self
            .space
            .extents_of(object, near, &self.geometry)
            .collect();
        for extent in tried {
            if let Some(page) = self.allocate_in(object, extent)? {
                return Ok(page);
            }
        }
        let segment = (near != PageId::default()).then(|| self.geometry.segment_of(near));
        let run = self.take_extents(object, segment, 1, 0)?;
        self.list_run(object, run)?;
        match self.allocate_in(object, run.first)? {
            Some(page) => Ok(page),
            None => Err(self.no_entry(run.first, "a free page in an extent that was just taken")),
        }
    }

    fn allocate_in(&mut self, object: ObjectId, extent: u64) -> Attempt<Option<PageId>> {
        let entry = self.extent(extent)?;
        let ours = entry.owner == object && entry.state == ExtentState::Linked;
        let free = (!entry.used).trailing_zeros();
        if !ours || u64::from(free) >= self.geometry.extent_pages {
            return Ok(None);
        }
        let (map, index) = self.geometry.map_place(extent);
        if !planted::is(Fault::PageNotMarked) {
            self.change(
                map,
                &Op::ExtentUse {
                    extent: index as u32,
                    bit: free as u8,
                },
            )?;
        }
        self.space.fills(object, extent);
        Ok(Some(PageId(
            self.geometry.page_range(extent).start + u64::from(free),
        )))
    }

    /// Gives a page back, and its extent with the last one.
    pub fn release(&mut self, page: PageId) -> Attempt<()> {
        if planted::is(Fault::PageNotReleased) {
            return Ok(());
        }
        let Some(extent) = self.geometry.extent_of(page) else {
            return Err(EngineError::corrupt(
                page,
                self.at,
                "a page of an extent",
                "one of no extent",
            )
            .into());
        };
        let bit = page.0 - self.geometry.page_range(extent).start;
        let (map, index) = self.geometry.map_place(extent);
        self.change(
            map,
            &Op::ExtentRelease {
                extent: index as u32,
                bit: bit as u8,
            },
        )?;
        let entry = self.extent(extent)?;
        if entry.used != 0 {
            self.space.fills(entry.owner, extent);
            return Ok(());
        }
        self.space.forget_object(entry.owner);
        self.set_run(
            Run {
                first: extent,
                count: 1,
                load: 0,
            },
            ObjectId(0),
            ExtentState::Free,
        )?;
        self.unlist_extent(entry.owner, extent)
    }

    /// What the map says of an extent.
    pub fn extent(&self, extent: u64) -> Attempt<ExtentEntry> {
        let (map, index) = self.geometry.map_place(extent);
        let page = self.page(map)?;
        if page.kind() == PageKind::Free {
            return Ok(ExtentEntry::default());
        }
        Ok(ExtentRef::new(&page)?.get(index)?)
    }

    /// Takes up to `count` free extents that lie side by side.
    pub fn take_extents(
        &mut self,
        object: ObjectId,
        near: Option<u64>,
        count: u64,
        load: u32,
    ) -> Attempt<Run> {
        self.space.grow_to(self.segments);
        let mut looks = LOOKS_MAX;
        while let Some((segment, map_page)) = self.space.candidate(near, &mut looks) {
            if let Some((first, free)) = self.find_free(segment, map_page, count)? {
                let state = if load == 0 {
                    ExtentState::Linked
                } else {
                    ExtentState::Loading
                };
                let run = Run {
                    first,
                    count: free,
                    load,
                };
                self.set_run(run, object, state)?;
                return Ok(run);
            }
        }
        Err(Stop::NeedSegment)
    }

    /// The first free extents of a segment, within one map page.
    fn find_free(&mut self, segment: u64, from: u64, count: u64) -> Attempt<Option<(u64, u64)>> {
        let layout: Vec<_> = self
            .geometry
            .map_layout(segment)
            .skip(from as usize)
            .collect();
        for (index, (map, first, extents)) in layout.into_iter().enumerate() {
            self.format_map(map, first, extents)?;
            let found = free_run(&*self.page(map)?, count)?;
            if let Some((free, len)) = found {
                self.space.has_free(segment, from + index as u64);
                return Ok(Some((first + free, len)));
            }
        }
        self.space.is_full(segment);
        Ok(None)
    }

    fn format_map(&mut self, map: PageId, first_extent: u64, count: u32) -> Attempt<()> {
        if self.page(map)?.kind() != PageKind::Free {
            return Ok(());
        }
        self.start(
            map,
            &Op::FormatExtentMap {
                first_extent,
                count,
            },
        )
    }

    /// Makes sure that a segment's map pages are there.
    pub fn format_maps(&mut self, segment: u64) -> Attempt<()> {
        let layout: Vec<_> = self.geometry.map_layout(segment).collect();
        layout
            .into_iter()
            .try_for_each(|(map, first, count)| self.format_map(map, first, count))
    }

    /// Gives extents of an object back, as many as one MTR should; whether those were all.
    pub fn free_runs(&mut self, object: ObjectId) -> Attempt<bool> {
        let runs = self.runs_of(object, FREE_RUNS_MAX + 1)?;
        for run in runs.iter().take(FREE_RUNS_MAX) {
            self.set_run(Run { load: 0, ..*run }, ObjectId(0), ExtentState::Free)?;
            self.unlist_run(object, run.first)?;
        }
        self.space.forget_object(object);
        Ok(runs.len() <= FREE_RUNS_MAX)
    }

    /// The first runs of an object.
    pub fn runs_of(&self, object: ObjectId, max: usize) -> Attempt<Vec<Run>> {
        let table = self.system.extents.clone();
        let mut from = table.key(&[Value::Int(object.0 as i64)])?;
        let end = prefix_end(&from).unwrap_or_default();
        let mut runs = Vec::new();
        while runs.len() < max {
            let choose = |inner: &InnerRef<'_>| inner.child_for(&from).0;
            let (page, fences) = descend_with(self, &table, choose, &mut Default::default())?;
            let leaf = LeafRef::new(&page)?;
            let ranks = leaf.lower_bound(&from)..leaf.lower_bound(&end);
            runs.extend(ranks.map(|rank| Run::of_row(&leaf, rank)));
            match fences.upper {
                Some(upper) if upper < end => from = upper,
                _ => break,
            }
        }
        runs.truncate(max);
        Ok(runs)
    }

    /// Sets owner, load and state of a run of extents, map page by map page.
    pub fn set_run(&mut self, run: Run, owner: ObjectId, state: ExtentState) -> Attempt<()> {
        let (mut next, end) = (run.first, run.first + run.count);
        while next < end {
            let (map, index) = self.geometry.map_place(next);
            let on_page = ExtentRef::new(&*self.page(map)?)?.len() - index;
            let count = (end - next).min(on_page as u64);
            let (first, extents) = (index as u32, count as u32);
            self.change(
                map,
                &Op::ExtentSet {
                    first,
                    count: extents,
                    owner,
                    load: run.load,
                    state,
                },
            )?;
            next += count;
        }
        if state == ExtentState::Free {
            self.space.has_free(
                self.geometry
                    .segment_of(self.geometry.map_place(run.first).0),
                0,
            );
        }
        Ok(())
    }

    /// Notes in `aurora.extents` that a run belongs to a user's table.
    pub fn list_run(&mut self, object: ObjectId, run: Run) -> Attempt<()> {
        if object.0 < FIRST_USER_OBJECT {
            return Ok(());
        }
        let table = self.system.extents.clone();
        if let Some((first, count)) = self.space.run_of(object)
            && run.load == 0
            && first + count == run.first
            && first / self.geometry.extents() == run.first / self.geometry.extents()
            && self.listed(&table, object, first)?
                == Some(Run {
                    first,
                    count,
                    load: 0,
                })
        {
            let longer = Run {
                first,
                count: count + run.count,
                load: 0,
            };
            self.relist(&table, object, longer)?;
            self.space.set_run(object, first, longer.count);
            return Ok(());
        }
        self.insert_run(&table, object, run)?;
        if run.load == 0 {
            self.space.set_run(object, run.first, run.count);
        }
        Ok(())
    }

    /// The run that `aurora.extents` lists with this first extent.
    fn listed(&self, table: &Table, object: ObjectId, first: u64) -> Attempt<Option<Run>> {
        let key = run_key(table, object, first)?;
        let page = descend(self, table, &key, &mut Default::default())?;
        let leaf = LeafRef::new(&page)?;
        Ok(leaf.search(&key).ok().map(|rank| Run::of_row(&leaf, rank)))
    }

    /// Whether exactly this run is listed.
    pub fn is_listed(&self, object: ObjectId, run: Run) -> Attempt<bool> {
        let table = self.system.extents.clone();
        Ok(self.listed(&table, object, run.first)? == Some(run))
    }

    /// Changes count and load of a listed run.
    pub fn relist(&mut self, table: &Table, object: ObjectId, run: Run) -> Attempt<()> {
        let key = run_key(table, object, run.first)?;
        let changes = [
            (extents_column::COUNT as u16, Value::Int(run.count as i64)),
            (extents_column::LOAD as u16, Value::Int(i64::from(run.load))),
        ];
        self.update_row(
            table,
            &key,
            &aurora_page::encode_changes(&table.schema, &changes),
        )
    }

    pub fn insert_run(&mut self, table: &Table, object: ObjectId, run: Run) -> Attempt<()> {
        let key = run_key(table, object, run.first)?;
        self.insert_row(
            table,
            &key,
            &aurora_page::encode_row(&table.schema, &run.row(object)),
        )
    }

    /// Takes a run off the list of an object's extents.
    pub fn unlist_run(&mut self, object: ObjectId, first: u64) -> Attempt<()> {
        let table = self.system.extents.clone();
        let key = run_key(&table, object, first)?;
        self.delete_row(&table, &key)
    }

    /// Takes one extent off the list: its run gets shorter, or falls into two.
    fn unlist_extent(&mut self, object: ObjectId, extent: u64) -> Attempt<()> {
        if object.0 < FIRST_USER_OBJECT {
            return Ok(());
        }
        let table = self.system.extents.clone();
        let above = run_key(&table, object, extent + 1)?;
        let run = match descend_below(self, &table, &above)? {
            Some((page, rank)) => Run::of_row(&LeafRef::new(&page)?, rank),
            None => Run {
                first: 0,
                count: 0,
                load: 0,
            },
        };
        if !run.contains(extent) {
            return Err(self.no_entry(extent, "its run in aurora.extents"));
        }
        let (before, after) = (extent - run.first, run.first + run.count - extent - 1);
        if before == 0 {
            self.unlist_run(object, run.first)?;
        } else {
            self.relist(
                &table,
                object,
                Run {
                    count: before,
                    ..run
                },
            )?;
        }
        if after > 0 {
            self.insert_run(
                &table,
                object,
                Run {
                    first: extent + 1,
                    count: after,
                    ..run
                },
            )?;
        }
        Ok(())
    }

    fn no_entry(&self, extent: u64, expected: &str) -> Stop {
        let (map, index) = self.geometry.map_place(extent);
        let expected = format!("extent {extent} (entry {index}): {expected}");
        EngineError::corrupt(map, self.at, expected, "none").into()
    }
}

impl<V: Volume> Engine<V> {
    /// The extents of a table at a read point: what a scan reads, runs that are being loaded left out.
    pub fn extents_of(&self, table: &Table, at: Lsn) -> Attempt<Vec<Run>> {
        let (extents, view) = (&self.system.extents, self.view(at));
        let prefix = extents.key(&[Value::Int(table.id.0 as i64)])?;
        let end = prefix_end(&prefix).unwrap_or_default();
        let (mut runs, mut from) = (Vec::new(), prefix);
        loop {
            let (page, fences) = descend_with(
                &view,
                extents,
                |inner| inner.child_for(&from).0,
                &mut Lsn::default(),
            )?;
            let leaf = LeafRef::new(&page)?;
            let ranks = leaf.lower_bound(&from)..leaf.lower_bound(&end);
            runs.extend(
                ranks
                    .map(|rank| Run::of_row(&leaf, rank))
                    .filter(|run| run.load == 0),
            );
            match fences.upper {
                Some(upper) if upper < end => from = upper,
                _ => return Ok(runs),
            }
        }
    }
}

fn run_key(table: &Table, object: ObjectId, first: u64) -> Attempt<aurora_page::KeyBuf> {
    Ok(table.key(&[Value::Int(object.0 as i64), Value::Int(first as i64)])?)
}

/// The first free extents of a map page: index of the first, and how many follow each other, at most `max`.
fn free_run(page: &Page, max: u64) -> Attempt<Option<(u64, u64)>> {
    let map = ExtentRef::new(page)?;
    let Some(first) = map.find_free() else {
        return Ok(None);
    };
    let mut len = 0;
    while len < max && first + (len as usize) < map.len() {
        if map.get(first + len as usize)?.state != ExtentState::Free {
            break;
        }
        len += 1;
    }
    Ok(Some((first as u64, len)))
}
