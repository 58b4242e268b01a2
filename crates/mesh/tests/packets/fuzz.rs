//! Frames that nobody would send, by the thousand: what must hold whatever comes.
//!
//! A run is repeated by its seed. `SKEP_FUZZ_SECONDS=60` goes on for a minute instead of a few seconds, with a seed from the clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use skep_mesh::{Event, FORWARD_VNI, REPLY_VNI, SECOND_CHANCE_VNI};

use super::overlay::{Member, addressed, asked};
use super::rig::{
    DROP, FAR, FAR_TASK, HERE, MIXED, NEXT, NOBODY, PROTOCOLS, REDIRECT, Rig, THERE, Via, captured, client, options,
    wire,
};
use super::wire::{ACK, FIN, Packet, RST, SCTP, SYN, Seen, TCP, UDP, error, put, seal};

/// xorshift64* (Vigna 2016): small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A sound packet of one of few clients, so that flows are met again.
fn sound(rig: &Rig, dice: &mut Dice, via: Via) -> Vec<u8> {
    let (v6, proto) = (dice.one_in(2), dice.of(&PROTOCOLS));
    let port = dice.of(&[HERE, THERE, MIXED, NOBODY, 53]);
    let client_port = 40_000 + u16::from(dice.byte() & 15);
    let (mut from, mut to) = (client(v6, client_port), SocketAddr::new(rig.own(v6), port));
    match via {
        Via::Task(task) if dice.one_in(2) => {
            (from, to) = (SocketAddr::new(rig.task_addr(task, v6), 80), client(v6, client_port));
        }
        Via::Task(task) => from = SocketAddr::new(rig.task_addr(task, v6), client_port),
        Via::Loopback if dice.one_in(2) => {
            let own = if v6 { std::net::Ipv6Addr::LOCALHOST.into() } else { std::net::Ipv4Addr::LOCALHOST.into() };
            (from, to) = (SocketAddr::new(own, client_port), SocketAddr::new(own, port));
        }
        _ => (),
    }
    let limit = if dice.one_in(20) { 2000 } else { 40 };
    let length = dice.below(limit);
    let mut packet = Packet::new(proto, from, to).body(&vec![dice.byte(); length]);
    let any = dice.byte();
    match proto {
        TCP if !dice.one_in(3) => packet.flags = dice.of(&[ACK, SYN | ACK, FIN | ACK, RST, any]),
        SCTP if !dice.one_in(3) => packet.flags = dice.byte() % 16,
        _ => (),
    }
    if proto == TCP && dice.one_in(3) {
        packet.tcp_options = (0..dice.below(10) * 4).map(|_| dice.of(&[0, 1, 2, 3, 4, 8, 254, 10])).collect();
    }
    if dice.one_in(8) {
        packet.ip_options = vec![1; dice.below(10) * 4];
        let kinds = [0, 43, 44, 60];
        packet.extensions = (0..dice.below(8)).map(|_| (dice.of(&kinds), vec![0; 8])).collect();
    }
    if dice.one_in(8) {
        packet.fragment = dice.of(&[0x2000, 0x2001, 1, 0x4000, 0x8000, 0x1fff]);
        packet.id = dice.byte().into();
    }
    if dice.one_in(8) {
        let about = if dice.one_in(2) { packet.turned() } else { packet.clone() };
        let mut quoted = about.frame().split_off(14);
        quoted.truncate(28 + dice.below(40));
        return error(from.ip(), to.ip(), dice.byte() % 14, dice.byte() % 6, &quoted);
    }
    packet.frame()
}

/// Spoils a frame: bits, bytes, words, cuts, growths; some of them all at once.
fn spoil(frame: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let at = dice.below(frame.len());
        // Headers are what matters.
        let at = if dice.one_in(4) { at } else { 12 + at % 80.min(frame.len() - 12) };
        match dice.below(8) {
            0 | 1 => frame[at] ^= 1 << dice.below(8),
            2 | 3 => frame[at] = dice.byte(),
            4 => frame[at] = dice.of(&[0, 1, 0x7f, 0x80, 0xff, 0x45, 0x60, 44]),
            5 if at + 2 <= frame.len() => put(frame, at, dice.of(&[0, 1, 20, 40, 0x7fff, 0xffff])),
            6 => frame.truncate(least(frame).max(at)),
            _ => frame.extend(vec![dice.byte(); dice.below(30)]),
        }
    }
    frame.resize(frame.len().max(least(frame)), 0);
}

/// What the kernel itself wants a frame to have.
fn least(frame: &[u8]) -> usize {
    if frame[12..14] == [0x86, 0xdd] { 54 } else { 34 }
}

/// Corrects the checksums of a packet that is otherwise whole: most rewriting happens to right ones.
fn seal_again(frame: &mut [u8]) {
    let Some(seen) = Seen::of(frame) else { return };
    if frame[12] == 8 {
        let header = 14 + usize::from(frame[14] & 15) * 4;
        put(frame, 24, 0);
        let check = !super::wire::sum(&frame[14..header]);
        put(frame, 24, check);
    }
    let mut l4 = seen.l4.clone();
    seal(seen.proto, seen.from.ip(), seen.to.ip(), &mut l4);
    if let Some(at) = frame.windows(seen.l4.len()).rposition(|part| part == seen.l4) {
        frame[at..at + l4.len()].copy_from_slice(&l4);
    }
}

fn random(dice: &mut Dice) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..60 + dice.below(200)).map(|_| dice.byte()).collect();
    let kind = dice.of(&[[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]]);
    frame[12..14].copy_from_slice(&kind);
    if dice.one_in(2) {
        frame[14] = if kind == [8, 0] { 0x45 } else { 0x60 };
    }
    frame
}

fn total(rig: &Rig) -> u64 {
    let sum = |map: &aya::maps::PerCpuArray<aya::maps::MapData, u64>| -> u64 {
        (0..16).map(|n| map.get(&n, 0).unwrap().iter().sum::<u64>()).sum()
    };
    rig.all_counts().iter().map(sum).sum()
}

fn is_for_itself(frame: &[u8]) -> bool {
    let (source, destination) = frame[26..34].split_at(4);
    frame[12] == 8 && source == destination
}

/// What must hold of a frame and what became of it.
fn holds(via: Via, before: &[u8], verdict: i32, after: &[u8]) -> Result<(), String> {
    match verdict {
        // A task asks its node by the very address that it asks.
        NEXT if after != before && matches!(via, Via::Task(_)) && is_for_itself(after) => (),
        NEXT if after != before => return Err("passed on, and not unchanged".to_owned()),
        NEXT | DROP => return Ok(()),
        REDIRECT => (),
        other => return Err(format!("verdict {other}")),
    }
    let sound = Seen::of(before).filter(|seen| seen.right);
    if sound.is_none() {
        return Ok(());
    }
    let seen = Seen::of(after).ok_or("a whole packet became something else")?;
    if !seen.right {
        return Err(format!("a right checksum became wrong: {seen:?}"));
    }
    let length = u16::from_be_bytes([after[16], after[17]]);
    if after[12] == 8 && usize::from(length) + 14 > after.len() {
        return Err(format!("{via:?}: longer than it is"));
    }
    Ok(())
}

#[test]
fn whatever_comes_is_left_alone_dropped_and_counted_or_right() {
    let seconds = std::env::var("SKEP_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let seed = seconds.map_or(0x5eed, |_| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1);
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut rig = Rig::new();
    rig.apply(|desired| {
        // A port with everything.
        let sources = vec!["10.99.0.0/24".parse().unwrap(), "fd99::/64".parse().unwrap()];
        let wanted = skep_model::PublishOptions { sources, client_affinity: true, ..Default::default() };
        desired.services[2].options = vec![options(skep_model::Protocol::Tcp, MIXED, wanted)];
    });
    let before = total(&rig);
    let mut dice = Dice(seed);
    let mut verdicts: BTreeMap<(String, i32), usize> = BTreeMap::new();
    println!("seed {seed:#x}");
    let mut runs = 0;
    while until.map_or(runs < 20_000, |until| Instant::now() < until) {
        for via in [Via::Uplink, Via::Loopback, Via::Task(0), Via::Task(1)] {
            batch(&rig, via, &mut dice, &mut verdicts);
            runs += BATCH;
        }
    }
    println!("{runs} runs: {verdicts:?}");
    for via in ["Uplink", "Loopback", "Task(0)", "Task(1)"] {
        for verdict in [NEXT, DROP, REDIRECT] {
            let seen = verdicts.get(&(via.to_owned(), verdict)).copied().unwrap_or(0);
            assert!(seen > runs / 500, "{via}: verdict {verdict} only {seen} times");
        }
    }
    assert!(total(&rig) > before, "drops are counted");
    assert!(rig.flows().keys().count() <= 16_384);
    assert!(rig.fragments().keys().count() <= 2048);
    for event in [Event::PortChanged, Event::TooBig] {
        assert!(rig.events(event) > 0, "{event:?} never happened");
    }
    // After all that a client is served as ever.
    let packet = Packet::new(TCP, client(false, 50_000), SocketAddr::new(rig.own(false), HERE));
    assert_eq!(rig.passes(Via::Uplink, &packet).0.to.port(), 80);
}

const BATCH: usize = 500;

fn batch(rig: &Rig, via: Via, dice: &mut Dice, verdicts: &mut BTreeMap<(String, i32), usize>) {
    let frames: Vec<Vec<u8>> = (0..BATCH)
        .map(|_| {
            if dice.one_in(10) {
                return random(dice);
            }
            let mut frame = sound(rig, dice, via);
            if dice.one_in(3) {
                spoil(&mut frame, dice);
            }
            if dice.one_in(2) {
                seal_again(&mut frame);
            }
            frame
        })
        .collect();
    let counted = total(rig);
    let results = rig.run_all(via, 0, frames.iter().map(|frame| &frame[..]));
    let mut silent = 0;
    let mut dropped = 0;
    for (frame, (verdict, out)) in frames.iter().zip(&results) {
        *verdicts.entry((format!("{via:?}"), *verdict)).or_default() += 1;
        if let Err(what) = holds(via, frame, *verdict, out) {
            panic!("{via:?} {what}\nbefore {frame:02x?}\nafter  {out:02x?}");
        }
        if *verdict == DROP {
            dropped += 1;
            // A reset of something unknown is dropped without a word.
            silent += u64::from(may_be_reset(frame));
        }
    }
    assert!(total(rig) - counted >= dropped - silent, "{via:?}: of {dropped} drops {silent} may go uncounted");
}

/// Whether a frame may be a reset or an abort, read generously.
fn may_be_reset(frame: &[u8]) -> bool {
    let protocol = if frame[12] == 8 { frame[23] } else { TCP };
    matches!(protocol, TCP | SCTP)
}

/// The same through a tunnel: what comes out of it is right, counted, or nothing.
#[test]
fn whatever_a_member_sends_reaches_a_task_right_or_not_at_all() {
    let rig = Rig::new();
    let member = Member::new(&rig, FAR[0]);
    let device = wire(&rig.lab.tasks[0].ns);
    let mut dice = Dice(0xf00d);
    let before = total(&rig);
    for round in 0..40 {
        for _ in 0..100 {
            let vni = dice.of(&[FORWARD_VNI, FORWARD_VNI, REPLY_VNI, SECOND_CHANCE_VNI]);
            let mut frame = sound(&rig, &mut dice, Via::Uplink);
            let target = dice.of(&[80, 80, 80, 81]);
            let task =
                dice.of(&[rig.task_addr(0, false), rig.task_addr(0, false), rig.task_addr(1, false), FAR_TASK.into()]);
            frame = addressed(frame, task, target);
            if dice.one_in(3) {
                spoil(&mut frame, &mut dice);
                // What was right before is right after: so everything that comes out can be checked.
                seal_again(&mut frame);
                if Seen::of(&frame).is_none_or(|seen| !seen.right) {
                    frame.truncate(40);
                }
            }
            member.send(vni, &frame);
        }
        // All of them have been dealt with when the one behind them is.
        // Of a client that none of the others can have become: its port is nobody else's.
        let from = SocketAddr::from(([198, 51, 100, 77], 50_000 + round));
        let last = Packet::new(UDP, from, asked(false, HERE)).body(b"the last of these");
        member.drain();
        member.forward(FORWARD_VNI, &last, rig.task_addr(0, false));
        let seen = captured(&device, |seen| {
            let own = seen.from.ip() == rig.task_addr(0, seen.from.is_ipv6());
            assert!(own || seen.right || seen.left, "{seen:02x?}");
            seen.l4.ends_with(b"the last of these")
        });
        assert_eq!(seen.from, last.from, "round {round}: {seen:02x?}");
    }
    assert!(total(&rig) > before + 500);
    assert!(rig.flows().keys().count() <= 16_384);
}
