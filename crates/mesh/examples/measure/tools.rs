//! The tools that measure, one run each: `wrk` for requests, `iperf3` for bulk, and what the run cost the whole machine.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Netns;

/// A program that runs until this is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it with nothing to read and nowhere to write.
    pub(crate) fn start(mut command: Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked rather than killed: nginx has workers to stop.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// What a run of `wrk` found.
#[derive(Debug, PartialEq)]
pub(crate) struct Wrk {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Microseconds that half of the requests took at most.
    pub(crate) p50: f64,
    /// Microseconds that 99 of 100 requests took at most.
    pub(crate) p99: f64,
    /// Microseconds of all processors together per request, idle time apart.
    pub(crate) cpu: f64,
}

/// What a client does with its connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connections {
    Kept,
    NewEach,
}

/// Requests as fast as they are answered, over this many connections at a time.
pub(crate) fn wrk(client: &Netns, to: SocketAddrV4, count: u32, connections: Connections, seconds: u64) -> Wrk {
    let mut wrk = client.command(&format!("wrk --latency -t1 -c{count} -d{seconds}"));
    if connections == Connections::NewEach {
        wrk.args(["-H", "Connection: close"]);
    }
    let before = busy();
    let output = wrk.arg(format!("http://{to}/")).output().unwrap();
    let spent = busy() - before;
    let text = String::from_utf8(output.stdout).unwrap();
    if let Some(errors) = text.lines().find(|l| l.contains("Socket errors")).and_then(failures) {
        eprintln!("{to}: {errors}");
    }
    parse(&text, spent).unwrap_or_else(|| panic!("wrk to {to}: {text}"))
}

/// What `wrk` printed in a run that cost so many seconds of processor.
fn parse(text: &str, spent: f64) -> Option<Wrk> {
    let after = |word: &str| {
        let mut lines = text.lines().map(str::split_whitespace);
        lines.find_map(|mut words| (words.next() == Some(word)).then(|| words.next()).flatten())
    };
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse::<f64>().ok())?;
    Some(Wrk {
        rate: after("Requests/sec:")?.parse().ok()?,
        p50: microseconds(after("50%")?)?,
        p99: microseconds(after("99%")?)?,
        cpu: spent / requests * 1e6,
    })
}

/// What went wrong, if anything did: a line of words and counts. Reads that fail are no failures, but connections that the server ended as it
/// was asked to.
fn failures(line: &str) -> Option<&str> {
    let failed = |part: &&str| !part.contains("read") && part.split_whitespace().next_back() != Some("0");
    line.split(',').any(|part| failed(&part)).then_some(line.trim())
}

/// `68.00us`, `4.20ms`, `1.10s`.
fn microseconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * unit)
}

/// Seconds that all processors together have been busy since the machine started. Taken from idle time, which is exact, rather than from
/// users of the processor, which are sampled: what a softirq does in passing belongs to no process.
fn busy() -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let numbers: Vec<f64> = uptime.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers[0] * std::thread::available_parallelism().unwrap().get() as f64 - numbers[1]
}

/// Which way bulk goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bulk {
    ToTask,
    FromTask,
}

/// One stream, in Gbit/s as received.
pub(crate) fn iperf3(client: &Netns, to: SocketAddrV4, bulk: Bulk, seconds: u64) -> f64 {
    let reverse = if bulk == Bulk::FromTask { "-R" } else { "" };
    let asked = format!("iperf3 -f g -t {seconds} -c {} -p {} {reverse}", to.ip(), to.port());
    let output = client.command(&asked).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with("receiver"));
    let words: Vec<_> = line.unwrap_or_else(|| panic!("{asked}: {text}")).split_whitespace().collect();
    let unit = words.iter().position(|w| *w == "Gbits/sec").unwrap();
    words[unit - 1].parse().unwrap()
}

/// Asks once and returns who answered and whom it saw, waiting as long as it takes for a proxy to start.
pub(crate) fn who_answers(client: &Netns, to: SocketAddrV4) -> (Ipv4Addr, Ipv4Addr) {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match client.run(|| ask(to)) {
            Ok(text) => {
                let mut words = text.split_whitespace();
                let peer: SocketAddrV4 = words.next_back().unwrap().parse().unwrap();
                return (words.next_back().unwrap().parse().unwrap(), *peer.ip());
            }
            Err(error) => assert!(Instant::now() < until, "{to} does not answer: {error}"),
        }
        std::thread::yield_now();
    }
}

fn ask(to: SocketAddrV4) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to.into(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(
            ["68.00us", "4.20ms", "1.10s", "12"].map(microseconds),
            [Some(68.0), Some(4200.0), Some(1.1e6), None]
        );
    }

    /// The shares of samples within a standard deviation look like percentiles.
    #[test]
    fn the_output_of_wrk_is_read() {
        let text = "Running 1s test @ http://10.2.0.60:80/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    17.40ms   33.24ms 175.99ms   88.99%
    Req/Sec     6.20k     3.37k   11.40k    62.50%
  Latency Distribution
     50%    1.35ms
     75%   16.08ms
     90%   59.66ms
     99%  154.10ms
  5000 requests in 1.00s, 351.21KB read
Requests/sec:   5425.62
Transfer/sec:    349.70KB
";
        let found = Wrk { rate: 5425.62, p50: 1350.0, p99: 154_100.0, cpu: 400.0 };
        assert_eq!(parse(text, 2.0), Some(found));
        assert_eq!(parse("unable to connect", 2.0), None);
    }

    #[test]
    fn connections_that_were_to_end_are_no_failures() {
        assert_eq!(failures("  Socket errors: connect 0, read 16369, write 0, timeout 0"), None);
        let failed = "Socket errors: connect 0, read 1, write 0, timeout 3";
        assert_eq!(failures(failed), Some(failed));
    }
}
