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
