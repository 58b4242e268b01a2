//! The client of the demo: opens a connection at a fixed pace, whatever became of the one before, and prints a line for each. It runs in
//! the client's network namespace, as a process of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::answer;

/// How long a connection may take, in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Options of the probe.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Addresses to ask, in turn
    targets: Vec<SocketAddr>,
    /// Milliseconds between connections
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Connections in all
    #[arg(long, default_value_t = 1)]
    count: u32,
}

/// What became of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// When it was opened, since the probe began.
    pub(crate) at: Duration,
    /// How long it took.
    pub(crate) took: Duration,
    /// Who was asked.
    pub(crate) target: SocketAddr,
    /// Which task answered, and which client it saw; or what went wrong.
    pub(crate) answer: Result<(String, String), String>,
}

impl Outcome {
    fn to_line(&self) -> String {
        let answer = match &self.answer {
            Ok((task, client)) => format!("ok {task} {client}"),
            Err(why) => format!("failed {why}"),
        };
        format!("{} {} {} {answer}", self.at.as_micros(), self.took.as_micros(), self.target)
    }

    /// Reads a line that the probe has printed.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let micros = |word: Option<&str>| word?.parse().ok().map(Duration::from_micros);
        let (at, took) = (micros(words.next())?, micros(words.next())?);
        let target = words.next()?.parse().ok()?;
        let answer = match words.next()?.split_once(' ')? {
            ("ok", answer) => {
                answer.split_once(' ').map(|(t, c)| (t.to_owned(), c.to_owned())).ok_or("garbled".to_owned())
            }
            (_, why) => Err(why.to_owned()),
        };
        Some(Self { at, took, target, answer })
    }
}

/// Opens the connections, then ends.
pub(crate) fn main(flags: &Flags) -> Result<()> {
    let began = Instant::now();
    let (tell, told) = mpsc::channel::<Outcome>();
    let printer = thread::spawn(move || {
        let mut out = std::io::stdout().lock();
        for outcome in told {
            // Whoever listened has gone: the connections go on to their end, which is near.
            let _ = writeln!(out, "{}", outcome.to_line()).and_then(|()| out.flush());
        }
    });
    for (number, target) in (0..flags.count).zip(flags.targets.iter().cycle().copied()) {
        let due = began + Duration::from_millis(flags.every) * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let tell = tell.clone();
        thread::spawn(move || {
            let opened = Instant::now();
            let answer = ask(target).map_err(|e| e.to_string().replace('\n', " "));
            let _ = tell.send(Outcome { at: opened - began, took: opened.elapsed(), target, answer });
        });
    }
    drop(tell);
    let _ = printer.join();
    Ok(())
}

fn ask(target: SocketAddr) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    answer::parse(body).ok_or_else(|| std::io::Error::other("the answer was cut short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let target = "192.0.2.1:8080".parse().unwrap();
        let (at, took) = (Duration::from_micros(1500), Duration::from_micros(300));
        for answer in [Ok(("0123456789ab".to_owned(), "192.0.2.7".to_owned())), Err("connection refused".to_owned())] {
            let outcome = Outcome { at, took, target, answer };
            assert_eq!(Outcome::parse(&outcome.to_line()), Some(outcome));
        }
        assert_eq!(Outcome::parse("nonsense"), None);
    }
}
