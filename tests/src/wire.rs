//! What the demanding client and its server say to each other. Every byte follows from a number, so that either side can check what the
//! other has sent.
//!
//! The client sends an [`Ask`] and a body; the server an [`Answer`] and a body. On one connection that may go on for as long as both like.

use std::net::{IpAddr, Ipv6Addr};

/// Bytes of an [`Ask`].
pub const ASK: usize = 17;
/// Bytes of an [`Answer`].
pub const ANSWER: usize = 30;
/// No body is longer, so that garbage does not ask for memory.
pub const LONGEST: u32 = 1 << 20;

/// Whether the connection goes on after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The server closes it.
    Close,
    /// It stays.
    Keep,
}

/// What the client sends before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What both bodies follow from.
    pub seed: u64,
    /// Bytes that follow.
    pub up: u32,
    /// Bytes that are to come back.
    pub down: u32,
    /// What the client wants to happen afterwards.
    pub then: Then,
}

/// What the server sends before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Whether the client's body arrived as it was sent.
    pub whole: bool,
    /// What the server will do now; it may close what the client wanted to keep.
    pub then: Then,
    /// Whom the server takes the client for.
    pub client: IpAddr,
    /// The first letters of the server's host name: the short id of its container.
    pub task: [u8; 12],
}

impl Then {
    fn byte(self) -> u8 {
        u8::from(self == Self::Keep)
    }

    fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Close),
            1 => Some(Self::Keep),
            _ => None,
        }
    }
}

impl Ask {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ASK] {
        let mut bytes = [0; ASK];
        bytes[..8].copy_from_slice(&self.seed.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.up.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.down.to_be_bytes());
        bytes[16] = self.then.byte();
        bytes
    }

    /// From bytes; `None` when they cannot be one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; ASK]) -> Option<Self> {
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (up, down) = (number(8), number(12));
        let seed = u64::from(number(0)) << 32 | u64::from(number(4));
        (up <= LONGEST && down <= LONGEST).then_some(Self { seed, up, down, then: Then::of(bytes[16])? })
    }
}

impl Answer {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ANSWER] {
        let client = match self.client {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut bytes = [0; ANSWER];
        bytes[0] = u8::from(self.whole);
        bytes[1] = self.then.byte();
        bytes[2..18].copy_from_slice(&client.octets());
        bytes[18..].copy_from_slice(&self.task);
        bytes
    }

    /// From bytes; `None` when they cannot be one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; ANSWER]) -> Option<Self> {
        let mut client = [0; 16];
        client.copy_from_slice(&bytes[2..18]);
        let mut task = [0; 12];
        task.copy_from_slice(&bytes[18..]);
        let whole = match bytes[0] {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { whole, then: Then::of(bytes[1])?, client: Ipv6Addr::from(client).to_canonical(), task })
    }
}

/// The body of `len` bytes that follows from `seed` (the numbers are Vigna's splitmix64). The answer's is made of `!seed`.
#[must_use]
pub fn body(seed: u64, len: u32) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len as usize + 8);
    while bytes.len() < len as usize {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_be_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_garbage_is_not() {
        let ask = Ask { seed: 0x0123_4567_89ab_cdef, up: 3, down: LONGEST, then: Then::Keep };
        assert_eq!(Ask::from_bytes(&ask.to_bytes()), Some(ask));
        assert_eq!(Ask::from_bytes(&[0xff; ASK]), None);
        for client in ["192.0.2.7", "2001:db8::7"] {
            let client = client.parse().unwrap();
            let answer = Answer { whole: true, then: Then::Close, client, task: *b"0123456789ab" };
            assert_eq!(Answer::from_bytes(&answer.to_bytes()), Some(answer));
        }
        assert_eq!(Answer::from_bytes(&[7; ANSWER]), None);
    }

    #[test]
    fn bodies_differ_from_their_first_byte_on_and_have_their_length() {
        assert_eq!(body(7, 21).len(), 21);
        assert_eq!(body(7, 21), body(7, 40)[..21]);
        assert_ne!(body(7, 8), body(8, 8));
        assert_ne!(body(7, 8), body(!7, 8));
    }
}
