//! What became of commits that were under way when the writer crashed: some are gone, of some nobody was told.

use std::sync::atomic::{AtomicBool, Ordering};

use aurora_page::Lsn;
use parking_lot::Mutex;

/// What the committer of an LSN that has been passed is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is durable.
    Told,
    /// Nothing for now: the writer is about to crash.
    Later,
    /// The writer crashed before it could tell: it is there.
    Untold,
    /// The writer crashed before storage had it: it is not there.
    Gone,
}

#[derive(Default)]
struct Inner {
    gone: Vec<(Lsn, Lsn)>,
    untold: Vec<(Lsn, Lsn)>,
    due: Option<(Lsn, Lsn)>,
}

/// The LSNs of a volume that nobody is told of, or that are gone: stretches, first and last.
#[derive(Default)]
pub(crate) struct Fates {
    any: AtomicBool,
    inner: Mutex<Inner>,
}

fn within((first, last): (Lsn, Lsn), lsn: Lsn) -> bool {
    (first..=last).contains(&lsn)
}

impl Fates {
    /// What is said of an LSN once the volume has passed it.
    #[inline]
    pub(crate) fn of(&self, lsn: Lsn) -> Fate {
        if self.any.load(Ordering::Acquire) {
            self.find(lsn)
        } else {
            Fate::Told
        }
    }

    #[cold]
    fn find(&self, lsn: Lsn) -> Fate {
        let inner = self.inner.lock();
        if inner.gone.iter().any(|range| within(*range, lsn)) {
            Fate::Gone
        } else if inner.untold.iter().any(|range| within(*range, lsn)) {
            Fate::Untold
        } else if inner.due.is_some_and(|range| within(range, lsn)) {
            Fate::Later
        } else {
            Fate::Told
        }
    }

    /// These are gone.
    pub(crate) fn forget(&self, first: Lsn, last: Lsn) {
        let mut inner = self.inner.lock();
        if first <= last {
            inner.gone.push((first, last));
            self.any.store(true, Ordering::Release);
        }
    }

    /// Nobody is told of these until [`Fates::settle_due`].
    pub(crate) fn hold(&self, first: Lsn, last: Lsn) {
        let mut inner = self.inner.lock();
        inner.due = Some((first, last));
        self.any.store(true, Ordering::Release);
    }

    /// Ends what [`Fates::hold`] began: nobody is told, or everybody.
    pub(crate) fn settle_due(&self, crashed: bool) {
        let mut inner = self.inner.lock();
        if let Some(range) = inner.due.take().filter(|_| crashed) {
            inner.untold.push(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_told_later_or_never() {
        let fates = Fates::default();
        fates.hold(Lsn(5), Lsn(7));
        assert_eq!([4, 5, 7, 8].map(|lsn| fates.of(Lsn(lsn))), {
            [Fate::Told, Fate::Later, Fate::Later, Fate::Told]
        });
        fates.settle_due(false);
        assert_eq!(fates.of(Lsn(6)), Fate::Told);
        fates.hold(Lsn(9), Lsn(9));
        fates.settle_due(true);
        fates.forget(Lsn(11), Lsn(10));
        fates.forget(Lsn(20), Lsn(30));
        assert_eq!([6, 9, 10, 11, 25].map(|lsn| fates.of(Lsn(lsn))), {
            [Fate::Told, Fate::Untold, Fate::Told, Fate::Told, Fate::Gone]
        });
    }
}
