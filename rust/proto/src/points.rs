//! The points of a volume and the one place where their order is asserted [2].
//!
//! `read point <= VDL <= VCL <= allocated <= LAL`, within one branch.

use aurora_page::Lsn;

/// The points of a healthy writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Points {
    /// Volume durable LSN: the highest CPL at or below the VCL. Read points are taken from here.
    pub vdl: Lsn,
    /// Volume complete LSN: every record at or below it has met its write quorum.
    pub vcl: Lsn,
    /// The newest LSN that was given out.
    pub allocated: Lsn,
    /// LSN allocation limit: nothing above it is given out.
    pub lal: Lsn,
}

impl Points {
    /// Does the order relation [2] hold?
    pub fn ordered(&self) -> bool {
        self.vdl <= self.vcl && self.vcl <= self.allocated && self.allocated <= self.lal
    }

    /// Asserts the order relation [2]. It is a handful of comparisons, so release builds check it as well.
    #[inline]
    pub fn check(&self) {
        assert!(self.ordered(), "invariant [2] broken: {self:?}");
    }

    /// May a read at this point be given out by a writer with these points?
    pub fn readable(&self, read_point: Lsn) -> bool {
        read_point <= self.vdl
    }
}

/// The allocation limit of a branch whose first LSN is `first`. Until the branch has a durable record of its own,
/// its VDL lies a window or more below `first`, so the limit is measured from `first` then.
pub fn allocation_limit(vdl: Lsn, first: Lsn, window: u64) -> Lsn {
    Lsn(vdl.0.max(first.0.saturating_sub(1)).saturating_add(window))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_relation() {
        let p = |vdl, vcl, allocated, lal| Points {
            vdl: Lsn(vdl),
            vcl: Lsn(vcl),
            allocated: Lsn(allocated),
            lal: Lsn(lal),
        };
        assert!(p(1, 2, 3, 4).ordered() && p(4, 4, 4, 4).ordered());
        assert!(!p(3, 2, 3, 4).ordered() && !p(1, 4, 3, 4).ordered() && !p(1, 2, 5, 4).ordered());
        assert!(
            p(100, 104, 106, 200).readable(Lsn(100)) && !p(100, 104, 106, 200).readable(Lsn(101))
        );
    }

    #[test]
    fn the_limit_of_a_young_branch_is_measured_from_its_first_lsn() {
        assert_eq!(allocation_limit(Lsn(104), Lsn(205), 100), Lsn(304));
        assert_eq!(allocation_limit(Lsn(250), Lsn(205), 100), Lsn(350));
    }
}
