//! A task and everything that concerns its endpoint: the node that runs it, and another node, which has another task of the same service.
//! What decides is the real thing: [`next`], [`open`], [`close`], the tables of [`skep_netdb`] and the compiler of [`skep_mesh`]. Made up is
//! only what they drive: the process, the data planes, the disk, the messages.

mod plane;
mod side;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use skep_mesh::BackendState;
use skep_model::{EndpointState, OwnerTable, TaskState};
use skep_netdb::{Merged, Tables};

use self::plane::{Plane, compiled};
use self::side::Side::{self, Other, Owner};
use crate::task::machine::{Action, Container, next};
use crate::task::{Endpoint, Step, close, open};

const STARTING: EndpointState = EndpointState::Starting;
const READY: EndpointState = EndpointState::Ready;
const DRAINING: EndpointState = EndpointState::Draining;

/// Tables of the task's node that are on their way at once; older ones are lost.
const ON_THEIR_WAY: usize = 2;

/// The clocks stand still, which is the hardest case for versions.
const NOW: u64 = 0;

/// What the process of the task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Process {
    Runs,
    Listens,
    /// Dead, and its end is not written down yet.
    Dead,
    Ended,
}

/// The daemon of the task's node.
#[derive(Debug, Clone)]
struct Daemon {
    netdb: Rc<Tables>,
    here: Option<EndpointState>,
    /// The endpoint as the data plane was told last.
    applied: Option<EndpointState>,
    /// The data plane is left alone until the task is in the mesh again.
    expecting: bool,
    /// The flows had their time.
    time_is_over: bool,
    signalled: bool,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    desired: TaskState,
    reported: TaskState,
    process: Process,
    /// Whether it was seen to listen, or had its grace.
    seen: bool,
    /// Whether the task has a flow.
    flow: bool,
    daemon: Option<Daemon>,
    disk: Arc<OwnerTable>,
    here: Plane,
    /// Tables of the task's node that are on their way.
    said: Vec<Arc<OwnerTable>>,
    other: Rc<Tables>,
    there: Plane,
    /// Whether the other node's task takes new flows.
    other_ready: bool,
    silent: bool,
    lost: bool,
    planes: Rc<RefCell<HashMap<Inputs, Plane>>>,
}

/// What may come over the world, at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Listens,
    ListensNoMore,
    /// So long that it is given connections all the same.
    GracePasses,
    Dies,
    ToldToStop,
    FlowBegins,
    FlowEnds,
    DaemonDies,
    /// The other node is told that this one is not heard of.
    Silent,
    /// And that it counts as dead.
    Lost,
    OtherBegins,
    OtherStops,
}

pub(super) const EVENTS: [Event; 12] = [
    Event::Listens,
    Event::ListensNoMore,
    Event::GracePasses,
    Event::Dies,
    Event::ToldToStop,
    Event::FlowBegins,
    Event::FlowEnds,
    Event::DaemonDies,
    Event::Silent,
    Event::Lost,
    Event::OtherBegins,
    Event::OtherStops,
];

/// What happens sooner or later when nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Controller,
    Apply,
    EndWritten,
    DrainTimePasses,
    DaemonStarts,
    Store,
    /// One of the tables on their way arrives.
    Hear(usize),
    /// The node is told what others believe of it.
    Echo,
    HeardAgain,
}

impl Progress {
    /// Whether it needs no other node.
    pub(super) fn is_here(self) -> bool {
        !matches!(self, Self::Hear(_) | Self::Echo | Self::HeardAgain)
    }
}

/// What two worlds that are the same to everybody have in common.
pub(super) type Key = (
    (TaskState, TaskState, Process, bool, bool, bool, bool, bool),
    Option<(Said, Option<EndpointState>, Option<EndpointState>, bool, bool, bool)>,
    (Said, Plane, Vec<Said>, Said, Plane),
);

/// A table: its version, and the state of the task in it.
type Said = (u64, Option<EndpointState>);

fn said(table: &OwnerTable) -> Said {
    (table.version, table.records.get(Owner.key()).map(|record| record.state))
}

impl World {
    /// The container has been started, and does not listen yet. The other node's task is ready.
    pub(super) fn new() -> Self {
        let mut other = Tables::new(Other.node().clone(), NOW);
        other.set_members([Owner, Other].map(|side| side.member(true)));
        other.publish([(Other.key().clone(), Other.record(READY))], NOW);
        let mut world = Self {
            desired: TaskState::Running,
            reported: TaskState::Starting,
            process: Process::Runs,
            seen: false,
            flow: false,
            daemon: None,
            disk: Arc::default(),
            here: Plane::default(),
            said: Vec::new(),
            other: Rc::new(other),
            there: Plane::default(),
            other_ready: true,
            silent: false,
            lost: false,
            planes: Rc::default(),
        };
        world.apply_there();
        world.start_daemon();
        world
    }

    pub(super) fn key(&self) -> Key {
        let told = self.other.table(Owner.node()).map(|table| said(table)).unwrap_or_default();
        let own = self.daemon.as_ref().map(|daemon| said(daemon.netdb.own()));
        let mut on_their_way: Vec<_> = self.said.iter().map(|table| said(table)).collect();
        on_their_way.sort();
        let disk = said(&self.disk);
        let versions = on_their_way.iter().chain(&own).chain([&disk, &told]).map(|(version, _)| *version);
        let least = versions.min().unwrap_or(0);
        let from = |(version, state): Said| (version - least, state);
        (
            (self.desired, self.reported, self.process, self.seen, self.flow, self.other_ready, self.silent, self.lost),
            self.daemon.as_ref().zip(own).map(|(daemon, own)| {
                (from(own), daemon.here, daemon.applied, daemon.expecting, daemon.time_is_over, daemon.signalled)
            }),
            (
                from(disk),
                self.here.clone(),
                on_their_way.into_iter().map(from).collect(),
                from(told),
                self.there.clone(),
            ),
        )
    }

    fn is_alive(&self) -> bool {
        matches!(self.process, Process::Runs | Process::Listens)
    }

    /// Whether a client that asks any of the nodes may be given to the task.
    fn takes_flows(&self) -> bool {
        let passed_on = self.here.state != Some(BackendState::Ready) && !self.here.chosen;
        self.process == Process::Listens && (self.here.chosen || self.there.chosen && !passed_on)
    }

    /// The world after an event; `None` where it cannot happen.
    pub(super) fn after(&self, event: Event) -> Option<Self> {
        let mut world = self.clone();
        let possible = match event {
            Event::Listens => std::mem::replace(&mut world.process, Process::Listens) == Process::Runs,
            Event::ListensNoMore => std::mem::replace(&mut world.process, Process::Runs) == Process::Listens,
            Event::GracePasses => world.pass_grace(),
            Event::Dies => world.die(),
            Event::ToldToStop => std::mem::replace(&mut world.desired, TaskState::Shutdown) == TaskState::Running,
            Event::FlowBegins => !std::mem::replace(&mut world.flow, true) && self.takes_flows(),
            Event::FlowEnds => std::mem::replace(&mut world.flow, false),
            Event::DaemonDies => world.daemon.take().is_some(),
            Event::Silent => world.hear_nothing(true, false) && !self.lost,
            Event::Lost => world.hear_nothing(true, true),
            Event::OtherBegins => world.change_other(true),
            Event::OtherStops => world.change_other(false),
        };
        possible.then_some(world)
    }

    /// Every way in which the world may go on by itself.
    pub(super) fn progress(&self) -> Vec<(Progress, Self)> {
        use Progress::*;
        let hear = (0..self.said.len()).map(Hear);
        let all = [Controller, Apply, EndWritten, DrainTimePasses, DaemonStarts, Store, Echo, HeardAgain];
        let possible = all.into_iter().chain(hear).filter_map(|progress| {
            let mut world = self.clone();
            world.go_on(progress).then_some((progress, world))
        });
        possible.collect()
    }

    /// Whether that is possible.
    fn go_on(&mut self, progress: Progress) -> bool {
        match progress {
            Progress::Controller => self.control(),
            Progress::Apply => self.apply(),
            Progress::EndWritten => {
                let dead = self.process == Process::Dead;
                self.process = if dead { Process::Ended } else { self.process };
                dead
            }
            Progress::DrainTimePasses => self.pass_drain_time(),
            Progress::DaemonStarts => self.daemon.is_none() && self.start_daemon(),
            Progress::Store => {
                let Some(daemon) = &self.daemon else { return false };
                let own = daemon.netdb.own().clone();
                std::mem::replace(&mut self.disk, own.clone()) != own
            }
            Progress::Hear(which) => self.hear(which),
            Progress::Echo => self.echo(),
            Progress::HeardAgain => self.daemon.is_some() && self.hear_nothing(false, false),
        }
    }

    fn start_daemon(&mut self) -> bool {
        let mut netdb = Tables::new(Owner.node().clone(), NOW);
        netdb.set_members([Owner, Other].map(|side| side.member(true)));
        netdb.merge(Other.node().clone(), self.other.own().as_ref().clone());
        let runs = self.process != Process::Ended;
        netdb.take_over(self.disk.as_ref().clone(), |_| runs, NOW);
        self.daemon = Some(Daemon {
            netdb: Rc::new(netdb),
            here: None,
            applied: None,
            expecting: runs,
            time_is_over: false,
            signalled: false,
        });
        self.say();
        true
    }

    /// Sends what this node has to say, if that is news. Nobody need ever receive it.
    fn say(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let own = daemon.netdb.own();
        let known = self.other.table(Owner.node()).map_or(0, |table| table.version);
        if own.version > known && !self.said.contains(own) {
            self.said.push(own.clone());
            self.said.drain(..self.said.len().saturating_sub(ON_THEIR_WAY));
        }
    }

    fn hear(&mut self, which: usize) -> bool {
        let table = self.said.remove(which);
        let other = Rc::make_mut(&mut self.other);
        assert_eq!(other.merge(Owner.node().clone(), table.as_ref().clone()), Merged::Newer);
        // Older ones, and the same again, may still come, and change nothing.
        let (stale, newer): (Vec<_>, Vec<_>) = self.said.drain(..).partition(|other| other.version <= table.version);
        for late in stale.iter().chain([&table]) {
            assert_eq!(other.merge(Owner.node().clone(), late.as_ref().clone()), Merged::Stale);
            assert_eq!(other.table(Owner.node()), Some(&table), "newer news are kept");
        }
        self.said = newer;
        self.apply_there();
        true
    }

    fn echo(&mut self) -> bool {
        let Some(daemon) = &mut self.daemon else { return false };
        let (own, believed) = (daemon.netdb.own().clone(), self.other.table(Owner.node()).cloned());
        let Some(believed) = believed.filter(|believed| believed.version >= own.version && *believed != own) else {
            return false;
        };
        Rc::make_mut(&mut daemon.netdb).merge(Owner.node().clone(), believed.as_ref().clone());
        assert!(daemon.netdb.own().version > believed.version, "others would not believe the node");
        self.say();
        true
    }

    fn hear_nothing(&mut self, silent: bool, lost: bool) -> bool {
        let changed = (self.silent, self.lost) != (silent, lost);
        (self.silent, self.lost) = (silent, lost);
        let other = Rc::make_mut(&mut self.other);
        other.set_silent(if silent { [Owner.node().clone()].into() } else { [].into() });
        other.set_members([Owner.member(!lost), Other.member(true)]);
        self.apply_there();
        changed
    }

    fn change_other(&mut self, ready: bool) -> bool {
        let changed = self.other_ready != ready;
        self.other_ready = ready;
        let state = if ready { READY } else { STARTING };
        Rc::make_mut(&mut self.other).publish([(Other.key().clone(), Other.record(state))], NOW);
        if let Some(daemon) = &mut self.daemon {
            Rc::make_mut(&mut daemon.netdb).merge(Other.node().clone(), self.other.own().as_ref().clone());
        }
        self.apply_there();
        changed
    }

    /// At once: that the other node lags behind is in the messages that have not arrived.
    fn apply_there(&mut self) {
        self.there = self.plane(Other, &self.other);
    }

    fn die(&mut self) -> bool {
        let alive = self.is_alive();
        if alive {
            (self.process, self.flow) = (Process::Dead, false);
        }
        alive
    }

    fn endpoint(&self) -> Option<Endpoint> {
        let daemon = self.daemon.as_ref()?;
        Some(Endpoint {
            here: daemon.here,
            told: daemon.netdb.own().records.get(Owner.key()).map(|record| record.state),
            settled: daemon.applied == daemon.here,
            published: true,
        })
    }

    fn action(&self) -> Option<Action> {
        self.daemon.as_ref()?;
        let container = if self.process == Process::Ended { Container::Exited(Some(0)) } else { Container::Running };
        Some(next(self.reported, self.desired, container))
    }

    /// What the task's controller is about to do with its endpoint.
    fn step(&self) -> Option<Step> {
        match self.action()? {
            Action::MarkRunning | Action::Watch => Some(open(self.endpoint()?)),
            Action::Stop => Some(close(self.endpoint()?)),
            _ => None,
        }
    }

    /// One step of the task's controller. Whether there was one to take.
    fn control(&mut self) -> bool {
        let Some(action) = self.action() else { return false };
        match (action, self.step()) {
            (Action::Settle(ending), _) => {
                self.leave_mesh();
                self.reported = ending.state();
                true
            }
            (Action::Stop, _) if self.daemon.as_ref().is_some_and(|daemon| daemon.signalled) => self.die(),
            (Action::MarkRunning, Some(Step::Done)) => {
                self.reported = TaskState::Running;
                true
            }
            (Action::Watch, Some(Step::Done)) => self.process == Process::Dead && self.announce(DRAINING),
            (Action::Stop, Some(Step::AwaitFlows)) if self.flow && !self.time_is_over() => false,
            (Action::Stop, Some(Step::AwaitFlows | Step::Done)) => self.signal(),
            (_, Some(step)) => self.take(step),
            (Action::Wait, None) => false,
            (action, None) => panic!("{action:?} of a container that was started"),
        }
    }

    fn time_is_over(&self) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| daemon.time_is_over)
    }

    fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Enter(state) => self.enter_mesh(state),
            Step::Announce(state) => self.announce(state),
            Step::AwaitListening => self.process == Process::Listens && self.take_flows(),
            Step::AwaitDataPlane | Step::AwaitFlows | Step::Done => false,
        }
    }

    fn enter_mesh(&mut self, state: EndpointState) -> bool {
        let Some(daemon) = &mut self.daemon else { return false };
        (daemon.here, daemon.expecting) = (Some(state), false);
        Rc::make_mut(&mut daemon.netdb).publish([(Owner.key().clone(), Owner.record(state))], NOW);
        self.say();
        true
    }

    fn announce(&mut self, state: EndpointState) -> bool {
        let Some(daemon) = &mut self.daemon else { return false };
        daemon.here = daemon.here.map(|_| state);
        Rc::make_mut(&mut daemon.netdb).set_state(Owner.key(), state, NOW);
        self.say();
        true
    }

    fn leave_mesh(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        (daemon.here, daemon.expecting) = (None, false);
        Rc::make_mut(&mut daemon.netdb).withdraw(Owner.key(), NOW);
        self.say();
    }

    /// The task is told to stop: nobody may be sent to it by then, and its flows have had their time.
    fn signal(&mut self) -> bool {
        assert_ne!(self.here.state, Some(BackendState::Ready), "it has not left the tables");
        assert!(!self.here.chosen || !self.here.others, "somebody else could be given its new flows");
        assert!(!self.flow || self.time_is_over(), "its flow has not had its time");
        let Some(daemon) = &mut self.daemon else { return false };
        daemon.signalled = true;
        true
    }

    fn pass_grace(&mut self) -> bool {
        self.process == Process::Runs && self.step() == Some(Step::AwaitListening) && self.take_flows()
    }

    fn take_flows(&mut self) -> bool {
        self.seen = true;
        self.announce(READY)
    }

    fn pass_drain_time(&mut self) -> bool {
        let waits = self.flow && self.step() == Some(Step::AwaitFlows);
        match &mut self.daemon {
            Some(daemon) if waits && !daemon.signalled => !std::mem::replace(&mut daemon.time_is_over, true),
            _ => false,
        }
    }

    /// The driver of the mesh brings the data plane to what it should be.
    fn apply(&mut self) -> bool {
        let Some(daemon) = self.daemon.as_ref().filter(|daemon| !daemon.expecting) else { return false };
        let here = daemon.here;
        let plane = self.plane(Owner, &daemon.netdb);
        let changed = daemon.applied != here || self.here != plane;
        self.here = plane;
        self.daemon.as_mut().unwrap().applied = here;
        changed
    }
}

/// What a data plane's tables follow from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Inputs {
    side: Side,
    here: Option<EndpointState>,
    told: Option<EndpointState>,
    other_ready: bool,
    silent: bool,
    lost: bool,
}

impl World {
    /// What the compiler makes of what a node knows, looked up where that was asked before.
    fn plane(&self, side: Side, netdb: &Tables) -> Plane {
        let here = match side {
            Owner => self.daemon.as_ref().and_then(|daemon| daemon.here),
            Other => Some(if self.other_ready { READY } else { STARTING }),
        };
        let told = netdb.table(Owner.node()).and_then(|table| said(table).1);
        let (silent, lost) = if side == Other { (self.silent, self.lost) } else { (false, false) };
        let inputs = Inputs { side, here, told, other_ready: self.other_ready, silent, lost };
        let compiled = || compiled(side, &netdb.view(), here.map(|state| side.local(state)));
        self.planes.borrow_mut().entry(inputs).or_insert_with(compiled).clone()
    }
}

impl World {
    /// Nobody has anything left to do.
    pub(super) fn check_rest(&self) {
        let daemon = self.daemon.as_ref().expect("it starts again");
        let own = daemon.netdb.own();
        assert_eq!(self.other.table(Owner.node()), Some(own), "the other node knows what this one says");
        assert_eq!(&self.disk, own, "and so does the disk");
        self.check_here();
        let elsewhere = |state: BackendState| Some(state).filter(|state| *state != BackendState::Starting);
        assert_eq!(self.there.state, self.here.state.and_then(elsewhere), "both nodes come to the same");
        assert_eq!((self.there.chosen, self.there.others), (self.here.chosen, self.here.others));
    }

    /// The task's node has nothing left to do by itself.
    pub(super) fn check_here(&self) {
        assert_eq!(self.here.others, self.other_ready);
        if self.reported.is_terminal() {
            assert_eq!((self.process, &self.here.state, self.here.chosen), (Process::Ended, &None, false));
            return;
        }
        assert_eq!(self.desired, TaskState::Running, "it ends when it should");
        assert!(self.is_alive(), "its end is noticed");
        let ready = self.here.state == Some(BackendState::Ready);
        assert_eq!(self.here.chosen, ready);
        assert!(!ready || self.reported == TaskState::Running, "who takes connections counts as running");
        assert!(ready || self.process == Process::Runs, "who listens takes connections");
    }

    /// At every moment.
    pub(super) fn check(&self) {
        assert!(self.seen || self.here.state != Some(BackendState::Ready), "nobody has seen that it takes new flows");
        assert!(self.seen || !self.here.chosen && !self.there.chosen, "nobody has seen that it takes new flows");
        assert!(!self.flow || self.here.state.is_some(), "its flow is cut while it lives");
    }
}
