//! What datagrams and frames are made of.

use foca::Member;
use skep_model::NodeId;

use super::identity::{Identity, read_member, write_member};
use crate::wire::{Reader, Writer};
use crate::{Delta, Unreadable};

/// Part of a datagram.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// Of the failure detector.
    Swim(&'a [u8]),
    /// News, read further only when they are any.
    Delta(&'a [u8]),
    /// Somebody's table is known at a version: an owner in short, and the version.
    Mentions(Vec<(u32, u64)>),
    /// Asks for what is newer than a version of an owner's table.
    Want(NodeId, u64),
    /// The answer to a question is too large for a datagram.
    TooLarge(NodeId),
}

const SWIM: u8 = 1;
const DELTA: u8 = 2;
const MENTIONS: u8 = 3;
const WANT: u8 = 4;
const TOO_LARGE: u8 = 5;

/// Bytes of the head of mentions, and of one mention, at the most.
pub(crate) const MENTION_HEAD: usize = 3;
pub(crate) const MENTION: usize = 4 + 7;

/// An owner in short. When two have the same, one is asked for what it does not have, and no harm is done.
pub(crate) fn short(node: &NodeId) -> u32 {
    let mut writer = Writer::default();
    writer.id(node.as_str());
    let id = writer.into_bytes();
    u32::from_be_bytes([id[4], id[5], id[6], id[7]])
}

pub(crate) fn swim(writer: &mut Writer, message: &[u8]) {
    writer.u8(SWIM);
    writer.count(message.len());
    writer.bytes(message);
}

pub(crate) fn delta(delta: &Delta) -> Vec<u8> {
    let mut content = Writer::default();
    content.delta(delta);
    let mut writer = Writer::with_capacity(content.len() + 4);
    writer.u8(DELTA);
    writer.count(content.len());
    writer.bytes(&content.into_bytes());
    writer.into_bytes()
}

pub(crate) fn mentions(writer: &mut Writer, mentions: &[(u32, u64)]) {
    writer.u8(MENTIONS);
    writer.count(mentions.len());
    for (owner, version) in mentions {
        writer.u32(*owner);
        writer.varint(*version);
    }
}

pub(crate) fn want(writer: &mut Writer, owner: &NodeId, from: u64) {
    writer.u8(WANT);
    writer.id(owner.as_str());
    writer.varint(from);
}

pub(crate) fn too_large(writer: &mut Writer, owner: &NodeId) {
    writer.u8(TOO_LARGE);
    writer.id(owner.as_str());
}

impl<'a> Part<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        match reader.u8()? {
            SWIM => {
                let length = reader.count(1)?;
                Ok(Self::Swim(reader.take(length)?))
            }
            DELTA => {
                let length = reader.count(1)?;
                Ok(Self::Delta(reader.take(length)?))
            }
            MENTIONS => {
                let count = reader.count(5)?;
                let mentions = (0..count).map(|_| Ok((reader.u32()?, reader.varint()?)));
                Ok(Self::Mentions(mentions.collect::<Result<_, _>>()?))
            }
            WANT => Ok(Self::Want(reader.id()?, reader.varint()?)),
            TOO_LARGE => Ok(Self::TooLarge(reader.id()?)),
            _ => Err(Unreadable::Garbled),
        }
    }
}

/// Whose change it is, and the version that it leads to: most that come are known already, and need not be read.
pub(crate) fn delta_head(delta: &[u8]) -> Result<(NodeId, u64), Unreadable> {
    let mut reader = Reader::new(delta);
    Ok((reader.id()?, reader.varint()?))
}

/// One message of an exchange over TCP.
#[derive(Debug)]
pub(crate) enum Frame {
    /// All that one side knows, in short. Answered with [`Frame::Answer`].
    Digest { members: Vec<Member<Identity>>, ranks: Vec<(NodeId, u64, u64)> },
    /// What the other side lacks, and what this side wants. Answered with [`Frame::Deltas`].
    Answer { members: Vec<Member<Identity>>, deltas: Vec<Delta>, wants: Vec<(NodeId, u64)> },
    /// What was asked for; nothing follows.
    Deltas(Vec<Delta>),
    /// Asks for what is newer. Answered with [`Frame::Deltas`].
    Wants(Vec<(NodeId, u64)>),
}

impl Frame {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Digest { members, ranks } => {
                writer.u8(1);
                write_all(&mut writer, members, write_member);
                write_all(&mut writer, ranks, |writer, (owner, version, digest)| {
                    writer.id(owner.as_str());
                    writer.varint(*version);
                    writer.u64(*digest);
                });
            }
            Self::Answer { members, deltas, wants } => {
                writer.u8(2);
                write_all(&mut writer, members, write_member);
                write_all(&mut writer, deltas, Writer::delta);
                write_all(&mut writer, wants, write_want);
            }
            Self::Deltas(deltas) => {
                writer.u8(3);
                write_all(&mut writer, deltas, Writer::delta);
            }
            Self::Wants(wants) => {
                writer.u8(4);
                write_all(&mut writer, wants, write_want);
            }
        }
        writer.into_bytes()
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            1 => Ok(Self::Digest {
                members: read_all(&mut reader, 27, read_member)?,
                ranks: read_all(&mut reader, 26, |reader| Ok((reader.id()?, reader.varint()?, reader.u64()?)))?,
            }),
            2 => Ok(Self::Answer {
                members: read_all(&mut reader, 27, read_member)?,
                deltas: read_all(&mut reader, 23, Reader::delta)?,
                wants: read_all(&mut reader, 18, read_want)?,
            }),
            3 => Ok(Self::Deltas(read_all(&mut reader, 23, Reader::delta)?)),
            4 => Ok(Self::Wants(read_all(&mut reader, 18, read_want)?)),
            _ => Err(Unreadable::Garbled),
        }
    }
}

fn write_want(writer: &mut Writer, (owner, from): &(NodeId, u64)) {
    writer.id(owner.as_str());
    writer.varint(*from);
}

fn read_want(reader: &mut Reader<'_>) -> Result<(NodeId, u64), Unreadable> {
    Ok((reader.id()?, reader.varint()?))
}

fn write_all<T>(writer: &mut Writer, all: &[T], write: impl Fn(&mut Writer, &T)) {
    writer.count(all.len());
    all.iter().for_each(|one| write(writer, one));
}

fn read_all<'a, T>(
    reader: &mut Reader<'a>,
    least: usize,
    read: impl Fn(&mut Reader<'a>) -> Result<T, Unreadable>,
) -> Result<Vec<T>, Unreadable> {
    let count = reader.count(least)?;
    (0..count).map(|_| read(reader)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skep_model::{
        EndpointKey, EndpointRecord, EndpointState, NetworkId, Protocol, PublishMode, PublishedPort, ServiceId, TaskId,
    };

    use super::*;

    fn example() -> Delta {
        let network = NetworkId::random();
        let key = |_| EndpointKey { network: network.clone(), task: TaskId::random() };
        let record = |state| EndpointRecord {
            service: ServiceId::random(),
            addr: [10, 0, 0, 9].into(),
            state,
            weight: 1,
            aliases: Vec::new(),
            host_ports: Vec::new(),
        };
        let port = PublishedPort {
            protocol: Protocol::Sctp,
            target: 80.try_into().unwrap(),
            published: 32_768.try_into().unwrap(),
            mode: PublishMode::Host,
        };
        let named = EndpointRecord {
            weight: 700,
            aliases: vec!["web".into()],
            host_ports: vec![port],
            ..record(EndpointState::Starting)
        };
        Delta {
            owner: NodeId::random(),
            from: 7,
            to: 1_790_000_000_000,
            changed: vec![
                (key(0), record(EndpointState::Ready)),
                (key(1), named),
                (key(2), record(EndpointState::Draining)),
            ],
            states: vec![((&key(4)).into(), EndpointState::Draining)],
            removed: vec![(&key(3)).into(), (&key(5)).into()],
            addresses: Some(["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap()).into()),
        }
    }

    #[test]
    fn a_delta_is_read_as_it_was_written() {
        for delta in [
            example(),
            Delta { from: 0, removed: Vec::new(), states: Vec::new(), ..example() },
            Delta { addresses: None, ..example() },
            Delta { addresses: Some([].into()), changed: Vec::new(), ..example() },
        ] {
            let bytes = super::delta(&delta);
            let Part::Delta(read) = Part::read(&mut Reader::new(&bytes)).unwrap() else { panic!("no delta") };
            assert_eq!(delta_head(read), Ok((delta.owner.clone(), delta.to)));
            assert_eq!(Reader::new(read).delta().unwrap(), delta);
        }
    }

    #[test]
    fn every_identifier_survives() {
        for text in ["0".repeat(25), "z".repeat(25), NodeId::random().to_string()] {
            let mut writer = Writer::default();
            writer.id(&text);
            assert_eq!(Reader::new(&writer.into_bytes()).id::<NodeId>().unwrap().as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_ask_for_room(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frame::read(&bytes);
            let mut reader = Reader::new(&bytes);
            while let Ok(part) = Part::read(&mut reader) {
                if let Part::Delta(delta) = part {
                    let _ = (delta_head(delta), Reader::new(delta).delta());
                }
            }
        }

        #[test]
        fn nor_do_spoiled_messages(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let frame = Frame::Answer { members: Vec::new(), deltas: vec![example()], wants: vec![(NodeId::random(), 3)] };
            let mut bytes = frame.write();
            let spoiled = at.index(bytes.len());
            bytes[spoiled] = with;
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = Frame::read(&bytes);
        }
    }
}
