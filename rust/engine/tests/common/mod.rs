//! A volume in memory for the engine's tests: keeps every record, advances the VDL when told, serves pages at any LSN
//! by replaying the log, and crashes.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::disallowed_methods, reason = "threads wait for locks")]

pub mod check;

use std::sync::Arc;

use aurora_engine::{Attempt, Engine, EngineConfig, EngineError, Stop};
use aurora_page::{Column, DataType, Geometry, KeyPart, Lsn, Page, PageId, Schema, VolumeId};
use aurora_proto::{Numbered, Redo, Refused, Volume};
use aurora_redo::{BlobId, Mtr, Op, Prev, Record, apply, apply_reference};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

pub const ORIGIN: VolumeId = VolumeId(7);
/// A step that was started so often without coming to its end will never.
const RESTARTS_MAX: usize = 5_000;
pub const WINDOW: u64 = 1_000_000;

#[derive(Clone, Default)]
struct State {
    records: Vec<Record>,
    by_page: FxHashMap<PageId, Vec<usize>>,
    blobs: FxHashMap<BlobId, Vec<Page>>,
    numbered: Lsn,
    next: Lsn,
    vdl: Lsn,
    segments: u64,
    /// Every append is durable at once.
    instant: bool,
    /// Refuse the next appends with back-pressure.
    pressure: u32,
}

pub struct MemVolume {
    geometry: Geometry,
    state: Mutex<State>,
}

impl MemVolume {
    pub fn new(geometry: Geometry) -> MemVolume {
        let state = State {
            next: Lsn(1),
            segments: 1,
            instant: true,
            ..State::default()
        };
        MemVolume {
            geometry,
            state: Mutex::new(state),
        }
    }

    /// Whether appends are durable at once, or only when told.
    pub fn set_instant(&self, instant: bool) {
        self.state.lock().instant = instant;
    }

    pub fn set_pressure(&self, appends: u32) {
        self.state.lock().pressure = appends;
    }

    /// Moves the VDL to the newest consistency point at or below `lsn`.
    pub fn advance(&self, lsn: Lsn) {
        let mut state = self.state.lock();
        let end = state.records.partition_point(|record| record.lsn <= lsn);
        if let Some(cpl) = state.records[..end]
            .iter()
            .rev()
            .find(|record| record.is_cpl())
        {
            state.vdl = state.vdl.max(cpl.lsn);
        }
    }

    pub fn advance_all(&self) {
        self.advance(Lsn::MAX);
    }

    pub fn grow(&self) {
        self.state.lock().segments += 1;
    }

    pub fn put_blob(&self, blob: BlobId, pages: Vec<Page>) {
        self.state.lock().blobs.insert(blob, pages);
    }

    /// The page as of `at`, from the log alone.
    pub fn page_at(&self, page: PageId, at: Lsn) -> Page {
        let state = self.state.lock();
        let mut version = Page::empty(page, self.geometry.page_bytes);
        let places = state
            .by_page
            .get(&page)
            .map_or(&[][..], |places| &places[..]);
        let end = places.partition_point(|place| state.records[*place].lsn <= at);
        let start = places[..end]
            .iter()
            .rposition(|place| state.records[*place].starts_life())
            .unwrap_or(0);
        for place in &places[start..end] {
            let record = &state.records[*place];
            match Op::parse(&record.op).unwrap() {
                Op::Reference { blob, index, .. } => {
                    let content = state.blobs[&blob][index as usize].clone();
                    apply_reference(&mut version, record, content).unwrap();
                }
                _ => apply(&mut version, record).unwrap(),
            }
        }
        version
    }

    /// What is left after the writer has died: everything up to the VDL.
    pub fn crash(&self) -> MemVolume {
        let mut state = self.state.lock().clone();
        let vdl = state.vdl;
        state.records.retain(|record| record.lsn <= vdl);
        let kept = state.records.len();
        state
            .by_page
            .values_mut()
            .for_each(|places| places.retain(|place| *place < kept));
        state.numbered = vdl;
        state.next = Lsn(vdl.0 + WINDOW + 1);
        MemVolume {
            geometry: self.geometry,
            state: Mutex::new(state),
        }
    }

    pub fn record_count(&self) -> usize {
        self.state.lock().records.len()
    }

    /// Bytes of the ops of the last records.
    pub fn op_bytes_since(&self, from: usize) -> usize {
        self.state.lock().records[from..]
            .iter()
            .map(|record| record.op.len())
            .sum()
    }
}

impl Volume for MemVolume {
    fn origin(&self) -> VolumeId {
        ORIGIN
    }

    fn vdl(&self) -> Lsn {
        self.state.lock().vdl
    }

    fn numbered(&self) -> Lsn {
        self.state.lock().numbered
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn segments(&self) -> u64 {
        self.state.lock().segments
    }

    fn append(&self, mtr: Mtr) -> Result<Numbered, Refused> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.pressure > 0 {
            state.pressure -= 1;
            return Err(Refused::BackPressure {
                vdl: state.vdl,
                lal: state.vdl.offset(WINDOW),
            });
        }
        mtr.check().unwrap();
        let (base, count) = (state.next, mtr.len());
        assert!(count > 0, "an empty MTR");
        let newest_time = state.records.iter().rev().find_map(|record| record.cpl);
        assert!(
            newest_time.is_none_or(|time| time < mtr.time_us),
            "times must rise"
        );
        for index in 0..count {
            let record = &mtr.records[index];
            assert!(
                self.geometry.segment_of(record.page) < state.segments,
                "page beyond the volume"
            );
            let lsn = base.offset(index as u64);
            let prev_page = mtr.prev_page(index, base);
            let places = state.by_page.entry(record.page).or_default();
            let newest = places
                .last()
                .map_or(Lsn::NONE, |place| state.records[*place].lsn);
            let starts = Op::bytes_start_life(&record.op);
            assert_eq!(
                prev_page,
                if starts { Lsn::NONE } else { newest },
                "[5] page {}",
                record.page
            );
            places.push(state.records.len());
            state.records.push(Record {
                lsn,
                origin: ORIGIN,
                prev_pg: Lsn::NONE,
                prev_page,
                page: record.page,
                cpl: (index + 1 == count).then_some(mtr.time_us),
                op: record.op.clone(),
            });
        }
        let last = base.offset(count as u64 - 1);
        (state.numbered, state.next) = (last, last.next());
        if state.instant {
            state.vdl = last;
        }
        Ok(Numbered { base, last })
    }
}

/// SplitMix64: the same numbers for the same seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// An engine with the shell that it needs.
pub struct Db {
    pub volume: Arc<MemVolume>,
    pub engine: Engine<MemVolume>,
    pub config: EngineConfig,
    clock: Mutex<i64>,
    random: Mutex<Random>,
    /// Of 100 fetches, so many are preceded by dropping everything that may be dropped.
    pub evict_percent: u64,
    /// How often a thread looks whether its lock has come before it gives up.
    pub lock_looks: u64,
}

pub fn config() -> EngineConfig {
    EngineConfig {
        cache_bytes: 1 << 20,
        ..EngineConfig::default()
    }
}

impl Db {
    pub fn new(geometry: Geometry) -> Db {
        Db::with(geometry, config())
    }

    pub fn with(geometry: Geometry, config: EngineConfig) -> Db {
        let db = Db::open(Arc::new(MemVolume::new(geometry)), config);
        db.run(|engine| engine.bootstrap(db.now())).unwrap();
        db
    }

    pub fn open(volume: Arc<MemVolume>, config: EngineConfig) -> Db {
        let engine = Engine::new(volume.clone(), config).unwrap();
        let last_time = volume
            .state
            .lock()
            .records
            .iter()
            .rev()
            .find_map(|record| record.cpl)
            .unwrap_or(0);
        let (clock, random) = (
            Mutex::new(last_time),
            Mutex::new(Random(volume.numbered().0)),
        );
        Db {
            volume,
            engine,
            config,
            clock,
            random,
            evict_percent: 0,
            lock_looks: 0,
        }
    }

    /// Loses the engine and everything above the VDL, and opens what is left.
    pub fn crash(self) -> Db {
        let evict_percent = self.evict_percent;
        let mut db = Db::open(Arc::new(self.volume.crash()), self.config);
        db.evict_percent = evict_percent;
        db
    }

    pub fn now(&self) -> i64 {
        let mut clock = self.clock.lock();
        *clock += 10;
        *clock
    }

    /// Does what a stop asks for.
    pub fn settle(&self, stop: Stop) -> Result<(), EngineError> {
        match stop {
            Stop::NeedPage { page, at } => {
                assert!(
                    at <= self.volume.vdl(),
                    "storage is asked at {at}, above the VDL [15]"
                );
                let version = self.volume.page_at(page, at);
                if self.random.lock().below(100) < self.evict_percent {
                    self.engine.evict_all();
                }
                self.engine.install(page, version, at)
            }
            Stop::NeedSegment => {
                self.volume.grow();
                Ok(())
            }
            Stop::WaitLsn(lsn) => {
                self.volume.advance(lsn);
                if self.volume.vdl() < lsn {
                    self.volume.advance_all();
                }
                Ok(())
            }
            Stop::WaitLock(wait) => {
                for _ in 0..self.lock_looks {
                    if !self.engine.is_lock_awaited(&wait) {
                        return Ok(());
                    }
                    std::thread::yield_now();
                }
                self.engine.leave_lock(&wait, 0).map_or(Ok(()), Err)
            }
            Stop::Failed(error) => Err(error),
        }
    }

    pub fn run<T>(
        &self,
        mut step: impl FnMut(&Engine<MemVolume>) -> Attempt<T>,
    ) -> Result<T, EngineError> {
        let mut last = std::collections::VecDeque::new();
        for _ in 0..RESTARTS_MAX {
            match step(&self.engine) {
                Ok(done) => return Ok(done),
                Err(stop) => {
                    last.push_back(stop.clone());
                    while last.len() > 6 {
                        last.pop_front();
                    }
                    self.settle(stop)?;
                }
            }
        }
        panic!(
            "no progress after {RESTARTS_MAX} restarts: {last:?}, {:?}",
            self.engine.cache_stats()
        );
    }
}

pub fn column(id: u16, name: &str, data_type: DataType, nullable: bool) -> Column {
    Column {
        id,
        name: name.into(),
        data_type,
        nullable,
    }
}

pub fn key(columns: &[u16]) -> Vec<KeyPart> {
    columns
        .iter()
        .map(|column| KeyPart {
            column: *column,
            descending: false,
        })
        .collect()
}

/// id int64, name text or null, count int64.
pub fn people() -> Schema {
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "name", DataType::Text, true),
        column(3, "count", DataType::Int64, false),
    ];
    Schema::new(1, columns, key(&[0])).unwrap()
}

impl MemVolume {
    /// The MTRs above `after`, as replicas get them.
    pub fn redo_since(&self, after: Lsn) -> Vec<Arc<Redo>> {
        let state = self.state.lock();
        let (mut all, mut mtr) = (Vec::new(), Mtr::default());
        for record in state.records.iter().filter(|record| record.lsn > after) {
            mtr.push(record.page, Prev::Lsn(record.prev_page), record.op.clone());
            if let Some(time_us) = record.cpl {
                mtr.time_us = time_us;
                let last = record.lsn;
                let base = Lsn(last.0 + 1 - mtr.len() as u64);
                let redo = Redo::new(Numbered { base, last }, ORIGIN, std::mem::take(&mut mtr));
                all.push(Arc::new(redo));
            }
        }
        all
    }
}
