//! The acts of the demo.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use skep_lab::Lab;

use super::stage::{Stage, took};
use super::watch::Watch;
use super::{answer, image};

const PORT: u16 = 8080;
const ADDED_PORT: u16 = 9090;
/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often something is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(20);

/// Plays all acts.
pub(crate) fn play(stage: &Stage, lab: &Lab, nodes: u8) -> Result<()> {
    let demo = Demo { stage, lab, nodes };
    demo.found_swarm()?;
    demo.deploy()?;
    demo.ask_every_node()?;
    demo.publish_live()?;
    demo.lose_a_task()?;
    demo.lose_a_node()
}

struct Demo<'a> {
    stage: &'a Stage,
    lab: &'a Lab,
    nodes: u8,
}

impl Demo<'_> {
    /// Runs skep's command line against a node's daemon and returns what it printed.
    fn skep(&self, node: u8, args: &[&str]) -> Result<String> {
        let socket = format!("unix://{}", self.lab.socket(node).display());
        let output = Command::new(std::env::current_exe()?).arg("-H").arg(socket).args(args).output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(output.status.success(), "node{node}: {}: {said}", args.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// As [`Self::skep`], shown as a person would type it.
    fn shown(&self, node: u8, args: &[&str]) -> Result<String> {
        self.stage.go_on()?;
        self.stage.command(&format!("docker {}", args.join(" ")));
        self.skep(node, args)
    }

    fn targets(&self, port: u16, nodes: impl IntoIterator<Item = u8>) -> Vec<SocketAddr> {
        nodes.into_iter().map(|n| SocketAddr::new(self.lab.address(n), port)).collect()
    }

    /// Looks again and again until `done`, or the patience ends.
    fn until(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<Duration> {
        let began = Instant::now();
        while !done()? {
            self.stage.go_on()?;
            ensure!(began.elapsed() < PATIENCE, "waited {} for {what}", took(PATIENCE));
            thread::sleep(LOOK);
        }
        Ok(began.elapsed())
    }

    fn found_swarm(&self) -> Result<()> {
        self.stage.title("A swarm");
        let first = self.lab.address(1).to_string();
        self.shown(1, &["swarm", "init", "--advertise-addr", &first])?;
        let token = self.skep(1, &["swarm", "join-token", "-q", "worker"])?;
        let manager = format!("{first}:2377");
        self.stage.command(&format!("docker swarm join --token SWMTKN-1-… {manager}"));
        for node in 2..=self.nodes {
            self.skep(node, &["swarm", "join", "--token", &token, &manager])?;
        }
        for line in self.shown(1, &["node", "ls"])?.lines() {
            self.stage.note(line);
        }
        Ok(())
    }

    fn deploy(&self) -> Result<()> {
        self.stage.title("A web service, from an image made on the spot");
        let archive = self.lab.dir().join("demo-image.tar");
        self.stage.step("make the image: this program and its libraries", || image::write(&archive))?;
        let archive = archive.to_string_lossy().into_owned();
        self.stage.step("docker load it on every node", || {
            (1..=self.nodes).try_for_each(|node| self.skep(node, &["load", "-i", &archive]).map(drop))
        })?;
        let publish = format!("published={PORT},target={}", answer::PORT);
        let began = Instant::now();
        self.shown(
            1,
            &["service", "create", "-d", "--name", "web", "--publish", &publish, "--replicas", "2", image::NAME],
        )?;
        let all = self.targets(PORT, 1..=self.nodes);
        self.until("all nodes to answer", || Ok(self.ask(&all)?.iter().all(Result::is_ok)))?;
        self.stage
            .finding(true, &format!("every node answers on port {PORT}, {} after the command", took(began.elapsed())));
        // One task suffices for that; what follows wants to know both by name.
        self.until("the second task", || Ok(self.containers().len() == 2))?;
        Ok(())
    }

    /// One connection to each target: who answered, and which client it saw.
    fn ask(&self, targets: &[SocketAddr]) -> Result<Vec<Result<(String, String), String>>> {
        let watch = Watch::begin(self.lab, targets, Duration::from_millis(10 * targets.len() as u64))?;
        self.until("answers", || Ok(watch.seen().len() >= targets.len()))?;
        let mut seen = watch.seen();
        seen.sort_by_key(|o| targets.iter().position(|t| *t == o.target));
        Ok(seen.into_iter().map(|o| o.answer).collect())
    }

    /// Which task and node each container is: `web.1 on node2`, by its host name.
    fn containers(&self) -> BTreeMap<String, (String, u8)> {
        let mut containers = BTreeMap::new();
        for node in 1..=self.nodes {
            // A node that was killed has none.
            let Ok(listed) = self.skep(node, &["ps", "--format", "{{.ID}} {{.Names}}"]) else { continue };
            for (id, name) in listed.lines().filter_map(|line| line.split_once(' ')) {
                let task = name.rsplit_once('.').map_or(name, |(task, _)| task);
                containers.insert(id.to_owned(), (task.to_owned(), node));
            }
        }
        containers
    }

    fn ask_every_node(&self) -> Result<()> {
        self.stage.title("Ask every node, from outside");
        let containers = self.containers();
        let client = self.lab.client_address().to_string();
        for node in 1..=self.nodes {
            let targets = self.targets(PORT, [node; 4]);
            for answer in self.ask(&targets)?.into_iter().take(2) {
                let (task, saw) = answer.map_err(|e| anyhow::anyhow!("node{node}: {e}"))?;
                let place = containers.get(&task).map_or(task, |(name, on)| format!("{name} on node{on}"));
                self.stage.row(&format!("node{node}"), &format!("answered by {place}, which saw the client {saw}"));
                ensure!(saw == client, "the client's address {client} did not arrive: the task saw {saw}");
            }
        }
        self.stage.finding(true, &format!("the client's own address, {client}, arrived every time"));
        Ok(())
    }

    fn publish_live(&self) -> Result<()> {
        self.stage.title("One more port, without touching a task");
        let before = self.containers();
        let publish = format!("published={ADDED_PORT},target={}", answer::PORT);
        let began = Instant::now();
        self.shown(1, &["service", "update", "-d", "--publish-add", &publish, "web"])?;
        let all = self.targets(ADDED_PORT, 1..=self.nodes);
        self.until("the new port", || Ok(self.ask(&all)?.iter().all(Result::is_ok)))?;
        let same = self.containers() == before;
        self.stage.finding(
            true,
            &format!("every node answers on port {ADDED_PORT}, {} after the command", took(began.elapsed())),
        );
        self.stage.finding(same, "the same containers run as before");
        ensure!(same, "publishing a port replaced a task");
        Ok(())
    }

    fn lose_a_task(&self) -> Result<()> {
        self.stage.title("A task is killed, while a client opens a connection every 10 ms");
        let all = self.targets(PORT, 1..=self.nodes);
        let watch = Watch::begin(self.lab, &all, Duration::from_secs(20))?;
        self.until("the client to begin", || Ok(watch.seen().len() > 20))?;
        let (victim, (task, node)) = self.containers().into_iter().next().context("no container runs")?;
        let socket = self.pid_of(node, &victim)?;
        let killed = Instant::now();
        self.stage.go_on()?;
        self.stage.command(&format!("kill -9 {socket}    # {task} on node{node}"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(socket), nix::sys::signal::Signal::SIGKILL)?;
        let back = self.until("a new task", || {
            let now = self.containers();
            Ok(now.len() >= 2 && !now.contains_key(&victim))
        })?;
        let tally = watch.since(killed);
        self.stage.finding(true, &tally.to_string());
        self.stage.finding(true, &format!("a new {task} runs after {}", took(back)));
        Ok(())
    }

    fn pid_of(&self, node: u8, container: &str) -> Result<i32> {
        let said = self.skep(node, &["inspect", "--format", "{{.State.Pid}}", container])?;
        match said.parse() {
            Ok(pid) if pid > 1 => Ok(pid),
            _ => bail!("node{node} names no process of container {container}: {said:?}"),
        }
    }

    fn lose_a_node(&self) -> Result<()> {
        let last = self.nodes;
        self.stage.title(&format!("node{last} is lost, with every process on it"));
        let others = self.targets(PORT, 1..last);
        self.until("two tasks", || Ok(self.containers().len() >= 2))?;
        let watch = Watch::begin(self.lab, &others, Duration::from_secs(40))?;
        self.until("the client to begin", || Ok(watch.seen().len() > 20))?;
        let lost = Instant::now();
        self.lab.kill_node(last)?;
        self.until("its tasks to run elsewhere", || {
            let running = self.skep(
                1,
                &[
                    "service",
                    "ps",
                    "web",
                    "--filter",
                    "desired-state=running",
                    "--format",
                    "{{.Node}} {{.CurrentState}}",
                ],
            )?;
            let here = running.lines().filter(|l| !l.starts_with(&format!("node{last} ")) && l.contains("Running"));
            Ok(here.count() >= 2)
        })?;
        let moved = lost.elapsed();
        // What the client sees once the dust has settled.
        let settled = Instant::now();
        self.until("the client", || Ok(watch.since(settled).asked >= 50))?;
        self.stage.finding(true, &format!("two tasks run on the other nodes, {} after the loss", took(moved)));
        self.stage.finding(true, &format!("since the loss: {}", watch.since(lost)));
        let after = watch.since(settled);
        self.stage.finding(after.failed == 0, &format!("now: {after}"));
        for line in self.shown(1, &["node", "ls"])?.lines() {
            self.stage.note(line);
        }
        Ok(())
    }
}
