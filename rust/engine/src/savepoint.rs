//! Savepoints: what changes since a place in a transaction have replaced.

use aurora_page::{KeyBuf, ObjectId};
use rustc_hash::FxHashMap;

use crate::error::EngineError;
use crate::txn::{Txn, Write, Writes};

/// A savepoint of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Savepoint(u64);

/// A savepoint that is there, with every change's predecessor since; `None` where there was no change before.
pub(crate) struct Mark {
    id: u64,
    name: Option<String>,
    replaced: FxHashMap<(ObjectId, KeyBuf), Option<Write>>,
}

impl Mark {
    /// Keeps what was there when the savepoint was made. Says whether it did: later changes replace nothing older.
    pub fn keep(&mut self, place: &(ObjectId, KeyBuf), before: Option<Write>) -> bool {
        let is_first = !self.replaced.contains_key(place);
        if is_first {
            self.replaced.insert(place.clone(), before);
        }
        is_first
    }
}

impl Txn {
    /// Makes a savepoint. One of the same name hides an earlier one.
    pub fn savepoint(&mut self, name: Option<String>) -> Result<Savepoint, EngineError> {
        self.check_open("savepoint")?;
        self.writes.savepoints += 1;
        let id = self.writes.savepoints;
        self.writes.marks.push(Mark {
            id,
            name,
            replaced: FxHashMap::default(),
        });
        Ok(Savepoint(id))
    }

    /// The newest savepoint of this name.
    pub fn savepoint_named(&self, name: &str) -> Result<Savepoint, EngineError> {
        let marks = &self.writes.marks;
        let found = marks
            .iter()
            .rev()
            .find(|mark| mark.name.as_deref() == Some(name));
        found
            .map(|mark| Savepoint(mark.id))
            .ok_or_else(|| unknown(&format!("{name:?}")))
    }

    /// Takes back every change since the savepoint, which stays, while those made after it go. Locks stay, and what was
    /// read stays read.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<(), EngineError> {
        self.check_open("rollback to a savepoint")?;
        let at = self.writes.mark(savepoint)?;
        for mark in self.writes.marks.split_off(at + 1).into_iter().rev() {
            self.writes.restore(mark.replaced);
        }
        let replaced = std::mem::take(&mut self.writes.marks[at].replaced);
        self.writes.restore(replaced);
        Ok(())
    }

    /// Forgets the savepoint and those made after it; the changes stay.
    pub fn release(&mut self, savepoint: Savepoint) -> Result<(), EngineError> {
        self.check_open("release of a savepoint")?;
        let at = self.writes.mark(savepoint)?;
        for mark in self.writes.marks.split_off(at) {
            for (place, before) in mark.replaced {
                let bytes = crate::txn::weight_of(&place.1, before.as_ref());
                // What the savepoint before has kept of a place is older.
                let kept = match self.writes.marks.last_mut() {
                    Some(below) => below.keep(&place, before),
                    None => false,
                };
                if !kept {
                    self.writes.saved -= bytes;
                }
            }
        }
        Ok(())
    }

    /// Whether the savepoint is still there.
    pub fn has_savepoint(&self, savepoint: Savepoint) -> bool {
        self.writes.mark(savepoint).is_ok()
    }
}

impl Writes {
    fn mark(&self, savepoint: Savepoint) -> Result<usize, EngineError> {
        let found = self.marks.iter().position(|mark| mark.id == savepoint.0);
        found.ok_or_else(|| unknown(&format!("number {}", savepoint.0)))
    }
}

fn unknown(name: &str) -> EngineError {
    let name = name.to_owned();
    EngineError::UnknownSavepoint { name }
}
