//! A storage node reduced to what the protocol sees of it: records on disk, records on their way there, crashes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_proto::*;
use aurora_redo::{History, Interval, Mtr, MtrRecord, PgBatch, PgId, Prev, Record};

pub const A: VolumeId = VolumeId(0xa);
pub const SEGMENT_PAGES: u64 = 10;

/// Proof of persistence, as only a store may make it.
pub struct Token(pub u64);

impl Persisted for Token {
    fn ticket(&self) -> u64 {
        self.0
    }
}

/// An MTR whose records go to these groups, in this order.
pub fn mtr(groups: &[u32]) -> Mtr {
    let record = |group: &u32| MtrRecord {
        page: PageId(u64::from(*group) * SEGMENT_PAGES + 1),
        prev: Prev::Lsn(Lsn::NONE),
        op: vec![0u8; 8].into(),
    };
    Mtr {
        records: groups.iter().map(record).collect(),
        time_us: 1,
    }
}

pub fn record(pg: u32, lsn: u64, prev: u64, cpl: bool) -> Record {
    Record {
        lsn: Lsn(lsn),
        origin: A,
        prev_pg: Lsn(prev),
        prev_page: Lsn::NONE,
        page: PageId(u64::from(pg) * SEGMENT_PAGES + 1),
        cpl: cpl.then_some(1),
        op: vec![0u8; 8].into(),
    }
}

pub fn batch(pg: u32, epoch: u64, records: Vec<Record>) -> PgBatch {
    PgBatch {
        pg: PgId(pg),
        epoch,
        vdl: Lsn::NONE,
        records,
    }
}

/// A History of A from intervals; last 0 is open.
pub fn history(intervals: &[(u64, u64)]) -> History {
    let interval = |&(first, last)| Interval {
        origin: A,
        first: Lsn(first),
        last: if last == 0 { Lsn::MAX } else { Lsn(last) },
    };
    History::from_intervals(intervals.iter().map(interval).collect()).unwrap()
}

pub fn nodes(ids: impl IntoIterator<Item = u16>) -> NodeSet {
    ids.into_iter().map(NodeId).collect()
}

pub fn node_info(id: u16, incarnation: u64) -> NodeInfo {
    NodeInfo {
        id: NodeId(id),
        az: format!("az{}", id / 2 % 3 + 1),
        path: format!("az{}/node{}", id / 2 % 3 + 1, id + 1),
        device: 1,
        incarnation,
    }
}

/// Six nodes, this many groups, this LAL window.
pub fn manifest(groups: usize, window: u64) -> Manifest {
    let mut manifest = Manifest::create(NewCluster {
        cluster: ClusterId(7),
        origin: A,
        region: "local".into(),
        page_bytes: 32 * 1024,
        segment_pages: SEGMENT_PAGES,
        window,
        nodes: (0..6).map(|id| node_info(id, 1)).collect(),
        config: BTreeMap::new(),
        created_us: 1,
    });
    for _ in 1..groups {
        manifest = manifest.add_segment(manifest.next_members()).unwrap();
    }
    manifest
}

/// One copy with its disk.
#[derive(Debug)]
pub struct Replica {
    pub copy: Copy,
    pub disk: BTreeMap<Lsn, Record>,
    flying: VecDeque<(u64, Vec<Record>)>,
    saved: CopyState,
}

impl Replica {
    pub fn new(pg: PgId, node: NodeId, epoch: u64, history: &History) -> Replica {
        let copy = Copy::new(pg, node, epoch, Arc::new(history.clone()));
        Replica {
            saved: copy.state().clone(),
            copy,
            disk: BTreeMap::new(),
            flying: VecDeque::new(),
        }
    }

    pub fn receive(&mut self, batch: &PgBatch) -> Result<(), Refuse> {
        let accepted = self.copy.receive(batch)?;
        self.fly(batch, accepted);
        Ok(())
    }

    pub fn receive_fenced(&mut self, batch: &PgBatch) -> Result<(), Refuse> {
        let accepted = self.copy.receive_fenced(batch)?;
        self.fly(batch, accepted);
        Ok(())
    }

    fn fly(&mut self, batch: &PgBatch, accepted: Accepted) {
        let records = match accepted.fresh {
            Fresh::All => batch.records.clone(),
            Fresh::Some(indices) => indices
                .into_iter()
                .map(|i| batch.records[i].clone())
                .collect(),
        };
        self.flying.push_back((accepted.ticket, records));
    }

    /// One group of writes reaches the disk.
    pub fn sync_one(&mut self) -> Option<Ack> {
        let (ticket, records) = self.flying.pop_front()?;
        self.disk
            .extend(records.into_iter().map(|record| (record.lsn, record)));
        Some(self.copy.persisted(Token(ticket)))
    }

    pub fn sync(&mut self) -> Ack {
        while self.sync_one().is_some() {}
        self.copy.ack()
    }

    /// The node notes how far its copies are, as it does when it flushes.
    pub fn save(&mut self) {
        let state = self.copy.state();
        self.saved.scl = state.scl;
        self.saved.vdl_hint = state.vdl_hint;
    }

    /// What was not on disk is gone.
    pub fn crash(&mut self) {
        self.flying.clear();
        self.copy = Copy::restore(self.saved.clone(), self.disk.values().map(Link::from));
    }

    /// Fences, persists the promise, answers.
    pub fn fence(&mut self, epoch: u64, history: &Arc<History>) -> Result<Inventory, Refuse> {
        let promise = self.copy.fence(epoch, history)?;
        self.saved.epoch = epoch;
        Ok(self
            .copy
            .fenced(Token(promise.ticket))
            .expect("the promise is the newest"))
    }

    pub fn install(&mut self, epoch: u64, history: &Arc<History>) -> Result<(), Refuse> {
        self.copy.install(epoch, history)?;
        self.saved = self.copy.state().clone();
        Ok(())
    }

    /// The records of a stretch that count.
    pub fn records(&self, after: Lsn, upto: Lsn) -> Vec<Record> {
        let stretch = self
            .disk
            .values()
            .filter(|r| r.lsn > after && r.lsn <= upto);
        stretch
            .filter(|r| self.copy.state().history.contains(r.origin, r.lsn))
            .cloned()
            .collect()
    }
}

/// Does one job of a recovery to the end.
pub fn do_job(replicas: &mut BTreeMap<(PgId, NodeId), Replica>, job: &Job, epoch: u64) -> Ack {
    let records = replicas[&(job.pg, job.from)].records(job.after, job.upto);
    let batch = PgBatch {
        pg: job.pg,
        epoch,
        vdl: Lsn(u64::MAX / 2),
        records,
    };
    let target = replicas.get_mut(&(job.pg, job.to)).unwrap();
    target.receive_fenced(&batch).unwrap();
    target.sync();
    let ticket = target.copy.hydrating(job.after, job.upto);
    target.copy.persisted(Token(ticket))
}
