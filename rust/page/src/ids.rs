//! The numbers by which things are named: log positions, pages, objects, volumes.

use std::fmt;

/// A log sequence number: the place of a record in the log of one volume. Dense within a branch of the History.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// "No record": the previous LSN of a page whose life begins.
    pub const NONE: Lsn = Lsn(0);

    /// Later than every record; the end of an interval that is still open.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The LSN after this one; [`Lsn::MAX`] stays.
    pub const fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }

    /// The LSN before this one; [`Lsn::NONE`] stays.
    pub const fn prev(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }

    /// The LSN `n` places later; stops at [`Lsn::MAX`].
    pub const fn offset(self, n: u64) -> Lsn {
        Lsn(self.0.saturating_add(n))
    }

    /// Whether this is no LSN at all.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A page of a volume. Pages are numbered from 0; a segment is a run of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageId(pub u64);

/// A table or an index: what pages and extents belong to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ObjectId(pub u64);

/// The volume in which a record was written first: its origin. With the LSN it names a record for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct VolumeId(pub u64);

macro_rules! display_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

display_number!(Lsn, PageId, ObjectId, VolumeId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_arithmetic_stays_within_its_ends() {
        assert_eq!(Lsn(7).next(), Lsn(8));
        assert_eq!(Lsn(7).prev(), Lsn(6));
        assert_eq!(Lsn(7).offset(3), Lsn(10));
        assert_eq!(Lsn::NONE.prev(), Lsn::NONE);
        assert_eq!(Lsn::MAX.next(), Lsn::MAX);
        assert_eq!(Lsn(u64::MAX - 1).offset(9), Lsn::MAX);
        assert!(Lsn::default().is_none());
    }

    #[test]
    fn numbers_show_as_numbers() {
        assert_eq!(format!("{} {} {}", Lsn(5), PageId(6), VolumeId(7)), "5 6 7");
    }
}
