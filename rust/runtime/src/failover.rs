//! Failover: another instance becomes the writer, when the writer is silent or when it is asked for.
//!
//! | | planned | forced, or after a crash |
//! |---|---|---|
//! | the old writer | hands over which rows changed lately, where there is room, its loads | is fenced: its lock is taken, and none of its changes is under way any more |
//! | what it numbered | is durable before the next one writes | the same: the volume's writer lives in storage's shell, not in the engine |
//! | the next one | has applied it all, and keeps its cache | the same |
//! | open transactions | go on at the new writer | go on, or get a retryable error where the new writer cannot know whether a row has changed since |
//! | the old one after | follows, with its cache | is made anew and follows |
//!
//! All instances of a process share one volume, so nothing has to be recovered and no epoch to be taken: the commit lock of the old
//! engine is the fence.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::Builder;
use std::time::{Duration, Instant};

use aurora_control::{Candidate, Detector, choose, class_rank};
use aurora_engine::Role;
use aurora_page::Lsn;
use aurora_proto::Volume;

use crate::Error;
use crate::cluster::{Cluster, Shared};
use crate::events::Event;
use crate::instance::Instance;
use crate::instances::Choose;
use crate::waiters::Parker;

/// How long the hook may think.
const CHOOSE_MAX: Duration = Duration::from_millis(100);
/// How long a planned failover waits for its target to catch up before it touches the writer.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// How often heartbeats are looked at, as a part of the detection time, and at most.
const LOOKS: u32 = 10;
const LOOK_EVERY_MAX: Duration = Duration::from_millis(100);

/// A failover that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Who wrote before.
    pub from: String,
    /// Who writes now.
    pub to: String,
    /// For how long nobody could write.
    pub gap: Duration,
}

impl Shared {
    fn candidates(&self) -> Vec<Candidate> {
        let living = self.instances.replicas();
        let living = living.iter().filter(|instance| instance.beats());
        let candidate = |instance: &Arc<Instance>| Candidate {
            name: instance.name().to_owned(),
            tier: instance.tier(),
            class: class_rank(instance.class()).unwrap_or(0),
            applied: instance.readable(),
        };
        living.map(candidate).collect()
    }

    /// Who becomes the writer: the hook's answer if it comes in time and names a candidate, else the built-in rule's.
    fn chosen(&self) -> Option<String> {
        let candidates = self.candidates();
        let hook = self.instances.choose.lock().clone();
        let answer = hook.and_then(|hook| ask(hook, candidates.clone()));
        match answer {
            Some(name) if candidates.iter().any(|c| c.name == name) => Some(name),
            Some(name) => {
                let detail = format!("choose() named {name:?}, which is no candidate");
                let events = &self.instances.events;
                events.note("policy ignored", &name, Some(detail), None);
                choose(&candidates).map(|c| c.name.clone())
            }
            None => choose(&candidates).map(|c| c.name.clone()),
        }
    }

    /// Has another instance write. One failover at a time.
    fn failover(
        self: &Arc<Self>,
        to: Option<&str>,
        forced: bool,
        cause: &str,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Failover, Error> {
        let changing = loop {
            if let Some(changing) = self
                .instances
                .changing
                .try_lock_for(Duration::from_millis(50))
            {
                break changing;
            }
            if interrupt() {
                return Err(Error::Interrupted);
            }
        };
        if self.is_closed() {
            return Err(Error::Closed);
        }
        self.volume.check()?;
        let old = self.instances.writer();
        let named = to.map(str::to_owned).or_else(|| self.chosen());
        let target = named.map(|name| self.instances.find(&name)).transpose()?;
        if let Some(target) = target.as_ref().filter(|target| target.id == old.id) {
            return Err(Error::InvalidOption {
                option: "to",
                expected: "a replica".into(),
                got: format!("{}, which is the writer", target.name()),
            });
        }
        let done = match (target, forced) {
            (Some(target), false) => self.hand_over(&old, target, interrupt),
            (target, _) => self.take_over(&old, target),
        };
        drop(changing);
        let events = &self.instances.events;
        match &done {
            Ok(done) => {
                let detail = format!("{cause}: {} writes in the place of {}", done.to, done.from);
                events.note("failover", &done.to, Some(detail), Some(done.gap));
            }
            Err(error) => {
                let detail = format!("{cause}: {error}");
                events.note("failover failed", old.name(), Some(detail), None);
            }
        }
        done
    }

    /// Planned: nothing is lost, and nobody gets an error.
    fn hand_over(
        self: &Arc<Self>,
        old: &Arc<Instance>,
        target: Arc<Instance>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Failover, Error> {
        // While the old one still writes, so that little is left to be done when nobody does.
        target.wait_shown(self.volume.vdl(), Some(CATCH_UP_MAX), interrupt)?;
        let begun = Instant::now();
        let handed = old.retire(Role::Fenced {
            writer: target.name().into(),
        });
        let numbered = self.volume.numbered();
        if let Err(error) = self
            .volume
            .wait(numbered, &|| self.is_closed())
            .and_then(|()| self.catch_up(&target, numbered))
        {
            old.resume(Some(handed));
            self.instances.wake_all();
            return Err(error);
        }
        let tip = self.volume.join_stream(old.id);
        old.take(tip);
        target.promote(Some(handed), 0);
        self.instances.put(old.clone(), Some(target.id));
        self.crown(old, target.clone());
        old.become_replica(target.name(), tip);
        let gap = begun.elapsed();
        if !old.has_thread() && self.start_following(old).is_err() {
            // It is made anew when there are threads again.
            old.crash();
        }
        Ok(Failover {
            from: old.name().to_owned(),
            to: target.name().to_owned(),
            gap,
        })
    }

    /// Forced: the old writer is not asked. Without a target the writer is made anew.
    fn take_over(
        self: &Arc<Self>,
        old: &Arc<Instance>,
        target: Option<Arc<Instance>>,
    ) -> Result<Failover, Error> {
        let begun = Instant::now();
        let name = target.as_ref().map_or(old.name(), |target| target.name());
        // What it would hand over is not trusted. Its time is, as times must rise.
        let was_crashed = old.is_crashed();
        let retired = old.retire(Role::Fenced {
            writer: name.into(),
        });
        let last_time_us = retired.last_time_us();
        let numbered = self.volume.numbered();
        let settled = self.volume.wait(numbered, &|| self.is_closed());
        let target = settled.and_then(|()| match target {
            Some(target) => self.catch_up(&target, numbered).map(|()| target),
            None => {
                let fresh = self.follower(old.spec().clone())?;
                self.catch_up(&fresh, numbered)?;
                self.start_following(&fresh)?;
                Ok(fresh)
            }
        });
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                if was_crashed {
                    old.crash();
                } else {
                    old.resume(None);
                }
                self.instances.wake_all();
                return Err(error);
            }
        };
        target.promote(None, last_time_us);
        self.instances.drop_replica(target.id);
        self.crown(old, target.clone());
        let gap = begun.elapsed();
        old.remove();
        if target.name() != old.name() {
            let again = self.follower(old.spec().clone())?;
            self.start_following(&again)?;
            self.instances.put(again, None);
        }
        Ok(Failover {
            from: old.name().to_owned(),
            to: target.name().to_owned(),
            gap,
        })
    }

    /// Has a target apply everything up to `upto`, which is durable, in the calling thread.
    fn catch_up(&self, target: &Instance, upto: Lsn) -> Result<(), Error> {
        while target.readable() < upto {
            if self.is_closed() {
                return Err(Error::Closed);
            }
            if !self.follow(target, usize::MAX) && target.readable() < upto {
                return Err(Error::ReplicaLag {
                    instance: target.name().to_owned(),
                    expected: upto,
                    got: target.readable(),
                });
            }
        }
        Ok(())
    }

    /// The new writer takes its place, and everybody hears of it.
    fn crown(&self, old: &Arc<Instance>, target: Arc<Instance>) {
        for replica in self.instances.replicas() {
            if replica.id != target.id && replica.id != old.id {
                replica.set_writer(target.name());
            }
        }
        self.volume.stream.leave(target.id);
        self.instances.set_writer(target);
        self.instances.wake_all();
    }

    /// Looks after the instances until the cluster is closed.
    pub(crate) fn control(self: &Arc<Self>) {
        let detection = self.options.detection;
        let look_every = (detection / LOOKS).clamp(Duration::from_millis(1), LOOK_EVERY_MAX);
        let us = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let mut detector = Detector::new(us(detection));
        let (begun, parker) = (Instant::now(), Parker::current());
        *self.control_thread.lock() = Some(parker.clone());
        let mut last_us = 0;
        while !self.is_closed() {
            let now_us = us(begun.elapsed());
            // A process that was stopped, or got no processor: its instances were not silent, nobody listened.
            let pause_us = now_us - last_us - 2 * us(look_every);
            if pause_us > 0 {
                detector.excuse(pause_us);
            }
            last_us = now_us;
            self.crash_if_due();
            self.look_after(&mut detector, now_us);
            parker.park(look_every);
        }
    }

    fn look_after(self: &Arc<Self>, detector: &mut Detector, now_us: i64) {
        if self.read_only.is_some() {
            return;
        }
        for instance in self.instances.all() {
            match instance.beats() {
                true => detector.heard(instance.name(), now_us),
                false => detector.watch(instance.name(), now_us),
            }
        }
        let writer = self.instances.writer();
        if let Some(silence_us) = detector.silent(writer.name(), now_us) {
            let cause = format!("{} was silent for {} ms", writer.name(), silence_us / 1000);
            // Success or not, the next try comes after another detection time.
            detector.forget(writer.name());
            let _ = self.failover(None, true, &cause, &|| self.is_closed());
        }
        for replica in self.instances.replicas() {
            if detector.silent(replica.name(), now_us).is_some() {
                detector.forget(replica.name());
                if let Err(error) = self.restart_replica(&replica) {
                    let detail = Some(error.to_string());
                    let events = &self.instances.events;
                    events.note("restart failed", replica.name(), detail, None);
                }
            }
        }
    }

    /// A replica that has crashed is made anew.
    fn restart_replica(self: &Arc<Self>, replica: &Arc<Instance>) -> Result<(), Error> {
        let _changing = self.instances.changing.lock();
        if self.is_closed() || replica.is_removed() {
            return Ok(());
        }
        let begun = Instant::now();
        replica.remove();
        self.volume.stream.leave(replica.id);
        let again = self.follower(replica.spec().clone())?;
        self.start_following(&again)?;
        self.instances.put(again, Some(replica.id));
        let events = &self.instances.events;
        events.note(
            "replica restarted",
            replica.name(),
            None,
            Some(begun.elapsed()),
        );
        Ok(())
    }
}

/// Asks the hook in a thread of its own: one that stands still keeps nobody.
fn ask(hook: Choose, candidates: Vec<Candidate>) -> Option<String> {
    let (answer, answered) = sync_channel(1);
    let body = move || {
        let _ = answer.send(hook(&candidates));
    };
    Builder::new()
        .name("aurora-choose".into())
        .spawn(body)
        .ok()?;
    answered.recv_timeout(CHOOSE_MAX).ok().flatten()
}

impl Cluster {
    /// Has another instance write: `to`, or whom policy chooses. Planned, it waits for what is under way and loses nothing; forced,
    /// it asks nobody. Without a replica the writer is made anew.
    ///
    /// # Errors
    /// [`Error::UnknownInstance`], [`Error::InvalidOption`] for the writer itself, [`Error::ReplicaLag`] when the target does not
    /// catch up, the volume's failure. The old writer goes on then.
    pub fn failover(
        &self,
        to: Option<&str>,
        forced: bool,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Failover, Error> {
        self.check_open()?;
        let cause = if forced { "forced" } else { "planned" };
        self.shared().failover(to, forced, cause, interrupt)
    }

    /// Who is asked which replica becomes the writer; `None` for the built-in rule.
    pub fn set_choose(&self, choose: Option<Choose>) {
        *self.shared().instances.choose.lock() = choose;
    }

    /// What happened, the oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.shared().instances.events.list()
    }
}
