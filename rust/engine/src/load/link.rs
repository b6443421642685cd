//! The end of a load: its extents are linked, and the root takes what was built. One MTR.

use aurora_page::{ExtentState, Lsn, ObjectId};
use aurora_proto::Volume;

use super::{Load, State};
use crate::btree::{Pages, is_empty_leaf};
use crate::conflicts::Conflicts;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::extents::Run;
use crate::txn::Commit;

impl<V: Volume> Engine<V> {
    /// Makes the rows appear, all at once.
    ///
    /// `LoadConflict` where rows came into the empty table, or, into one with rows, what was committed since the load's
    /// base cannot be carried over.
    pub fn load_link(&self, load: &mut Load, now_us: i64) -> Attempt<Commit> {
        load.check(State::Finished, "load_push or load_finish", "load_link")?;
        if !load.waiting.is_empty() || !load.pages.is_empty() {
            let (expected, got) = (
                "take_blob and load_stored until no pages are left",
                "load_link",
            );
            return Err(EngineError::LoadStep {
                table: load.table().name.clone(),
                expected,
                got,
            }
            .into());
        }
        if self.volume.vdl() < load.referenced {
            return Err(Stop::WaitLsn(load.referenced));
        }
        let (id, branch) = (load.id, load.branch);
        let stored = load.over.as_ref().map_or(0, |over| over.rows);
        let grown = load.rows as i64 - stored as i64;
        let table = load.table().clone();
        let (trees, over) = (&load.trees, &mut load.over);
        let (parents, referred) = (&load.parents, &load.referred);
        let link = |edit: &mut Edit<'_>, conflicts: &Conflicts| {
            edit.check_branch(branch)?;
            let head = self.check_loadable(edit, &table)?;
            let carried = match over {
                Some(over) => {
                    let carried = self.changed_since(edit, conflicts, id, &table, over)?;
                    for tree in trees {
                        edit.retire_tree(&tree.table, id)?;
                    }
                    carried
                }
                None if is_empty_leaf(&*edit.page(table.root)?) => Vec::new(),
                None => {
                    return Err(EngineError::LoadConflict {
                        table: table.name.clone(),
                    }
                    .into());
                }
            };
            edit.check_referred(conflicts, id, &table, parents, referred)?;
            edit.count(table.id, grown);
            for tree in trees {
                for run in &tree.runs {
                    edit.link_run(tree.table.id, *run)?;
                }
                match (&tree.root, &over) {
                    (Some(root), _) => edit.fill_root(&tree.table, root)?,
                    (None, Some(_)) => edit.empty_root(&tree.table)?,
                    (None, None) => {}
                }
            }
            match over {
                Some(over) => self.carry_over(edit, &head, over, &carried, referred),
                None => Ok(()),
            }
        };
        let noted =
            |conflicts: &mut Conflicts, lsn: Lsn, _: &()| conflicts.note_load(table.id, lsn);
        let (_, commit) = self.mutate_system(now_us, link, noted)?;
        self.end_load(load);
        Ok(commit.unwrap_or(Commit {
            lsn: load.referenced,
            time_us: now_us,
            after: load.referenced,
        }))
    }

    /// Gives a load up; [`Engine::sweep`] gives its extents back.
    pub fn load_abort(&self, load: &mut Load) {
        if load.state != State::Ended {
            self.end_load(load);
        }
    }

    /// The load is no longer under way: what is still marked as its own, `sweep` gives back.
    fn end_load(&self, load: &mut Load) {
        load.state = State::Ended;
        let mut committing = self.committing.lock();
        committing.loads.remove(&load.id);
        committing.conflicts.unwatch(u64::from(load.id));
        committing.sweep_from = aurora_page::KeyBuf::new();
    }
}

impl Edit<'_> {
    /// Links the extents of a load's run that have pages, and gives the others back.
    fn link_run(&mut self, object: ObjectId, run: Run) -> Attempt<()> {
        self.unlist_run(object, run.first)?;
        let end = run.first + run.count;
        let mut first = run.first;
        while first < end {
            let used = self.extent(first)?.used != 0;
            let mut count = 1;
            while first + count < end && (self.extent(first + count)?.used != 0) == used {
                count += 1;
            }
            let part = Run {
                first,
                count,
                load: 0,
            };
            if used {
                self.set_run(part, object, ExtentState::Linked)?;
                self.list_run(object, part)?;
            } else {
                self.set_run(part, ObjectId(0), ExtentState::Free)?;
            }
            first += count;
        }
        Ok(())
    }
}
