//! When pages changed last, roughly: what a scan keeps of a page is good as long as nothing has changed it.

use std::sync::atomic::{AtomicU64, Ordering};

use aurora_page::{Lsn, PageId};

/// Pages share a place when their numbers are this far apart; sharing one can only make a scan read a page again.
const PLACES: usize = 1 << 16;

/// The newest record of each page, or of one that shares its place.
pub(crate) struct ChangeClock {
    newest: Box<[AtomicU64]>,
}

impl ChangeClock {
    /// A clock that is told of every change after `since`. What was changed up to there it cannot know: every page might have
    /// been, at that very LSN.
    pub(crate) fn new(since: Lsn) -> ChangeClock {
        ChangeClock {
            newest: (0..PLACES).map(|_| AtomicU64::new(since.0)).collect(),
        }
    }

    /// Notes that records up to `lsn` change these pages. To be called before `lsn` can be anybody's read point.
    pub(crate) fn mark(&self, pages: &[PageId], lsn: Lsn) {
        for page in pages {
            self.place(*page).fetch_max(lsn.0, Ordering::AcqRel);
        }
    }

    /// No record after this LSN has changed the page since the volume was opened.
    pub(crate) fn newest(&self, page: PageId) -> Lsn {
        Lsn(self.place(page).load(Ordering::Acquire))
    }

    fn place(&self, page: PageId) -> &AtomicU64 {
        &self.newest[page.0 as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scan of a moment before the volume was opened kept leaves that a later scan took for unchanged.
    #[test]
    fn what_came_before_is_not_known_to_be_unchanged() {
        let clock = ChangeClock::new(Lsn(100));
        assert_eq!(clock.newest(PageId(5)), Lsn(100));
        clock.mark(&[PageId(5)], Lsn(120));
        clock.mark(&[PageId(5)], Lsn(110));
        assert_eq!(clock.newest(PageId(5)), Lsn(120));
        assert_eq!(clock.newest(PageId(6)), Lsn(100));
        assert_eq!(clock.newest(PageId(5 + PLACES as u64)), Lsn(120));
    }
}
