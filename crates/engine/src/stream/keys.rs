//! The keys by which a client leaves a terminal without ending what runs in it.

use crate::error::Error;

/// Docker's: Ctrl-P, Ctrl-Q.
const USUAL: [u8; 2] = [0x10, 0x11];

/// A sequence of keys, looked for in what is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    seen: usize,
}

/// What to do with what was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// It goes to the program.
    Input(Vec<u8>),
    /// This goes to the program, and then the client leaves.
    Leave(Vec<u8>),
}

impl DetachKeys {
    /// `ctrl-a,b`: letters, or `ctrl-` and one of `a` to `z`, `@`, `[`, `\`, `]`, `^`, `_`. Nothing is Docker's own sequence.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self { keys: USUAL.to_vec(), seen: 0 });
        }
        let key = |name: &str| match name.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
            Some([other @ (b'@' | b'['..=b'_')]) => Some(other - b'@'),
            Some(_) => None,
            None => <[u8; 1]>::try_from(name.as_bytes()).ok().map(|[key]| key),
        };
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        let keys = keys.ok_or_else(|| Error::invalid(format!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { keys, seen: 0 })
    }

    /// Looks at what was typed. The beginning of the sequence is held back until it is clear that it is none.
    pub(crate) fn take(&mut self, typed: &[u8]) -> Typed {
        let mut input = Vec::with_capacity(typed.len());
        for key in typed {
            if *key != self.keys[self.seen] {
                input.extend_from_slice(&self.keys[..self.seen]);
                self.seen = 0;
            }
            if *key == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return Typed::Leave(input);
                }
            } else {
                input.push(*key);
            }
        }
        Typed::Input(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_may_come_in_pieces_and_is_no_input() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.take(b"ls\n"), Typed::Input(b"ls\n".to_vec()));
        assert_eq!(keys.take(b"a\x10"), Typed::Input(b"a".to_vec()));
        assert_eq!(keys.take(b"b"), Typed::Input(b"\x10b".to_vec()));
        assert_eq!(keys.take(b"\x10\x10"), Typed::Input(b"\x10".to_vec()));
        assert_eq!(keys.take(b"\x11rest"), Typed::Leave(Vec::new()));
    }

    #[test]
    fn keys_are_named_as_in_docker() {
        assert_eq!(DetachKeys::parse("ctrl-a,x,ctrl-[").unwrap().keys, [1, b'x', 27]);
        for bad in ["ctrl-", "ctrl-1", "ab", ",", "ctrl-aa"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
