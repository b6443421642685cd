//! Records and nodes for the tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aurora_page::{Column, encode_changes, encode_row, leaf_layout};
use aurora_page::{DataType, KeyPart, Lsn, ObjectId, PageId, Schema, Value, VolumeId};
use aurora_proto::{ClusterId, CopyState, NodeId, NodeSet};
use aurora_redo::{History, Op, PgBatch, PgId, Record};
use aurora_store::{LogEntry, MemDisk, NodeConfig, NodeIdentity, NodeStore, Roots, Ticket};
use bytes::Bytes;

pub const PAGE_BYTES: usize = 16 << 10;
pub const ORIGIN: VolumeId = VolumeId(1);
pub const CLUSTER: ClusterId = ClusterId(77);

pub fn nodes(n: u16) -> NodeSet {
    (0..n).fold(NodeSet::EMPTY, |set, i| set.with(NodeId(i)))
}

/// A small deterministic generator.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub fn raw_record(lsn: u64, page: u64, op: &[u8]) -> Record {
    Record {
        lsn: Lsn(lsn),
        origin: ORIGIN,
        prev_pg: Lsn(lsn - 1),
        prev_page: Lsn::NONE,
        page: PageId(page),
        cpl: Some(lsn as i64 * 1000),
        op: Bytes::copy_from_slice(op),
    }
}

pub fn batch(records: Vec<Record>) -> Arc<PgBatch> {
    Arc::new(PgBatch {
        pg: PgId(0),
        epoch: 1,
        vdl: Lsn::NONE,
        records,
    })
}

/// A batch of one record with a payload of `len` bytes that are told by its LSN.
pub fn payload_batch(lsn: u64, len: usize) -> Arc<PgBatch> {
    let op: Vec<u8> = (0..len)
        .map(|i| (lsn as usize * 31 + i * 7) as u8)
        .collect();
    batch(vec![raw_record(lsn, lsn % 5, &op)])
}

pub fn entry(batch: Arc<PgBatch>, count: u16) -> LogEntry {
    let number = batch.last_lsn().0;
    LogEntry::batch(
        batch,
        (0..count).map(|i| Ticket {
            node: NodeId(i),
            pg: PgId(0),
            number,
        }),
    )
}

pub fn batches(entries: &[LogEntry]) -> Vec<Arc<PgBatch>> {
    entries
        .iter()
        .filter_map(|e| match e {
            LogEntry::Batch { batch, .. } => Some(batch.clone()),
            _ => None,
        })
        .collect()
}

pub fn schema() -> Schema {
    let column = |id, name: &str, data_type| Column {
        id,
        name: name.into(),
        data_type,
        nullable: false,
    };
    let columns = vec![
        column(1, "id", DataType::Int64),
        column(2, "n", DataType::Int64),
        column(3, "t", DataType::Text),
    ];
    Schema::new(
        1,
        columns,
        vec![KeyPart {
            column: 0,
            descending: false,
        }],
    )
    .expect("schema")
}

/// Makes records the way a writer does: links, LSNs, one consistency point each.
pub struct Writer {
    pub schema: Schema,
    pub next: u64,
    pub last_of_page: std::collections::BTreeMap<u64, u64>,
    pub rows: std::collections::BTreeMap<u64, u16>,
    pub last: u64,
    pub origin: VolumeId,
}

impl Writer {
    pub fn new() -> Writer {
        Writer {
            schema: schema(),
            next: 1,
            last_of_page: Default::default(),
            rows: Default::default(),
            last: 0,
            origin: ORIGIN,
        }
    }

    pub fn record(&mut self, page: u64, op: &Op<'_>) -> Record {
        let lsn = self.next;
        self.next += 1;
        let prev_page = if op.starts_life() {
            0
        } else {
            self.last_of_page.get(&page).copied().unwrap_or(0)
        };
        self.last_of_page.insert(page, lsn);
        let prev_pg = std::mem::replace(&mut self.last, lsn);
        Record {
            lsn: Lsn(lsn),
            origin: self.origin,
            prev_pg: Lsn(prev_pg),
            prev_page: Lsn(prev_page),
            page: PageId(page),
            cpl: Some(lsn as i64 * 10),
            op: op.encode(),
        }
    }

    pub fn format(&mut self, page: u64, capacity: u16) -> Record {
        let layout = leaf_layout(&self.schema, capacity);
        self.rows.insert(page, 0);
        let schema_version = self.schema.version;
        self.record(
            page,
            &Op::FormatLeaf {
                object: ObjectId(9),
                schema_version,
                layout: &layout,
            },
        )
    }

    pub fn insert(&mut self, page: u64, n: i64) -> Record {
        let rank = self.rows.get(&page).copied().unwrap_or(0);
        self.rows.insert(page, rank + 1);
        let values = [
            Value::Int(i64::from(rank)),
            Value::Int(n),
            Value::Text(format!("row {n}")),
        ];
        let row = encode_row(&self.schema, &values);
        self.record(page, &Op::LeafInsert { rank, row: &row })
    }

    pub fn update(&mut self, page: u64, rank: u16, n: i64) -> Record {
        let changes = encode_changes(&self.schema, &[(1, Value::Int(n))]);
        self.record(
            page,
            &Op::LeafUpdate {
                rank,
                changes: &changes,
            },
        )
    }

    /// Something plausible for a page: format, insert, update, sometimes format again.
    pub fn some(&mut self, page: u64, rng: &mut Rng) -> Record {
        let rows = self.rows.get(&page).copied();
        match (rows, rng.below(40)) {
            (None, _) | (_, 0) => self.format(page, 40),
            (Some(rows), n) if rows < 30 && (rows == 0 || n < 15) => {
                self.insert(page, rng.below(1000) as i64)
            }
            (Some(rows), _) => self.update(
                page,
                rng.below(u64::from(rows)) as u16,
                rng.below(1 << 40) as i64,
            ),
        }
    }
}

pub fn config() -> NodeConfig {
    let mut config = NodeConfig::new(PAGE_BYTES, 1 << 20);
    config.fan_in = 3;
    config
}

pub fn node_dir() -> PathBuf {
    Path::new("az1").join("node1")
}

pub fn new_node(disk: &MemDisk, config: NodeConfig) -> NodeStore {
    let identity = NodeIdentity {
        cluster: CLUSTER,
        node: NodeId(0),
        incarnation: 1,
    };
    NodeStore::create(Arc::new(disk.clone()), &node_dir(), identity, config).expect("created")
}

pub fn open_node(disk: &MemDisk, config: NodeConfig) -> NodeStore {
    NodeStore::open(
        Arc::new(disk.clone()),
        &node_dir(),
        CLUSTER,
        NodeId(0),
        config,
    )
    .expect("opened")
}

pub fn state(epoch: u64, scl: u64) -> CopyState {
    CopyState {
        pg: PgId(0),
        node: NodeId(0),
        epoch,
        installed: epoch,
        history: Arc::new(History::new(ORIGIN)),
        scl: Lsn(scl),
        vdl_hint: Lsn(scl),
    }
}

pub fn roots(vdl: u64, floor: u64) -> Roots {
    Roots {
        histories: vec![Arc::new(History::new(ORIGIN))],
        vdl: Lsn(vdl),
        floor: Lsn(floor),
    }
}
