//! A log that could not be opened any more (found by the simulator).
//!
//! The trim mark travels in the header of each new stripe. An append that begins a stripe is torn by a crash: the
//! header with the newest mark is on disk, the group is not. Opening believed the mark, cut the stripe, and gave up
//! files before the mark. A second crash before the next stripe left only older marks, which pointed to files that
//! were gone: "damaged", though nothing had been.

use std::path::Path;
use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_proto::{NodeId, NodeSet};
use aurora_redo::{Op, PgBatch, PgId, Record};
use aurora_store::{LogConfig, LogDevice, LogEntry, MemDisk, Ticket};

const DIR: &str = "/disk/log";
const CONFIG: LogConfig = LogConfig {
    file_bytes: 2 * 4096,
    spare_files_max: 1,
};

fn entry(lsn: u64, len: usize) -> LogEntry {
    let record = Record {
        lsn: Lsn(lsn),
        origin: VolumeId(1),
        prev_pg: Lsn(lsn - 1),
        prev_page: Lsn::NONE,
        page: PageId(1),
        cpl: Some(lsn as i64),
        op: Op::FormatOverflow {
            object: aurora_page::ObjectId(1),
            next: PageId(0),
            bytes: &vec![7; len],
        }
        .encode(),
    };
    let batch = PgBatch {
        pg: PgId(0),
        epoch: 1,
        vdl: Lsn::NONE,
        records: vec![record],
    };
    let ticket = Ticket {
        node: NodeId(0),
        pg: PgId(0),
        number: lsn,
    };
    LogEntry::batch(Arc::new(batch), [ticket])
}

fn open(disk: &MemDisk) -> (LogDevice, Vec<u64>) {
    let opened = LogDevice::open(
        Arc::new(disk.clone()),
        Path::new(DIR),
        NodeSet::one(NodeId(0)),
        5,
        CONFIG,
    );
    let (log, replay) = opened.expect("a log that was only crashed opens");
    let lsns = replay.entries.iter().map(|entry| match entry {
        LogEntry::Batch { batch, .. } => batch.last_lsn().0,
        other => panic!("not appended: {other:?}"),
    });
    let lsns = lsns.collect();
    (log, lsns)
}

#[test]
fn files_before_the_mark_of_a_torn_stripe_are_not_missed() {
    let mut seen = 0;
    for seed in 0..600 {
        let disk = MemDisk::faulty();
        let created = LogDevice::create(
            Arc::new(disk.clone()),
            Path::new(DIR),
            NodeSet::one(NodeId(0)),
            5,
            CONFIG,
        );
        let log = created.expect("created");
        let mut lsn = 0;
        // Several files, then a mark far behind the first of them, then an append that is torn in a new stripe.
        for _ in 0..30 + seed % 8 {
            lsn += 1;
            log.append(&[entry(lsn, 900)]).expect("appended");
        }
        log.trim(log.position()).expect("trimmed");
        let trimmed = lsn;
        disk.stop_after(1);
        if log.append(&[entry(lsn + 1, 3800)]).is_ok() {
            lsn += 1;
        }
        let disk = disk.crash(seed);
        let (log, first) = open(&disk);
        // The mark was read though what it came with was cut.
        seen += u32::from(
            first.first().is_none_or(|lsn| *lsn > trimmed) && first.last() != Some(&(trimmed + 1)),
        );
        log.prepare().expect("spare files");
        let disk = disk.crash(seed + 1);
        let (_, second) = open(&disk);
        let after: Vec<u64> = (trimmed + 1..=lsn).collect();
        for lsns in [first, second] {
            assert!(
                after.iter().all(|lsn| lsns.contains(lsn)),
                "seed {seed}: {lsns:?} lacks some of {after:?}"
            );
        }
    }
    assert!(
        seen > 10,
        "only {seen} of the crashes left the mark in a torn stripe"
    );
}
