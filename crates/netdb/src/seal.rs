//! The seal of every datagram and frame: AES-256-GCM.
//!
//! Layout: magic `sk`, version 2, key id (4 bytes), nonce (12), sender (17), sealed content, tag (16). All numbers big-endian. What is in
//! clear is authenticated too, and so is whether it travels as a datagram or in a stream.
//!
//! Nonces are 96 random bits. NIST SP 800-38D (8.3) allows 2^32 messages with one key then; 1,000 nodes that send 50 messages a second each
//! come to 2^31 in the 12 hours after which managers hand out another key.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use skep_model::{GossipKeys, NodeId};

use crate::Unreadable;
use crate::wire::{ID_LEN, Reader, Writer};

/// `sk`, and the version of everything behind it.
const MAGIC: [u8; 3] = [b's', b'k', 2];
/// Bytes in clear before the content.
const HEAD: usize = MAGIC.len() + 4 + NONCE_LEN + ID_LEN;
/// What a seal adds to a message, in bytes.
pub(crate) const OVERHEAD: usize = HEAD + 16;

/// By what a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Datagram,
    Stream,
}

/// Keys, ready for use.
pub(crate) struct KeyRing {
    keys: Vec<(u32, LessSafeKey)>,
    primary: u32,
}

impl KeyRing {
    pub(crate) fn new(keys: &GossipKeys) -> Self {
        let key = |secret: &[u8; 32]| UnboundKey::new(&AES_256_GCM, secret).ok().map(LessSafeKey::new);
        let ready = keys.keys.iter().filter_map(|one| Some((one.id, key(&one.secret)?)));
        Self { keys: ready.collect(), primary: keys.primary }
    }

    /// Opens nothing and seals nothing.
    pub(crate) fn empty() -> Self {
        Self { keys: Vec::new(), primary: 0 }
    }

    fn key(&self, id: u32) -> Option<&LessSafeKey> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }

    /// Seals a message with the primary key; `None` without one.
    pub(crate) fn seal(&self, way: Way, sender: &NodeId, nonce: [u8; NONCE_LEN], content: &[u8]) -> Option<Vec<u8>> {
        let key = self.key(self.primary)?;
        let mut head = Writer::with_capacity(content.len() + OVERHEAD);
        head.bytes(&MAGIC);
        head.u32(self.primary);
        head.bytes(&nonce);
        head.id(sender.as_str());
        let mut message = head.into_bytes();
        let aad = aad(way, &message);
        message.extend_from_slice(content);
        let (_, sealed) = message.split_at_mut(HEAD);
        let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed).ok()?;
        message.extend_from_slice(tag.as_ref());
        Some(message)
    }

    /// Opens a message: who sent it, and what it says.
    pub(crate) fn open<'a>(&self, way: Way, message: &'a mut [u8]) -> Result<(NodeId, &'a [u8]), Unreadable> {
        if message.len() < OVERHEAD || !message.starts_with(&MAGIC) {
            return Err(Unreadable::Foreign);
        }
        let (head, sealed) = message.split_at_mut(HEAD);
        let mut reader = Reader::new(&head[MAGIC.len()..]);
        let key = self.key(reader.u32()?).ok_or(Unreadable::UnknownKey)?;
        let nonce = reader.array::<NONCE_LEN>()?;
        let sender = reader.id()?;
        let aad = aad(way, head);
        let content = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed);
        Ok((sender, content.map_err(|_| Unreadable::Forged)?))
    }
}

fn aad(way: Way, head: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(head.len() + 1);
    aad.extend_from_slice(head);
    aad.push(match way {
        Way::Datagram => 0,
        Way::Stream => 1,
    });
    aad
}

#[cfg(test)]
mod tests {
    use skep_model::{GossipKey, Timestamp};

    use super::*;

    fn ring(ids: &[u32], primary: u32) -> KeyRing {
        let keys = ids.iter().map(|id| GossipKey { id: *id, secret: [u8::try_from(*id).unwrap(); 32] }).collect();
        KeyRing::new(&GossipKeys { keys, primary, rotated: Timestamp::now() })
    }

    #[test]
    fn what_is_sealed_with_any_known_key_is_read_and_a_changed_bit_is_noticed() {
        let (sender, old, new) = (NodeId::random(), ring(&[1], 1), ring(&[1, 2], 2));
        let sealed = old.seal(Way::Datagram, &sender, [7; 12], b"hello").unwrap();
        let opened = new.open(Way::Datagram, &mut sealed.clone()).map(|(node, content)| (node, content.to_vec()));
        assert_eq!(opened, Ok((sender.clone(), b"hello".to_vec())));
        assert_eq!(old.open(Way::Stream, &mut sealed.clone()), Err(Unreadable::Forged), "a datagram is no frame");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(old.open(Way::Datagram, &mut changed).is_err(), "bit {bit}");
        }
        let mut newer = new.seal(Way::Datagram, &sender, [8; 12], b"hello").unwrap();
        assert_eq!(old.open(Way::Datagram, &mut newer), Err(Unreadable::UnknownKey));
        assert_eq!(old.open(Way::Datagram, &mut b"sk".to_vec()), Err(Unreadable::Foreign));
        assert!(ring(&[1], 3).seal(Way::Datagram, &sender, [0; 12], b"").is_none(), "without its primary key");
    }
}
