//! Engines begin with the opening of a volume and end with their instance, and with them what their clients wait for.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use aurora_engine::{Engine, EngineConfig};

use crate::config::Kind;
use crate::database::{TaskId, Wait};
use crate::instance::Instance;
use crate::members::Members;
use crate::messages::InstanceId;
use crate::session::{Client, Granted, Response, Session, Task};
use crate::switch::switch_writers;
use crate::workloads::Workload;
use crate::world::World;

/// Tokens are kept for so long.
const TOKENS_KEPT_US: i64 = 15_000_000;

impl World {
    /// A volume was opened: an engine for it, and a client that tidies up.
    pub(crate) fn open_session(&mut self, id: InstanceId) {
        let last_time_us = self.model.mtrs().map(|mtr| mtr.time_us).max().unwrap_or(0);
        let skew_us = self.chaos.between(0, 4_000_000) as i64 - 2_000_000;
        let (cache_bytes, conflict_bytes) = (self.config.cache_bytes, self.config.conflict_bytes);
        let Some(base) = &mut self.base else { return };
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        let config = EngineConfig {
            cache_bytes,
            conflict_bytes,
            last_time_us,
            ..EngineConfig::default()
        };
        let engine = match Engine::new(writing.volume.clone(), config) {
            Ok(engine) => engine,
            Err(error) => return self.fail(format!("an engine cannot begin: {error}")),
        };
        let granted = Arc::new(Granted::default());
        engine.set_lock_waker(granted.clone());
        let epoch = writing.writer().epoch();
        let session = Rc::new(Session {
            id,
            epoch,
            history: Arc::clone(&writing.history),
            volume: writing.volume.clone(),
            members: Rc::new(Members::new(engine, config, self.config.planted)),
            seat: None,
            granted,
            skew_us: Rc::new(Cell::new(skew_us)),
            alive: Rc::new(Cell::new(true)),
        });
        base.sessions.push(session.clone());
        *base.hub.newest.borrow_mut() = Some(session.clone());
        let keeper = base.tasks.len();
        let client = Client {
            hub: base.hub.clone(),
            number: 100 + id.0,
        };
        let mut wake: Vec<(TaskId, u64)> = vec![(keeper, 0)];
        let mut keepers: Vec<Task> = vec![Box::pin(keep(client.clone(), session.clone()))];
        let is_replicated = self.config.kind == Kind::Database(Workload::Replicas);
        if is_replicated {
            wake.push((keeper + 1, 0));
            keepers.push(Box::pin(switch_writers(client, session.clone())));
        }
        for (at, task) in keepers.into_iter().enumerate() {
            base.tasks.push(Some(task));
            base.bound.insert(keeper + at, id);
        }
        for (task, waiting) in &base.waiting {
            if matches!(waiting.wait, Wait::Session) {
                wake.push((*task, waiting.ticket));
            }
        }
        for (task, ticket) in wake {
            let delay = self.work.between(100, 20_000);
            self.wake_after(delay, (task, ticket), Response::Done);
        }
        if is_replicated {
            self.start_following(&session);
        }
    }

    /// Sessions whose process died or was overtaken end, and with them what their clients wait for.
    pub(crate) fn reap_sessions(&mut self) {
        let Some(base) = &mut self.base else { return };
        base.hub.epoch.set(self.meta.epoch());
        let instances = &self.instances;
        let dead = |session: &Rc<Session>| {
            let writing = instances.get(&session.id).and_then(Instance::written);
            writing.is_none_or(|writing| writing.writer().fenced_by().is_some())
        };
        if !base.sessions.iter().any(dead) {
            return;
        }
        let (gone, alive) = base.sessions.drain(..).partition(|session| dead(session));
        base.sessions = alive;
        let gone: Vec<Rc<Session>> = gone;
        let mut wake = Vec::new();
        for session in &gone {
            session.alive.set(false);
            for (task, waiting) in &base.waiting {
                if let Wait::Durable(of, _) | Wait::Read(of) | Wait::Store(of) | Wait::Lock(of, _) =
                    &waiting.wait
                    && of.id == session.id
                {
                    wake.push((*task, waiting.ticket));
                }
            }
        }
        base.reads.retain(|_, read| read.session.alive.get());
        base.stores.retain(|_, storing| storing.session.alive.get());
        for session in gone {
            self.note(format_args!("{session:?} ends"));
        }
        for (task, ticket) in wake {
            let delay = self.work.between(0, 2_000);
            self.wake_after(delay, (task, ticket), Response::Gone);
        }
    }

    /// The newest session, if its instance may write.
    pub(crate) fn session(&self) -> Option<Rc<Session>> {
        let base = self.base.as_ref()?;
        let newest = base.hub.newest.borrow().clone()?;
        (newest.alive.get() && newest.epoch == self.meta.epoch()).then_some(newest)
    }
}

/// Background work of an engine: what the header of `aurora-engine` asks for in its fifth point.
async fn keep(client: Client, session: Rc<Session>) {
    // Whoever is in doubt about a commit of an earlier writer has asked by then.
    client.sleep(TOKENS_KEPT_US as u64).await;
    while session.alive.get() && !client.ending() {
        client.pause(1_000_000, 5_000_000).await;
        let now = client.now_us(&session);
        let _ = client
            .step(&session, |engine| {
                engine.purge_tokens(now - TOKENS_KEPT_US, client.now_us(&session))
            })
            .await;
        let _ = client
            .step(&session, |engine| engine.sweep(client.now_us(&session)))
            .await;
    }
}
