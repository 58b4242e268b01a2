//! The life of a flow: what is remembered of its packets, and when its tuple may be had by another.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use skep_mesh::{Datapath, DropReason, Event, FlowState, FrontendKey};
use skep_model::{EndpointState, Protocol, PublishOptions};

use super::rig::{
    ANSWERED, CLIENT_FIN, CLOSED, HERE, MIXED, RESET, Rig, TASK_FIN, Via, captured, client, options, wire,
};
use super::wire::{
    ABORT, ACK, DATA, FIN, INIT, INIT_ACK, Packet, RST, SCTP, SHUTDOWN, SHUTDOWN_ACK, SYN, TCP, UDP, word,
};

/// Both ends of a flow that asked [`HERE`].
struct Talk<'a> {
    rig: &'a Rig,
    client: Packet,
    task: Packet,
}

impl<'a> Talk<'a> {
    /// Sends the first packet.
    fn open(rig: &'a Rig, proto: u8, asked: IpAddr, port: u16) -> Self {
        let client = Packet::new(proto, client(asked.is_ipv6(), port), SocketAddr::new(asked, HERE));
        let (seen, _) = rig.passes(Via::Uplink, &client);
        let task = Packet::new(proto, seen.to, seen.from);
        Self { rig, client, task }
    }

    fn client(&self, flags: u8) -> &Self {
        self.rig.passes(Via::Uplink, &self.client.clone().flags(flags));
        self
    }

    fn task(&self, flags: u8) -> &Self {
        let (seen, _) = self.rig.passes(Via::Task(0), &self.task.clone().flags(flags));
        assert_eq!(seen.to, self.client.from);
        self
    }

    /// What both of its entries say.
    fn flags(&self) -> [u8; 2] {
        let proto = self.client.proto;
        [(0, self.client.from.port()), (1, self.task.to.port())]
            .map(|(kind, p)| self.rig.entry_of(proto, kind, p).flags())
    }

    fn says(&self, flags: u8, what: &str) -> &Self {
        assert_eq!(self.flags(), [flags; 2], "{what}");
        self
    }

    fn state(&self) -> FlowState {
        let flows = self.rig.lab.nodes[0].bpf().flow_table().unwrap().flows().unwrap();
        flows.iter().find(|flow| flow.client == self.client.from).unwrap().state
    }
}

fn opened(rig: &Rig, protocol: Protocol) -> u64 {
    let counters = rig.lab.nodes[0].bpf().counters().unwrap();
    counters.ports[&FrontendKey { protocol, port: HERE }].flows
}

#[test]
fn a_connection_is_followed_from_its_syn_to_its_last_acknowledgement() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let talk = Talk::open(&rig, TCP, rig.own(v6), 40_000 + u16::from(v6));
        assert_eq!((talk.flags(), talk.state()), ([0; 2], FlowState::Opening));
        talk.task(SYN | ACK).says(ANSWERED, "answered").client(ACK).says(ANSWERED, "open");
        assert_eq!(talk.state(), FlowState::Open);
        talk.client(FIN | ACK).says(ANSWERED | CLIENT_FIN, "half-closed by the client");
        talk.client(ACK).task(ACK).says(ANSWERED | CLIENT_FIN, "the task goes on");
        assert_eq!(talk.state(), FlowState::Closing);
        talk.task(FIN | ACK).says(ANSWERED | CLIENT_FIN | TASK_FIN, "both have ended");
        talk.client(ACK).says(ANSWERED | CLIENT_FIN | TASK_FIN | CLOSED, "acknowledged");
        assert_eq!(talk.state(), FlowState::Closed);
        let entry = rig.entry_of(TCP, 1, 40_000 + u16::from(v6));
        assert_eq!(entry.fin(), talk.client.seq + 1, "the number after the client's FIN");
    }
    for v6 in [false, true] {
        let talk = Talk::open(&rig, TCP, rig.own(v6), 41_000 + u16::from(v6));
        talk.task(SYN | ACK).client(ACK).task(FIN | ACK);
        talk.says(ANSWERED | TASK_FIN, "half-closed by the task");
        talk.client(ACK).client(FIN | ACK).says(ANSWERED | TASK_FIN | CLIENT_FIN, "both");
        talk.task(ACK).says(ANSWERED | TASK_FIN | CLIENT_FIN | CLOSED, "closed");
    }
}

#[test]
fn a_reset_of_either_side_ends_a_connection() {
    let rig = Rig::new();
    let by_client = Talk::open(&rig, TCP, rig.own(false), 40_000);
    by_client.task(SYN | ACK).client(RST);
    assert_eq!((by_client.flags()[0] & RESET, by_client.state()), (RESET, FlowState::Closed));
    let by_task = Talk::open(&rig, TCP, rig.own(false), 40_001);
    by_task.task(RST | ACK);
    assert_eq!(by_task.flags().map(|flags| flags & RESET), [RESET; 2]);
    // The same tuple is a new connection then, counted as one.
    let before = opened(&rig, Protocol::Tcp);
    by_client.client(SYN).says(0, "begins again");
    by_task.client(SYN).says(0, "begins again");
    assert_eq!(opened(&rig, Protocol::Tcp), before + 2);
}

#[test]
fn an_association_is_followed_too() {
    let rig = Rig::new();
    let talk = Talk::open(&rig, SCTP, rig.own(true), 40_000);
    talk.says(0, "asked").task(INIT_ACK).says(ANSWERED, "answered");
    talk.client(DATA).task(DATA).says(ANSWERED, "in use").client(SHUTDOWN).task(SHUTDOWN_ACK);
    talk.says(ANSWERED | CLIENT_FIN | TASK_FIN, "shut down").client(DATA);
    talk.says(ANSWERED | CLIENT_FIN | TASK_FIN | CLOSED, "complete").client(INIT).says(0, "begins again");
    talk.task(ABORT);
    assert_eq!(talk.flags().map(|flags| flags & RESET), [RESET; 2]);
}

#[test]
fn a_syn_that_comes_again_chooses_again_until_somebody_answers() {
    let rig = Rig::new();
    let before = opened(&rig, Protocol::Tcp);
    let talk = Talk::open(&rig, TCP, rig.own(false), 40_000);
    talk.client(SYN).client(SYN).task(SYN | ACK).client(SYN).says(ANSWERED, "still the same");
    assert_eq!(opened(&rig, Protocol::Tcp), before + 3);
    assert_eq!(rig.events(Event::ChosenAgain), 2);
}

/// Another address of the node, the same client port, the same task: may it have the tuple, or what of the old one is in its way?
fn second_use(rig: &Rig, old: &Talk<'_>) -> (bool, u64) {
    let ended = rig.events(Event::TimeWaitEnded);
    let other = Talk::open(rig, old.client.proto, rig.lab.nodes[0].second.into(), old.client.from.port());
    (other.task.to.port() == old.client.from.port(), rig.events(Event::TimeWaitEnded) - ended)
}

#[test]
fn a_tuple_is_free_when_nobody_can_mean_it_any_more() {
    let rig = Rig::new();
    let mut ports = 40_000..;
    let mut talk = || Talk::open(&rig, TCP, rig.own(false), ports.next().unwrap());
    let unanswered = talk();
    assert_eq!(second_use(&rig, &unanswered), (false, 0), "not answered yet");
    let open = talk();
    open.task(SYN | ACK);
    rig.age(100_000);
    assert_eq!(second_use(&rig, &open), (false, 0), "open for a day");
    let reset = talk();
    reset.task(SYN | ACK).client(RST);
    assert_eq!(second_use(&rig, &reset), (true, 0), "reset");
    let client_first = talk();
    client_first.task(SYN | ACK).client(FIN).task(FIN).client(ACK);
    assert_eq!(second_use(&rig, &client_first), (true, 1), "both ends may have crossed on the way");
    let lingers = talk();
    lingers.task(SYN | ACK).client(ACK).task(FIN).client(FIN).task(ACK);
    assert_eq!(second_use(&rig, &lingers), (true, 1), "the task's kernel remembers");
    let remembered = talk();
    remembered.task(SYN | ACK).client(ACK).task(FIN).client(FIN).task(ACK);
    rig.age(63);
    assert_eq!(second_use(&rig, &remembered), (true, 0), "for a minute");
    let halfway = talk();
    halfway.task(SYN | ACK).task(FIN);
    rig.age(63);
    assert_eq!(second_use(&rig, &halfway), (false, 0), "half-closed");
    let nearly = talk();
    nearly.task(SYN | ACK).task(FIN).client(FIN);
    assert_eq!(second_use(&rig, &nearly), (false, 0), "the last acknowledgement is still to come");
    let nearly = talk();
    nearly.task(SYN | ACK).task(FIN).client(FIN);
    rig.age(63);
    assert_eq!(second_use(&rig, &nearly), (true, 0), "and has been lost");
    let forgotten = talk();
    rig.age(131);
    assert_eq!(second_use(&rig, &forgotten), (true, 0), "nobody waits so long");
    for proto in [UDP, SCTP] {
        let talk = Talk::open(&rig, proto, rig.own(false), 39_000);
        talk.task(INIT_ACK);
        assert_eq!(second_use(&rig, &talk), (false, 0), "in use: {proto}");
        let talk = Talk::open(&rig, proto, rig.own(false), 39_001);
        rig.age(131);
        assert_eq!(second_use(&rig, &talk), (true, 0), "not answered: {proto}");
    }
    let shut = Talk::open(&rig, SCTP, rig.own(false), 39_002);
    shut.task(INIT_ACK).task(SHUTDOWN).client(SHUTDOWN_ACK).task(DATA);
    assert_eq!(second_use(&rig, &shut), (true, 0), "nothing lingers of an association");
}

/// What the task's kernel remembers is ended by a reset that it believes, right before the SYN.
#[test]
fn the_reset_that_ends_time_wait_is_one_that_the_tasks_kernel_believes() {
    let rig = Rig::new();
    for v6 in [false, true] {
        let talk = Talk::open(&rig, TCP, rig.own(v6), 40_000);
        talk.task(SYN | ACK).client(ACK).task(FIN);
        let last = talk.client.clone().flags(FIN | ACK).seq(0xffff_fffd).body(b"the end");
        rig.passes(Via::Uplink, &last);
        talk.task(ACK);
        let device = wire(&rig.lab.tasks[0].ns);
        // Another flow by the same tuple: only so the old one would be in the way.
        rig.change_flows(|entry| {
            if entry.key[37] == 1 {
                entry.value[0] ^= 0xff;
            }
        });
        let mut again = talk.client.clone().flags(SYN).seq(5);
        again.tcp_options = vec![2, 4, 0x20, 0, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1];
        let (seen, _) = rig.passes(Via::Uplink, &again);
        assert_eq!((seen.flags, word(&seen.l4, 4), seen.l4[12] >> 4), (SYN, 5, 9), "the SYN is whole again");
        let reset = captured(&device, |seen| seen.proto == TCP && seen.to == talk.task.from);
        assert!(reset.right, "{reset:?}");
        assert_eq!((reset.flags, reset.from, reset.l4[12] >> 4), (RST, talk.task.to, 5));
        assert_eq!(word(&reset.l4, 4), 0xffff_fffd_u32.wrapping_add(8), "the number that is expected next");
    }
}

#[test]
fn what_has_been_idle_for_too_long_ends_as_its_port_says() {
    let mut rig = Rig::new();
    let before = opened(&rig, Protocol::Udp);
    let talk = Talk::open(&rig, UDP, rig.own(false), 40_000);
    rig.age(80);
    talk.client(0);
    assert_eq!(opened(&rig, Protocol::Udp), before + 1);
    rig.age(95);
    talk.client(0);
    assert_eq!(opened(&rig, Protocol::Udp), before + 2, "after 90 seconds by default");
    let idle = PublishOptions { idle_timeout: Some(Duration::from_secs(5)), ..PublishOptions::default() };
    rig.apply(|desired| {
        let both = [Protocol::Tcp, Protocol::Udp];
        desired.services[0].options = both.map(|protocol| options(protocol, HERE, idle.clone())).to_vec();
    });
    let talk = Talk::open(&rig, UDP, rig.own(false), 40_001);
    rig.age(7);
    talk.client(0);
    assert_eq!(opened(&rig, Protocol::Udp), before + 4);
    let talk = Talk::open(&rig, TCP, rig.own(false), 40_002);
    talk.task(SYN | ACK).client(ACK);
    rig.age(4);
    talk.client(ACK).says(ANSWERED, "not yet");
    rig.age(7);
    let gone = rig.drops(DropReason::BackendGone);
    let (seen, _) = rig.passes(Via::Uplink, &talk.client.clone().flags(ACK));
    assert_eq!((seen.flags, seen.to), (RST, talk.client.from));
    assert_eq!(rig.drops(DropReason::BackendGone), gone + 1);
}

/// Pressure on the table takes entries away. Each of the two makes the other again, within a second.
#[test]
fn a_forgotten_entry_is_made_again_by_the_other() {
    let rig = Rig::new();
    let remove = |kind: u8| rig.forget_those(|found| found == kind);
    for v6 in [false, true] {
        let talk = Talk::open(&rig, TCP, rig.own(v6), 40_000);
        talk.task(SYN | ACK).client(ACK);
        remove(1);
        rig.is_dropped(Via::Task(0), &talk.task.clone().flags(ACK).frame(), DropReason::UnknownFlow, "forgotten");
        rig.age(2);
        talk.client(ACK).task(ACK);
        remove(0);
        rig.age(2);
        talk.task(ACK).client(ACK).says(ANSWERED, "as before");
        remove(0);
        // Before the second is over the client is faster: the same table leads to the same task.
        talk.client(ACK).task(ACK);
        rig.forget();
        talk.client(ACK).task(ACK);
        rig.forget();
    }
    // The same for a client whose address is changed.
    let asked = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), HERE);
    let from = SocketAddr::new(asked.ip(), 41_000);
    let (seen, _) = rig.passes(Via::Loopback, &Packet::new(TCP, from, asked));
    let answer = Packet::new(TCP, seen.to, seen.from).flags(ACK);
    for kind in [1, 0] {
        remove(kind);
        rig.age(2);
        if kind == 1 {
            assert_eq!(rig.passes(Via::Loopback, &Packet::new(TCP, from, asked).flags(ACK)).0.from, seen.from);
        }
        assert_eq!(rig.passes(Via::Task(0), &answer).0.to, from);
        assert_eq!(rig.passes(Via::Loopback, &Packet::new(TCP, from, asked).flags(ACK)).0.from, seen.from);
    }
}

#[test]
fn a_task_that_is_to_stop_keeps_its_connections_and_gets_no_new_ones() {
    let mut rig = Rig::new();
    let asking =
        |rig: &Rig, proto, port| Packet::new(proto, client(false, port), SocketAddr::new(rig.own(false), MIXED));
    let local = rig.lab.tasks[1].addr;
    let (tcp, udp): (Vec<u16>, Vec<u16>) = {
        let to_local = |proto, port: &u16| {
            let out = rig.run(Via::Uplink, &asking(&rig, proto, *port).frame()).1;
            out[30..34] == local.octets()
        };
        let ports = 40_000..40_100;
        (ports.clone().filter(|p| to_local(TCP, p)).collect(), ports.filter(|p| to_local(UDP, p)).collect())
    };
    assert!(tcp.len() > 5 && udp.len() > 5);
    rig.apply(|desired| desired.local_tasks[1].state = EndpointState::Draining);
    for port in tcp {
        let known = asking(&rig, TCP, port).flags(ACK);
        assert_eq!(rig.passes(Via::Uplink, &known).0.to.ip(), IpAddr::from(local), "an old one stays");
        let out = rig.run(Via::Uplink, &asking(&rig, TCP, port).frame()).1;
        assert_eq!(out[..4], [2, 0x73, 0x6b, 1], "a new one by the same tuple goes elsewhere");
    }
    for port in udp {
        let out = rig.run(Via::Uplink, &asking(&rig, UDP, port).frame()).1;
        assert_eq!(out[..4], [2, 0x73, 0x6b, 1], "datagrams go elsewhere at once");
    }
    let others: BTreeSet<_> =
        (41_000..41_100).map(|port| rig.run(Via::Uplink, &asking(&rig, TCP, port).frame()).1[8..12].to_vec()).collect();
    assert_eq!(others.len(), 3);
}
