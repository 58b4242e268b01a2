//! Who a member is to the failure detector, and how its messages are written.

use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};
use skep_model::NodeId;

use crate::Unreadable;
use crate::wire::{Reader, Writer};

/// One life of one node at one address. A node that was restarted, or was taken for dead, has a higher incarnation; another node at the
/// same address takes the place of an earlier one in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
    /// Milliseconds since 1970 when this life began, or more.
    pub(crate) incarnation: u64,
}

impl foca::Identity for Identity {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        // A second at a time: who was restarted with its clock set back must come above its former life some time.
        Some(Self { incarnation: self.incarnation.saturating_add(1000), ..self.clone() })
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.incarnation, &self.node) > (adversary.incarnation, &adversary.node)
    }
}

/// What a message is for. The first byte of it, so that [`peek`] can tell.
pub(crate) const PING: u8 = 0;
const ACK: u8 = 1;
const PING_REQUEST: u8 = 2;
const INDIRECT_PING: u8 = 3;
const INDIRECT_ACK: u8 = 4;
const FORWARDED_ACK: u8 = 5;
const ANNOUNCE: u8 = 6;
const FEED: u8 = 7;
const GOSSIP: u8 = 8;
const BROADCAST: u8 = 9;
const TURN_UNDEAD: u8 = 10;

/// What is of interest in a message without reading it all: its number when it is a ping or an answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peeked {
    Ping(u8),
    Ack(u8),
    Other,
}

pub(crate) fn peek(message: &[u8]) -> Peeked {
    match message {
        [PING, number, ..] => Peeked::Ping(*number),
        [ACK | FORWARDED_ACK, number, ..] => Peeked::Ack(*number),
        _ => Peeked::Other,
    }
}

/// Why the failure detector's messages cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// It goes into the next message.
    #[error("no room")]
    NoRoom,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Writes and reads the failure detector's messages.
#[derive(Debug, Default)]
pub(crate) struct WireCodec;

impl Codec<Identity> for WireCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        let mut writer = Writer::with_capacity(128);
        message(&mut writer, &header.message);
        identity(&mut writer, &header.src);
        writer.varint(header.src_incarnation.into());
        identity(&mut writer, &header.dst);
        put(&writer.into_bytes(), buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        get(buf, |reader| {
            let message = read_message(reader)?;
            let (src, src_incarnation) = (read_identity(reader)?, read_u16(reader)?);
            Ok(Header { src, src_incarnation, dst: read_identity(reader)?, message })
        })
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        let mut writer = Writer::with_capacity(48);
        write_member(&mut writer, member);
        put(&writer.into_bytes(), buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        get(buf, read_member)
    }
}

pub(crate) fn write_member(writer: &mut Writer, member: &Member<Identity>) {
    identity(writer, member.id());
    writer.varint(member.incarnation().into());
    writer.u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

pub(crate) fn read_member(reader: &mut Reader<'_>) -> Result<Member<Identity>, Unreadable> {
    let (id, incarnation) = (read_identity(reader)?, read_u16(reader)?);
    let state = match reader.u8()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(Unreadable::Garbled),
    };
    Ok(Member::new(id, incarnation, state))
}

fn put(bytes: &[u8], mut buf: impl BufMut) -> Result<(), CodecError> {
    if buf.remaining_mut() < bytes.len() {
        return Err(CodecError::NoRoom);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn get<T>(mut buf: impl Buf, read: impl FnOnce(&mut Reader<'_>) -> Result<T, Unreadable>) -> Result<T, CodecError> {
    let chunk = buf.chunk();
    let mut reader = Reader::new(chunk);
    let value = read(&mut reader)?;
    let used = chunk.len() - reader.len();
    buf.advance(used);
    Ok(value)
}

fn identity(writer: &mut Writer, identity: &Identity) {
    writer.id(identity.node.as_str());
    writer.socket(&identity.addr);
    writer.varint(identity.incarnation);
}

fn read_identity(reader: &mut Reader<'_>) -> Result<Identity, Unreadable> {
    let (node, addr, incarnation) = (reader.id()?, reader.socket()?, reader.varint()?);
    // Room for renewals.
    if incarnation > u64::MAX / 2 {
        return Err(Unreadable::Garbled);
    }
    Ok(Identity { node, addr, incarnation })
}

fn read_u16(reader: &mut Reader<'_>) -> Result<u16, Unreadable> {
    u16::try_from(reader.varint()?).map_err(|_| Unreadable::Garbled)
}

fn message(writer: &mut Writer, message: &Message<Identity>) {
    let mut numbered = |tag, number: u8| writer.bytes(&[tag, number]);
    match message {
        Message::Ping(number) => numbered(PING, *number),
        Message::Ack(number) => numbered(ACK, *number),
        Message::PingReq { target, probe_number } => {
            numbered(PING_REQUEST, *probe_number);
            identity(writer, target);
        }
        Message::IndirectPing { origin, probe_number } => {
            numbered(INDIRECT_PING, *probe_number);
            identity(writer, origin);
        }
        Message::IndirectAck { target, probe_number } => {
            numbered(INDIRECT_ACK, *probe_number);
            identity(writer, target);
        }
        Message::ForwardedAck { origin, probe_number } => {
            numbered(FORWARDED_ACK, *probe_number);
            identity(writer, origin);
        }
        Message::Announce => writer.u8(ANNOUNCE),
        Message::Feed => writer.u8(FEED),
        Message::Gossip => writer.u8(GOSSIP),
        Message::Broadcast => writer.u8(BROADCAST),
        Message::TurnUndead => writer.u8(TURN_UNDEAD),
    }
}

fn read_message(reader: &mut Reader<'_>) -> Result<Message<Identity>, Unreadable> {
    Ok(match reader.u8()? {
        PING => Message::Ping(reader.u8()?),
        ACK => Message::Ack(reader.u8()?),
        PING_REQUEST => Message::PingReq { probe_number: reader.u8()?, target: read_identity(reader)? },
        INDIRECT_PING => Message::IndirectPing { probe_number: reader.u8()?, origin: read_identity(reader)? },
        INDIRECT_ACK => Message::IndirectAck { probe_number: reader.u8()?, target: read_identity(reader)? },
        FORWARDED_ACK => Message::ForwardedAck { probe_number: reader.u8()?, origin: read_identity(reader)? },
        ANNOUNCE => Message::Announce,
        FEED => Message::Feed,
        GOSSIP => Message::Gossip,
        BROADCAST => Message::Broadcast,
        TURN_UNDEAD => Message::TurnUndead,
        _ => return Err(Unreadable::Garbled),
    })
}
