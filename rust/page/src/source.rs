//! Where pages come from.

use std::sync::Arc;

use crate::ids::PageId;
use crate::page::Page;

/// Gives pages as of one read point that the source stands for. A scan reads through it, so that one kernel runs on a
/// storage node's layers and on an engine's buffer pool.
pub trait PageSource {
    /// Why a page cannot be had.
    type Error;

    /// The page at the source's read point. A page that was never written is of kind free.
    fn page(&self, id: PageId) -> Result<Arc<Page>, Self::Error>;

    /// A hint that these pages will be asked for soon, in this order.
    fn prefetch(&self, _ids: &[PageId]) {}
}

impl<S: PageSource + ?Sized> PageSource for &S {
    type Error = S::Error;

    fn page(&self, id: PageId) -> Result<Arc<Page>, Self::Error> {
        (**self).page(id)
    }

    fn prefetch(&self, ids: &[PageId]) {
        (**self).prefetch(ids);
    }
}
