//! Requests at a fixed rate, whatever becomes of the answers. A client that asks as fast as it is answered measures how long its requests
//! wait for a processor; this one leaves the processors room, and measures the path.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::lab::Netns;

/// Microseconds that requests took.
pub(crate) struct Latency {
    /// Half of them at most.
    pub(crate) p50: f64,
    /// 99 of 100 at most.
    pub(crate) p99: f64,
}

struct Connection {
    stream: TcpStream,
    /// When the next request is to be sent.
    due: Instant,
    /// When the one that is waited for was due.
    asked: Option<Instant>,
}

/// Sends `rate` requests a second over `count` connections that take turns. A request that is late because the one before it has not been
/// answered counts from when it was due.
pub(crate) fn paced(client: &Netns, to: SocketAddrV4, count: u32, rate: u32, seconds: u64) -> Latency {
    let mut took = client.run(|| {
        // The kernel otherwise lets timers be late by 50 µs.
        let _ = std::fs::write("/proc/thread-self/timerslack_ns", "1");
        run(to, count, rate, Duration::from_secs(seconds))
    });
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Latency { p50: at(0.5), p99: at(0.99) }
}

fn run(to: SocketAddrV4, count: u32, rate: u32, lasts: Duration) -> Vec<Duration> {
    let gap = Duration::from_secs(1) / rate;
    let streams: Vec<TcpStream> = (0..count).map(|_| connect(to)).collect();
    let start = Instant::now();
    let connection = |(n, stream)| Connection { stream, due: start + gap * n, asked: None };
    let mut connections: Vec<Connection> = (0..).zip(streams).map(connection).collect();
    let mut took = Vec::new();
    while start.elapsed() < lasts {
        let now = Instant::now();
        for connection in &mut connections {
            connection.send(now, gap * count);
        }
        let next = connections.iter().filter(|c| c.asked.is_none()).map(|c| c.due).min();
        wait(&connections, next.map(|due| due.saturating_duration_since(Instant::now())));
        for connection in &mut connections {
            took.extend(connection.receive());
        }
    }
    took
}

fn connect(to: SocketAddrV4) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Until an answer comes, or the time for the next request.
fn wait(connections: &[Connection], at_most: Option<Duration>) {
    let mut fds: Vec<PollFd<'_>> = connections
        .iter()
        .filter(|c| c.asked.is_some())
        .map(|c| PollFd::new(c.stream.as_fd(), PollFlags::POLLIN))
        .collect();
    ppoll(&mut fds, at_most.map(TimeSpec::from), None).unwrap();
}

impl Connection {
    fn send(&mut self, now: Instant, gap: Duration) {
        if self.asked.is_none() && self.due <= now {
            self.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            self.asked = Some(self.due);
            self.due += gap;
        }
    }

    fn receive(&mut self) -> Option<Duration> {
        let asked = self.asked?;
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            // An answer is one small segment.
            Ok(read) => assert!(read > 0, "the server closed"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("{error}"),
        }
        self.asked = None;
        Some(asked.elapsed())
    }
}
