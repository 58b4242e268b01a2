//! How things are written down: big-endian, numbers as LEB128 where they are mostly small, identifiers in 17 bytes. Reading is bounded by
//! what is there and never panics.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use skep_model::{
    EndpointKey, EndpointRecord, EndpointState, NetworkId, NodeId, Protocol, PublishMode, PublishedPort, ServiceId,
};

use crate::{Delta, ShortKey, Unreadable};

/// Bytes of an identifier: 25 digits of base 36 are two numbers of 12 digits and one digit.
pub(crate) const ID_LEN: usize = 17;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// The longest name that an endpoint may answer to (RFC 1035).
const LONGEST_ALIAS: usize = 255;
/// What a delta has in it.
const CHANGED: u8 = 1;
const STATES: u8 = 2;
const REMOVED: u8 = 4;
const ADDRESSES: u8 = 8;
/// Bytes of a delta with nothing in it.
pub(crate) const LEAST_DELTA: usize = ID_LEN + 3;

/// The first 12 digits of an identifier, as a number.
pub(crate) fn head(id: &str) -> u64 {
    number(&id.as_bytes()[..12])
}

/// The first of all identifiers with this [`head`]; `None` when it is none.
pub(crate) fn least<T: FromStr>(head: u64) -> Option<T> {
    let mut digits = [b'0'; 25];
    if !write_digits(head, &mut digits[..12]) {
        return None;
    }
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

fn number(digits: &[u8]) -> u64 {
    let digit = |byte: &u8| u64::from(if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 });
    digits.iter().fold(0, |number, byte| number * 36 + digit(byte))
}

/// Whether the number has no more digits than that.
fn write_digits(mut number: u64, digits: &mut [u8]) -> bool {
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % 36) as usize];
        number /= 36;
    }
    number == 0
}

/// Bytes of a number as LEB128.
pub(crate) fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// How far a version is from another one: short for those that are near, on either side.
pub(crate) fn distance(version: u64, base: u64) -> u64 {
    let difference = version.wrapping_sub(base).cast_signed();
    (difference << 1 ^ difference >> 63).cast_unsigned()
}

/// The version that is so far from `base`.
pub(crate) fn at_distance(distance: u64, base: u64) -> u64 {
    base.wrapping_add(distance >> 1 ^ (distance & 1).wrapping_neg())
}

/// Bytes being written.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.varint(count as u64);
    }

    /// An identifier of the model.
    pub(crate) fn id(&mut self, id: &str) {
        let digits = id.as_bytes();
        self.u64(number(&digits[..12]));
        self.u64(number(&digits[12..24]));
        self.u8(digits[24]);
    }

    pub(crate) fn ip(&mut self, address: &IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.u8(4);
                self.bytes(&address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.bytes(&address.octets());
            }
        }
    }

    pub(crate) fn socket(&mut self, address: &SocketAddr) {
        self.ip(&address.ip());
        self.bytes(&address.port().to_be_bytes());
    }

    pub(crate) fn delta(&mut self, delta: &Delta) {
        self.id(delta.owner.as_str());
        self.varint(delta.to);
        // 0 stays 0, and what is near `to` is short.
        self.varint(back(delta.from, delta.to));
        self.changes(delta);
    }

    /// A delta without its head: whose it is, and between which versions.
    pub(crate) fn changes(&mut self, delta: &Delta) {
        let there = |is: bool, flag: u8| if is { flag } else { 0 };
        self.u8(there(!delta.changed.is_empty(), CHANGED)
            | there(!delta.states.is_empty(), STATES)
            | there(!delta.removed.is_empty(), REMOVED)
            | there(delta.addresses.is_some(), ADDRESSES));
        self.list(&delta.changed, &mut Last::default(), |writer, (key, record), last| writer.record(key, record, last));
        self.list(&delta.states, &mut (), |writer, (key, state), ()| {
            writer.u8(state_code(*state));
            writer.short_key(key);
        });
        self.list(&delta.removed, &mut (), |writer, key, ()| writer.short_key(key));
        if let Some(addresses) = &delta.addresses {
            self.count(addresses.len());
            addresses.iter().for_each(|address| self.ip(address));
        }
    }

    /// Nothing when there is nothing in it.
    fn list<T, S>(&mut self, all: &[T], state: &mut S, write: impl Fn(&mut Self, &T, &mut S)) {
        if !all.is_empty() {
            self.count(all.len());
            all.iter().for_each(|one| write(self, one, state));
        }
    }

    fn short_key(&mut self, key: &ShortKey) {
        self.u32(key.network);
        self.u64(key.task);
    }

    fn record(&mut self, key: &EndpointKey, record: &EndpointRecord, last: &mut Last) {
        let state = state_code(record.state);
        let network = last.network.as_ref() == Some(&key.network);
        let service = last.service.as_ref() == Some(&record.service);
        let plain = record.weight == 1 && record.aliases.is_empty() && record.host_ports.is_empty();
        self.u8(state | u8::from(network) << 2 | u8::from(service) << 3 | u8::from(plain) << 4);
        if !network {
            self.id(key.network.as_str());
        }
        self.id(key.task.as_str());
        if !service {
            self.id(record.service.as_str());
        }
        self.bytes(&record.addr.octets());
        if !plain {
            self.varint(record.weight.into());
            self.count(record.aliases.len());
            for alias in &record.aliases {
                let alias = &alias.as_bytes()[..alias.floor_char_boundary(LONGEST_ALIAS)];
                self.u8(alias.len() as u8);
                self.bytes(alias);
            }
            self.count(record.host_ports.len());
            record.host_ports.iter().for_each(|port| self.host_port(port));
        }
        *last = Last { network: Some(key.network.clone()), service: Some(record.service.clone()) };
    }

    fn host_port(&mut self, port: &PublishedPort) {
        self.u8(port.protocol.number());
        self.bytes(&port.target.get().to_be_bytes());
        self.bytes(&port.published.get().to_be_bytes());
    }
}

/// How far a change goes back, to be written: 0 for all the way.
pub(crate) fn back(from: u64, to: u64) -> u64 {
    if from == 0 { 0 } else { to - from }
}

fn state_code(state: EndpointState) -> u8 {
    match state {
        EndpointState::Starting => 0,
        EndpointState::Ready => 1,
        EndpointState::Draining => 2,
    }
}

/// What need not be said again.
#[derive(Default)]
struct Last {
    network: Option<NetworkId>,
    service: Option<ServiceId>,
}

/// Bytes being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, Unreadable>;

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable::Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Unreadable::Garbled)
    }

    pub(crate) fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Read<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Unreadable::Garbled);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Unreadable::Garbled)
    }

    /// How many things follow that take `least` bytes each.
    pub(crate) fn count(&mut self, least: usize) -> Read<usize> {
        let count = usize::try_from(self.varint()?).map_err(|_| Unreadable::Garbled)?;
        if count > self.0.len() / least { Err(Unreadable::Garbled) } else { Ok(count) }
    }

    /// An identifier of the model.
    pub(crate) fn id<T: FromStr>(&mut self) -> Read<T> {
        let mut digits = [0; 25];
        let (first, rest) = digits.split_at_mut(12);
        let (second, last) = rest.split_at_mut(12);
        for (number, digits) in [(self.u64()?, first), (self.u64()?, second)] {
            if !write_digits(number, digits) {
                return Err(Unreadable::Garbled);
            }
        }
        last[0] = self.u8()?;
        std::str::from_utf8(&digits).ok().and_then(|text| text.parse().ok()).ok_or(Unreadable::Garbled)
    }

    pub(crate) fn ip(&mut self) -> Read<IpAddr> {
        match self.u8()? {
            4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => Err(Unreadable::Garbled),
        }
    }

    pub(crate) fn socket(&mut self) -> Read<SocketAddr> {
        Ok(SocketAddr::new(self.ip()?, u16::from_be_bytes(self.array()?)))
    }

    pub(crate) fn delta(&mut self) -> Read<Delta> {
        let (owner, to) = (self.id()?, self.varint()?);
        let from = self.from(to)?;
        self.changes(owner, from, to)
    }

    /// From which version a change goes to `to`.
    pub(crate) fn from(&mut self, to: u64) -> Read<u64> {
        match self.varint()? {
            0 => Ok(0),
            back => to.checked_sub(back).filter(|from| *from > 0).ok_or(Unreadable::Garbled),
        }
    }

    /// What comes after the head of a delta.
    pub(crate) fn changes(&mut self, owner: NodeId, from: u64, to: u64) -> Read<Delta> {
        let flags = self.u8()?;
        let mut last = Last::default();
        let mut delta = Delta { owner, from, to, changed: vec![], states: vec![], removed: vec![], addresses: None };
        if flags & CHANGED != 0 {
            delta.changed = (0..self.count(22)?).map(|_| self.record(&mut last)).collect::<Read<_>>()?;
        }
        if flags & STATES != 0 {
            let state = |reader: &mut Self| Ok((read_state(reader.u8()?)?, reader.short_key()?));
            let states = (0..self.count(13)?).map(|_| state(self).map(|(state, key)| (key, state)));
            delta.states = states.collect::<Read<_>>()?;
        }
        if flags & REMOVED != 0 {
            delta.removed = (0..self.count(12)?).map(|_| self.short_key()).collect::<Read<_>>()?;
        }
        if flags & ADDRESSES != 0 {
            delta.addresses = Some((0..self.count(5)?).map(|_| self.ip()).collect::<Read<BTreeSet<_>>>()?);
        }
        Ok(delta)
    }

    fn short_key(&mut self) -> Read<ShortKey> {
        Ok(ShortKey { network: self.u32()?, task: self.u64()? })
    }

    fn record(&mut self, last: &mut Last) -> Read<(EndpointKey, Arc<EndpointRecord>)> {
        let flags = self.u8()?;
        let state = read_state(flags & 3)?;
        let network = match (flags >> 2) & 1 {
            0 => self.id()?,
            _ => last.network.clone().ok_or(Unreadable::Garbled)?,
        };
        let task = self.id()?;
        let service = match (flags >> 3) & 1 {
            0 => self.id()?,
            _ => last.service.clone().ok_or(Unreadable::Garbled)?,
        };
        let addr = Ipv4Addr::from(self.array::<4>()?);
        let (weight, aliases, host_ports) = match (flags >> 4) & 1 {
            0 => (
                u32::try_from(self.varint()?).map_err(|_| Unreadable::Garbled)?,
                (0..self.count(1)?).map(|_| self.alias()).collect::<Read<_>>()?,
                (0..self.count(5)?).map(|_| self.host_port()).collect::<Read<_>>()?,
            ),
            _ => (1, Vec::new(), Vec::new()),
        };
        *last = Last { network: Some(network.clone()), service: Some(service.clone()) };
        Ok((EndpointKey { network, task }, EndpointRecord { service, addr, state, weight, aliases, host_ports }.into()))
    }

    fn host_port(&mut self) -> Read<PublishedPort> {
        let protocol = match self.u8()? {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            _ => return Err(Unreadable::Garbled),
        };
        let (target, published) = (self.port()?, self.port()?);
        Ok(PublishedPort { protocol, target, published, mode: PublishMode::Host })
    }

    fn port(&mut self) -> Read<NonZeroU16> {
        NonZeroU16::new(u16::from_be_bytes(self.array()?)).ok_or(Unreadable::Garbled)
    }

    fn alias(&mut self) -> Read<String> {
        let length = self.u8()?;
        let bytes = self.take(length.into())?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Unreadable::Garbled)
    }
}

fn read_state(code: u8) -> Read<EndpointState> {
    match code {
        0 => Ok(EndpointState::Starting),
        1 => Ok(EndpointState::Ready),
        2 => Ok(EndpointState::Draining),
        _ => Err(Unreadable::Garbled),
    }
}
