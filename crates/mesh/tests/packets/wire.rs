//! Frames made from what is in them, and read back. Both ways every checksum is computed here, independently of the programs.

use std::net::{IpAddr, SocketAddr};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// Types of SCTP's chunks (RFC 9260, 3.2).
pub const DATA: u8 = 0;
pub const INIT: u8 = 1;
pub const INIT_ACK: u8 = 2;
pub const ABORT: u8 = 6;
pub const SHUTDOWN: u8 = 7;
pub const SHUTDOWN_ACK: u8 = 8;

pub const ETHERNET: usize = 14;

/// A packet to be sent. Lengths and checksums are right unless somebody spoils the frame.
#[derive(Debug, Clone)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub proto: u8,
    /// TCP's flags, or the type of SCTP's first chunk.
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub tcp_options: Vec<u8>,
    /// IPv4's, a multiple of four bytes.
    pub ip_options: Vec<u8>,
    /// IPv6's extension headers: type and bytes, of which the first is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// The second word of IPv4's fragment field: flags and offset.
    pub fragment: u16,
    pub id: u16,
    pub body: Vec<u8>,
}

impl Packet {
    pub fn new(proto: u8, from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            from,
            to,
            proto,
            flags: match proto {
                TCP => SYN,
                SCTP => INIT,
                _ => 0,
            },
            seq: 0x0102_0304,
            ack: 0,
            tcp_options: vec![],
            ip_options: vec![],
            extensions: vec![],
            fragment: 0,
            id: 0x1234,
            body: vec![],
        }
    }

    pub fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    pub fn body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }
    }

    pub fn seq(self, seq: u32) -> Self {
        Self { seq, ..self }
    }

    /// The opposite direction.
    pub fn turned(&self) -> Self {
        Self { from: self.to, to: self.from, ..self.clone() }
    }

    pub fn transport(&self) -> Vec<u8> {
        let mut l4 = vec![0; 4];
        put(&mut l4, 0, self.from.port());
        put(&mut l4, 2, self.to.port());
        match self.proto {
            TCP => {
                assert_eq!(self.tcp_options.len() % 4, 0);
                l4.extend(self.seq.to_be_bytes());
                l4.extend(self.ack.to_be_bytes());
                let words = 5 + u8::try_from(self.tcp_options.len() / 4).unwrap();
                l4.extend([words << 4, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
                l4.extend(&self.tcp_options);
            }
            UDP => {
                l4.extend(u16::try_from(8 + self.body.len()).unwrap().to_be_bytes());
                l4.extend([0, 0]);
            }
            SCTP => {
                l4.extend(self.seq.to_be_bytes());
                l4.extend([0; 4]);
                let length = u16::try_from(4 + self.body.len()).unwrap().to_be_bytes();
                l4.extend([self.flags, 0, length[0], length[1]]);
            }
            other => panic!("no transport protocol: {other}"),
        }
        l4.extend(&self.body);
        seal(self.proto, self.from.ip(), self.to.ip(), &mut l4);
        l4
    }

    pub fn frame(&self) -> Vec<u8> {
        self.around(self.proto, &self.transport())
    }

    /// The network's part of this packet around something else.
    pub fn around(&self, proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = 20 + self.ip_options.len();
                let mut ip = vec![0; 20];
                ip[0] = 0x40 | u8::try_from(header / 4).unwrap();
                put(&mut ip, 2, u16::try_from(header + payload.len()).unwrap());
                put(&mut ip, 4, self.id);
                put(&mut ip, 6, self.fragment);
                (ip[8], ip[9]) = (64, proto);
                ip[12..16].copy_from_slice(&from.octets());
                ip[16..20].copy_from_slice(&to.octets());
                ip.extend(&self.ip_options);
                let check = !sum(&ip);
                put(&mut ip, 10, check);
                frame.extend([8, 0]);
                frame.extend(ip);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let following = self.extensions.iter().skip(1).map(|(kind, _)| *kind).chain([proto]);
                let extensions: Vec<u8> = self
                    .extensions
                    .iter()
                    .zip(following)
                    .flat_map(|((_, bytes), next)| [next].into_iter().chain(bytes[1..].iter().copied()))
                    .collect();
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(u16::try_from(extensions.len() + payload.len()).unwrap().to_be_bytes());
                frame.extend([self.extensions.first().map_or(proto, |(kind, _)| *kind), 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                frame.extend(extensions);
            }
            both => panic!("of different families: {both:?}"),
        }
        frame.extend(payload);
        frame
    }
}

/// An ICMP error about what was sent; `quoted` begins with its network header.
pub fn error(from: IpAddr, to: IpAddr, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 5, 0x14];
    icmp.extend(quoted);
    let proto = if from.is_ipv4() { ICMP } else { ICMPV6 };
    seal(proto, from, to, &mut icmp);
    Packet::new(UDP, SocketAddr::new(from, 0), SocketAddr::new(to, 0)).around(proto, &icmp)
}

/// Puts the right checksum into a transport's part.
pub fn seal(proto: u8, from: IpAddr, to: IpAddr, l4: &mut [u8]) {
    let at = match proto {
        TCP => 16,
        UDP => 6,
        SCTP => {
            l4[8..12].fill(0);
            let check = crc32c(l4).to_le_bytes();
            return l4[8..12].copy_from_slice(&check);
        }
        _ => 2,
    };
    put(l4, at, 0);
    let check = !transport_sum(proto, from, to, l4);
    put(l4, at, if check == 0 && proto == UDP { 0xffff } else { check });
}

/// What a frame turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub proto: u8,
    /// TCP's.
    pub flags: u8,
    pub l4: Vec<u8>,
    /// Whether all of its checksums are right.
    pub right: bool,
    /// Whether the transport's is left to a device, as a kernel may do for a packet of its own, and is so far right.
    pub left: bool,
}

impl Seen {
    /// `None` when it is no whole IP packet of a protocol with ports (or ICMP, with the ports 0), or its lengths contradict each other.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (from, to, proto, at, end) = match frame.get(12..14)? {
            [8, 0] => network_v4(frame)?,
            [0x86, 0xdd] => network_v6(frame)?,
            _ => return None,
        };
        let l4 = frame.get(at..end)?.to_vec();
        let least = match proto {
            TCP => 20,
            SCTP => 13,
            UDP | ICMP | ICMPV6 => 8,
            _ => return None,
        };
        if l4.len() < least {
            return None;
        }
        let header_right = frame[12] != 8 || sum(&frame[14..14 + usize::from(frame[14] & 15) * 4]) == 0xffff;
        let transport_right = match proto {
            SCTP => {
                let mut blank = l4.clone();
                blank[8..12].fill(0);
                l4[8..12] == [0; 4] || l4[8..12] == crc32c(&blank).to_le_bytes()
            }
            UDP if l4[6..8] == [0, 0] => true,
            _ => transport_sum(proto, from, to, &l4) == 0xffff,
        };
        let at = if proto == TCP { 16 } else { 6 };
        let left =
            header_right && (proto == TCP || proto == UDP) && get(&l4, at) == pseudo_sum(proto, from, to, l4.len());
        let port = |at| if proto == ICMP || proto == ICMPV6 { 0 } else { get(&l4, at) };
        Some(Self {
            from: SocketAddr::new(from, port(0)),
            to: SocketAddr::new(to, port(2)),
            proto,
            flags: if proto == TCP { l4[13] } else { 0 },
            right: header_right && transport_right,
            left,
            l4,
        })
    }

    /// As [`Self::of`]; it must be one, and right.
    pub fn right(frame: &[u8]) -> Self {
        let seen = Self::of(frame).unwrap_or_else(|| panic!("not a packet: {frame:02x?}"));
        assert!(seen.right, "wrong checksum: {seen:02x?}");
        seen
    }
}

type Network = (IpAddr, IpAddr, u8, usize, usize);

fn network_v4(frame: &[u8]) -> Option<Network> {
    let ip = frame.get(14..34)?;
    let (header, total) = (usize::from(ip[0] & 15) * 4, usize::from(get(ip, 2)));
    let address = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).map(IpAddr::from).ok();
    let sound = ip[0] >> 4 == 4 && header >= 20 && total >= header && 14 + total <= frame.len();
    (sound && get(ip, 6) & 0x3fff == 0).then_some(())?;
    Some((address(12)?, address(16)?, ip[9], 14 + header, 14 + total))
}

fn network_v6(frame: &[u8]) -> Option<Network> {
    let ip = frame.get(14..54)?;
    let address = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).map(IpAddr::from).ok();
    let end = 54 + usize::from(get(ip, 4));
    (ip[0] >> 4 == 6 && end <= frame.len()).then_some(())?;
    let (mut next, mut at) = (ip[6], 54);
    while let 0 | 43 | 44 | 60 = next {
        let header = frame.get(at..at + 8)?;
        if next == 44 && get(header, 2) & 0xfff9 != 0 {
            return None;
        }
        at += if next == 44 { 8 } else { 8 + usize::from(header[1]) * 8 };
        next = header[0];
    }
    Some((address(8)?, address(24)?, next, at, end))
}

pub fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let total: u64 = bytes.chunks(2).map(|pair| u64::from(word(pair))).sum();
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// Over a transport's part and, but for ICMP, its pseudo header: 0xffff when its checksum is right.
fn transport_sum(proto: u8, from: IpAddr, to: IpAddr, l4: &[u8]) -> u16 {
    let pseudo = if proto == ICMP { 0 } else { pseudo_sum(proto, from, to, l4.len()) };
    let mut all = pseudo.to_be_bytes().to_vec();
    all.extend(l4);
    sum(&all)
}

fn pseudo_sum(proto: u8, from: IpAddr, to: IpAddr, length: usize) -> u16 {
    let mut all = vec![0, proto];
    all.extend(u16::try_from(length).unwrap().to_be_bytes());
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => all.extend(address.octets()),
            IpAddr::V6(address) => all.extend(address.octets()),
        }
    }
    sum(&all)
}

/// RFC 9260, appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

pub fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}
