//! Reads a log, from its oldest line to its newest and on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::{LOGS, decode, file_name, numbers};
use crate::container::{LogLine, LogOptions};
use crate::error::RuntimeError;
use crate::files::{self, EXIT};

/// Lines read at a time.
const BATCH: usize = 512;

/// A place in the log.
struct Reader {
    dir: PathBuf,
    number: u64,
    file: Option<BufReader<File>>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl Reader {
    fn new(container: &Path) -> Self {
        Self { dir: container.join(LOGS), number: 0, file: None, begun: Vec::new() }
    }

    /// The next line that there is now.
    fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(line) = self.line() {
                return Some(line);
            }
            let next = numbers(&self.dir).into_iter().find(|n| *n > self.number)?;
            // A file that has a successor is complete, but may have grown between the two looks.
            if let Some(line) = self.line() {
                return Some(line);
            }
            // What a crash left half written at the end is nothing.
            self.begun.clear();
            self.number = next;
            self.file = File::open(self.dir.join(file_name(next))).ok().map(BufReader::new);
        }
    }

    /// The next line of this file.
    fn line(&mut self) -> Option<LogLine> {
        loop {
            // An unreadable disk ends the log here; the next look may find more.
            self.file.as_mut()?.read_until(b'\n', &mut self.begun).ok()?;
            self.begun.pop_if(|b| *b == b'\n')?;
            let line = decode(&self.begun);
            self.begun.clear();
            if line.is_some() {
                return line;
            }
        }
    }
}

/// Becomes readable when something changes in the container's directory or in its logs.
fn watch(container: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let logs = WatchFlags::MODIFY | WatchFlags::CREATE;
    inotify::add_watch(&fd, container.join(LOGS), logs)?;
    inotify::add_watch(&fd, container, WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::DELETE_SELF)?;
    files::watch(fd)
}

/// The lines of the container in `dir`.
pub(crate) fn read(dir: &Path, options: LogOptions) -> Result<mpsc::Receiver<LogLine>, RuntimeError> {
    let (sender, receiver) = mpsc::channel(64);
    // Watched before the first read, so that no line falls between.
    let events = if options.follow { Some(watch(dir).map_err(RuntimeError::io("watch", dir))?) } else { None };
    tokio::spawn(send(dir.to_owned(), events, options, sender));
    Ok(receiver)
}

async fn send(dir: PathBuf, events: Option<AsyncFd<OwnedFd>>, options: LogOptions, sender: mpsc::Sender<LogLine>) {
    let mut reader = Reader::new(&dir);
    let mut tail = options.tail;
    loop {
        // Asked before reading: what an ended container wrote is complete.
        let ended = dir.join(EXIT).exists() || !dir.exists();
        let first = tail.take();
        let work = tokio::task::spawn_blocking(move || (batch(&mut reader, &options, first), reader));
        let Ok((lines, back)) = work.await else { return };
        reader = back;
        let more = first.is_some() || lines.len() == BATCH;
        for line in lines {
            if sender.send(line).await.is_err() {
                return;
            }
        }
        match &events {
            _ if more => {}
            Some(events) if !ended => tokio::select! {
                () = changed(events) => {}
                () = sender.closed() => return,
            },
            _ => return,
        }
    }
}

/// The next lines that are wanted; with `tail` the last so many of all.
fn batch(reader: &mut Reader, options: &LogOptions, tail: Option<u64>) -> Vec<LogLine> {
    let lines = std::iter::from_fn(|| reader.next()).filter(|line| options.wants(line.timestamp, line.stream));
    let Some(tail) = tail else { return lines.take(BATCH).collect() };
    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
    let mut last = VecDeque::new();
    for line in lines {
        last.push_back(line);
        if last.len() > tail {
            last.pop_front();
        }
    }
    last.into()
}

/// Waits for a change and takes all that are known off the queue.
async fn changed(events: &AsyncFd<OwnedFd>) {
    let Ok(mut guard) = events.readable().await else { return };
    let mut buffer = [0; 4096];
    while rustix::io::read(events.get_ref(), &mut buffer).is_ok_and(|n| n > 0) {}
    guard.clear_ready();
}
