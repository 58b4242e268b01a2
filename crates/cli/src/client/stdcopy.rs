//! Two streams in one: docker's multiplexed log format, where each frame has a header of eight bytes.

use bytes::{Buf as _, Bytes, BytesMut};

/// The header: stream, three zeros, length (big endian, bytes).
const HEADER: usize = 8;

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
    /// The daemon's own trouble, told in the stream.
    System,
}

/// Takes bytes as they arrive and gives back whole frames.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    pending: BytesMut,
}

impl Demux {
    /// More bytes have arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// When the bytes are no frames.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<(Stream, Bytes)>> {
        if self.pending.len() < HEADER {
            return Ok(None);
        }
        let stream = match self.pending[0] {
            0 | 1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::System,
            other => anyhow::bail!("the daemon's log stream is damaged: a frame of kind {other}"),
        };
        let length = u32::from_be_bytes([self.pending[4], self.pending[5], self.pending[6], self.pending[7]]) as usize;
        if self.pending.len() < HEADER + length {
            return Ok(None);
        }
        self.pending.advance(HEADER);
        Ok(Some((stream, self.pending.split_to(length).freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![stream, 0, 0, 0];
        out.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        out.extend(payload);
        out
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in proptest::collection::vec((1u8..=2, proptest::collection::vec(any::<u8>(), 0..50)), 0..10),
            cut in 1usize..20,
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|(s, p)| frame(*s, p)).collect();
            let mut demux = Demux::default();
            let mut got = Vec::new();
            for piece in wire.chunks(cut) {
                demux.push(piece);
                while let Some((stream, payload)) = demux.next().unwrap() {
                    got.push((if stream == Stream::Stdout { 1 } else { 2 }, payload.to_vec()));
                }
            }
            prop_assert_eq!(got, frames);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut demux = Demux::default();
        demux.push(b"plain text");
        assert!(demux.next().is_err());
    }
}
