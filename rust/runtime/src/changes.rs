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
    pub(crate) fn new() -> ChangeClock {
        ChangeClock {
            newest: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
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
