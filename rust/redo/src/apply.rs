//! The one function that changes pages [5].

use aurora_page::Page;

use crate::{Op, Record, RedoError};

/// Does `op` to `page`: no LSN check and no stamp. [`Op::Reference`] answers [`RedoError::NeedsBlob`].
pub fn apply_op(page: &mut Page, op: &Op<'_>) -> Result<(), RedoError> {
    let _ = (page, op);
    unreachable!("page changes come with the page crate's writers")
}

/// Applies `record` to `page`: checks that it follows the page's newest change [5], changes and stamps the page.
pub fn apply(page: &mut Page, record: &Record) -> Result<(), RedoError> {
    let _ = (page, record);
    unreachable!("page changes come with the page crate's writers")
}

/// Applies a record whose op is [`Op::Reference`], with the page of the blob that the caller has fetched.
pub fn apply_reference(page: &mut Page, record: &Record, content: Page) -> Result<(), RedoError> {
    let _ = (page, record, content);
    unreachable!("page changes come with the page crate's writers")
}
