//! The log files of a container: `logs/00000001`, `logs/00000002` and so on, the highest number being written to.
//!
//! A line is `<time> <o or e> <bytes>`: one for each line that the container wrote, the time as in RFC 3339 with nine digits
//! after the point.

mod read;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use skep_model::Timestamp;

use crate::container::{LogLine, LogStream};

pub(crate) use read::read;

/// The directory of the log files, in the container's.
pub(crate) const LOGS: &str = "logs";

/// Bytes after which a new log file is begun.
const FILE_SIZE: u64 = 10 << 20;
/// How many log files a container has at the most.
const FILES: u64 = 5;

/// A line as it stands in the file.
fn encode(timestamp: Timestamp, stream: LogStream, line: &[u8]) -> Vec<u8> {
    let stream = match stream {
        LogStream::Stdout => 'o',
        LogStream::Stderr => 'e',
    };
    let mut bytes = format!("{timestamp:.9} {stream} ").into_bytes();
    bytes.extend_from_slice(line);
    bytes.push(b'\n');
    bytes
}

/// The opposite of [`encode`], without the line end; `None` for what a crash left half written.
fn decode(bytes: &[u8]) -> Option<LogLine> {
    let mut parts = bytes.splitn(3, |b| *b == b' ');
    let timestamp = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"o" => LogStream::Stdout,
        b"e" => LogStream::Stderr,
        _ => return None,
    };
    Some(LogLine { timestamp, stream, line: parts.next()?.to_vec() })
}

fn file_name(number: u64) -> String {
    format!("{number:08}")
}

/// The numbers of the log files in `dir`, ascending.
fn numbers(dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut numbers: Vec<u64> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Writes a container's log.
#[derive(Debug)]
pub(crate) struct Writer {
    dir: PathBuf,
    number: u64,
    file: File,
    size: u64,
    limit: u64,
}

impl Writer {
    /// Goes on with the log in the directory of a container.
    pub(crate) fn open(container: &Path) -> io::Result<Self> {
        Self::with_limit(container, FILE_SIZE)
    }

    fn with_limit(container: &Path, limit: u64) -> io::Result<Self> {
        let dir = container.join(LOGS);
        fs::create_dir_all(&dir)?;
        let number = numbers(&dir).last().copied().unwrap_or(1);
        let file = File::options().create(true).append(true).open(dir.join(file_name(number)))?;
        let size = file.metadata()?.len();
        Ok(Self { dir, number, file, size, limit })
    }

    /// Appends a line. A full disk loses lines: the container must not stand still because of it.
    pub(crate) fn write(&mut self, timestamp: Timestamp, stream: LogStream, line: &[u8]) {
        let bytes = encode(timestamp, stream, line);
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            // When there can be no next file the old one grows on.
            let _ = self.turn();
        }
        if self.file.write_all(&bytes).is_ok() {
            self.size += bytes.len() as u64;
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let next = self.number + 1;
        self.file = File::options().create(true).append(true).open(self.dir.join(file_name(next)))?;
        (self.number, self.size) = (next, 0);
        for old in numbers(&self.dir) {
            if old + FILES <= next {
                fs::remove_file(self.dir.join(file_name(old)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_come_back_as_they_were(nanos in 0i64..4_000_000_000_000_000_000, line: Vec<u8>, error: bool) {
            let timestamp = Timestamp::from_nanosecond(nanos.into()).unwrap();
            let stream = if error { LogStream::Stderr } else { LogStream::Stdout };
            let bytes = encode(timestamp, stream, &line);
            prop_assert_eq!(decode(bytes.strip_suffix(b"\n").unwrap()), Some(LogLine { timestamp, stream, line }));
        }

        #[test]
        fn damage_is_no_line_and_no_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn old_files_go_and_numbers_rise() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::with_limit(dir.path(), 100).unwrap();
        for number in 0..40 {
            writer.write(Timestamp::now(), LogStream::Stdout, format!("line {number}").as_bytes());
        }
        let numbers = numbers(&dir.path().join(LOGS));
        assert_eq!(numbers, [16, 17, 18, 19, 20]);
        let again = Writer::with_limit(dir.path(), 100).unwrap();
        assert_eq!((again.number, again.size), (20, writer.size));
    }
}
