//! What would become of a connection to this node: every table is asked as a packet would ask it, and says why. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use skep_mesh::{Desired, Flow, FlowState, Frontend, FrontendKey, Group, choose, compile};
use skep_model::seen::{BackendState, PortState, SeenBackend, SeenPort, TraceQuestion, TraceReport, TraceStep};
use skep_model::{Balance, EndpointKey, ListenOn, Protocol, PublishMode, TaskId, mesh_ipv6};

use super::report;

/// No more ports than this are named to somebody who asked for one that is not published.
const SHOWN: usize = 8;

/// What ends a way that leads past the mesh.
const NOT_OURS: &str = "nothing of the mesh: the node's own network stack answers, usually by refusing";

/// A table has ended it: this is the outcome.
struct Ended(String);

/// Asks the tables. `ports` are all that are published, `known` is the flow that the client has with this port already, `passed_over` are
/// tasks that do not answer at present.
pub(super) fn trace(
    desired: &Desired,
    ports: &[SeenPort],
    question: &TraceQuestion,
    known: Option<&Flow>,
    passed_over: &BTreeSet<TaskId>,
) -> TraceReport {
    let mut tracer = Tracer { desired, question, passed_over, steps: Vec::new(), backend: None };
    let verdict = match tracer.run(ports, known) {
        Ok(verdict) | Err(Ended(verdict)) => verdict,
    };
    TraceReport {
        node: report::node(&report::nodes(desired), &desired.node.id),
        protocol: question.protocol,
        port: question.port,
        from: question.from,
        to: question.to,
        steps: tracer.steps,
        verdict,
        backend: tracer.backend,
    }
}

struct Tracer<'a> {
    desired: &'a Desired,
    question: &'a TraceQuestion,
    passed_over: &'a BTreeSet<TaskId>,
    steps: Vec<TraceStep>,
    backend: Option<SeenBackend>,
}

impl Tracer<'_> {
    fn run(&mut self, ports: &[SeenPort], known: Option<&Flow>) -> Result<String, Ended> {
        self.address()?;
        let port = self.port(ports)?;
        self.listen(port)?;
        self.sources(port)?;
        if let Some(verdict) = known.and_then(|flow| self.flow(flow, port)) {
            return Ok(verdict);
        }
        self.backends(port)?;
        self.choice(port)
    }

    fn passes(&mut self, table: &'static str, says: impl Into<String>) {
        self.steps.push(TraceStep { table, says: says.into(), passes: true });
    }

    fn ends<T>(
        &mut self,
        table: &'static str,
        says: impl Into<String>,
        verdict: impl Into<String>,
    ) -> Result<T, Ended> {
        self.steps.push(TraceStep { table, says: says.into(), passes: false });
        Err(Ended(verdict.into()))
    }

    fn address(&mut self) -> Result<(), Ended> {
        let Some(to) = self.question.to else { return Ok(()) };
        let node = &self.desired.node;
        if to.is_loopback() {
            self.passes("addresses", format!("{to} is a loopback address: a client on this node itself"));
        } else if let Some(device) = node.addresses.get(&to) {
            self.passes("addresses", format!("{to} is this node's, on {device}"));
        } else if to == IpAddr::V4(node.overlay) || to == IpAddr::V6(mesh_ipv6(node.overlay)) {
            self.passes("addresses", format!("{to} is this node's inside the mesh"));
        } else {
            let own: Vec<_> = node.addresses.keys().map(ToString::to_string).collect();
            let says = format!("{to} is none of this node's addresses: {}", own.join(", "));
            return self.ends("addresses", says, "nothing of the mesh: the packet is not for this node");
        }
        Ok(())
    }

    fn port<'p>(&mut self, ports: &'p [SeenPort]) -> Result<&'p SeenPort, Ended> {
        let name = format!("{}/{}", self.question.port, self.question.protocol);
        let asked = |p: &&SeenPort| p.protocol == self.question.protocol && p.published == self.question.port;
        // A task in host mode comes before a service, as in the data plane.
        let Some(port) = ports.iter().filter(asked).min_by_key(|p| (p.mode != PublishMode::Host, &p.service.id)) else {
            return self.ends("ports", format!("{name} is not published here; {}", published(ports)), NOT_OURS);
        };
        let mode = if port.mode == PublishMode::Host { ", in host mode" } else { "" };
        let says =
            format!("{name} is published by service {}{mode}; its tasks listen on {}", port.service.name, port.target);
        match port.state {
            PortState::Elsewhere => {
                let says = format!("{says}; by its option \"nodes\" this node does not answer");
                self.ends("ports", says, "nothing of the mesh: ask a node that the option \"nodes\" names")
            }
            PortState::Held => {
                self.passes("ports", says);
                let verdict = "the process that listens there gets it: ask another node, or end the process";
                self.ends("held ports", format!("something else on this node has {name}, and keeps it"), verdict)
            }
            PortState::Serving | PortState::NobodyReady => {
                self.passes("ports", says);
                Ok(port)
            }
        }
    }

    fn listen(&mut self, port: &SeenPort) -> Result<(), Ended> {
        if port.listen.is_empty() {
            return Ok(());
        }
        let listen: Vec<_> = port.listen.iter().map(ListenOn::to_string).collect();
        let says = format!("answers on {} only", listen.join(", "));
        let addresses = &self.desired.node.addresses;
        let device = |to: &IpAddr| if to.is_loopback() { Some("lo") } else { addresses.get(to).map(String::as_str) };
        let covers = |to: IpAddr| port.listen.iter().any(|l| l.covers(to, device(&to)));
        let asked = self.question.to.map(|to| (to, covers(to)));
        self.narrowed("listen", &says, asked, "an address with --to")
    }

    fn sources(&mut self, port: &SeenPort) -> Result<(), Ended> {
        if port.sources.is_empty() {
            return Ok(());
        }
        let sources: Vec<_> = port.sources.iter().map(ToString::to_string).collect();
        let says = format!("lets clients in from {} only", sources.join(", "));
        let covers = |from: IpAddr| port.sources.iter().any(|net| net.contains(&from));
        let asks = self.question.from.map(|from| (from.ip(), covers(from.ip())));
        self.narrowed("sources", &says, asks, "a client with --from")
    }

    /// A table that lets some addresses pass, the one in question among them or not, if there is one.
    fn narrowed(
        &mut self,
        table: &'static str,
        says: &str,
        who: Option<(IpAddr, bool)>,
        name: &str,
    ) -> Result<(), Ended> {
        match who {
            Some((address, false)) => return self.ends(table, format!("{says}, which {address} is not of"), NOT_OURS),
            Some((_, true)) => self.passes(table, says),
            None => self.passes(table, format!("{says}; name {name} to have it checked")),
        }
        Ok(())
    }

    /// A packet of a known flow is looked up nowhere else.
    fn flow(&mut self, flow: &Flow, port: &SeenPort) -> Option<String> {
        let backend = port.backends.iter().find(|b| Some(&b.task) == flow.task.as_ref());
        match (flow.state, backend) {
            (FlowState::Closed, _) | (_, None) => {
                self.passes("flows", "the last flow of this client is over: a new one begins");
                None
            }
            (_, Some(backend)) => {
                let says = format!(
                    "this client has a flow with task {}, last heard of {} s ago",
                    backend.task,
                    flow.idle.as_secs()
                );
                self.passes("flows", says);
                Some(self.arrives(backend, port, "the flow goes on"))
            }
        }
    }

    fn backends(&mut self, port: &SeenPort) -> Result<(), Ended> {
        let count = |state: BackendState| port.backends.iter().filter(|b| b.state == state).count();
        let counts: Vec<_> = [BackendState::Ready, BackendState::Draining, BackendState::Starting]
            .map(|state| format!("{} {}", count(state), state.as_str()))
            .into();
        let says = counts.join(", ");
        if port.state == PortState::Serving {
            self.passes("backends", says);
            return Ok(());
        }
        let refusal = match port.protocol {
            Protocol::Tcp => "a TCP reset",
            Protocol::Udp | Protocol::Sctp => "an ICMP port unreachable",
        };
        let verdict =
            format!("refused at once with {refusal}: no task of {} is ready (see `service ps`)", port.service.name);
        self.ends("backends", says, verdict)
    }

    fn choice(&mut self, port: &SeenPort) -> Result<String, Ended> {
        let key = FrontendKey { protocol: port.protocol, port: port.published };
        let Some((frontend, group)) = frontend(self.desired, port, key) else {
            return self.ends("maglev", "the tables are being changed", "not known: ask again");
        };
        let Some(from) = self.question.from.filter(|_| port.balance != Balance::Datagram) else {
            return Ok(self.candidates(port, &group));
        };
        let first = choose(key, &frontend, &group, from, &BTreeSet::new());
        let chosen = choose(key, &frontend, &group, from, self.passed_over);
        if let Some(first) = first.filter(|_| first != chosen).map(|endpoint| &endpoint.task) {
            let why = "comes first, but it or its node left somebody without an answer: it is passed over";
            self.passes("suspects", format!("task {first} {why}"));
        }
        let Some(backend) = chosen.and_then(|chosen| port.backends.iter().find(|b| b.task == chosen.task)) else {
            return self.ends("maglev", "the tables are being changed", "not known: ask again");
        };
        let (own, all) = (slots(&group, backend), group.slots.len());
        self.passes("maglev", format!("{}: task {}, which has {own} of {all} slots", how(port), backend.task));
        Ok(self.arrives(backend, port, "a new flow"))
    }

    /// Without a client it can only be said who is in question.
    fn candidates(&mut self, port: &SeenPort, group: &Group) -> String {
        let all = group.slots.len();
        for backend in port.backends.iter().filter(|b| is_ready(&group.ready, b)) {
            let (task, node) = (&backend.task, &backend.node.hostname);
            self.passes("maglev", format!("{} of {all} slots are task {task}'s on {node}", slots(group, backend)));
        }
        let count = group.ready.len();
        if port.balance == Balance::Datagram {
            return format!("each datagram goes to one of {count} tasks");
        }
        format!("one of {count} tasks, {}: name a client with --from IP:PORT to learn which", how(port))
    }

    fn arrives(&mut self, backend: &SeenBackend, port: &SeenPort, what: &str) -> String {
        let path = if backend.node.id == self.desired.node.id {
            "over its veth pair, on this node".to_owned()
        } else {
            let underlay = backend.node.underlay.map_or_else(|| "unknown".to_owned(), |a| a.to_string());
            format!("through the overlay, to node {} at {underlay}", backend.node.hostname)
        };
        self.passes("path", path.clone());
        self.backend = Some(backend.clone());
        // The same task by the address of the client's family.
        let addr = match self.question.from.map(|from| from.ip().to_canonical()) {
            Some(IpAddr::V6(_)) => mesh_ipv6(backend.addr).into(),
            _ => backend.addr.into(),
        };
        let at = SocketAddr::new(addr, port.target);
        format!("{what}: task {} of {} at {at}, {path}", backend.task, port.service.name)
    }
}

fn how(port: &SeenPort) -> String {
    let by = if port.client_affinity { "by the client's address" } else { "by the client's address and port" };
    match port.balance {
        Balance::LocalFirst => format!("{by}, tasks of this node first"),
        Balance::Maglev | Balance::Datagram => by.to_owned(),
    }
}

/// The frontend as the data plane has it, and the tasks behind it. Compiled alone: a swarm may have thousands.
fn frontend(desired: &Desired, port: &SeenPort, key: FrontendKey) -> Option<(Frontend, Group)> {
    let services = desired.services.iter().filter(|s| s.id == port.service.id).cloned().collect();
    let endpoints = desired.endpoints.iter().filter(|e| e.record.service == port.service.id).cloned().collect();
    let mut alone = compile(&Desired { services, endpoints, ..desired.clone() });
    let frontend = alone.frontends.remove(&key)?;
    let group = alone.groups.remove(&frontend.group)?;
    Some((frontend, group))
}

/// How many slots of the Maglev table are a task's.
fn slots(group: &Group, backend: &SeenBackend) -> usize {
    let is = |slot: &u32| group.ready.get(*slot as usize).is_some_and(|endpoint| endpoint.task == backend.task);
    group.slots.iter().filter(|slot| is(slot)).count()
}

fn is_ready(ready: &[EndpointKey], backend: &SeenBackend) -> bool {
    ready.iter().any(|endpoint| endpoint.task == backend.task)
}

fn published(ports: &[SeenPort]) -> String {
    let more = ports.len().saturating_sub(SHOWN);
    let names: Vec<_> = ports.iter().take(SHOWN).map(|p| format!("{}/{}", p.published, p.protocol)).collect();
    match (names.is_empty(), more) {
        (true, _) => "nothing is".to_owned(),
        (false, 0) => format!("what is: {}", names.join(", ")),
        (false, more) => format!("what is: {} and {more} more", names.join(", ")),
    }
}
