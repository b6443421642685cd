//! Threads that wait for the VDL: each is woken once, when its commit is durable or when it is its turn to lead.
//!
//! There is no lost wake-up. A waiter registers, then looks at the VDL and tries for the lead once more, then parks. A leader
//! publishes the VDL, gives the lead free, then wakes. So either the waiter's second look sees what the leader did,
//! or the leader's wake sees the waiter.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use aurora_page::Lsn;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// One thread's parking place.
pub(crate) struct Parker {
    thread: Thread,
    woken: AtomicBool,
}

thread_local! {
    static PARKER: RefCell<Option<Arc<Parker>>> = const { RefCell::new(None) };
}

impl Parker {
    /// The calling thread's place, made once a thread.
    pub(crate) fn current() -> Arc<Parker> {
        PARKER.with_borrow_mut(|place| {
            place
                .get_or_insert_with(|| {
                    Arc::new(Parker {
                        thread: std::thread::current(),
                        woken: AtomicBool::new(false),
                    })
                })
                .clone()
        })
    }

    /// Waits until it is woken or `limit` has passed; true when woken.
    pub(crate) fn park(&self, limit: Duration) -> bool {
        if !self.woken.swap(false, Ordering::Acquire) {
            std::thread::park_timeout(limit);
            return self.woken.swap(false, Ordering::Acquire);
        }
        true
    }

    /// Ends the wait of the place's thread, or its next one.
    pub(crate) fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// The waiting threads of one volume.
#[derive(Default)]
pub(crate) struct Waiters {
    parked: Mutex<Vec<(Lsn, Arc<Parker>)>>,
}

impl Waiters {
    pub(crate) fn register(&self, lsn: Lsn, parker: &Arc<Parker>) {
        self.parked.lock().push((lsn, parker.clone()));
    }

    pub(crate) fn unregister(&self, parker: &Arc<Parker>) {
        self.parked
            .lock()
            .retain(|(_, other)| !Arc::ptr_eq(other, parker));
    }

    /// Wakes every thread whose LSN is durable, and before them one of the others, so that it may lead: the device should not
    /// stand still while the rest is woken.
    pub(crate) fn advance(&self, vdl: Lsn) {
        let mut durable: SmallVec<[Arc<Parker>; 32]> = SmallVec::new();
        let mut parked = self.parked.lock();
        parked.retain(|(lsn, parker)| {
            let waits = *lsn > vdl;
            if !waits {
                durable.push(parker.clone());
            }
            waits
        });
        let next = parked.first().map(|(_, parker)| parker.clone());
        // A woken thread takes this lock first: waking under it would only make it wait again.
        drop(parked);
        next.iter().chain(&durable).for_each(|parker| parker.wake());
    }

    /// Wakes every thread: the volume has failed or is closing, and each finds out for itself.
    pub(crate) fn wake_all(&self) {
        for (_, parker) in self.parked.lock().iter() {
            parker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_park_is_not_lost() {
        let parker = Parker::current();
        parker.wake();
        assert!(parker.park(Duration::from_secs(60)));
        assert!(!parker.park(Duration::from_millis(1)));
    }

    #[test]
    fn an_advance_wakes_the_durable_ones_and_one_leader() {
        let waiters = Waiters::default();
        let places: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(Parker::current)
                    .join()
                    .expect("the thread only makes its place")
            })
            .collect();
        for (place, lsn) in places.iter().zip([5, 9, 7, 10]) {
            waiters.register(Lsn(lsn), place);
        }
        waiters.advance(Lsn(7));
        let woken: Vec<bool> = places
            .iter()
            .map(|p| p.woken.load(Ordering::Acquire))
            .collect();
        assert_eq!(woken, [true, true, true, false]);
        assert_eq!(waiters.parked.lock().len(), 2);
    }
}
