//! The page store against a model that applies all records in order, with flushes, merges, images, collection, crashes
//! and damage in between.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId, VolumeId, canonical, seal};
use aurora_redo::{BlobId, History, Op, PgId, Record, apply, apply_op};
use aurora_store::{
    Damage, Disk, LayerKind, LogConfig, LogDevice, MemDisk, NodeStore, OpenMode, Roots, StoreError,
};
use bytes::Bytes;
use common::*;
use proptest::prelude::*;

/// Every record ever made, by page.
#[derive(Default)]
struct Model {
    records: BTreeMap<u64, Vec<Record>>,
}

impl Model {
    fn add(&mut self, record: &Record) {
        self.records
            .entry(record.page.0)
            .or_default()
            .push(record.clone());
    }

    fn page(&self, page: u64, at: u64, history: &History) -> Page {
        let mut built = Page::empty(PageId(page), PAGE_BYTES);
        for record in self.records.get(&page).into_iter().flatten() {
            if record.lsn.0 <= at && history.contains(record.origin, record.lsn) {
                apply(&mut built, record).expect("the model's records fit");
            }
        }
        built
    }
}

fn check(node: &NodeStore, model: &Model, page: u64, at: u64, history: &History) {
    let found = node
        .materialise(PageId(page), Lsn(at), history)
        .unwrap_or_else(|e| panic!("page {page} at {at}: {e}"));
    let expected = model.page(page, at, history);
    assert_eq!(found.lsn(), expected.lsn(), "page {page} at {at}");
    assert!(
        canonical(&found) == canonical(&expected),
        "page {page} at {at}"
    );
}

/// A node with some history: `count` records over `pages`, flushed every `flush`.
fn filled(disk: &MemDisk, count: u64, pages: u64, flush: u64) -> (NodeStore, Model, Writer) {
    let (node, mut model, mut writer, mut rng) = (
        new_node(disk, config()),
        Model::default(),
        Writer::new(),
        Rng(5),
    );
    for i in 1..=count {
        let record = writer.some(rng.below(pages), &mut rng);
        model.add(&record);
        node.ingest(batch(vec![record]));
        if i % flush == 0 {
            node.flush(&[state(1, i)]).expect("flushed");
        }
    }
    (node, model, writer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reads_agree_with_the_model(seed in any::<u64>(), pages in 1u64..12, steps in 200u64..700) {
        let mut rng = Rng(seed);
        let disk = MemDisk::new();
        let (mut node, mut model, mut writer) = (new_node(&disk, config()), Model::default(), Writer::new());
        let (mut floor, mut flushed) = (0, 0);
        for _ in 0..steps {
            let record = writer.some(rng.below(pages), &mut rng);
            model.add(&record);
            let now = record.lsn.0;
            node.ingest(batch(vec![record]));
            match rng.below(60) {
                0..4 => {
                    node.flush(&[state(1, now)]).expect("flushed");
                    flushed = now;
                }
                4..9 => drop(node.compact(1 + rng.below(40_000), &roots(now, floor)).expect("compacted")),
                9 => {
                    floor += rng.below(now - floor + 1);
                    node.collect(1 + rng.below(40_000), &roots(now, floor)).expect("collected");
                }
                10 if flushed == now => node = open_node(&disk, config()),
                11..20 => {
                    let history = History::new(ORIGIN);
                    let at = floor + rng.below(now - floor + 1);
                    check(&node, &model, rng.below(pages), at, &history);
                }
                _ => {}
            }
        }
        let (now, history) = (writer.next - 1, History::new(ORIGIN));
        while node.compact(1 << 20, &roots(now, floor)).expect("compacted") > 0 {}
        for page in 0..pages {
            for at in [floor, now, (floor + now) / 2] {
                check(&node, &model, page, at, &history);
            }
        }
        let report = node.scrub(u64::MAX).expect("scrubbed");
        prop_assert!(report.finished && report.found.is_empty());
    }
}

#[test]
fn below_the_floor_is_refused_and_stays_so() {
    let disk = MemDisk::new();
    let (node, model, _) = filled(&disk, 900, 2, 100);
    while node.compact(1 << 20, &roots(900, 0)).expect("compacted") > 0 {}
    while node.collect(1 << 20, &roots(900, 600)).expect("collected") > 1000 {}
    let node = {
        drop(node);
        open_node(&disk, config())
    };
    let history = History::new(ORIGIN);
    assert!(matches!(
        node.materialise(PageId(0), Lsn(599), &history),
        Err(StoreError::BelowFloor { .. })
    ));
    (600..=900)
        .step_by(17)
        .for_each(|at| check(&node, &model, 1, at, &history));
}

#[test]
fn collection_gives_space_back() {
    let disk = MemDisk::new();
    let (node, mut model, mut writer, mut rng) = (
        new_node(&disk, config()),
        Model::default(),
        Writer::new(),
        Rng(6),
    );
    for i in 1..=6000 {
        let record = writer.some(rng.below(3), &mut rng);
        model.add(&record);
        node.ingest(batch(vec![record]));
        if i % 200 == 0 {
            node.flush(&[state(1, i)]).expect("flushed");
            node.compact(1 << 20, &roots(i, 0)).expect("compacted");
        }
    }
    let before = node.used_bytes();
    for _ in 0..50 {
        node.collect(1 << 20, &roots(6000, 5900))
            .expect("collected");
        node.compact(1 << 20, &roots(6000, 5900))
            .expect("compacted");
    }
    assert!(
        node.used_bytes() * 4 < before,
        "{} of {before}: {:#?}",
        node.used_bytes(),
        node.layers()
    );
    let history = History::new(ORIGIN);
    (5900..=6000)
        .step_by(9)
        .for_each(|at| check(&node, &model, at % 3, at, &history));
}

#[test]
fn few_layers_are_left_of_many_flushes() {
    let disk = MemDisk::new();
    let (node, _, _) = filled(&disk, 3000, 10, 20);
    while node.compact(1 << 20, &roots(3000, 0)).expect("compacted") > 0 {}
    let deltas = node
        .layers()
        .iter()
        .filter(|l| l.kind == LayerKind::Delta)
        .count();
    assert!(deltas <= 12, "{deltas} delta layers of 150 flushes");
    assert!(node.layers().iter().any(|l| l.kind == LayerKind::Image));
}

/// A volume that is backtracked: the abandoned History and the new one are both read.
#[test]
fn two_histories_are_read_side_by_side() {
    let disk = MemDisk::new();
    let (node, mut model, mut writer) = filled(&disk, 800, 3, 100);
    // Images of what is to be abandoned: valid for the old History, not for the new one.
    node.compact(u64::MAX, &roots(800, 0)).expect("compacted");
    assert!(
        node.layers()
            .iter()
            .any(|l| l.kind == LayerKind::Image && *l.lsns.start() > Lsn(500))
    );
    let old = History::new(ORIGIN).clip(Lsn(800));
    let new = History::new(ORIGIN).branch_past(Lsn(500), Lsn(800), ORIGIN, 100);
    let start = new.first_new_lsn().0;
    // The writer goes on from the pages as they were at 500.
    let mut rng = Rng(77);
    writer.next = start;
    writer.last = 500;
    for page in 0..3 {
        let at = model.page(page, 500, &new);
        writer.last_of_page.insert(page, at.lsn().0);
        let rows = aurora_page::LeafRef::new(&at).map_or(0, |leaf| leaf.len());
        writer.rows.insert(page, rows as u16);
    }
    let both = |vdl, floor| Roots {
        histories: vec![Arc::new(new.clone()), Arc::new(old.clone())],
        vdl: Lsn(vdl),
        floor: Lsn(floor),
    };
    for i in 0..600 {
        let record = writer.some(rng.below(3), &mut rng);
        model.add(&record);
        node.ingest(batch(vec![record]));
        if i % 90 == 0 {
            node.flush(&[]).expect("flushed");
            node.compact(1 << 20, &both(start + i, 0))
                .expect("compacted");
        }
    }
    node.flush(&[]).expect("flushed");
    for floor in [0, 400, 700] {
        for _ in 0..20 {
            node.collect(1 << 20, &both(start + 599, floor))
                .expect("collected");
            node.compact(1 << 20, &both(start + 599, floor))
                .expect("compacted");
        }
        for page in 0..3 {
            for at in (floor..800).step_by(31) {
                check(&node, &model, page, at, &old);
                check(&node, &model, page, at, &new);
            }
            (start..start + 600)
                .step_by(31)
                .for_each(|at| check(&node, &model, page, at, &new));
        }
    }
    // The abandoned one is let go: its records count for nothing and go.
    let one = Roots {
        histories: vec![Arc::new(new.clone())],
        ..both(start + 599, 700)
    };
    for _ in 0..20 {
        node.collect(1 << 20, &one).expect("collected");
        node.compact(1 << 20, &one).expect("compacted");
    }
    (start..start + 600)
        .step_by(31)
        .for_each(|at| check(&node, &model, 1, at, &new));
}

#[test]
fn times_find_their_commits() {
    let disk = MemDisk::new();
    let (node, _, mut writer) = filled(&disk, 500, 4, 90);
    let history = History::new(ORIGIN);
    let lsn_at = |node: &NodeStore, t| node.lsn_at(t, &history).expect("found").map(|c| c.lsn.0);
    assert_eq!(lsn_at(&node, 9), None);
    for t in (10..5000).step_by(7) {
        assert_eq!(lsn_at(&node, t), Some(t as u64 / 10));
    }
    node.ingest(batch(vec![writer.insert(0, 1)]));
    assert_eq!(
        node.latest(&history).expect("found").map(|c| c.lsn.0),
        Some(501)
    );
    // Once collected, the newest commit at or below the floor is still known.
    node.flush(&[]).expect("flushed");
    for _ in 0..30 {
        node.compact(1 << 20, &roots(501, 501)).expect("compacted");
        node.collect(1 << 20, &roots(501, 501)).expect("collected");
    }
    assert_eq!(lsn_at(&open_node(&disk, config()), 1 << 40), Some(501));
}

#[test]
fn records_and_links_come_in_order_from_everywhere() {
    let disk = MemDisk::new();
    let (node, model, _) = filled(&disk, 450, 4, 100);
    let mut all: Vec<Record> = model.records.values().flatten().cloned().collect();
    all.sort_by_key(|r| r.lsn);
    assert_eq!(
        node.records(PgId(0), Lsn(0), Lsn::MAX, u64::MAX)
            .expect("records"),
        all
    );
    let mut after = Lsn(37);
    let mut got = Vec::new();
    while let Some(last) = {
        let some = node
            .records(PgId(0), after, Lsn(420), 3000)
            .expect("records");
        got.extend(some.iter().cloned());
        some.last().map(|r| r.lsn)
    } {
        after = last;
    }
    assert_eq!(got, all[37..420]);
    let links = node.links(PgId(0), Lsn(300)).expect("links");
    assert_eq!(
        links.iter().map(|l| l.lsn.0).collect::<Vec<_>>(),
        (301..=450).collect::<Vec<_>>()
    );
    assert!(
        node.records(PgId(1), Lsn(0), Lsn::MAX, u64::MAX)
            .expect("records")
            .is_empty()
    );
}

fn exports(node: &NodeStore, damage: &Damage) -> Vec<aurora_store::Export> {
    let mut from = *damage.pages.start();
    let mut parts = Vec::new();
    loop {
        let part = node
            .export(from..=*damage.pages.end(), 20_000)
            .expect("exported");
        let next = part.next;
        parts.push(part);
        match next {
            Some(page) => from = page,
            None => return parts,
        }
    }
}

#[test]
fn an_empty_node_is_hydrated_from_another() {
    let disk = MemDisk::new();
    let (node, model, _) = filled(&disk, 900, 9, 100);
    while node.compact(1 << 20, &roots(900, 0)).expect("compacted") > 0 {}
    let everything = Damage {
        layer: 0,
        path: Path::new("").into(),
        offset: 0,
        pages: PageId(0)..=PageId(u64::MAX),
    };
    let other_disk = MemDisk::new();
    let other = new_node(&other_disk, config());
    let parts = exports(&node, &everything);
    assert!(parts.len() > 2);
    for part in &parts {
        other.import(part).expect("imported");
    }
    let other = open_node(&other_disk, config());
    let history = History::new(ORIGIN);
    for at in (1..=900).step_by(71) {
        (0..9).for_each(|page| check(&other, &model, page, at, &history));
    }
}

/// Every byte region of every layer is damaged in turn: reads say so, scrub finds it, repair mends it.
#[test]
fn damage_is_found_and_mended_from_another_copy() {
    let history = History::new(ORIGIN);
    let build = |disk: &MemDisk| {
        let (node, model, _) = filled(disk, 700, 5, 120);
        node.compact(1 << 20, &roots(700, 0)).expect("compacted");
        (node, model)
    };
    let (healthy_disk, sizes_disk) = (MemDisk::new(), MemDisk::new());
    let (healthy, model) = build(&healthy_disk);
    drop(build(&sizes_disk));
    let layers = sizes_disk.files(&node_dir().join("layers"));
    let mut mended = 0;
    for path in layers {
        let len = sizes_disk
            .open(&path, OpenMode::Read)
            .and_then(|f| f.len())
            .expect("len");
        let mut at = 3;
        while at < len {
            let disk = MemDisk::new();
            drop(build(&disk));
            disk.flip(&path, at, 0x55).expect("flip");
            // Both footers, so that the layer cannot be read at all.
            if at < 40 {
                disk.flip(&path, len - 3, 0x55).expect("flip");
            }
            at += 997;
            let node = open_node(&disk, config());
            node.scrub(u64::MAX).expect("scrubbed");
            for damage in node.damage() {
                node.repair(&damage, &exports(&healthy, &damage))
                    .expect("repaired");
                mended += 1;
            }
            assert!(node.damage().is_empty());
            assert!(node.scrub(u64::MAX).expect("scrubbed").found.is_empty());
            let node = open_node(&disk, config());
            for page in 0..5 {
                [1, 350, 700]
                    .into_iter()
                    .for_each(|at| check(&node, &model, page, at, &history));
            }
            assert_eq!(
                node.lsn_at(3333, &history).expect("found").map(|c| c.lsn.0),
                Some(333)
            );
        }
    }
    assert!(mended > 5, "{mended}");
}

#[test]
fn a_read_of_damage_says_where_and_notes_it() {
    let disk = MemDisk::new();
    drop(filled(&disk, 300, 1, 300));
    let path = disk.files(&node_dir().join("layers"))[0].clone();
    disk.flip(&path, 600, 1).expect("flip");
    let node = open_node(&disk, config());
    match node.materialise(PageId(0), Lsn(300), &History::new(ORIGIN)) {
        Err(StoreError::Corrupt {
            path: named,
            offset,
            ..
        }) => assert_eq!((named, offset), (path, 512)),
        other => panic!("expected damage, got {other:?}"),
    }
    assert_eq!(node.damage().len(), 1);
    assert_eq!(node.damage()[0].pages, PageId(0)..=PageId(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Any damage: errors or right answers, never a panic, never a wrong page.
    #[test]
    fn damaged_nodes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0u64..20_000, 1u8..), 1..9)) {
        let disk = MemDisk::new();
        let (node, model, _) = filled(&disk, 400, 4, 100);
        node.compact(1 << 20, &roots(400, 0)).expect("compacted");
        drop(node);
        for (file, at, mask) in flips {
            let files = disk.files(&node_dir());
            let path = file.get(&files);
            let len = disk.open(path, OpenMode::Read).and_then(|f| f.len()).expect("len");
            disk.flip(path, at % len, mask).expect("flip");
        }
        let dir = node_dir();
        let opened = NodeStore::open(Arc::new(disk.clone()), &dir, CLUSTER, aurora_proto::NodeId(0), config());
        let Ok(node) = opened else { return Ok(()) };
        let history = History::new(ORIGIN);
        for page in 0..4 {
            if let Ok(found) = node.materialise(PageId(page), Lsn(400), &history) {
                prop_assert!(canonical(&found) == canonical(&model.page(page, 400, &history)));
            }
        }
        let _ = node.compact(1 << 20, &roots(400, 0));
        let _ = node.collect(1 << 20, &roots(400, 300));
        let _ = node.scrub(u64::MAX);
        let _ = node.records(PgId(0), Lsn(0), Lsn::MAX, u64::MAX);
        let _ = node.export(PageId(0)..=PageId(10), u64::MAX);
    }
}

fn sealed_leaf(page: u64, rows: i64) -> Bytes {
    let mut writer = Writer::new();
    let mut leaf = Page::empty(PageId(page), PAGE_BYTES);
    let records: Vec<Record> = std::iter::once(writer.format(page, 40))
        .chain((0..rows).map(|n| writer.insert(page, n)))
        .collect();
    for record in records {
        // Without a stamp: the record that refers to it gives the LSN.
        apply_op(&mut leaf, &Op::parse(&record.op).expect("op")).expect("applied");
    }
    Bytes::from(seal(&leaf))
}

#[test]
fn a_page_begins_in_a_blob() {
    let disk = MemDisk::new();
    let node = new_node(&disk, config());
    let id = BlobId(0xabc << 70 | 5);
    let pages = [sealed_leaf(10, 3), sealed_leaf(11, 7)];
    assert_eq!(node.put_blob(id, 1, &pages).expect("put").blob(), id);
    assert_eq!(node.blob_pages(id).expect("pages"), pages);
    let mut writer = Writer::new();
    let reference = Op::Reference {
        object: aurora_page::ObjectId(9),
        blob: id,
        index: 1,
    };
    node.ingest(batch(vec![writer.record(11, &reference)]));
    writer.rows.insert(11, 7);
    node.ingest(batch(vec![writer.insert(11, 99)]));
    node.flush(&[state(1, 2)]).expect("flushed");
    let node = open_node(&disk, config());
    let history = History::new(ORIGIN);
    let rows = |at| {
        let page = node
            .materialise(PageId(11), Lsn(at), &history)
            .expect("page");
        aurora_page::LeafRef::new(&page).expect("leaf").len()
    };
    assert_eq!((rows(1), rows(2)), (7, 8));
    // A blob without references goes when its epoch has passed, one with references stays.
    node.put_blob(BlobId(7), 1, &pages).expect("put");
    node.collect(1 << 20, &roots(2, 0)).expect("collected");
    assert!(node.has_blob(BlobId(7)));
    node.flush(&[state(2, 2)]).expect("flushed");
    node.collect(1 << 20, &roots(2, 0)).expect("collected");
    assert!(!node.has_blob(BlobId(7)) && node.has_blob(id));
    let path = disk.files(&node_dir().join("blobs"))[0].clone();
    disk.flip(&path, 200, 1).expect("flip");
    assert_eq!(node.scrub(u64::MAX).expect("scrubbed").blobs, [id]);
    node.put_blob(id, 1, &pages).expect("mended");
    assert!(node.scrub(u64::MAX).expect("scrubbed").blobs.is_empty());
}

#[test]
fn identity_and_liveness() {
    let disk = MemDisk::new();
    let node = new_node(&disk, config());
    assert!(node.is_alive());
    assert_eq!(node.identity().incarnation, 1);
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let dir = node_dir();
    let foreign = NodeStore::open(
        arc.clone(),
        &dir,
        CLUSTER,
        aurora_proto::NodeId(1),
        config(),
    );
    assert!(matches!(foreign, Err(StoreError::Identity { .. })));
    disk.remove_dir_all(&dir).expect("removed");
    assert!(!node.is_alive());
    let gone = NodeStore::open(arc, &dir, CLUSTER, aurora_proto::NodeId(0), config());
    assert!(matches!(gone, Err(StoreError::Identity { .. })));
}

#[test]
fn a_full_disk_loses_nothing() {
    let disk = MemDisk::new();
    let (node, mut model, mut writer) = filled(&disk, 200, 3, 100);
    disk.set_capacity(Some(disk.used_bytes()));
    let mut rng = Rng(8);
    for _ in 0..100 {
        let record = writer.some(rng.below(3), &mut rng);
        model.add(&record);
        node.ingest(batch(vec![record]));
    }
    assert!(matches!(
        node.flush(&[state(1, 300)]),
        Err(StoreError::Full { .. })
    ));
    assert!(node.unflushed_bytes() > 0);
    let history = History::new(ORIGIN);
    (0..3).for_each(|page| check(&node, &model, page, 300, &history));
    disk.set_capacity(None);
    node.flush(&[state(1, 300)]).expect("flushed");
    assert_eq!(node.unflushed_bytes(), 0);
    (0..3).for_each(|page| check(&open_node(&disk, config()), &model, page, 300, &history));
}

const SMALL_LOG: LogConfig = LogConfig {
    file_bytes: 16 * 4096,
    spare_files_max: 2,
};

/// Log and node together, as the shell drives them. Gives the last acknowledged LSN, and the floor that was asked for.
fn shell(disk: &MemDisk, model: &mut Model, stop: u64) -> (u64, u64) {
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let log = LogDevice::create(arc, Path::new("log"), nodes(1), 1, SMALL_LOG).expect("created");
    let node = new_node(disk, config());
    disk.stop_after(stop);
    let (mut writer, mut rng, mut acknowledged, mut floor) = (Writer::new(), Rng(3), 0, 0);
    for i in 1..=120 {
        let record = writer.some(rng.below(3), &mut rng);
        model.add(&record);
        let batch = batch(vec![record]);
        if log.append(&[entry(batch.clone(), 1)]).is_err() {
            break;
        }
        acknowledged = i;
        node.ingest(batch);
        let background = || -> Result<(), StoreError> {
            if i % 10 == 0 {
                let position = log.position();
                node.flush(&[state(1, i)])?;
                let _ = log.trim(position);
            }
            if i % 25 == 0 {
                node.compact(1 << 20, &roots(i, floor))?;
            }
            if i % 40 == 0 {
                floor = i - 35;
                node.collect(1 << 20, &roots(i, floor))?;
            }
            Ok(())
        };
        if { background }().is_err() {
            break;
        }
    }
    (acknowledged, floor)
}

#[test]
fn a_crash_at_every_io_loses_nothing_of_a_node() {
    let disk = MemDisk::faulty();
    shell(&disk, &mut Model::default(), u64::MAX - 1);
    let changes = disk.changes();
    let history = History::new(ORIGIN);
    for stop in 0..changes {
        let disk = MemDisk::faulty();
        let mut model = Model::default();
        let (acknowledged, floor) = shell(&disk, &mut model, stop);
        let crashed = disk.crash(stop * 7 + 1);
        let arc: Arc<dyn Disk> = Arc::new(crashed.clone());
        let (_, replay) = LogDevice::open(arc, Path::new("log"), nodes(1), 1, SMALL_LOG)
            .unwrap_or_else(|e| panic!("stop {stop}: {e}"));
        let node = open_node(&crashed, config());
        batches(&replay.entries)
            .into_iter()
            .for_each(|b| node.ingest(b));
        for page in 0..3 {
            for at in [floor, acknowledged, (floor + acknowledged) / 2] {
                check(&node, &model, page, at.max(node.floor().0), &history);
            }
        }
        node.compact(1 << 20, &roots(acknowledged, floor))
            .expect("goes on");
        (0..3).for_each(|page| check(&node, &model, page, acknowledged, &history));
    }
}

#[test]
fn the_formats_are_the_golden_ones() {
    let disk = MemDisk::new();
    let (node, _, _) = filled(&disk, 60, 2, 60);
    let golden = |name: &str, path: &Path| {
        let file = disk.open(path, OpenMode::Read).expect("open");
        let mut bytes = vec![0; file.len().expect("len") as usize];
        file.read_exact_at(&mut bytes, 0).expect("read");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        #[expect(
            clippy::disallowed_methods,
            reason = "blessing a golden file is asked for by the environment"
        )]
        if std::env::var_os("AURORA_BLESS").is_some() {
            std::fs::write(&golden, &bytes).expect("golden file written");
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "golden files are in the source tree"
        )]
        let expected = std::fs::read(&golden).expect("golden file");
        assert!(
            expected == bytes,
            "{name} differs: a new format needs a new version"
        );
    };
    golden("delta-v1.bin", &disk.files(&node_dir().join("layers"))[0]);
    golden("identity-v1.bin", &node_dir().join("identity"));
    golden("state-v1.bin", &node_dir().join("state"));
    let images = MemDisk::new();
    let other = new_node(&images, config());
    other
        .put_blob(
            BlobId(1),
            1,
            &[
                Bytes::from_static(b"sealed page"),
                Bytes::from_static(b"another"),
            ],
        )
        .expect("put");
    let blob = images.files(&node_dir().join("blobs"))[0].clone();
    let file = images.open(&blob, OpenMode::Read).expect("open");
    let mut bytes = vec![0; file.len().expect("len") as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    let copy = Path::new("blob");
    disk.create_dir_all(Path::new("")).expect("dir");
    let out = disk.open(copy, OpenMode::Create).expect("create");
    out.write_all_at(&bytes, 0).expect("written");
    golden("blob-v1.bin", copy);
    let export = aurora_store::Export {
        chains: vec![aurora_store::PageChain {
            page: PageId(3),
            images: vec![aurora_store::Image {
                lsn: Lsn(9),
                origin: VolumeId(1),
                sealed: Bytes::from_static(b"sealed page"),
            }],
            records: Vec::new(),
        }],
        ..Default::default()
    };
    let before = disk.files(&node_dir().join("layers")).len();
    node.import(&export).expect("imported");
    golden(
        "image-v1.bin",
        &disk.files(&node_dir().join("layers"))[before],
    );
}
