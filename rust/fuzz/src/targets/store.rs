//! The files of a storage node: layers, state, identity, blobs, the log.
//!
//! A node with a little of everything is made once. Each input is one of its files; the node is opened with it and read to the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{
    Column, DataType, KeyPart, Lsn, ObjectId, Page, PageId, Schema, Value, VolumeId, crc32c,
    encode_row, format_overflow, leaf_layout, seal,
};
use aurora_proto::{ClusterId, CopyState, NodeId, NodeSet};
use aurora_redo::{BlobId, History, Op, PgBatch, PgId, Record};
use aurora_store::{
    Disk, LogConfig, LogDevice, LogEntry, MemDisk, NodeConfig, NodeIdentity, NodeStore, OpenMode,
    Roots, Ticket,
};
use bytes::Bytes;

use super::{Stamp, Target, put_crc, u32_at};

const ORIGIN: VolumeId = VolumeId(1);
const CLUSTER: ClusterId = ClusterId(7);
const NODE: NodeId = NodeId(0);
const DIR: &str = "/node";
const LOG: &str = "/log";
const PAGE_BYTES: usize = 4096;
const PAGES: u64 = 6;
const SALT: u64 = 42;
const LOG_CONFIG: LogConfig = LogConfig {
    file_bytes: 8 * 4096,
    spare_files_max: 1,
};
/// What a node with its caches takes that was not damaged.
const NODE_BYTES: usize = 24 << 20;
/// Opening a node is slow beside the rest.
const WEIGHT: u64 = 10;

/// Files, and the one of them that an input stands for.
#[derive(Clone)]
struct Place {
    files: Arc<Vec<(PathBuf, Vec<u8>)>>,
    path: PathBuf,
}

pub fn targets() -> Vec<Target> {
    let node = files_of(&node(), DIR);
    let log = files_of(&log(), LOG);
    let mut targets = Vec::new();
    let kinds: [(&str, &'static str, Option<Stamp>); 5] = [
        ("layer-", "layer", Some(stamp_layer)),
        ("blob-", "blob", Some(stamp_blob)),
        ("state", "state", Some(stamp_after_8)),
        ("identity", "identity", Some(stamp_after_8)),
        ("", "log", None),
    ];
    for (begins, name, stamp) in kinds {
        let files = if name == "log" { &log } else { &node };
        let of_kind: Vec<&(PathBuf, Vec<u8>)> = files
            .iter()
            .filter(|(path, _)| {
                let file = path.file_name().and_then(|file| file.to_str());
                file.is_some_and(|file| file.starts_with(begins))
            })
            .collect();
        assert!(!of_kind.is_empty(), "the node has a file {begins}");
        // Bytes of one file may come into the place of another: that is how writes go astray.
        let samples = of_kind.iter().map(|(_, bytes)| bytes.clone()).collect();
        let places: Vec<Place> = of_kind
            .iter()
            .map(|(path, _)| Place {
                files: Arc::new(files.clone()),
                path: path.clone(),
            })
            .collect();
        let run = move |bytes: &[u8]| {
            // Which place: told by the bytes, so that the input is all there is to know.
            let place = &places[crc32c(bytes) as usize % places.len()];
            let disk = place.disk_with(bytes);
            match name {
                "log" => open_log(&disk),
                _ => open_node(&disk),
            }
        };
        let target = Target::new(name, samples, run)
            .weighing(WEIGHT)
            .allowed(NODE_BYTES);
        targets.push(Target { stamp, ..target });
    }
    targets
}

impl Place {
    fn disk_with(&self, bytes: &[u8]) -> MemDisk {
        let disk = MemDisk::new();
        for (path, content) in self.files.iter() {
            let content = if *path == self.path { bytes } else { content };
            put(&disk, path, content);
        }
        disk
    }
}

fn put(disk: &MemDisk, path: &Path, content: &[u8]) {
    let dir = path.parent().expect("a file lies in a directory");
    disk.create_dir_all(dir).expect("a directory");
    let file = disk.open(path, OpenMode::Create).expect("a new file");
    file.write_all_at(content, 0).expect("room");
}

fn files_of(disk: &MemDisk, below: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| {
        let file = disk.open(&path, OpenMode::Read).expect("a file");
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        file.read_exact_at(&mut bytes, 0).expect("its bytes");
        (path, bytes)
    };
    disk.files(below.as_ref()).into_iter().map(read).collect()
}

/// Footers at the back and at the front. What they point to has checksums that are left out.
fn stamp_layer(bytes: &mut [u8]) {
    const FRONT: usize = 512;
    if bytes.len() < FRONT {
        return;
    }
    let front = u32_at(bytes, 0) as usize;
    if front <= FRONT - 8 {
        let crc = crc32c(&bytes[8..8 + front]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    let end = bytes.len();
    let back = u32_at(bytes, end - 4) as usize;
    if back <= FRONT - 8 {
        let crc = crc32c(&bytes[end - 8 - back..end - 8]);
        bytes[end - 8..end - 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The CRC at 4 is of the head's bytes from 8 on; blocks have theirs left out.
fn stamp_blob(bytes: &mut [u8]) {
    if let Some(head) = bytes.get_mut(..64) {
        put_crc(head, 4, 8..8, 8);
    }
}

/// The CRC at 4 is of everything from 8 on.
fn stamp_after_8(bytes: &mut [u8]) {
    put_crc(bytes, 4, 8..8, 8);
}

fn config() -> NodeConfig {
    let mut config = NodeConfig::new(PAGE_BYTES, 1 << 20);
    config.cache_bytes = 64 << 10;
    config.fan_in = 3;
    config
}

fn open_node(disk: &MemDisk) {
    planted::set(Some(Fault::CrcIgnored));
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let Ok(node) = NodeStore::open(arc, DIR.as_ref(), CLUSTER, NODE, config()) else {
        return;
    };
    let history = History::new(ORIGIN);
    for page in 0..=PAGES {
        for at in [Lsn(3), Lsn(40), Lsn::MAX] {
            let _ = node.materialise(PageId(page), at, &history);
        }
        let _ = node.scan_page(PageId(page), Lsn::MAX, &history);
    }
    let _ = node.records(PgId(0), Lsn::NONE, Lsn::MAX, u64::MAX);
    let _ = node.links(PgId(0), Lsn::NONE);
    let _ = node.export(PageId(0)..=PageId(PAGES), u64::MAX);
    let _ = (node.latest(&history), node.oldest_commit(&history));
    for blob in node.blobs().unwrap_or_default() {
        let _ = (node.blob_pages(blob), node.blob_digest(blob));
    }
    while node.scrub(1 << 20).is_ok_and(|report| !report.finished) {}
    let roots = roots(Lsn(60), Lsn(20));
    let _ = node.compact(1 << 20, &roots);
    let _ = node.collect(1 << 20, &roots);
}

fn open_log(disk: &MemDisk) {
    planted::set(Some(Fault::TornTailAccepted));
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = LogDevice::open(arc, LOG.as_ref(), NodeSet::one(NODE), SALT, LOG_CONFIG);
    if let Ok((_, replay)) = opened {
        for entry in &replay.entries {
            std::hint::black_box(entry.nodes());
        }
    }
}

fn schema() -> Schema {
    let column = |id, name: &str, data_type| Column {
        id,
        name: name.into(),
        data_type,
        nullable: false,
    };
    let columns = vec![
        column(1, "id", DataType::Int64),
        column(2, "t", DataType::Text),
    ];
    let key = vec![KeyPart {
        column: 0,
        descending: false,
    }];
    Schema::new(1, columns, key).expect("a schema")
}

/// Records in order, each following the one before it in its page.
#[derive(Default)]
struct Writer {
    last: u64,
    heads: std::collections::BTreeMap<u64, u64>,
}

impl Writer {
    fn batch(&mut self, page: u64, op: &Op<'_>) -> Arc<PgBatch> {
        let lsn = self.last + 1;
        let prev_pg = std::mem::replace(&mut self.last, lsn);
        let prev = self.heads.insert(page, lsn).filter(|_| !op.starts_life());
        Arc::new(PgBatch {
            pg: PgId(0),
            epoch: 1,
            vdl: Lsn(prev_pg),
            records: vec![Record {
                lsn: Lsn(lsn),
                origin: ORIGIN,
                prev_pg: Lsn(prev_pg),
                prev_page: Lsn(prev.unwrap_or(0)),
                page: PageId(page),
                cpl: Some(lsn as i64 * 10),
                op: op.encode(),
            }],
        })
    }
}

fn roots(vdl: Lsn, floor: Lsn) -> Roots {
    Roots {
        histories: vec![Arc::new(History::new(ORIGIN))],
        vdl,
        floor,
    }
}

fn states(scl: u64) -> Vec<CopyState> {
    vec![CopyState {
        pg: PgId(0),
        node: NODE,
        epoch: 1,
        installed: 1,
        history: Arc::new(History::new(ORIGIN)),
        scl: Lsn(scl),
        vdl_hint: Lsn(scl),
    }]
}

/// A node with delta and image layers, a blob that a page comes from, a state with a floor.
fn node() -> MemDisk {
    let disk = MemDisk::new();
    let identity = NodeIdentity {
        cluster: CLUSTER,
        node: NODE,
        incarnation: 1,
    };
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let node = NodeStore::create(arc, DIR.as_ref(), identity, config()).expect("a node");
    let schema = schema();
    let layout = leaf_layout(&schema, 30);
    let object = ObjectId(20);
    let mut writer = Writer::default();
    for page in 0..PAGES - 1 {
        let format = Op::FormatLeaf {
            object,
            schema_version: 1,
            layout: &layout,
        };
        node.ingest(writer.batch(page, &format));
    }
    let mut loaded = Page::empty(PageId(PAGES - 1), PAGE_BYTES);
    format_overflow(&mut loaded, object, PageId(0), b"a chunk of a loaded value").expect("room");
    let blob = BlobId(3);
    node.put_blob(blob, 1, &[Bytes::from(seal(&loaded))])
        .expect("a blob");
    let refer = Op::Reference {
        object,
        blob,
        index: 0,
    };
    node.ingest(writer.batch(PAGES - 1, &refer));
    for n in 0..20i64 {
        for page in 0..3 {
            let values = [Value::Int(n), Value::Text(format!("row {n} of {page}"))];
            let row = encode_row(&schema, &values);
            let rank = n as u16;
            node.ingest(writer.batch(page, &Op::LeafInsert { rank, row: &row }));
        }
        if n % 5 == 4 {
            node.flush(&states(writer.last)).expect("flushed");
        }
        if n == 14 {
            let roots = roots(Lsn(writer.last), Lsn(10));
            while node.compact(1 << 20, &roots).expect("compacted") > 0 {}
            while node
                .collect(1 << 20, &roots)
                .is_ok_and(|bytes| bytes > 10_000)
            {}
        }
    }
    disk
}

/// A log of one node with batches, a fence and an install.
fn log() -> MemDisk {
    let disk = MemDisk::new();
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let nodes = NodeSet::one(NODE);
    let log = LogDevice::create(arc, LOG.as_ref(), nodes, SALT, LOG_CONFIG).expect("a log");
    let mut writer = Writer::default();
    let history = History::new(ORIGIN).branch(Lsn(100), ORIGIN, 50);
    for n in 0..30 {
        let bytes = vec![n; usize::from(n) * 40];
        let format = Op::FormatOverflow {
            object: ObjectId(20),
            next: PageId(0),
            bytes: &bytes,
        };
        let batch = writer.batch(u64::from(n), &format);
        let ticket = Ticket {
            node: NODE,
            pg: PgId(0),
            number: u64::from(n) + 1,
        };
        let mut entries = vec![LogEntry::batch(batch, [ticket])];
        if n == 9 {
            let (epoch, history) = (2, history.clone());
            entries.push(LogEntry::Fence {
                nodes,
                tickets: [].into_iter().collect(),
                epoch,
                history,
            });
        }
        if n == 19 {
            let (epoch, history) = (2, history.clone());
            entries.push(LogEntry::Install {
                nodes,
                tickets: [].into_iter().collect(),
                epoch,
                history,
            });
        }
        log.append(&entries).expect("appended");
    }
    disk
}
