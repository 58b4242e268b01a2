//! A client that opens a connection every few milliseconds, whatever became of the ones before.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::Swarm;

/// Asks a published port in a process of its own, outside of the swarm.
pub struct Probe(Child);

/// What became of the connections.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// All.
    pub asked: usize,
    /// Those without an answer: when each was opened (milliseconds since the beginning), whom it asked, and why.
    pub failed: Vec<String>,
}

impl Probe {
    /// Begins: a connection every 10 ms to the nodes in turn, for so many seconds. Every one must be answered by the nginx image.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn begin(swarm: &Swarm, nodes: &[u8], port: u16, seconds: u32) -> Self {
        const SCRIPT: &str = include_str!("probe.py");
        let targets: Vec<String> = nodes.iter().map(|n| format!("{}:{port}", swarm.lab.address(*n))).collect();
        let argv = ["python3", "-c", SCRIPT, &seconds.to_string()].map(str::to_owned);
        let argv: Vec<String> = argv.into_iter().chain(targets).collect();
        let mut command = swarm.lab.exec("client", &argv).expect("a place");
        Self(command.stdout(Stdio::piped()).spawn().expect("python3 runs"))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it says nothing.
    #[must_use]
    pub fn end(mut self) -> Tally {
        let lines = BufReader::new(self.0.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let mut tally = Tally::default();
        for line in lines {
            tally.asked += 1;
            if !line.ends_with(" ok") {
                tally.failed.push(line);
            }
        }
        let _ = self.0.wait();
        assert!(tally.asked > 0, "the probe has asked nobody");
        tally
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
