//! What must be kept: the collection floor, and the abandoned Histories.
//!
//! Below the floor versions of pages may be collected, in every kept History. Everything that somebody may still read is
//! a *root*, and no root lies below the floor. The floor is in the manifest before anything is collected, so that an
//! opener never offers what is gone.

use aurora_page::Lsn;
use aurora_proto::Manifest;

/// What must stay readable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roots {
    /// The volume durable LSN: new reads begin there.
    pub vdl: Lsn,
    /// Read points of transactions, views, cursors and replicas that are open.
    pub open_reads: Vec<Lsn>,
    /// The oldest LSN of the backtrack window; [`Lsn::NONE`] if its beginning lies before the volume's.
    pub window_start: Lsn,
    /// Snapshots, clones and uploads that have not ended.
    pub pinned: Vec<Lsn>,
}

/// The highest floor that keeps every root, and never below the manifest's: what is collected does not come back.
pub fn collection_floor(manifest: &Manifest, roots: &Roots) -> Lsn {
    // Going forward again on an abandoned History needs everything since it parted from the present one.
    let parted = manifest
        .abandoned
        .iter()
        .map(|past| past.history.common_prefix(&manifest.history));
    let oldest = roots
        .open_reads
        .iter()
        .chain(&roots.pinned)
        .copied()
        .chain(parted);
    let floor = oldest.fold(roots.vdl.min(roots.window_start), Lsn::min);
    floor.max(manifest.collection_floor)
}

/// Abandoned Histories that were left before this time are kept no longer.
pub fn forget_before_us(now_us: i64, window_us: u64) -> i64 {
    now_us.saturating_sub(i64::try_from(window_us).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use aurora_page::VolumeId;
    use aurora_proto::{ClusterId, NewCluster};

    use super::*;

    fn manifest() -> Manifest {
        Manifest::create(NewCluster {
            cluster: ClusterId(1),
            origin: VolumeId(1),
            region: "local".into(),
            page_bytes: 32 * 1024,
            segment_pages: 64,
            window: 100,
            nodes: vec![],
            config: Default::default(),
            created_us: 0,
        })
    }

    #[test]
    fn the_floor_is_the_lowest_root() {
        let m = manifest();
        let all = Roots {
            vdl: Lsn(900),
            open_reads: vec![Lsn(850), Lsn(700)],
            window_start: Lsn(600),
            pinned: vec![Lsn(500)],
        };
        assert_eq!(collection_floor(&m, &all), Lsn(500));
        let no_pins = Roots {
            pinned: vec![],
            ..all.clone()
        };
        assert_eq!(collection_floor(&m, &no_pins), Lsn(600));
        let late_window = Roots {
            window_start: Lsn(2000),
            ..no_pins
        };
        assert_eq!(collection_floor(&m, &late_window), Lsn(700));
        let idle = Roots {
            open_reads: vec![],
            ..late_window
        };
        assert_eq!(collection_floor(&m, &idle), Lsn(900), "never above the VDL");
        assert_eq!(
            collection_floor(
                &m,
                &Roots {
                    window_start: Lsn::NONE,
                    ..idle
                }
            ),
            Lsn::NONE
        );
    }

    #[test]
    fn the_floor_never_falls() {
        let m = manifest().with_floor(Lsn(650)).unwrap();
        let roots = Roots {
            vdl: Lsn(900),
            window_start: Lsn(600),
            ..Roots::default()
        };
        assert_eq!(collection_floor(&m, &roots), Lsn(650));
    }

    #[test]
    fn an_abandoned_history_holds_the_floor_where_it_parted() {
        let m = manifest().backtracked(Lsn(600), Lsn(900), 10).unwrap();
        let roots = Roots {
            vdl: Lsn(1100),
            window_start: Lsn(1050),
            ..Roots::default()
        };
        assert_eq!(collection_floor(&m, &roots), Lsn(600));
        let later = m.forgetting(forget_before_us(100, 50)).unwrap();
        assert_eq!(collection_floor(&later, &roots), Lsn(1050));
    }

    #[test]
    fn times_far_away() {
        assert_eq!(forget_before_us(100, 30), 70);
        assert_eq!(forget_before_us(-5, u64::MAX), i64::MIN);
    }
}
