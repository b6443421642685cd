//! Who holds which lock, and who waits for it in which order: a state machine without clock and threads.

use std::collections::VecDeque;
use std::fmt;

use rustc_hash::FxHashMap;

/// A transaction's number, given once in the life of an engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TxnId(pub u64);

impl fmt::Display for TxnId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "transaction {}", self.0)
    }
}

/// What is locked: the hash of a table and a key. Two keys of one hash share a lock, which costs a wait and no more.
pub(crate) type Place = u64;

/// What a lock is called in messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockName {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: String,
}

/// One edge of a circle: a transaction that waits, for which lock, and who holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitsFor {
    /// Who waits.
    pub txn: TxnId,
    /// For which lock.
    pub lock: LockName,
    /// Who holds it.
    pub holder: TxnId,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} waits for table {:?}, key {}, which {} holds",
            self.txn, self.lock.table, self.lock.key, self.holder
        )
    }
}

/// What asking for a lock came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// It was free, or has been handed over.
    Granted,
    /// Another transaction holds it, or is to have it next; nobody was put into the queue.
    Busy(TxnId),
    /// It will be handed over when those before have given it back.
    Queued,
    /// Waiting would close this circle; nobody was put into the queue.
    Deadlock(Vec<WaitsFor>),
}

struct Lock {
    holder: TxnId,
    /// Who gets it next, first come first served.
    queue: VecDeque<TxnId>,
}

struct Wait {
    place: Place,
    name: LockName,
}

/// Exclusive locks. A transaction waits for one lock at a time, so each has at most one edge of the graph of who waits for
/// whom, and a circle is found by following it. There is never one in the table: who would close it is refused.
#[derive(Default)]
pub(crate) struct LockTable {
    locks: FxHashMap<Place, Lock>,
    waits: FxHashMap<TxnId, Wait>,
}

impl LockTable {
    /// Asks for a lock that the transaction does not know to have. With a name it waits for it in the queue; without one
    /// it does not wait. Who asks again while it waits stays where it is in the queue.
    pub fn ask(&mut self, txn: TxnId, place: Place, name: Option<&dyn Fn() -> LockName>) -> Asked {
        let Some(lock) = self.locks.get(&place) else {
            let queue = VecDeque::new();
            self.locks.insert(place, Lock { holder: txn, queue });
            return Asked::Granted;
        };
        let holder = lock.holder;
        if holder == txn {
            return Asked::Granted;
        }
        let Some(name) = name else {
            return Asked::Busy(holder);
        };
        if self.waits.contains_key(&txn) {
            return Asked::Queued;
        }
        let name = name();
        let circle = self.circle(txn, &name, holder);
        if !circle.is_empty() {
            return Asked::Deadlock(circle);
        }
        if let Some(lock) = self.locks.get_mut(&place) {
            lock.queue.push_back(txn);
        }
        self.waits.insert(txn, Wait { place, name });
        Asked::Queued
    }

    /// The circle that waiting for a lock of `holder` would close; empty if there is none.
    fn circle(&self, txn: TxnId, name: &LockName, holder: TxnId) -> Vec<WaitsFor> {
        let lock = name.clone();
        let mut edges = vec![WaitsFor { txn, lock, holder }];
        let mut at = holder;
        while let Some(wait) = self.waits.get(&at) {
            let Some(lock) = self.locks.get(&wait.place) else {
                break;
            };
            edges.push(WaitsFor {
                txn: at,
                lock: wait.name.clone(),
                holder: lock.holder,
            });
            if lock.holder == txn {
                return edges;
            }
            at = lock.holder;
        }
        Vec::new()
    }

    /// Whether the transaction stands in a queue.
    pub fn is_waiting(&self, txn: TxnId) -> bool {
        self.waits.contains_key(&txn)
    }

    /// Takes the transaction out of the queue in which it stands, and says for what it waited, and who holds that. `None`
    /// if it stands in none: the lock has been handed over.
    pub fn leave(&mut self, txn: TxnId) -> Option<(LockName, TxnId)> {
        let wait = self.waits.remove(&txn)?;
        let lock = self.locks.get_mut(&wait.place)?;
        lock.queue.retain(|waiting| *waiting != txn);
        Some((wait.name, lock.holder))
    }

    /// Whether the transaction holds the lock.
    pub fn holds(&self, txn: TxnId, place: Place) -> bool {
        self.locks
            .get(&place)
            .is_some_and(|lock| lock.holder == txn)
    }

    /// Gives back those of the locks that the transaction holds, each to the first in its queue, and says who got one.
    pub fn release(&mut self, txn: TxnId, places: impl Iterator<Item = Place>) -> Vec<TxnId> {
        let mut granted = Vec::new();
        for place in places {
            let Some(lock) = self.locks.get_mut(&place) else {
                continue;
            };
            if lock.holder != txn {
                continue;
            }
            match lock.queue.pop_front() {
                Some(next) => {
                    lock.holder = next;
                    self.waits.remove(&next);
                    granted.push(next);
                }
                None => {
                    self.locks.remove(&place);
                }
            }
        }
        granted
    }

    /// Locks that are held.
    pub fn len(&self) -> usize {
        self.locks.len()
    }
}
