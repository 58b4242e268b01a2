//! The programs on single packets: a frame in, a verdict and a frame out. The kernel lets such frames come through `lo`, so clients count as
//! processes of the node that ask its own address.

mod lab;

use std::net::Ipv4Addr;

use lab::{Lab, ingress};
use skep_model::Protocol;

const NEXT: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;
/// The kernel itself refuses to run a program on an IPv4 frame without a whole IP header.
const SHORTEST: usize = 34;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const CLIENT: [u8; 4] = [10, 99, 0, 1];
const PROGRAMS: [&str; 2] = ["from_uplink", "from_loopback"];

/// One node with a task; 8080 leads to it, 9090 to nobody.
fn lab() -> Lab {
    let mut lab = Lab::new(1);
    lab.service(&[Protocol::Tcp, Protocol::Udp].map(|p| ingress(p, 8080, 80)), &[0]);
    lab.service(&[Protocol::Tcp, Protocol::Udp].map(|p| ingress(p, 9090, 80)), &[]);
    lab
}

fn run(lab: &Lab, program: &'static str, frame: &[u8]) -> (i32, Vec<u8>) {
    lab.nodes[0].ns.run(|| lab.nodes[0].bpf().test_run(program, frame)).unwrap()
}

fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let total: u32 = bytes.chunks(2).map(word).sum();
    let folded = (total & 0xffff) + (total >> 16);
    (folded & 0xffff) + (folded >> 16)
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// An Ethernet frame with an IPv4 packet from [`CLIENT`]; `options` are of the IP header.
fn frame(to: Ipv4Addr, proto: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut ip = vec![0; header];
    ip[0] = 0x40 | u8::try_from(header / 4).unwrap();
    put(&mut ip, 2, u16::try_from(header + payload.len()).unwrap());
    put(&mut ip, 4, 0x1234);
    put(&mut ip, 6, fragment);
    ip[8] = 64;
    ip[9] = proto;
    ip[12..16].copy_from_slice(&CLIENT);
    ip[16..20].copy_from_slice(&to.octets());
    ip[20..].copy_from_slice(options);
    let check = !u16::try_from(sum(&ip)).unwrap();
    put(&mut ip, 10, check);
    let mut frame = vec![2; 12];
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend(payload);
    frame
}

/// The sum over a transport header and payload with its pseudo header: 0xffff when its checksum is right.
fn transport_sum(ip: &[u8]) -> u32 {
    let header = usize::from(ip[0] & 15) * 4;
    let body = &ip[header..usize::from(get(ip, 2))];
    let mut all = ip[12..20].to_vec();
    all.extend([0, ip[9]]);
    all.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    all.extend(body);
    sum(&all)
}

fn seal(mut frame: Vec<u8>, check_at: usize) -> Vec<u8> {
    let l4 = 14 + usize::from(frame[14] & 15) * 4;
    put(&mut frame, l4 + check_at, 0);
    let check = !u16::try_from(transport_sum(&frame[14..])).unwrap();
    put(&mut frame, l4 + check_at, check);
    frame
}

/// A SYN that announces segments of 1460 bytes, after a no-op option pair that keeps the option even.
fn syn(to: Ipv4Addr, port: u16, options: &[u8]) -> Vec<u8> {
    let mut tcp = vec![0; 28];
    put(&mut tcp, 0, 40_000);
    put(&mut tcp, 2, port);
    tcp[4..8].copy_from_slice(&[1, 2, 3, 4]);
    tcp[12] = 7 << 4;
    tcp[13] = 2;
    tcp[20..28].copy_from_slice(&[1, 1, 2, 4, 5, 180, 1, 0]);
    seal(frame(to, TCP, options, 0, &tcp), 16)
}

fn datagram(to: Ipv4Addr, port: u16, fragment: u16) -> Vec<u8> {
    let mut udp = vec![0; 8];
    put(&mut udp, 0, 40_000);
    put(&mut udp, 2, port);
    put(&mut udp, 4, 12);
    udp.extend(b"body");
    seal(frame(to, UDP, &[], fragment, &udp), 6)
}

fn assert_translated(lab: &Lab, out: &[u8]) {
    let ip = &out[14..];
    let l4 = usize::from(ip[0] & 15) * 4;
    assert_eq!(sum(&ip[..l4]), 0xffff, "IP checksum");
    assert_eq!(transport_sum(ip), 0xffff, "transport checksum");
    assert_eq!(ip[12..16], CLIENT);
    assert_eq!(ip[16..20], lab.tasks[0].addr.octets());
    assert_eq!(get(ip, l4 + 2), 80);
    assert_eq!(out[..6], lab.tasks[0].ns.mac("eth0"));
}

#[test]
fn a_syn_is_translated_and_its_segment_size_clamped() {
    let lab = lab();
    for program in PROGRAMS {
        for options in [&[][..], &[1, 1, 1, 0], &[7, 7, 4, 0, 0, 0, 0, 0]] {
            let (verdict, out) = run(&lab, program, &syn(lab.nodes[0].underlay, 8080, options));
            assert_eq!(verdict, REDIRECT, "{program}");
            assert_translated(&lab, &out);
            let l4 = 14 + 20 + options.len();
            assert_eq!(get(&out, l4 + 24), 1410);
            assert_eq!(out[l4 + 4..l4 + 8], [1, 2, 3, 4]);
        }
    }
}

#[test]
fn a_datagram_is_translated_and_no_checksum_stays_none() {
    let lab = lab();
    let with = datagram(lab.nodes[0].underlay, 8080, 0);
    let (verdict, out) = run(&lab, "from_uplink", &with);
    assert_eq!(verdict, REDIRECT);
    assert_translated(&lab, &out);
    let mut without = with;
    put(&mut without, 14 + 20 + 6, 0);
    let (verdict, out) = run(&lab, "from_uplink", &without);
    assert_eq!((verdict, get(&out, 14 + 20 + 6)), (REDIRECT, 0));
}

#[test]
fn what_is_not_ours_passes_unchanged() {
    let lab = lab();
    let stranger = Ipv4Addr::new(10, 99, 0, 77);
    let own = lab.nodes[0].underlay;
    let mut arp = frame(own, TCP, &[], 0, &[0; 20]);
    arp[12..14].copy_from_slice(&[8, 6]);
    let packets =
        [syn(own, 8081, &[]), syn(stranger, 8080, &[]), datagram(own, 53, 0), arp, frame(own, 47, &[], 0, &[0; 40])];
    for program in PROGRAMS {
        for packet in &packets {
            assert_eq!(run(&lab, program, packet), (NEXT, packet.clone()), "{program}");
        }
    }
}

#[test]
fn cut_and_lying_packets_are_left_to_the_kernel() {
    let lab = lab();
    let own = lab.nodes[0].underlay;
    for whole in [syn(own, 8080, &[]), datagram(own, 8080, 0)] {
        for length in SHORTEST..whole.len() {
            let cut = &whole[..length];
            assert_eq!(run(&lab, "from_uplink", cut), (NEXT, cut.to_vec()), "cut to {length}");
        }
        for (at, byte) in [(14, 0x44), (14, 0x65), (14, 0x4f), (16, 0x7f)] {
            let mut lie = whole.clone();
            lie[at] = byte;
            assert_eq!(run(&lab, "from_uplink", &lie), (NEXT, lie.clone()), "byte {at} is {byte:#x}");
        }
    }
    let mut short = frame(own, TCP, &[], 0, &syn(own, 8080, &[])[34..]);
    put(&mut short, 16, 20 + 10);
    assert_eq!(run(&lab, "from_uplink", &short).0, NEXT, "an IP length that cuts the TCP header");
}

#[test]
fn fragments_follow_their_first() {
    let lab = lab();
    let own = lab.nodes[0].underlay;
    let more = 0x2000;
    let later = frame(own, UDP, &[], 1, b"the rest");
    assert_eq!(run(&lab, "from_uplink", &later), (NEXT, later.clone()), "nobody's");
    let (verdict, out) = run(&lab, "from_uplink", &datagram(own, 8080, more));
    assert_eq!(verdict, REDIRECT);
    assert_translated(&lab, &out);
    let (verdict, out) = run(&lab, "from_uplink", &later);
    assert_eq!(verdict, REDIRECT);
    assert_eq!(sum(&out[14..34]), 0xffff);
    assert_eq!(out[30..34], lab.tasks[0].addr.octets());
    assert_eq!(&out[34..], b"the rest");
}

#[test]
fn nobody_ready_is_a_reset_or_port_unreachable() {
    let lab = lab();
    let own = lab.nodes[0].underlay;
    let (verdict, out) = run(&lab, "from_uplink", &syn(own, 9090, &[]));
    let ip = &out[14..];
    assert_eq!((verdict, out.len(), ip[33]), (REDIRECT, 54, 0x14), "a reset and nothing else");
    assert_eq!((&ip[12..16], &ip[16..20]), (&own.octets()[..], &CLIENT[..]));
    assert_eq!((get(ip, 20), get(ip, 22)), (9090, 40_000));
    assert_eq!(ip[28..32], [1, 2, 3, 5], "acknowledges the SYN");
    assert_eq!((sum(&ip[..20]), transport_sum(ip)), (0xffff, 0xffff));
    let asked = datagram(own, 9090, 0);
    let (verdict, out) = run(&lab, "from_uplink", &asked);
    let ip = &out[14..];
    assert_eq!((verdict, ip[9], ip[20], ip[21]), (REDIRECT, ICMP, 3, 3));
    assert_eq!((&ip[12..16], &ip[16..20]), (&own.octets()[..], &CLIENT[..]));
    assert_eq!(ip[28..56], asked[14..42], "quotes what was sent");
    assert_eq!((sum(&ip[..20]), sum(&ip[20..56])), (0xffff, 0xffff));
}

#[test]
fn an_established_connection_of_nobody_is_reset_by_its_own_numbers() {
    let lab = lab();
    let mut data = syn(lab.nodes[0].underlay, 9090, &[]);
    data[14 + 20 + 13] = 0x10;
    data[14 + 20 + 8..14 + 20 + 12].copy_from_slice(&[9, 8, 7, 6]);
    let (verdict, out) = run(&lab, "from_uplink", &seal(data, 16));
    let ip = &out[14..];
    assert_eq!((verdict, ip[33]), (REDIRECT, 0x04));
    assert_eq!(ip[24..28], [9, 8, 7, 6]);
    assert_eq!(transport_sum(ip), 0xffff);
}

#[test]
fn an_icmp_error_reaches_the_task_with_its_quotation_translated() {
    let lab = lab();
    let own = lab.nodes[0].underlay;
    for (packet, check_at) in [(syn(own, 8080, &[]), None), (datagram(own, 8080, 0), Some(6))] {
        let (_, translated) = run(&lab, "from_uplink", &packet);
        let port = get(&translated, 34);
        // What the node sent to the client as an answer, and a router could not pass on.
        let mut quoted = packet[14..42].to_vec();
        quoted[12..16].copy_from_slice(&own.octets());
        quoted[16..20].copy_from_slice(&CLIENT);
        put(&mut quoted, 20, 8080);
        put(&mut quoted, 22, 40_000);
        let mut error = vec![3, 4, 0, 0, 0, 0, 5, 0x78];
        error.extend(&quoted);
        let check = !u16::try_from(sum(&error)).unwrap();
        put(&mut error, 2, check);
        let (verdict, out) = run(&lab, "from_uplink", &frame(own, ICMP, &[], 0, &error));
        assert_eq!(verdict, REDIRECT);
        let ip = &out[14..];
        assert_eq!(ip[16..20], lab.tasks[0].addr.octets());
        assert_eq!((sum(&ip[..20]), sum(&ip[20..])), (0xffff, 0xffff), "both checksums");
        let quoted = &ip[28..];
        assert_eq!(quoted[12..16], lab.tasks[0].addr.octets());
        assert_eq!(quoted[16..20], CLIENT);
        assert_eq!((get(quoted, 20), get(quoted, 22)), (80, port));
        assert_eq!(sum(&quoted[..20]), 0xffff, "the quoted header's checksum");
        assert!(check_at.is_none_or(|at| get(quoted, 20 + at) != 0));
    }
    let mut alien = vec![3, 4, 0, 0, 0, 0, 5, 0x78];
    alien.extend(&syn(own, 1, &[])[14..42]);
    let alien = frame(own, ICMP, &[], 0, &alien);
    assert_eq!(run(&lab, "from_uplink", &alien), (NEXT, alien.clone()));
    for length in SHORTEST..alien.len() {
        assert_eq!(run(&lab, "from_uplink", &alien[..length]).0, NEXT, "cut to {length}");
    }
}

#[test]
fn tasks_and_other_nodes_are_not_believed_blindly() {
    let lab = lab();
    let own = lab.nodes[0].underlay;
    // The frame does not come through the task's device.
    assert_eq!(run(&lab, "from_task", &syn(own, 8080, &[])).0, DROP);
    let mut arp = syn(own, 8080, &[]);
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(run(&lab, "from_task", &arp), (NEXT, arp));
    for length in SHORTEST..syn(own, 8080, &[]).len() {
        assert_eq!(run(&lab, "from_task", &syn(own, 8080, &[])[..length]).0, DROP, "cut to {length}");
    }
    assert_eq!(run(&lab, "from_overlay", &syn(own, 8080, &[])).0, DROP, "not from a tunnel");
}
