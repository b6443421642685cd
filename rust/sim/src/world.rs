//! A world: machines, network, metadata, instances, and the order in which things happen to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_page::{Lsn, PageId, VolumeId};
use aurora_proto::{Manifest, MetaStore, NewCluster, NodeId, NodeInfo, NodeSet};
use aurora_redo::PgId;

use crate::config::{Config, Kind, NODES, Planted};
use crate::database::Base;
use crate::effort::Effort;
use crate::faults::{End, Process};
use crate::instance::{Instance, Phase, Step};
use crate::machine::{CLUSTER, Machine, node_dir};
use crate::messages::{Event, InstanceId};
use crate::meta::SimMeta;
use crate::model::{Model, Table};
use crate::net::Net;
use crate::queue::Queue;
use crate::report::Report;
use crate::rng::Rng;
use crate::session::Hub;
use crate::trace::Trace;

/// The origin of every record of a world.
pub const ORIGIN: VolumeId = VolumeId(1);
/// After the faults have ended, everything must have come to rest within this.
const REST_US_MAX: u64 = 2_000_000;

/// Everything there is.
#[derive(Debug)]
pub struct World {
    pub(crate) config: Config,
    pub(crate) chaos: Rng,
    pub(crate) work: Rng,
    pub(crate) queue: Queue<Event>,
    pub(crate) trace: Trace,
    pub(crate) net: Net,
    pub(crate) meta: SimMeta,
    pub(crate) machines: Vec<Machine>,
    pub(crate) home: BTreeMap<NodeId, usize>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) model: Model,
    pub(crate) table: Table,
    /// Nodes that may lack or have damaged what they should have: never more than an AZ and one.
    pub(crate) harmed: NodeSet,
    pub(crate) incarnations: BTreeMap<NodeId, u64>,
    pub(crate) ending: bool,
    pub(crate) report: Report,
    pub(crate) commit_us: i64,
    pub(crate) base: Option<Base>,
    pub(crate) ends: BTreeMap<u64, End>,
    pub(crate) ends_begun: u64,
    pub(crate) paused: BTreeMap<Process, u64>,
    effort: Effort,
    failure: Option<String>,
}

impl World {
    /// Runs the world of a configuration to its end.
    pub fn run(config: Config) -> Report {
        World::run_caught(config, Trace::default())
    }

    /// The same, and keeps what happened for a failure's report.
    pub fn run_traced(config: Config) -> Report {
        World::run_caught(config, Trace::kept())
    }

    /// A panic of the product is a failure of the world like any other.
    fn run_caught(config: Config, trace: Trace) -> Report {
        let seed = config.seed;
        let run = std::panic::AssertUnwindSafe(|| World::run_with(config, trace));
        std::panic::catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            aurora_page::planted::set(None);
            Report {
                failure: Some(format!("panicked: {}", text.unwrap_or_default())),
                ..Report::blank(seed)
            }
        })
    }

    fn run_with(config: Config, trace: Trace) -> Report {
        let seed = config.seed;
        aurora_page::planted::set(match config.planted {
            Some(Planted::In(fault)) => Some(fault),
            _ => None,
        });
        let mut world = match World::new(config) {
            Ok(world) => world,
            Err(error) => panic!("world {seed} cannot begin: {error}"),
        };
        world.trace = trace;
        if world.is_database() {
            world.open_session(InstanceId(1));
            world.start_clients();
        }
        while world.failure.is_none() {
            let Some(event) = world.queue.pop() else {
                break;
            };
            world.on_event(event);
        }
        world.finish()
    }

    fn new(config: Config) -> Result<World, String> {
        let mut rng = Rng::new(config.seed);
        let mut machines = Vec::new();
        let mut home = BTreeMap::new();
        for index in 0..config.machines {
            let ids: NodeSet = (0..NODES)
                .filter(|n| usize::from(*n) % config.machines == index)
                .map(NodeId)
                .collect();
            home.extend(ids.iter().map(|id| (id, index)));
            machines.push(Machine::create(&config, ids, rng.bits())?);
        }
        let meta = SimMeta::default();
        let manifest = first_manifest(&config);
        meta.cas(0, &manifest).map_err(|e| e.to_string())?;
        let first = Instance::first(InstanceId(1), &manifest, config.planted, config.pace);
        let mut world = World {
            chaos: rng.fork(),
            work: rng.fork(),
            queue: Queue::default(),
            trace: Trace::default(),
            net: Net::new(rng.fork(), config.net),
            meta,
            machines,
            home,
            instances: BTreeMap::from([(first.id, first)]),
            model: Model::default(),
            table: Table::new(config.page_bytes),
            harmed: NodeSet::EMPTY,
            incarnations: (0..NODES).map(|n| (NodeId(n), 1)).collect(),
            ending: false,
            report: Report::blank(config.seed),
            commit_us: 1_000_000,
            base: None,
            ends: BTreeMap::new(),
            ends_begun: 0,
            paused: BTreeMap::new(),
            effort: Effort::default(),
            failure: None,
            config,
        };
        if let Kind::Database(workload) = world.config.kind {
            world.base = Some(Base::new(Hub::new(rng.fork()), workload));
        }
        world.queue.after(0, Event::Tick(InstanceId(1)));
        for machine in 0..world.machines.len() {
            world
                .queue
                .after(3_000 + machine as u64, Event::Tend { machine, boot: 1 });
        }
        world.queue.after(world.config.chaos_us, Event::Chaos);
        world.queue.after(5_000 * world.config.pace, Event::Check);
        Ok(world)
    }

    fn finish(mut self) -> Report {
        self.report.hash = self.trace.hash();
        self.report.events = self.trace.events();
        self.report.numbered = self.model.mtrs().count();
        self.report.acknowledged = self.model.mtrs().filter(|mtr| mtr.acknowledged).count();
        self.report.now_us = self.queue.now_us();
        self.report.effort = [self.effort.events, self.effort.pages];
        if let Some(base) = &self.base {
            let hub = &base.hub;
            self.report.clients = [hub.commits.get(), hub.in_doubt.get(), hub.reads.get()];
            self.report.locks = [hub.lock_waits.get(), hub.lock_fails.get()];
        }
        aurora_page::planted::set(None);
        self.report.failure = self.failure;
        self.report.trace = self.trace.tail(usize::MAX);
        self.report
    }

    /// Notes what must never happen; the run ends with the first.
    pub(crate) fn fail(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.failure.get_or_insert(what);
    }

    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.queue.now_us(), what);
    }

    fn on_event(&mut self, event: Event) {
        if let Some(what) = self.effort.spend(&event) {
            return self.fail(what);
        }
        if let Some(until) = self.stands_still(&event) {
            return self.queue.after(until - self.queue.now_us(), event);
        }
        self.dispatch(event);
        self.reap_sessions();
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::ToNode {
                node,
                from,
                message,
            } => self.on_node_message(node, from, message),
            Event::ToInstance { to, node, message } => self.on_instance_message(to, node, message),
            Event::Sync { machine, boot } => self.on_sync(machine, boot),
            Event::Boot { machine } => self.boot(machine),
            Event::Tick(id) => self.on_tick(id),
            Event::Tend { machine, boot } => self.on_tend(machine, boot),
            Event::Wake {
                task,
                ticket,
                response,
            } => self.on_wake(task, ticket, response),
            Event::AskAgain(ticket) => self.on_ask_again(ticket),
            Event::StoreAgain(ticket) => self.on_store_again(ticket),
            Event::FaultEnds(number) => self.on_fault_ends(number),
            Event::Follow(id, seat) => self.on_follow(id, seat),
            Event::Chaos => self.on_chaos(),
            Event::Check => self.on_check(),
        }
    }

    pub(crate) fn on_step(&mut self, id: InstanceId, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Note(what) => self.note(format_args!("{what}")),
            Step::Violation(what) => self.fail(what),
            Step::Opened { vdl } => self.on_opened(id, vdl),
            Step::Durable { from, to } => self.on_durable(id, from, to),
        }
    }

    fn on_opened(&mut self, id: InstanceId, vdl: Lsn) {
        self.report.opened += 1;
        let Some(writing) = self.instances.get_mut(&id).and_then(Instance::writing) else {
            return;
        };
        let history = Arc::clone(&writing.history);
        let pages: Vec<PageId> = match self.config.kind {
            Kind::Pages => self.model.pages().collect(),
            Kind::Database(_) => Vec::new(),
        };
        for page in pages {
            writing
                .heads
                .insert(page, self.model.content(page, vdl, &history));
        }
        self.note(format_args!("{id} opens at {vdl}: {history}"));
        self.check_nothing_lost();
        self.check_quorum_of_opening(vdl);
        self.open_session(id);
    }

    fn on_durable(&mut self, id: InstanceId, from: Lsn, to: Lsn) {
        let epoch = self.instances[&id].epoch;
        let count = self.model.acknowledge(epoch, from, to);
        self.note(format_args!("{id} durable to {to}, {count} commits"));
        self.wake_durable(id, to);
        // A late acknowledgement of a writer that was overtaken is right only if the successor found the commit [12].
        let latest = self.meta.latest();
        let lost = self.model.mtrs().find(|mtr| {
            let acknowledged = mtr.epoch == epoch && mtr.last > from && mtr.last <= to;
            acknowledged && !latest.histories().any(|h| h.contains(mtr.origin, mtr.last))
        });
        if let Some(mtr) = lost {
            self.fail(format!(
                "[12] {id} of e{epoch} acknowledges {mtr:?}, which e{} does not have",
                latest.epoch
            ));
        }
    }

    fn on_tick(&mut self, id: InstanceId) {
        if !self.instances[&id].lives() {
            return;
        }
        let mut sends = Vec::new();
        let mut step = Step::Nothing;
        match self.instances[&id].phase {
            Phase::Start => {
                let now = self.queue.now_us();
                // Too few copies can be seen: whoever wants to open waits.
                if let Some(replace) = self.recreate_lost()
                    && let Some(instance) = self.instances.get_mut(&id)
                {
                    step = instance.take_epoch(&self.meta, &replace, now);
                }
            }
            Phase::Writing(_) => self.write(id, &mut sends),
            _ => {
                let now = self.queue.now_us();
                if let Some(instance) = self.instances.get_mut(&id) {
                    step = instance.tick(&self.meta, now, &mut sends);
                }
            }
        }
        self.on_step(id, step);
        self.send(id, sends);
        let recovering = matches!(
            self.instances[&id].phase,
            Phase::Fencing(..) | Phase::Copying(..)
        );
        let delay = if recovering {
            4_000 * self.config.pace.min(10)
        } else {
            self.work.between(300, 2_000) * self.config.pace
        };
        self.queue.after(delay, Event::Tick(id));
    }

    /// A new instance, which will recover the volume.
    pub(crate) fn start_instance(&mut self) -> InstanceId {
        let id = InstanceId(self.newest_instance().0 + 1);
        self.instances
            .insert(id, Instance::new(id, self.config.planted, self.config.pace));
        let delay = self.chaos.between(100, 5_000) * self.config.pace;
        self.queue.after(delay, Event::Tick(id));
        id
    }

    pub(crate) fn newest_instance(&self) -> InstanceId {
        self.instances
            .keys()
            .next_back()
            .copied()
            .unwrap_or_default()
    }

    /// The writer that may write: of the latest epoch, and open.
    pub(crate) fn writer(&self) -> Option<InstanceId> {
        let epoch = self.meta.latest().epoch;
        let open = self
            .instances
            .values()
            .find(|i| i.epoch == epoch && matches!(i.phase, Phase::Writing(_)));
        open.map(|instance| instance.id)
    }

    pub(crate) fn rest_deadline(&self) -> u64 {
        self.config.end_us + REST_US_MAX * self.config.pace.min(15)
    }

    /// Pages of a group.
    pub(crate) fn pages_of(&self, pg: PgId) -> std::ops::Range<u64> {
        let n = self.config.segment_pages;
        u64::from(pg.0) * n..(u64::from(pg.0) + 1) * n
    }
}

fn first_manifest(config: &Config) -> Manifest {
    let info = |n: u16| NodeInfo {
        id: NodeId(n),
        az: format!("az{}", n / 2 + 1),
        path: node_dir(NodeId(n)).display().to_string(),
        device: u64::from(n) % config.machines as u64,
        incarnation: 1,
    };
    let mut manifest = Manifest::create(NewCluster {
        cluster: CLUSTER,
        origin: ORIGIN,
        region: "sim".into(),
        page_bytes: config.page_bytes as u32,
        segment_pages: config.segment_pages,
        window: config.window,
        nodes: (0..NODES).map(info).collect(),
        config: BTreeMap::new(),
        created_us: 0,
    });
    for _ in 1..config.segments {
        manifest.pgs.push(manifest.pgs[0].clone());
    }
    manifest
}
