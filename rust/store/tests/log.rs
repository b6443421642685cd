//! The log device: what was acknowledged is there after a crash at any I/O, damage of one node's blocks heals.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_proto::NodeId;
use aurora_redo::History;
use aurora_store::{Disk, LogConfig, LogDevice, LogEntry, LogError, MemDisk, OpenMode};
use common::{ORIGIN, Rng, batches, entry, nodes, payload_batch};
use proptest::prelude::*;

const SALT: u64 = 42;
const SMALL: LogConfig = LogConfig {
    file_bytes: 8 * 6 * 4096,
    spare_files_max: 2,
};

fn dir() -> PathBuf {
    Path::new("log").to_path_buf()
}

fn create(disk: &MemDisk) -> LogDevice {
    LogDevice::create(Arc::new(disk.clone()), &dir(), nodes(6), SALT, SMALL).expect("created")
}

fn open(disk: &MemDisk) -> Result<(LogDevice, aurora_store::Replay), LogError> {
    LogDevice::open(Arc::new(disk.clone()), &dir(), nodes(6), SALT, SMALL)
}

fn lsns(entries: &[LogEntry]) -> Vec<u64> {
    batches(entries).iter().map(|b| b.last_lsn().0).collect()
}

#[test]
fn what_was_appended_is_replayed_in_order() {
    let disk = MemDisk::new();
    let log = create(&disk);
    let mut expected = Vec::new();
    for lsn in 1..200 {
        let batch = payload_batch(lsn, lsn as usize * 13 % 900);
        let appended = log.append(&[entry(batch.clone(), 6)]).expect("appended");
        assert_eq!(appended.tokens.len(), 6);
        expected.push(batch);
    }
    let (log, replay) = open(&disk).expect("opened");
    assert_eq!(batches(&replay.entries), expected);
    assert!(replay.healed.is_empty() && !replay.cut);
    log.append(&[entry(payload_batch(200, 10), 6)])
        .expect("appended");
    assert_eq!(batches(&open(&disk).expect("opened").1.entries).len(), 200);
}

#[test]
fn fences_and_installs_come_back() {
    let disk = MemDisk::new();
    let log = create(&disk);
    let history = History::new(ORIGIN).branch(aurora_page::Lsn(100), ORIGIN, 50);
    let tickets = smallvec::SmallVec::new();
    let entries = [
        LogEntry::Fence {
            nodes: nodes(3),
            tickets: tickets.clone(),
            epoch: 7,
            history: History::new(ORIGIN),
        },
        LogEntry::Install {
            nodes: nodes(6),
            tickets,
            epoch: 7,
            history,
        },
        LogEntry::Anew {
            node: aurora_proto::NodeId(4),
            incarnation: 1 << 40,
        },
    ];
    log.append(&entries).expect("appended");
    let (_, replay) = open(&disk).expect("opened");
    assert_eq!(format!("{:?}", replay.entries), format!("{entries:?}"));
}

#[test]
fn a_large_group_spans_files_and_trimmed_files_are_recycled() {
    let disk = MemDisk::new();
    let log = create(&disk);
    for round in 0..30 {
        let batch = payload_batch(round + 1, 100_000);
        let appended = log.append(&[entry(batch.clone(), 6)]).expect("appended");
        let (_, replay) = open(&disk).expect("opened");
        assert_eq!(batches(&replay.entries).last(), Some(&batch));
        log.trim(appended.end).expect("trimmed");
        log.prepare().expect("prepared");
    }
    assert!(
        disk.files(&dir()).len() < 14,
        "{} files",
        disk.files(&dir()).len()
    );
    assert_eq!(log.used_bytes(), 0);
}

#[test]
fn entries_before_the_trim_are_gone_once_a_stripe_was_added() {
    let disk = MemDisk::new();
    let log = create(&disk);
    let position = (1..=10)
        .map(|l| {
            log.append(&[entry(payload_batch(l, 50), 6)])
                .expect("appended")
                .end
        })
        .last();
    log.trim(position.expect("ten")).expect("trimmed");
    log.append(&[entry(payload_batch(11, 9000), 6)])
        .expect("appended");
    assert_eq!(lsns(&open(&disk).expect("opened").1.entries), [11]);
}

/// Runs a workload until the machine stops after `stop` changes; gives what was acknowledged, tried and trimmed.
fn workload(disk: &MemDisk, stop: u64, seed: u64) -> (u64, u64, u64) {
    let log = create(disk);
    let mut rng = Rng(seed);
    disk.stop_after(stop);
    let (mut acknowledged, mut tried, mut trimmed) = (0, 0, 0);
    for lsn in 1..40 {
        let len = if rng.below(4) == 0 {
            rng.below(30_000)
        } else {
            rng.below(300)
        };
        tried = lsn;
        match log.append(&[entry(payload_batch(lsn, len as usize), 6)]) {
            Ok(appended) => {
                acknowledged = lsn;
                if rng.below(6) == 0 {
                    trimmed = lsn;
                    if log.trim(appended.end).is_err() {
                        break;
                    }
                }
                if rng.below(5) == 0 && log.prepare().is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    (acknowledged, tried, trimmed)
}

#[test]
fn a_crash_at_every_io_loses_nothing_acknowledged() {
    for seed in 0..4 {
        let disk = MemDisk::faulty();
        let before = {
            let log = create(&disk);
            drop(log);
            disk.changes()
        };
        let disk = MemDisk::faulty();
        workload(&disk, u64::MAX - 1, seed);
        let changes = disk.changes() - before;
        for stop in 0..changes {
            let disk = MemDisk::faulty();
            let (acknowledged, tried, trimmed) = workload(&disk, stop, seed);
            let mut crashed = disk.crash(stop * 31 + seed);
            // The first open may crash too.
            crashed.stop_after(stop % 7);
            let _ = open(&crashed);
            crashed = crashed.crash(stop);
            let (log, replay) =
                open(&crashed).unwrap_or_else(|e| panic!("stop {stop} seed {seed}: {e}"));
            let found = lsns(&replay.entries);
            let newest = found.last().copied().unwrap_or(0);
            let gone = found.is_empty() && trimmed == acknowledged;
            assert!(
                found.first().is_none_or(|first| *first <= trimmed + 1),
                "stop {stop}: {found:?} after {trimmed}"
            );
            assert!(newest <= tried, "stop {stop}: {found:?}");
            assert!(
                gone || newest >= acknowledged,
                "stop {stop}: {newest} of {acknowledged}"
            );
            assert!(
                found.windows(2).all(|w| w[1] == w[0] + 1),
                "stop {stop}: {found:?}"
            );
            if gone {
                continue;
            }
            log.append(&[entry(payload_batch(newest + 1, 5000), 6)])
                .expect("appended");
            assert_eq!(
                lsns(&open(&crashed).expect("opened").1.entries).last(),
                Some(&(newest + 1))
            );
        }
    }
}

/// A log of one node: nothing heals a torn block.
fn open_one(disk: &MemDisk) -> Result<(LogDevice, aurora_store::Replay), LogError> {
    LogDevice::open(Arc::new(disk.clone()), &dir(), nodes(1), SALT, SMALL)
}

/// A group torn by one crash, and one of the same number torn by the next: never a mixture of both.
#[test]
fn the_remains_of_a_torn_group_are_never_taken_for_a_later_one() {
    let mut torn = 0;
    for seed in 0..300 {
        let disk = MemDisk::faulty();
        let disk_arc: Arc<dyn Disk> = Arc::new(disk.clone());
        let log = LogDevice::create(disk_arc, &dir(), nodes(1), SALT, SMALL).expect("created");
        log.append(&[entry(payload_batch(1, 100), 1)])
            .expect("appended");
        // Stops between the write and its sync: the crash decides what is left of it.
        disk.stop_after(1);
        assert!(log.append(&[entry(payload_batch(2, 14_000), 1)]).is_err());
        let disk = disk.crash(seed);
        let (log, replay) = open_one(&disk).expect("opened");
        if replay.entries.len() == 2 {
            continue;
        }
        torn += u64::from(replay.cut);
        disk.stop_after(1);
        let second = payload_batch(3, 14_000);
        assert!(log.append(&[entry(second.clone(), 1)]).is_err());
        for again in 0..if replay.cut { 100 } else { 1 } {
            let (_, replay) = open_one(&disk.crash(again)).expect("opened");
            let found = batches(&replay.entries);
            assert!(
                found.len() == 1 || found[1] == second,
                "seed {seed} and {again}"
            );
        }
    }
    assert!(torn > 50, "{torn} torn groups: the crashes test too little");
}

fn flip_block(disk: &MemDisk, slot: u64, stripe: u64) {
    let path = disk.files(&dir())[0].clone();
    for at in [0, 100, 2000, 4000] {
        disk.flip(&path, stripe * 6 * 4096 + slot * 4096 + at, 0x10)
            .expect("flip");
    }
}

#[test]
fn damage_of_five_of_six_blocks_heals() {
    for healthy in 0..6 {
        let disk = MemDisk::new();
        let log = create(&disk);
        (1..=40).for_each(|lsn| {
            drop(
                log.append(&[entry(payload_batch(lsn, 400), 6)])
                    .expect("appended"),
            )
        });
        for stripe in 0..5 {
            (0..6)
                .filter(|slot| (slot + stripe) % 6 != healthy)
                .for_each(|slot| flip_block(&disk, slot, stripe));
        }
        let (_, replay) = open(&disk).expect("opened");
        assert_eq!(lsns(&replay.entries), (1..=40).collect::<Vec<_>>());
        assert!(
            replay.healed.values().sum::<u64>() >= 15,
            "{:?}",
            replay.healed
        );
        let (_, again) = open(&disk).expect("opened");
        assert!(
            again.healed.is_empty(),
            "healed on disk: {:?}",
            again.healed
        );
    }
}

#[test]
fn damage_of_all_blocks_in_the_middle_is_an_error() {
    let disk = MemDisk::new();
    let log = create(&disk);
    (1..=40).for_each(|lsn| {
        drop(
            log.append(&[entry(payload_batch(lsn, 400), 6)])
                .expect("appended"),
        )
    });
    (0..6).for_each(|slot| flip_block(&disk, slot, 1));
    match open(&disk) {
        Err(LogError::Damaged { offset, .. }) => assert!(offset >= 6 * 4096),
        other => panic!("expected damage, got {other:?}"),
    }
}

#[test]
fn a_failed_sync_poisons_for_ever() {
    let disk = MemDisk::faulty();
    let log = create(&disk);
    log.append(&[entry(payload_batch(1, 10), 6)])
        .expect("appended");
    disk.fail_syncs(1);
    assert!(matches!(
        log.append(&[entry(payload_batch(2, 10), 6)]),
        Err(LogError::Poisoned { .. })
    ));
    assert!(matches!(
        log.append(&[entry(payload_batch(3, 10), 6)]),
        Err(LogError::Poisoned { .. })
    ));
    assert!(log.poisoned().is_some());
    let found = lsns(&open(&disk.crash(3)).expect("opened").1.entries);
    assert!(found == [1] || found == [1, 2], "{found:?}");
}

#[test]
fn what_a_failed_sync_left_readable_is_made_durable_by_the_next_open() {
    let disk = MemDisk::faulty();
    let log = create(&disk);
    disk.fail_syncs(1);
    assert!(log.append(&[entry(payload_batch(1, 10), 6)]).is_err());
    // Reopened without a crash: the bytes are still there to be read, and so must survive from now on.
    let found = lsns(&open(&disk).expect("opened").1.entries);
    for seed in 0..8 {
        assert_eq!(
            lsns(&open(&disk.crash(seed)).expect("opened").1.entries),
            found
        );
    }
}

#[test]
fn a_full_disk_is_noticed_before_anything_is_written() {
    let disk = MemDisk::new();
    let log = create(&disk);
    disk.set_capacity(Some(disk.used_bytes()));
    let mut lsn = 1;
    let error = loop {
        match log.append(&[entry(payload_batch(lsn, 3000), 6)]) {
            Ok(_) => lsn += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    assert_eq!(
        lsns(&open(&disk).expect("opened").1.entries).len() as u64,
        lsn - 1
    );
    disk.set_capacity(None);
    log.append(&[entry(payload_batch(lsn, 3000), 6)])
        .expect("goes on");
    assert_eq!(
        lsns(&open(&disk).expect("opened").1.entries).len() as u64,
        lsn
    );
}

#[test]
fn other_logs_are_refused() {
    let disk = MemDisk::new();
    let log = create(&disk);
    log.append(&[entry(payload_batch(1, 10), 6)])
        .expect("appended");
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let other = LogDevice::open(arc.clone(), &dir(), nodes(5), SALT, SMALL);
    assert!(matches!(other, Err(LogError::Slots { .. })), "{other:?}");
    let none = LogDevice::open(arc, Path::new("elsewhere"), nodes(6), SALT, SMALL);
    assert!(matches!(none, Err(LogError::Missing { .. })), "{none:?}");
}

#[test]
fn the_format_is_the_golden_one() {
    let disk = MemDisk::new();
    let log =
        LogDevice::create(Arc::new(disk.clone()), &dir(), nodes(2), SALT, SMALL).expect("created");
    log.append(&[entry(payload_batch(1, 40), 2)])
        .expect("appended");
    log.append(&[entry(payload_batch(2, 5000), 2)])
        .expect("appended");
    let file = disk
        .open(&disk.files(&dir())[0], OpenMode::Read)
        .expect("open");
    let mut bytes = vec![0; 2 * 2 * 4096];
    file.read_exact_at(&mut bytes, 0).expect("read");
    golden("log-v1.bin", &bytes);
}

fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    #[expect(
        clippy::disallowed_methods,
        reason = "blessing a golden file is asked for by the environment"
    )]
    if std::env::var_os("AURORA_BLESS").is_some() {
        std::fs::write(&path, bytes).expect("golden file written");
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "golden files are in the source tree"
    )]
    let expected = std::fs::read(&path).expect("golden file");
    assert!(
        expected == bytes,
        "{name} differs: a new format needs a new version"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Any damage at all: an error or a prefix of what was written, never a panic, never something else.
    #[test]
    fn damaged_files_never_panic(flips in prop::collection::vec((0u64..5 * 6 * 4096, 1u8..), 1..60)) {
        let disk = MemDisk::new();
        let log = create(&disk);
        let written: Vec<_> = (1..=30).map(|lsn| payload_batch(lsn, 500)).collect();
        written.iter().for_each(|b| drop(log.append(&[entry(b.clone(), 6)]).expect("appended")));
        let path = disk.files(&dir())[0].clone();
        flips.iter().for_each(|(at, mask)| disk.flip(&path, *at, *mask).expect("flip"));
        if let Ok((_, replay)) = open(&disk) {
            let found = batches(&replay.entries);
            prop_assert!(written.starts_with(&found));
        }
    }
}

#[test]
fn nodes_of_the_replay_are_those_that_accepted() {
    let disk = MemDisk::new();
    let log = create(&disk);
    log.append(&[entry(payload_batch(1, 10), 4)])
        .expect("appended");
    let (_, replay) = open(&disk).expect("opened");
    assert_eq!(replay.entries[0].nodes(), nodes(4));
    assert!(!replay.entries[0].nodes().contains(NodeId(4)));
}
