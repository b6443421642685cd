//! Pages that a reader will want soon, fetched while it is at work ([`aurora_engine::Prefetch`]).
//!
//! ```text
//!   reader: leaf 1 is missing ──> wants 2 to 9 ──> fetches 1, reads it ──> 2 is there, or is being fetched: waits for that
//!   threads:                        fetch 2, 3, ... side by side
//! ```
//! The threads start with the first pages and end after a while without any, so a cluster whose data is in memory has none. What
//! they cannot fetch the reader fetches itself, and hears why.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aurora_engine::Prefetch;
use aurora_page::{Lsn, PageId};
use parking_lot::{Condvar, Mutex};

use crate::fetch::Fetcher;
use crate::instance::Instance;
use crate::volume::EmbeddedVolume;

/// Pages that are fetched side by side.
const THREADS_MAX: usize = 4;
/// Pages that may wait; more are left to their readers.
const QUEUE_MAX: usize = 256;
/// After so long without pages a thread ends.
const IDLE: Duration = Duration::from_secs(2);
/// How long a reader waits for a page that is being fetched before it fetches it itself.
const PATIENCE: Duration = Duration::from_millis(500);

/// A page of an instance's cache, as of a read point.
type Wanted = (u64, PageId, Lsn);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Weak<Instance>, Wanted)>,
    /// Those that wait and those under way.
    known: HashSet<Wanted>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    running: usize,
}

/// Fetches pages ahead for all instances of a cluster.
pub(crate) struct Prefetcher {
    volume: Arc<EmbeddedVolume>,
    fetcher: Arc<Fetcher>,
    queue: Mutex<Queue>,
    /// There are pages to fetch, or the cluster closes.
    more: Condvar,
    /// A page has come, or will not.
    done: Condvar,
    closed: AtomicBool,
    fetched: AtomicU64,
}

/// The engine of one instance tells it here.
struct Ahead {
    prefetcher: Weak<Prefetcher>,
    instance: Weak<Instance>,
    id: u64,
}

impl Prefetch for Ahead {
    fn prefetch(&self, pages: &[PageId], at: Lsn) {
        if let Some(prefetcher) = self.prefetcher.upgrade() {
            prefetcher.want(&self.instance, self.id, pages, at);
        }
    }
}

impl Prefetcher {
    pub(crate) fn new(volume: Arc<EmbeddedVolume>, fetcher: Arc<Fetcher>) -> Arc<Prefetcher> {
        Arc::new(Prefetcher {
            volume,
            fetcher,
            queue: Mutex::default(),
            more: Condvar::new(),
            done: Condvar::new(),
            closed: AtomicBool::new(false),
            fetched: AtomicU64::new(0),
        })
    }

    /// From here on the pages that readers of this instance will want are fetched ahead.
    pub(crate) fn serve(self: &Arc<Self>, instance: &Arc<Instance>) {
        instance.set_prefetch(Arc::new(Ahead {
            prefetcher: Arc::downgrade(self),
            instance: Arc::downgrade(instance),
            id: instance.id,
        }));
    }

    /// Pages that were fetched ahead since the cluster was opened.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    fn want(self: &Arc<Self>, instance: &Weak<Instance>, id: u64, pages: &[PageId], at: Lsn) {
        let mut queue = self.queue.lock();
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        let mut new = 0;
        for page in pages {
            let wanted = (id, *page, at);
            if queue.waiting.len() < QUEUE_MAX && queue.known.insert(wanted) {
                queue.waiting.push_back((instance.clone(), wanted));
                new += 1;
            }
        }
        if new == 0 {
            return;
        }
        for _ in queue.idle..new.min(THREADS_MAX) {
            self.start_thread(&mut queue);
        }
        drop(queue);
        self.more.notify_all();
    }

    /// Starts one more thread, unless there are enough. Where none can be had, readers fetch for themselves.
    fn start_thread(self: &Arc<Self>, queue: &mut Queue) {
        if queue.running >= THREADS_MAX {
            return;
        }
        queue.threads.retain(|thread| !thread.is_finished());
        let prefetcher = self.clone();
        let body = move || prefetcher.run();
        if let Ok(thread) = std::thread::Builder::new()
            .name("aurora-ahead".into())
            .spawn(body)
        {
            queue.running += 1;
            queue.threads.push(thread);
        }
    }

    fn run(&self) {
        while let Some((instance, wanted)) = self.next() {
            // A panic in one fetch must not leave its readers waiting, nor the count of threads wrong.
            let fetch = || self.fetch(&instance, wanted);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fetch));
            self.queue.lock().known.remove(&wanted);
            self.done.notify_all();
        }
    }

    /// The next page to fetch; none when the thread is to end, which is counted then.
    fn next(&self) -> Option<(Weak<Instance>, Wanted)> {
        let mut queue = self.queue.lock();
        let since = Instant::now();
        loop {
            if self.closed.load(Ordering::Acquire) {
                queue.running -= 1;
                return None;
            }
            if let Some(next) = queue.waiting.pop_front() {
                return Some(next);
            }
            let left = IDLE.saturating_sub(since.elapsed());
            if left.is_zero() {
                queue.running -= 1;
                return None;
            }
            queue.idle += 1;
            self.more.wait_for(&mut queue, left);
            queue.idle -= 1;
        }
    }

    fn fetch(&self, instance: &Weak<Instance>, (_, page, at): Wanted) {
        let Some(instance) = instance.upgrade() else {
            return;
        };
        // Before the page is fetched: of another branch it is dropped.
        let branch = instance.branch();
        if let Ok(found) = self.fetcher.page(&self.volume, page, at)
            && instance.install_of(branch, page, found, at).is_ok()
        {
            self.fetched.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A reader has come to a page. Whether it was being fetched already and has come, or will not, since: then the reader looks
    /// again. A page that still waits for its turn is left to the reader.
    pub(crate) fn has_come(&self, instance: &Instance, page: PageId, at: Lsn) -> bool {
        let wanted = (instance.id, page, at);
        let mut queue = self.queue.lock();
        if !queue.known.contains(&wanted) {
            return false;
        }
        let place = queue
            .waiting
            .iter()
            .position(|(_, waiting)| *waiting == wanted);
        if let Some(place) = place {
            queue.waiting.remove(place);
            queue.known.remove(&wanted);
            return false;
        }
        let since = Instant::now();
        while queue.known.contains(&wanted) {
            let left = PATIENCE.saturating_sub(since.elapsed());
            if left.is_zero() {
                return false;
            }
            self.done.wait_for(&mut queue, left);
        }
        true
    }

    /// Nothing is fetched any more when this returns.
    pub(crate) fn close(&self) {
        let threads = {
            let mut queue = self.queue.lock();
            self.closed.store(true, Ordering::Release);
            queue.waiting.clear();
            queue.known.clear();
            std::mem::take(&mut queue.threads)
        };
        self.more.notify_all();
        self.done.notify_all();
        for thread in threads {
            // A thread that panicked has been reported on standard error.
            let _ = thread.join();
        }
    }
}
