//! Parallel query: the plan goes to the storage nodes, each scans its own pages at one LSN, the partial results are merged here.
//!
//! ```text
//!   extents of the table at the LSN --> parts, one extent each --> threads take them in turn, each from the node whose turn it is
//!       part: its pages all read (another copy where one fails), then folded --> a partial result per thread --> merged
//! ```
//! A part is folded only when all of its pages are there, so that nothing of it counts twice when a node fails in the middle.
//! Parts are small, the threads few; between parts they look whether the scan was cancelled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use aurora_engine::{OverflowReader, Table};
use aurora_page::{ExtentRef, ExtentState, LeafRef, Lsn, OverflowRef, PageId, PageKind};
use aurora_proto::Volume;
use aurora_redo::{History, PgId};
use aurora_scan::{Job, Partial, ScanError};
use aurora_store::ScanPage;
use parking_lot::Mutex;

use crate::Error;
use crate::cluster::{Cluster, Shared};
use crate::scan_cache::{CachedExtent, CachedPage};

/// Most threads of one scan.
const THREADS_MAX: usize = 16;

/// What one storage node did for a scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeReport {
    /// Its place, such as `az1/node1`.
    pub node: String,
    /// Pages that it scanned.
    pub pages: u64,
    /// Time that it took, all threads together.
    pub took_us: u64,
}

/// How a scan went.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ScanReport {
    /// The read point.
    pub at: Lsn,
    /// Extents that were scanned.
    pub extents: u64,
    /// Pages that were kept from an earlier scan.
    pub pages_cached: u64,
    /// Bytes of the pages that were scanned, as they lie in memory.
    pub bytes_scanned: u64,
    /// Threads that worked.
    pub threads: u64,
    /// What each node did.
    pub nodes: Vec<NodeReport>,
    /// Time from the first page to the merged result.
    pub took_us: u64,
}

/// How often scans were pushed down, and how often not, under the names that Aurora gives its counters.
#[derive(Default)]
pub(crate) struct PqCounters {
    attempted: AtomicU64,
    executed: AtomicU64,
    failed: AtomicU64,
    in_progress: AtomicU64,
    pages: AtomicU64,
}

/// Counters of parallel query since the cluster was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PqStatus {
    /// Scans that were begun on the storage nodes.
    pub attempted: u64,
    /// Those that gave a result.
    pub executed: u64,
    /// Those that failed or were cancelled.
    pub failed: u64,
    /// Those at work now.
    pub in_progress: u64,
    /// Pages scanned there.
    pub pages_pushed_down: u64,
    /// Bytes of leaves kept for the next scan.
    pub cache_bytes: u64,
}

/// One extent to be scanned.
struct Part {
    extent: u64,
    first: PageId,
    used: u64,
}

/// What a thread has done.
struct Worker {
    partial: Partial,
    cached: u64,
    bytes: u64,
    /// Pages and microseconds by node.
    nodes: Vec<(u64, u64)>,
}

struct Scan<'s> {
    shared: &'s Shared,
    job: &'s Arc<Job>,
    table: &'s Table,
    at: Lsn,
    history: Arc<History>,
    parts: Vec<Part>,
    next: AtomicUsize,
    stop: AtomicBool,
    failed: Mutex<Option<Failed>>,
    number: u64,
}

enum Failed {
    Cluster(Error),
    Scan(ScanError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Cluster(error)
    }
}

impl From<ScanError> for Failed {
    fn from(error: ScanError) -> Failed {
        Failed::Scan(error)
    }
}

impl Cluster {
    /// Runs a plan on the storage nodes over everything that a table holds at `at`, which an open transaction or view keeps
    /// readable. Waits until `at` is durable first.
    ///
    /// # Errors
    /// Of the cluster outside, [`Error::Interrupted`] among them; of rows that the plan has no result for inside.
    pub fn scan(
        &self,
        table: &Arc<Table>,
        job: &Arc<Job>,
        at: Lsn,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Result<(Partial, ScanReport), ScanError>, Error> {
        self.check_open()?;
        let counters = &self.shared().pq;
        counters.attempted.fetch_add(1, Ordering::Relaxed);
        counters.in_progress.fetch_add(1, Ordering::Relaxed);
        let result = self.scan_parts(table, job, at, interrupt);
        counters.in_progress.fetch_sub(1, Ordering::Relaxed);
        match &result {
            Ok((partial, _)) => {
                counters.executed.fetch_add(1, Ordering::Relaxed);
                counters
                    .pages
                    .fetch_add(partial.counters.pages, Ordering::Relaxed);
            }
            Err(_) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        match result {
            Ok(done) => Ok(Ok(done)),
            Err(Failed::Scan(error)) => Ok(Err(error)),
            Err(Failed::Cluster(error)) => Err(error),
        }
    }

    /// Counters of parallel query.
    pub fn pq_status(&self) -> PqStatus {
        let shared = self.shared();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PqStatus {
            attempted: count(&shared.pq.attempted),
            executed: count(&shared.pq.executed),
            failed: count(&shared.pq.failed),
            in_progress: count(&shared.pq.in_progress),
            pages_pushed_down: count(&shared.pq.pages),
            cache_bytes: shared.scans.bytes() as u64,
        }
    }

    /// Extents of a table at a read point: how large a scan would be.
    ///
    /// # Errors
    /// As [`Cluster::run`].
    pub fn extents(
        &self,
        table: &Arc<Table>,
        at: Lsn,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<u64, Error> {
        let runs = self.run(interrupt, |engine| engine.extents_of(table, at))?;
        Ok(runs.iter().map(|run| run.count).sum())
    }

    /// Fetches a value that lies in overflow pages.
    ///
    /// # Errors
    /// As [`Cluster::run`].
    pub fn read_long(
        &self,
        reference: OverflowRef,
        at: Lsn,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Error> {
        let mut reader = OverflowReader::new(reference, at);
        self.run(interrupt, |engine| engine.read_overflow_on(&mut reader))
    }

    fn scan_parts(
        &self,
        table: &Arc<Table>,
        job: &Arc<Job>,
        at: Lsn,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(Partial, ScanReport), Failed> {
        let shared = self.shared();
        shared.volume.wait(at, interrupt)?;
        let began = Instant::now();
        let runs = self.run(interrupt, |engine| engine.extents_of(table, at))?;
        let mut scan = Scan {
            shared,
            job,
            table,
            at,
            history: shared.volume.history(),
            parts: Vec::new(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failed: Mutex::new(None),
            number: shared.scans.begin(),
        };
        scan.list_parts(runs.iter().flat_map(|run| run.first..run.first + run.count))?;
        let threads = threads_for(scan.parts.len());
        let workers = scan.run(threads, interrupt);
        if let Some(failed) = scan.failed.lock().take() {
            return Err(failed);
        }
        let mut report = ScanReport {
            at,
            extents: scan.parts.len() as u64,
            threads: threads as u64,
            ..ScanReport::default()
        };
        let mut total = Partial::new(job.clone());
        let all = shared.volume.nodes();
        let mut nodes = vec![(0, 0); all.len()];
        for worker in workers {
            total.merge(worker.partial)?;
            report.pages_cached += worker.cached;
            report.bytes_scanned += worker.bytes;
            for ((pages, took), (more, us)) in nodes.iter_mut().zip(worker.nodes) {
                *pages += more;
                *took += us;
            }
        }
        let named = all.iter().zip(nodes);
        report.nodes = named
            .filter(|(_, (pages, _))| *pages > 0)
            .map(|(node, (pages, took_us))| NodeReport {
                node: node.info.path.clone(),
                pages,
                took_us,
            })
            .collect();
        report.took_us = micros(began);
        Ok((total, report))
    }
}

fn threads_for(parts: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // A thread for less than two extents would take longer to start than it saves.
    cores.min(THREADS_MAX).min(parts / 2).max(1)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl Scan<'_> {
    /// Which pages of each extent are in use, by the extent maps at the read point.
    fn list_parts(&mut self, extents: impl Iterator<Item = u64>) -> Result<(), Failed> {
        let geometry = self.shared.volume.geometry();
        let mut maps = BTreeMap::new();
        for extent in extents {
            let (map, index) = geometry.map_place(extent);
            if let std::collections::btree_map::Entry::Vacant(place) = maps.entry(map) {
                place.insert(
                    self.shared
                        .fetcher
                        .page(&self.shared.volume, map, self.at)?,
                );
            }
            let entry = ExtentRef::new(&maps[&map])
                .and_then(|map| map.get(index))
                .map_err(|error| Error::Corrupt {
                    detail: error.to_string(),
                })?;
            if entry.owner == self.table.id && entry.state == ExtentState::Linked {
                self.parts.push(Part {
                    extent,
                    first: PageId(geometry.page_range(extent).start),
                    used: entry.used,
                });
            }
        }
        Ok(())
    }

    fn run(&self, threads: usize, interrupt: &dyn Fn() -> bool) -> Vec<Worker> {
        std::thread::scope(|scope| {
            let spawned: Vec<_> = (1..threads)
                .map(|_| scope.spawn(|| self.work(&|| false)))
                .collect();
            // The calling thread works too; it alone can be interrupted.
            let mut workers = vec![self.work(interrupt)];
            for thread in spawned {
                match thread.join() {
                    Ok(worker) => workers.push(worker),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            workers
        })
    }

    fn work(&self, interrupt: &dyn Fn() -> bool) -> Worker {
        let mut worker = Worker {
            partial: Partial::new(self.job.clone()),
            cached: 0,
            bytes: 0,
            nodes: vec![(0, 0); self.shared.volume.nodes().len()],
        };
        while !self.stop.load(Ordering::Acquire) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = self.parts.get(index) else {
                break;
            };
            let done = if interrupt() || self.shared.is_closed() {
                Err(Failed::Cluster(Error::Interrupted))
            } else {
                self.part(index, part, &mut worker)
            };
            if let Err(failed) = done {
                self.stop.store(true, Ordering::Release);
                self.failed.lock().get_or_insert(failed);
            }
        }
        worker
    }

    fn part(&self, index: usize, part: &Part, worker: &mut Worker) -> Result<(), Failed> {
        let began = Instant::now();
        let node = index % worker.nodes.len();
        let extent = self.read(node, part, worker)?;
        let mut long =
            |reference: OverflowRef| self.long(reference).map_err(|error| error.to_string());
        for cached in &extent.pages {
            match &*cached.page {
                ScanPage::Sealed { leaf, .. } => {
                    if leaf.header().object == self.table.id {
                        worker.bytes += leaf.body_bytes() as u64;
                        worker.partial.fold_sealed(leaf, &mut long)?;
                    }
                }
                ScanPage::Plain(page) => {
                    // Inner nodes and overflow pages lie in the same extents.
                    if page.kind() == PageKind::Leaf && page.object() == self.table.id {
                        let leaf = LeafRef::new(page).map_err(|error| Error::Corrupt {
                            detail: error.to_string(),
                        })?;
                        worker.bytes += page.bytes().len() as u64;
                        worker.partial.fold_leaf(&leaf, None, &mut long)?;
                    }
                }
            }
        }
        let (pages, took_us) = &mut worker.nodes[node];
        *pages += extent.pages.len() as u64;
        *took_us += micros(began);
        Ok(())
    }

    /// All pages of a part, or an error: nothing of a part is folded before.
    fn read(
        &self,
        node: usize,
        part: &Part,
        worker: &mut Worker,
    ) -> Result<Arc<CachedExtent>, Failed> {
        let (cache, clock) = (&self.shared.scans, &self.shared.volume.changes);
        let kept = cache.get(part.extent, self.number);
        if let Some(kept) = &kept
            && kept.serves(&self.history, part.used, self.at, clock)
        {
            worker.cached += kept.pages.len() as u64;
            return Ok(kept.clone());
        }
        let mut pages = Vec::with_capacity(part.used.count_ones() as usize);
        for bit in (0..64).filter(|bit| part.used >> bit & 1 == 1) {
            let id = PageId(part.first.0 + bit);
            let known = kept
                .as_ref()
                .and_then(|kept| kept.page(id, &self.history, self.at, clock));
            if known.is_some() {
                worker.cached += 1;
            }
            pages.push(match known {
                Some(page) => page,
                None => CachedPage {
                    id,
                    page: Arc::new(self.page(node, id)?),
                },
            });
        }
        let extent = CachedExtent::new(self.history.clone(), part.used, pages, self.at);
        let extent = Arc::new(extent);
        // A look back must not take the place of what the present needs.
        if self.at >= self.shared.volume.vdl() || kept.is_none() {
            cache.put(part.extent, &extent, self.number);
        }
        Ok(extent)
    }

    /// A page from the node whose turn it is; from any other that has it when that one cannot give it.
    fn page(&self, node: usize, id: PageId) -> Result<ScanPage, Failed> {
        let volume = &self.shared.volume;
        let pg = PgId(volume.geometry().segment_of(id) as u32);
        let nodes = volume.nodes();
        if let Some(chosen) = nodes.get(node)
            && chosen.answers()
            && volume.readable(pg, self.at).contains(chosen.id())
            && let Ok(page) = chosen.store.scan_page(id, self.at, &self.history)
        {
            return Ok(page);
        }
        let page = self.shared.fetcher.page(volume, id, self.at)?;
        Ok(ScanPage::Plain(page))
    }

    fn long(&self, reference: OverflowRef) -> Result<Vec<u8>, Error> {
        let mut reader = OverflowReader::new(reference, self.at);
        self.shared
            .serve(|engine| engine.read_overflow_on(&mut reader))
    }
}
