//! Filling copies that a recovery left behind: a chunk at a time, so that the rest of the background has its turn, and from another
//! copy where one cannot give what it has.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aurora_proto::{Job, NodeId, Volume};

use crate::Error;
use crate::cluster::Shared;
use crate::hydrate::Progress;
use crate::maintenance::TICK;
use crate::rebuild::failure;
use crate::recover;

/// A job that failed waits this long, twice as long each time, up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// A job and how far it is.
#[derive(Clone, Copy)]
pub(crate) struct Repair {
    pub(crate) job: Job,
    progress: Option<Progress>,
    failures: u32,
    /// Not before this moment, after a failure.
    after: Option<Instant>,
}

impl Repair {
    pub(crate) fn new(job: Job) -> Repair {
        Repair {
            job,
            progress: None,
            failures: 0,
            after: None,
        }
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.after.is_none_or(|after| after <= now)
    }

    /// Goes on with the next of these sources.
    fn turn(&mut self, sources: &[NodeId]) {
        let next = sources
            .iter()
            .find(|id| **id > self.job.from)
            .or(sources.first());
        self.job.from = next.copied().unwrap_or(self.job.from);
    }

    /// It waits, and begins again from the next of these sources; where there is none, it goes on with the one that it has.
    fn failed(&mut self, sources: &[NodeId], now: Instant) {
        let from = self.job.from;
        self.turn(sources);
        if self.job.from != from {
            self.progress = None;
        }
        let wait = BACK_OFF
            .saturating_mul(1 << self.failures.min(16))
            .min(BACK_OFF_MAX);
        self.failures += 1;
        self.after = Some(now + wait);
    }
}

impl Shared {
    /// Goes on with repairs until about `budget` bytes have been moved or a tick is over; gives the bytes. One of a group that has
    /// little takes no time, and there may be thousands.
    pub(crate) fn repair_some(&self, budget: u64) -> u64 {
        let begun = Instant::now();
        let mut moved = 0;
        while moved < budget && begun.elapsed() < TICK && !self.is_closed() {
            let ready = self
                .maintenance
                .jobs
                .lock()
                .iter()
                .position(|repair| repair.is_ready(begun));
            let Some(index) = ready else { break };
            match self.repair_step(index) {
                Ok(bytes) => moved += bytes,
                Err(error) => self.maintenance.note(error),
            }
        }
        moved
    }

    /// Does every repair that is pending, without waiting; an error when one has failed with as many sources as there are nodes.
    pub(crate) fn repair_pending(&self) -> Result<(), Error> {
        self.maintenance
            .jobs
            .lock()
            .iter_mut()
            .for_each(|repair| repair.failures = 0);
        let attempts = self.volume.nodes().len() as u32;
        while !self.maintenance.jobs.lock().is_empty() {
            if self.is_closed() {
                return Err(Error::Closed);
            }
            if let Err(error) = self.repair_step(0)
                && self
                    .maintenance
                    .jobs
                    .lock()
                    .iter()
                    .any(|repair| repair.failures >= attempts)
            {
                return Err(error);
            }
            self.prepare_and_flush();
        }
        Ok(())
    }

    /// Moves one chunk of a job; gives its bytes. A job that is done is off the list, one that failed is at its end. The caller
    /// does the background's work, so nobody else changes the list.
    fn repair_step(&self, index: usize) -> Result<u64, Error> {
        let Some(mut repair) = self.maintenance.jobs.lock().get(index).copied() else {
            return Ok(0);
        };
        let job = repair.job;
        let volume = &self.volume;
        let Some(to) = volume.node(job.to).filter(|node| node.has_log()) else {
            // A node that was lost since is made anew, and then filled from the beginning.
            self.maintenance.jobs.lock().remove(index);
            return Ok(0);
        };
        if !to.acknowledges() {
            // A fault that was injected ends; then it goes on from where it was.
            let mut jobs = self.maintenance.jobs.lock();
            repair.failed(&[], Instant::now());
            jobs.remove(index);
            jobs.push_back(repair);
            return Err(failure(&to.dir, "an injected fault keeps it away"));
        }
        let nodes = volume.nodes();
        let hydration = {
            let meta = self.meta.lock();
            recover::hydration(
                &meta.manifest,
                &nodes,
                &volume.devices,
                &job,
                volume.vdl(),
                false,
            )
        };
        let stepped = hydration.and_then(|hydration| {
            let mut progress = repair.progress.unwrap_or_else(|| hydration.begin(&job));
            let before = progress.bytes;
            let ack = hydration.step(&job, &mut progress)?;
            Ok((ack, progress, progress.bytes - before))
        });
        let mut jobs = self.maintenance.jobs.lock();
        match stepped {
            Ok((Some(ack), _, bytes)) => {
                jobs.remove(index);
                drop(jobs);
                self.rebuilds.moved(job.to, bytes);
                volume.acknowledge_one(&to, ack);
                Ok(bytes)
            }
            Ok((None, progress, bytes)) => {
                repair.progress = Some(progress);
                drop(jobs);
                self.rebuilds.moved(job.to, bytes);
                // Of several that have everything, each gives a part.
                if repair.failures == 0 {
                    repair.turn(&self.sources(&job));
                }
                put(&mut self.maintenance.jobs.lock(), index, repair);
                Ok(bytes)
            }
            Err(error) => {
                // For a receiver without room, another source is no better.
                let elsewhere = !matches!(error, Error::DiskFull { .. });
                let sources = if elsewhere {
                    self.sources(&job)
                } else {
                    Vec::new()
                };
                repair.failed(&sources, Instant::now());
                jobs.remove(index);
                jobs.push_back(repair);
                Err(error)
            }
        }
    }

    /// The nodes that have all of what a job brings.
    fn sources(&self, job: &Job) -> Vec<NodeId> {
        let has = |id: &NodeId| *id != job.to;
        let living = self.living().into_iter();
        let complete = living.filter(|node| node.answers() && self.scl(node, job.pg) >= job.upto);
        complete.map(|node| node.id()).filter(has).collect()
    }
}

fn put(jobs: &mut VecDeque<Repair>, index: usize, repair: Repair) {
    if let Some(place) = jobs.get_mut(index) {
        *place = repair;
    }
}

#[cfg(test)]
mod tests {
    use aurora_page::Lsn;
    use aurora_redo::PgId;

    use super::*;

    #[test]
    fn what_failed_waits_longer_each_time_and_asks_another_source() {
        let job = Job {
            pg: PgId(0),
            from: NodeId(5),
            to: NodeId(0),
            after: Lsn(0),
            upto: Lsn(9),
            pages: true,
        };
        let (mut repair, now) = (Repair::new(job), Instant::now());
        assert!(repair.is_ready(now));
        let sources = [NodeId(2), NodeId(4), NodeId(5)];
        let mut asked = Vec::new();
        for _ in 0..4 {
            repair.failed(&sources, now);
            asked.push(repair.job.from.0);
        }
        assert_eq!(asked, [2, 4, 5, 2]);
        assert!(!repair.is_ready(now + BACK_OFF * 7) && repair.is_ready(now + BACK_OFF * 8));
        (0..40).for_each(|_| repair.failed(&[], now));
        assert_eq!(repair.job.from, NodeId(2), "there is no other");
        assert!(repair.is_ready(now + BACK_OFF_MAX));
    }
}
