//! What is left over from drops and from bulk loads that never ended: extents to give back, a part at a time.

use aurora_page::planted::{self, Fault};
use aurora_page::{ExtentState, InnerRef, KeyBuf, LeafRef, Lsn, ObjectId, Value, ValueRef};
use aurora_proto::Volume;

use crate::btree::descend_with;
use crate::catalogue::HIDDEN_PREFIX;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::Attempt;
use crate::extents::Run;
use crate::overflow::Chains;
use crate::table::tables_column;

/// Runs that nobody fills any more, with their objects.
type DeadRuns = Vec<(ObjectId, Run)>;

/// Leaves of `aurora.extents` that one step looks at.
const SWEEP_LEAVES: usize = 16;
/// Runs that one step gives back: each is in an extent map of its own at worst, and all of them are in the cache at once.
const SWEEP_RUNS: usize = 16;

impl<V: Volume> Engine<V> {
    /// Gives back extents that nobody uses: of dropped tables, and of bulk loads and indexes under construction that this
    /// engine does not know, so that they ended with an earlier one. Each call is a step; `true` while there may be more. Call it after opening, after
    /// dropping a table, and from time to time.
    pub fn sweep(&self, now_us: i64) -> Attempt<bool> {
        if self.sweep_builds(now_us)? || self.sweep_dropped(now_us)? {
            return Ok(true);
        }
        self.sweep_loads(now_us)
    }

    /// One step for one dropped table; whether there was one.
    fn sweep_dropped(&self, now_us: i64) -> Attempt<bool> {
        let mut chains = Chains::default();
        let step = |edit: &mut Edit<'_>, _: &_| {
            let Some((name, id)) = edit.first_dropped()? else {
                return Ok(false);
            };
            if edit.free_runs(id)? {
                edit.delete_entry(&name, &mut chains)?;
            }
            Ok(true)
        };
        Ok(self.mutate_system(now_us, step, |_, _, _| {})?.0)
    }

    /// One step through `aurora.extents`; whether its end was not reached.
    fn sweep_loads(&self, now_us: i64) -> Attempt<bool> {
        let from = self.committing.lock().sweep_from.clone();
        let (mut dead, next) = self.dead_loads(from)?;
        let is_all = dead.len() <= SWEEP_RUNS;
        dead.truncate(SWEEP_RUNS);
        let free = |edit: &mut Edit<'_>, _: &_| {
            for (object, run) in &dead {
                // Unless it was freed or linked meanwhile.
                if edit.is_listed(*object, *run)? {
                    edit.set_run(Run { load: 0, ..*run }, ObjectId(0), ExtentState::Free)?;
                    edit.unlist_run(*object, run.first)?;
                }
            }
            Ok(())
        };
        self.mutate_system(now_us, free, |_, _, _| {})?;
        if !is_all {
            return Ok(true);
        }
        let more = next.is_some();
        self.committing.lock().sweep_from = next.unwrap_or_default();
        Ok(more)
    }

    /// Runs of loads that are not under way, and where to go on.
    fn dead_loads(&self, mut from: KeyBuf) -> Attempt<(DeadRuns, Option<KeyBuf>)> {
        let view = self.view(self.published());
        let table = &self.system.extents;
        let mut dead = Vec::new();
        for _ in 0..SWEEP_LEAVES {
            let choose = |inner: &InnerRef<'_>| inner.child_for(&from).0;
            let (page, fences) = descend_with(&view, table, choose, &mut Lsn::default())?;
            let leaf = LeafRef::new(&page)?;
            let loads = &self.committing.lock().loads;
            let under_way =
                |load: u32| loads.contains(&load) && !planted::is(Fault::SweepTakesLoads);
            for rank in leaf.lower_bound(&from)..leaf.len() {
                let run = Run::of_row(&leaf, rank);
                if let ValueRef::Int(object) = leaf.value_at(rank, 0)
                    && run.load != 0
                    && !under_way(run.load)
                {
                    dead.push((ObjectId(object as u64), run));
                }
            }
            match fences.upper {
                Some(upper) => from = upper,
                None => return Ok((dead, None)),
            }
        }
        Ok((dead, Some(from)))
    }
}

impl Edit<'_> {
    /// The first dropped table whose extents are not all given back.
    fn first_dropped(&self) -> Attempt<Option<(String, ObjectId)>> {
        let tables = self.system.tables.clone();
        let mut from = tables.key(&[Value::Text(HIDDEN_PREFIX.to_owned())])?;
        loop {
            let choose = |inner: &InnerRef<'_>| inner.child_for(&from).0;
            let (page, fences) = descend_with(self, &tables, choose, &mut Lsn::default())?;
            let leaf = LeafRef::new(&page)?;
            let rank = leaf.lower_bound(&from);
            if rank < leaf.len() {
                let (name, id) = (
                    leaf.value_at(rank, 0),
                    leaf.value_at(rank, tables_column::ID),
                );
                return Ok(match (name, id) {
                    (ValueRef::Text(name), ValueRef::Int(id))
                        if name.starts_with(HIDDEN_PREFIX) =>
                    {
                        Some((name.to_owned(), ObjectId(id as u64)))
                    }
                    _ => None,
                });
            }
            match fences.upper {
                Some(upper) => from = upper,
                None => return Ok(None),
            }
        }
    }
}
