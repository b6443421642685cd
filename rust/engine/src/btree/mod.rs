//! B+trees: rows in leaves, separators above them, and a root page that never moves.
//!
//! ```text
//!                     root (inner, level 2)
//!                    /          |          \
//!              inner (1)     inner (1)    inner (1)
//!              /   |   \
//!           leaf  leaf  leaf                          no sibling links: the separators on the way down say
//!                                                     where the next leaf begins
//! ```
//!
//! - Readers walk a tree as of one read point. All its pages are versions of that point, so they need no latches and
//!   never see half a split.
//! - Writers work at the heads, one MTR at a time, in a [`crate::work::Work`].
//! - A leaf that is full is split by weight; where rows come in ascending order, the old leaf stays full. A leaf that
//!   is less than a quarter full is merged with a sibling under the same parent if the two together leave a quarter
//!   free; an empty one is given back. A root that is full is copied down into two new pages and becomes their parent;
//!   a root with one child takes over the child's content.

mod descend;
mod insert;
mod merge;
mod root;
mod rows;
mod split;
mod upgrade;

pub(crate) use descend::{
    Fences, Pages, child_below, descend, descend_below, descend_with, tree_page,
};
pub(crate) use insert::Found;
pub(crate) use root::Root;
pub(crate) use rows::{first_layout, is_empty_leaf};
pub(crate) use split::separator;
pub(crate) use upgrade::column_map;
