//! What goes from a backup: bases and log that no moment of the retention and no snapshot needs.

use aurora_control::backup as decide;
use aurora_page::Lsn;
use aurora_redo::RedoError;

use super::format::BackupManifest;

/// Takes out of a manifest what nothing needs any more. The objects go once it is written.
pub(super) fn retire(next: &mut BackupManifest, now_us: i64) -> Result<(), RedoError> {
    let (bases, ranges, eras) = (next.base_facts()?, next.range_facts(), next.eras()?);
    let snapshots: Result<Vec<_>, RedoError> = next
        .snapshots
        .iter()
        .map(|snapshot| Ok((snapshot.history.history()?, Lsn(snapshot.lsn))))
        .collect();
    let snapshots = snapshots?;
    let points = decide::points(&eras, &ranges, &snapshots, now_us, next.retention_days);
    let keep = decide::keep(&bases, &ranges, &points, snapshots.len());
    next.bases.retain(|base| keep.bases.contains(&base.id));
    let mut place = 0..;
    next.log
        .retain(|_| place.next().is_some_and(|i| keep.ranges.contains(&i)));
    let needed = next.needed();
    next.objects.retain(|name, _| needed.contains(name));
    // Eras that nothing reaches into any more.
    let oldest_us = next
        .bases
        .iter()
        .map(|base| base.time_us)
        .min()
        .unwrap_or(i64::MIN);
    next.eras
        .retain(|era| era.until_us.is_none_or(|until| until >= oldest_us));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aurora_page::VolumeId;
    use aurora_redo::History;

    use super::*;
    use crate::backup::format::{
        BaseEntry, EraEntry, LogEntry, ObjectEntry, SnapshotEntry, VolumeFacts,
    };

    const DAY_US: i64 = 24 * 3600 * 1_000_000;

    /// A base a day, each with the log of the day after it, for so many days.
    fn manifest(days: u64) -> BackupManifest {
        let volume = VolumeFacts {
            origin: 1,
            region: "local".into(),
            page_bytes: 32768,
            segment_pages: 64,
            window: 100,
            segments: 1,
            created_us: 0,
            config: BTreeMap::new(),
        };
        let history = History::new(VolumeId(1));
        let mut manifest = BackupManifest::begin("ab".into(), volume);
        manifest.retention_days = 7;
        manifest.eras.push(EraEntry {
            history: (&history).into(),
            since_us: 0,
            until_us: None,
        });
        for day in 0..days {
            let (base, log) = (format!("base/{day}"), format!("log/{day}"));
            for name in [&base, &log] {
                let object = ObjectEntry {
                    bytes: 1,
                    raw: 1,
                    sha256: String::new(),
                };
                manifest.objects.insert(name.clone(), object);
            }
            let begun_us = day as i64 * DAY_US;
            manifest.bases.push(BaseEntry {
                id: day + 1,
                node: 0,
                incarnation: 1,
                lsn: day * 10 + 1,
                time_us: begun_us,
                taken_us: begun_us,
                floor: day * 10 + 1,
                floor_commit: None,
                histories: vec![(&history).into()],
                segments: 1,
                objects: vec![base],
                blobs: Vec::new(),
                tables: None,
            });
            manifest.log.push(LogEntry {
                object: log,
                from: day * 10 + 1,
                to: day * 10 + 11,
                first_us: begun_us + 1,
                last_us: begun_us + DAY_US - 1,
                records: 10,
                commits: 10,
                level: 0,
                blobs: Vec::new(),
            });
        }
        manifest
    }

    #[test]
    fn what_is_older_than_the_retention_goes_and_a_snapshot_keeps_what_it_needs() {
        let (now_us, history) = (20 * DAY_US, History::new(VolumeId(1)));
        let mut next = manifest(20);
        next.snapshots.push(SnapshotEntry {
            name: "old".into(),
            history: (&history.clip(Lsn(25))).into(),
            lsn: 25,
            time_us: 2 * DAY_US,
            created_us: 2 * DAY_US,
            tables: None,
        });
        retire(&mut next, now_us).expect("Histories");
        let days: Vec<u64> = next.bases.iter().map(|base| base.id - 1).collect();
        assert_eq!(
            days,
            [2, 12, 13, 14, 15, 16, 17, 18, 19],
            "seven days, and the day before them that they begin in"
        );
        let log: Vec<&str> = next.log.iter().map(|log| &*log.object).collect();
        assert_eq!(log.first(), Some(&"log/2"));
        assert_eq!(next.objects.len(), next.bases.len() + next.log.len());
        next.snapshots.clear();
        retire(&mut next, now_us).expect("Histories");
        assert!(!next.objects.contains_key("base/2") && next.objects.contains_key("base/19"));
    }
}
