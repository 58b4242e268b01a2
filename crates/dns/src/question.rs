//! Questions and replies as they are on the wire (RFC 1035; EDNS, RFC 6891).

use std::ops::Range;

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// What whoever says nothing of it takes by UDP (RFC 1035, 4.2.1).
const PLAIN: u16 = 512;
/// What is told to those who say something of it: what passes everywhere in one packet (DNS flag day 2020).
const ROOM: u16 = 1232;
/// More records than this no question needs beside itself: EDNS, a signature, a cookie.
const EXTRAS: u16 = 4;
/// Bytes of the smallest record: a name that points back, type, class, TTL, length, IPv4 address.
const SMALLEST: usize = 16;

/// What came of reading a datagram.
#[derive(Debug)]
pub enum Received {
    /// One question.
    Question(Question),
    /// It is no question that can be answered; this is to be sent back.
    Refused(Vec<u8>),
    /// Nothing is to be sent back: it is too short, or a reply. Two that answer each other's replies would never end.
    Ignored,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Question {
    id: u16,
    header: Header,
    query: Query,
    edns: Option<Edns>,
    text: Option<String>,
    bytes: Vec<u8>,
    /// Where in the bytes name, type and class are.
    asked: Range<usize>,
}

/// What a reply says besides its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// What answers the question.
    pub answers: Vec<Record>,
    /// What will be asked next.
    pub extras: Vec<Record>,
    /// Whether the name is there at all.
    pub exists: Exists,
}

/// Whether a name is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Exists {
    /// It is, though perhaps not with what was asked for (NODATA).
    #[default]
    Yes,
    /// It is not (NXDOMAIN).
    No,
}

impl Question {
    /// Reads a datagram, or a message of a TCP connection. Takes time and room in proportion to its length at the most.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Received {
        let mut decoder = BinDecoder::new(bytes);
        let Ok(header) = Header::read(&mut decoder) else { return Received::Ignored };
        if header.message_type == MessageType::Response {
            return Received::Ignored;
        }
        let refuse = |code| Received::Refused(refusal(&header, code));
        if header.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let counts = header.counts;
        if (counts.queries, counts.answers, counts.authorities) != (1, 0, 0) || counts.additionals > EXTRAS {
            return refuse(ResponseCode::FormErr);
        }
        let begin = decoder.index();
        let Ok(query) = Query::read(&mut decoder) else { return refuse(ResponseCode::FormErr) };
        let asked = begin..decoder.index();
        let extras = Message::read_records(&mut decoder, counts.additionals.into(), true, OpCode::Query);
        let Ok((_, edns, _)) = extras else { return refuse(ResponseCode::FormErr) };
        let (text, bytes) = (text(&query), bytes.to_vec());
        let question = Self { id: header.id, header, query, edns, text, bytes, asked };
        if question.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Received::Refused(question.fail(ResponseCode::BADVERS));
        }
        if !matches!(question.query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Received::Refused(question.fail(ResponseCode::Refused));
        }
        Received::Question(question)
    }

    /// The name in lower case, without the dot at its end; `None` for one that nothing here can have.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Whether its name has no dot.
    #[must_use]
    pub fn is_single_label(&self) -> bool {
        self.query.name().num_labels() == 1
    }

    /// The question as others are asked it, with another identifier.
    #[must_use]
    pub fn forwarded(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    /// Whether `reply` can be the answer to what was [forwarded](Self::forwarded) with this identifier: it answers the same question, as far as
    /// it repeats any.
    #[must_use]
    pub fn matches(&self, id: u16, reply: &[u8]) -> bool {
        let Ok(header) = Header::read(&mut BinDecoder::new(reply)) else { return false };
        let same = header.id == id && header.message_type == MessageType::Response && header.op_code == OpCode::Query;
        // Who does not understand a question may not be able to repeat it.
        let unread = header.counts.queries == 0 && header.response_code != ResponseCode::NoError;
        let repeats =
            || reply.get(self.asked.clone()).is_some_and(|it| it.eq_ignore_ascii_case(&self.bytes[self.asked.clone()]));
        same && (unread || header.counts.queries == 1 && repeats())
    }

    /// Gives a reply of somebody else the identifier of this question.
    pub fn sign(&self, reply: &mut [u8]) {
        if let Some(id) = reply.get_mut(..2) {
            id.copy_from_slice(&self.id.to_be_bytes());
        }
    }

    /// Name and type as they were asked.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// What whoever asks takes by UDP, in bytes.
    #[must_use]
    pub fn room(&self) -> u16 {
        self.edns.as_ref().map_or(PLAIN, |edns| edns.max_payload().max(PLAIN))
    }

    /// A reply of at most `room` bytes. What does not fit is left out, and whoever asks is told to ask by TCP (RFC 2181, 9).
    #[must_use]
    pub fn reply(&self, reply: Reply, room: u16) -> Vec<u8> {
        let mut message = self.response();
        message.metadata.response_code = match reply.exists {
            Exists::Yes => ResponseCode::NoError,
            Exists::No => ResponseCode::NXDomain,
        };
        message.answers = reply.answers;
        message.additionals = reply.extras;
        let failed = || self.fail(ResponseCode::ServFail);
        let fits = |bytes: &Vec<u8>| bytes.len() <= usize::from(room);
        let Ok(whole) = message.to_vec() else { return failed() };
        if fits(&whole) {
            return whole;
        }
        // These may be left out without a word.
        message.additionals.clear();
        let Ok(without) = message.to_vec() else { return failed() };
        if fits(&without) {
            return without;
        }
        message.metadata.truncation = true;
        // The most that fit: no search but by halves, for records are not all of one size.
        let mut answers = std::mem::take(&mut message.answers);
        answers.truncate(usize::from(room) / SMALLEST);
        let (mut least, mut most) = (0, answers.len());
        while least < most {
            let middle = usize::midpoint(least, most + 1);
            message.answers = answers[..middle].to_vec();
            match message.to_vec() {
                Ok(bytes) if fits(&bytes) => least = middle,
                _ => most = middle - 1,
            }
        }
        answers.truncate(least);
        message.answers = answers;
        message.to_vec().unwrap_or_else(|_| failed())
    }

    /// A reply without records.
    #[must_use]
    pub fn fail(&self, code: ResponseCode) -> Vec<u8> {
        let mut message = self.response();
        message.metadata.response_code = code;
        message.to_vec().unwrap_or_else(|_| refusal(&self.header, ResponseCode::ServFail))
    }

    /// A reply that tells whoever asks to ask by TCP.
    #[must_use]
    pub fn too_large(&self) -> Vec<u8> {
        let mut message = self.response();
        message.metadata.truncation = true;
        message.to_vec().unwrap_or_else(|_| refusal(&self.header, ResponseCode::ServFail))
    }

    fn response(&self) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.header.recursion_desired;
        message.metadata.checking_disabled = self.header.checking_disabled;
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(ROOM).set_version(0);
            message.set_edns(edns);
        }
        message
    }
}

/// A header alone, for those whose question was not understood.
fn refusal(header: &Header, code: ResponseCode) -> Vec<u8> {
    let mut message = Message::response(header.id, header.op_code);
    message.metadata.recursion_desired = header.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.to_vec().unwrap_or_default()
}

/// Labels with dots between them. A dot within a label, or a byte that is no letter of a name here, makes it a name that nothing here has.
fn text(query: &Query) -> Option<String> {
    let mut text = String::with_capacity(query.name().len());
    for label in query.name().iter() {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    (!text.is_empty()).then_some(text)
}
