//! What datagrams and frames are made of.

use foca::Member;
use skep_model::NodeId;

use super::identity::{Identity, read_member, write_member};
use super::shorts::{SHORT_LEN, Short};
use crate::wire::{self, LEAST_DELTA, Reader, Writer};
use crate::{Delta, Unreadable};

/// Part of a datagram.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// Of the failure detector.
    Swim(&'a [u8]),
    /// Changes, and versions that there are: see [`News`].
    News(News<'a>),
    /// Asks for what is newer than a version of an owner's table.
    Want(Short, u64),
    /// The answer to a question is too large for a datagram.
    TooLarge(Short),
    /// How the sender sees a member that does not answer it: the recipient may know better.
    Doubt(Member<Identity>),
    /// The answer to that.
    Seen(Member<Identity>),
}

/// Changes of tables, and versions at which tables are known. All versions are written as their distance from one of them: most are of this second.
#[derive(Debug)]
pub(crate) struct News<'a> {
    pub(crate) changes: Vec<Change<'a>>,
    pub(crate) mentions: Vec<(Short, u64)>,
}

/// A change, read further only when it is news: most that come are known already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) owner: Short,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) content: &'a [u8],
}

const SWIM: u8 = 1;
const NEWS: u8 = 2;
const WANT: u8 = 3;
const TOO_LARGE: u8 = 4;
const DOUBT: u8 = 5;
const SEEN: u8 = 6;

/// Bytes of news with nothing in them, at the most.
const NEWS_HEAD: usize = 1 + 8 + 2 + 2;
/// Bytes of a question or a notice, at the most.
pub(crate) const WANT_LEN: usize = 1 + SHORT_LEN + 10;

pub(crate) fn swim(writer: &mut Writer, message: &[u8]) {
    writer.u8(SWIM);
    writer.count(message.len());
    writer.bytes(message);
}

/// A delta without its head.
pub(crate) fn content(delta: &Delta) -> Vec<u8> {
    let mut content = Writer::default();
    content.changes(delta);
    content.into_bytes()
}

/// News being written.
pub(crate) struct NewsWriter {
    base: u64,
    changes: (usize, Writer),
    mentions: (usize, Writer),
}

impl NewsWriter {
    /// `base` is near most versions that are told.
    pub(crate) fn new(base: u64) -> Self {
        Self { base, changes: (0, Writer::default()), mentions: (0, Writer::default()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.0 + self.mentions.0 == 0
    }

    /// Bytes so far, at the most.
    pub(crate) fn len(&self) -> usize {
        NEWS_HEAD + self.changes.1.len() + self.mentions.1.len()
    }

    /// Adds a change if it takes no more than `room` bytes. Whether it did.
    pub(crate) fn change(&mut self, change: &Change<'_>, room: usize) -> bool {
        let fits = change.len(self.base) <= room;
        if fits {
            let (count, writer) = &mut self.changes;
            *count += 1;
            writer.bytes(&change.owner.to_bytes());
            writer.varint(wire::distance(change.to, self.base));
            writer.varint(wire::back(change.from, change.to));
            writer.count(change.content.len());
            writer.bytes(change.content);
        }
        fits
    }

    /// Adds a mention if it takes no more than `room` bytes. Whether it did.
    pub(crate) fn mention(&mut self, owner: Short, version: u64, room: usize) -> bool {
        let fits = mention_len(version, self.base) <= room;
        if fits {
            let (count, writer) = &mut self.mentions;
            *count += 1;
            writer.bytes(&owner.to_bytes());
            writer.varint(wire::distance(version, self.base));
        }
        fits
    }

    /// Adds it all to a datagram.
    pub(crate) fn finish(self, datagram: &mut Writer) {
        datagram.u8(NEWS);
        datagram.u64(self.base);
        for (count, writer) in [self.changes, self.mentions] {
            datagram.count(count);
            datagram.bytes(&writer.into_bytes());
        }
    }
}

impl Change<'_> {
    /// Bytes that it takes.
    fn len(&self, base: u64) -> usize {
        let numbers = [wire::back(self.from, self.to), self.content.len() as u64].map(wire::varint_len);
        mention_len(self.to, base) + numbers.iter().sum::<usize>() + self.content.len()
    }
}

/// Bytes that a mention takes.
fn mention_len(version: u64, base: u64) -> usize {
    SHORT_LEN + wire::varint_len(wire::distance(version, base))
}

pub(crate) fn want(writer: &mut Writer, owner: Short, from: u64) {
    writer.u8(WANT);
    writer.bytes(&owner.to_bytes());
    writer.varint(from);
}

pub(crate) fn too_large(writer: &mut Writer, owner: Short) {
    writer.u8(TOO_LARGE);
    writer.bytes(&owner.to_bytes());
}

pub(crate) fn doubt(writer: &mut Writer, member: &Member<Identity>) {
    writer.u8(DOUBT);
    write_member(writer, member);
}

pub(crate) fn seen(writer: &mut Writer, member: &Member<Identity>) {
    writer.u8(SEEN);
    write_member(writer, member);
}

impl<'a> Part<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        match reader.u8()? {
            SWIM => {
                let length = reader.count(1)?;
                Ok(Self::Swim(reader.take(length)?))
            }
            NEWS => Ok(Self::News(News::read(reader)?)),
            WANT => Ok(Self::Want(read_short(reader)?, reader.varint()?)),
            TOO_LARGE => Ok(Self::TooLarge(read_short(reader)?)),
            DOUBT => Ok(Self::Doubt(read_member(reader)?)),
            SEEN => Ok(Self::Seen(read_member(reader)?)),
            _ => Err(Unreadable::Garbled),
        }
    }
}

fn read_short(reader: &mut Reader<'_>) -> Result<Short, Unreadable> {
    Ok(Short::from_bytes(reader.array()?))
}

impl<'a> News<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        let base = reader.u64()?;
        let version = |reader: &mut Reader<'a>| reader.varint().map(|distance| wire::at_distance(distance, base));
        let changes = read_all(reader, SHORT_LEN + 3, |reader| {
            let (owner, to) = (read_short(reader)?, version(reader)?);
            let from = reader.from(to)?;
            let length = reader.count(1)?;
            Ok(Change { owner, from, to, content: reader.take(length)? })
        })?;
        let mentions = read_all(reader, SHORT_LEN + 1, |reader| Ok((read_short(reader)?, version(reader)?)))?;
        Ok(Self { changes, mentions })
    }
}

impl Change<'_> {
    /// Reads it further, for the owner that is meant.
    pub(crate) fn delta(&self, owner: NodeId) -> Result<Delta, Unreadable> {
        Reader::new(self.content).changes(owner, self.from, self.to)
    }
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
                deltas: read_all(&mut reader, LEAST_DELTA, Reader::delta)?,
                wants: read_all(&mut reader, 18, read_want)?,
            }),
            3 => Ok(Self::Deltas(read_all(&mut reader, LEAST_DELTA, Reader::delta)?)),
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
                (key(0), record(EndpointState::Ready).into()),
                (key(1), named.into()),
                (key(2), record(EndpointState::Draining).into()),
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
            let mut writer = Writer::default();
            writer.delta(&delta);
            assert_eq!(Reader::new(&writer.into_bytes()).delta().unwrap(), delta);
        }
    }

    #[test]
    fn news_are_read_as_they_were_written_whatever_the_clocks_say() {
        for base in [0, 1, 1_789_999_999_999, 1_790_000_000_001, u64::MAX] {
            let (delta, owner) = (example(), Short::of(&NodeId::random()));
            let content = content(&delta);
            let change = Change { owner, from: delta.from, to: delta.to, content: &content };
            let mut news = NewsWriter::new(base);
            assert!(news.change(&change, 1000) && !news.change(&change, content.len()));
            assert!(news.mention(owner, 0, 100) && news.mention(owner, u64::MAX, 100) && !news.mention(owner, base, 5));
            let most = news.len();
            let mut datagram = Writer::default();
            news.finish(&mut datagram);
            let bytes = datagram.into_bytes();
            assert!(bytes.len() <= most);
            let Part::News(read) = Part::read(&mut Reader::new(&bytes)).unwrap() else { panic!("no news") };
            assert_eq!(read.mentions, [(owner, 0), (owner, u64::MAX)]);
            assert_eq!((read.changes.len(), read.changes[0].owner), (1, owner));
            assert_eq!(read.changes[0].delta(delta.owner.clone()).unwrap(), delta);
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
                if let Part::News(news) = part {
                    news.changes.iter().for_each(|change| drop(change.delta(NodeId::random())));
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
