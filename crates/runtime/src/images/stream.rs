//! Readers that images come through: decompression by magic bytes, limits, the extent of a file.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

fn compression(head: &[u8]) -> (bool, bool) {
    (head.starts_with(&GZIP), head.starts_with(&ZSTD))
}

/// Whether [`decompressed`] would change `input`.
pub(super) fn is_compressed(input: impl Read) -> io::Result<bool> {
    let mut head = Vec::new();
    input.take(ZSTD.len() as u64).read_to_end(&mut head)?;
    let (gzip, zstd) = compression(&head);
    Ok(gzip || zstd)
}

/// Undoes gzip or zstd when the first bytes say so; anything else passes as it is.
pub(super) fn decompressed<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::with_capacity(ZSTD.len());
    input.by_ref().take(ZSTD.len() as u64).read_to_end(&mut head)?;
    let (gzip, zstd) = compression(&head);
    let whole = BufReader::with_capacity(1 << 16, io::Cursor::new(head).chain(input));
    Ok(if gzip {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(whole)))
    } else if zstd {
        Box::new(zstd::stream::read::Decoder::with_buffer(whole)?)
    } else {
        Box::new(whole)
    })
}

/// How many more bytes may be read: shared by a [`Limited`] reader and whoever sets it.
#[derive(Clone)]
pub(super) struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    /// What is left.
    pub(super) fn left(&self) -> u64 {
        self.0.get()
    }

    /// Runs `step` with at most `bytes` of the allowance: a step that wants more fails, the rest is kept for later.
    pub(super) fn within<T>(&self, bytes: u64, step: impl FnOnce() -> T) -> T {
        let all = self.0.get();
        let part = bytes.min(all);
        self.0.set(part);
        let result = step();
        self.0.set(all - (part - self.0.get()));
        result
    }
}

/// Fails when more is read than its allowance; the end of the input within it is fine.
pub(super) struct Limited<R> {
    inner: R,
    allowance: Allowance,
}

impl<R: Read> Limited<R> {
    pub(super) fn new(inner: R, allowance: Allowance) -> Self {
        Self { inner, allowance }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.get();
        if left == 0 && !buffer.is_empty() {
            let mut probe = [0];
            return match self.inner.read(&mut probe)? {
                0 => Ok(0),
                _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, "more data than allowed")),
            };
        }
        let part = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let n = self.inner.read(&mut buffer[..part])?;
        self.allowance.0.set(left - n as u64);
        Ok(n)
    }
}

/// Part of a file, read without moving the file's own position: several can be read at once.
pub(super) struct Extent<'a> {
    pub(super) file: &'a File,
    pub(super) at: u64,
    pub(super) left: u64,
}

impl Read for Extent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let n = self.file.read_at(&mut buffer[..part], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        decompressed(input).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn compression_is_known_by_its_magic_bytes() {
        let plain = b"some words, some words".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        assert_eq!(read(&gzip.finish().unwrap()), plain);
        assert_eq!(read(&zstd::encode_all(&plain[..], 1).unwrap()), plain);
        assert_eq!(read(&plain), plain);
        for short in [&b""[..], b"a", b"\x28\xb5\x2f"] {
            assert_eq!(read(short), short);
        }
    }

    #[test]
    fn an_allowance_can_be_used_up_to_its_last_byte() {
        let all = Allowance::new(10);
        let mut reader = Limited::new(&b"0123456789"[..], all.clone());
        let mut part = [0; 4];
        let cut = all.within(3, || reader.read_exact(&mut part));
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(all.left(), 7);
        let mut rest = Vec::new();
        Limited::new(&b"0123456"[..], all.clone()).read_to_end(&mut rest).unwrap();
        assert_eq!((rest.len(), all.left()), (7, 0));
        let one_more = Limited::new(&b"01"[..], Allowance::new(1)).read_to_end(&mut rest);
        assert_eq!(one_more.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
