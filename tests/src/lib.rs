//! What the end-to-end stories stand on: a lab of real nodes, the unmodified docker CLI, a real nginx, a demanding client.
//!
//! [`Swarm::start`] brings up three nodes in network namespaces, makes them a swarm with node 1 as its manager, and loads the images on
//! each. [`Swarm::docker`] runs the docker CLI against a node where one is installed, and skep's own otherwise; [`Swarm::get`] asks by HTTP
//! from a node or from the client outside, and [`Load`] does so without pause while something happens. Everything goes with the [`Swarm`],
//! also when a story fails.

#![forbid(unsafe_code)]

mod api;
mod checked;
mod holdings;
mod images;
mod inside;
mod load;
mod musl;
mod registry;
mod rounds;
pub mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use skep_lab::{Families, Lab, LabConfig, LabGuard};

pub use checked::PORT;
pub use holdings::{Holdings, Memory};
pub use images::{busybox, checker, haproxy, nginx, udp_echo};
pub use load::{Attempt, End, Kept, Load, Outcome, Report, Server, Usage};
pub use musl::musl_lookup;
pub use registry::Registry;
pub use rounds::{Rounds, TITLES};

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often something is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(25);

/// The program under test.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn binary() -> PathBuf {
    let beside = || std::env::current_exe().expect("this test's path").ancestors().nth(2).expect("target").join("skep");
    let path = std::env::var_os("SKEP_BINARY").map_or_else(beside, PathBuf::from);
    assert!(path.exists(), "{} is not there: cargo build --bin skep", path.display());
    path
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|l| l.split_whitespace().take(3).eq(["Uid:", "0", "0"]))
}

/// What a command has said.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended well.
    pub ok: bool,
    /// Its output, trimmed.
    pub out: String,
    /// Its errors, trimmed.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Self { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Three nodes, one swarm.
pub struct Swarm {
    /// The lab that they are in.
    pub lab: LabGuard,
}

impl Swarm {
    /// A lab whose nodes are in no swarm yet.
    ///
    /// # Panics
    /// Without root, or when the lab does not come up.
    #[must_use]
    pub fn nodes(story: &str) -> Self {
        Self::nodes_with(story, 3, Families::Both, &[])
    }

    /// A swarm of that many nodes, of which the first `managers` are managers.
    ///
    /// # Panics
    /// Without root, or when it does not come about.
    #[must_use]
    pub fn managed(story: &str, nodes: u8, managers: u8) -> Self {
        let swarm = Self::nodes_with(story, nodes, Families::Both, &[]);
        let addr = swarm.begin();
        for node in 2..=nodes {
            let role = if node <= managers { "manager" } else { "worker" };
            let token = swarm.must(1, &["swarm", "join-token", "-q", role]);
            swarm.must(node, &["swarm", "join", "--token", &token, &addr]);
        }
        swarm
    }

    fn nodes_with(story: &str, nodes: u8, families: Families, daemon_flags: &[&str]) -> Self {
        assert!(is_root(), "end-to-end stories need root: they make network namespaces, containers and eBPF programs");
        let name = format!("e2e-{story}-{}", std::process::id());
        let daemon_flags = daemon_flags.iter().map(|flag| (*flag).to_owned()).collect();
        let config = LabConfig { name, nodes, binary: binary(), data_dir: None, families, daemon_flags };
        Self { lab: LabGuard::new(Lab::up(config).expect("the lab comes up")) }
    }

    /// A swarm of three nodes with both images on each.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn start(story: &str) -> Self {
        Self::start_with(story, Families::Both, &[])
    }

    /// As [`Self::start`], in a lab with addresses of these families and daemons with these flags besides.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn start_with(story: &str, families: Families, daemon_flags: &[&str]) -> Self {
        let swarm = Self::nodes_with(story, 3, families, daemon_flags);
        swarm.form();
        for image in [nginx(), udp_echo()] {
            let image = image.to_string_lossy().into_owned();
            (1..=3).for_each(|node| drop(swarm.must(node, &["load", "-i", &image])));
        }
        swarm
    }

    /// A swarm of three nodes without images, whose daemons have these flags besides.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn empty(story: &str, daemon_flags: &[&str]) -> Self {
        let swarm = Self::nodes_with(story, 3, Families::Both, daemon_flags);
        swarm.form();
        swarm
    }

    /// A swarm of one node without images, whose daemon has these flags besides.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn alone(story: &str, daemon_flags: &[&str]) -> Self {
        let swarm = Self::nodes_with(story, 1, Families::Both, daemon_flags);
        swarm.begin();
        swarm
    }

    /// Makes the nodes a swarm.
    ///
    /// # Panics
    /// When one does not join.
    pub fn form(&self) {
        let manager = self.begin();
        let token = self.must(1, &["swarm", "join-token", "-q", "worker"]);
        for node in 2..=3 {
            self.must(node, &["swarm", "join", "--token", &token, &manager]);
        }
    }

    /// Begins a swarm on the first node; returns where others join it.
    fn begin(&self) -> String {
        let first = self.lab.address(1);
        self.must(1, &["swarm", "init", "--advertise-addr", &first.to_string()]);
        SocketAddr::new(first, 2377).to_string()
    }

    /// Runs the docker CLI against a node, or skep's own where there is none or where `SKEP_E2E_CLI=skep` asks for it.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn docker(&self, node: u8, args: &[&str]) -> Said {
        self.docker_with(node, args, "")
    }

    /// As [`Self::docker`], with a line on its standard input.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn docker_with(&self, node: u8, args: &[&str], input: &str) -> Said {
        let own = std::env::var_os("SKEP_E2E_CLI").is_some_and(|cli| cli == "skep");
        let docker = !own && Command::new("docker").arg("--version").stdout(Stdio::null()).status().is_ok();
        self.cli(if docker { "docker".into() } else { binary() }, node, args, input)
    }

    /// Runs skep's own CLI against a node.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn skep(&self, node: u8, args: &[&str]) -> Said {
        self.cli(binary(), node, args, "")
    }

    fn cli(&self, program: PathBuf, node: u8, args: &[&str], input: &str) -> Said {
        let socket = format!("unix://{}", self.lab.socket(node).display());
        // Nothing here takes a minute; what hangs must not hang the story.
        let mut command = Command::new("timeout");
        command.arg("60").arg(program).arg("-H").arg(socket).args(args);
        // Logins of the story, and not those of whoever runs it.
        command.env("DOCKER_CONFIG", self.lab.dir().join("docker"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().expect("the command line runs");
        if let Some(mut stdin) = running.stdin.take()
            && !input.is_empty()
        {
            // It may have ended without reading.
            let _ = writeln!(stdin, "{input}");
        }
        running.wait_with_output().expect("the command line ends").into()
    }

    /// As [`Self::docker`], for what must go well; its output.
    ///
    /// # Panics
    /// When it does not.
    pub fn must(&self, node: u8, args: &[&str]) -> String {
        let said = self.docker(node, args);
        assert!(said.ok, "node{node}: docker {}: {} {}\n{}", args.join(" "), said.out, said.err, self.words());
        said.out
    }

    /// As [`Self::docker`], for what must be refused; what it says.
    ///
    /// # Panics
    /// When it is not refused, or the refusal does not say `fragment`.
    pub fn refused(&self, node: u8, args: &[&str], fragment: &str) -> String {
        let said = self.docker(node, args);
        assert!(!said.ok, "docker {} should be refused: {}", args.join(" "), said.out);
        assert!(said.err.contains(fragment), "docker {}: {:?} should say {fragment:?}", args.join(" "), said.err);
        said.err
    }

    /// Asks by HTTP from a place (`node2`, `client`): the body, or what went wrong.
    ///
    /// # Errors
    /// What curl says.
    ///
    /// # Panics
    /// When curl cannot be run.
    pub fn get(&self, place: &str, url: &str) -> Result<String, String> {
        let argv = ["curl", "-sS", "--fail", "--max-time", "3", url].map(str::to_owned);
        let said: Said = self.lab.exec(place, &argv).expect("a place").output().expect("curl runs").into();
        if said.ok { Ok(said.out) } else { Err(said.err) }
    }

    /// Asks again and again until `done` says so; returns how long it took.
    ///
    /// # Panics
    /// After [`PATIENCE`], with what the daemons have said.
    pub fn until(&self, what: &str, done: impl FnMut() -> bool) -> Duration {
        self.until_within(PATIENCE, what, done)
    }

    /// As [`Self::until`], for what takes its time.
    ///
    /// # Panics
    /// After `patience`.
    pub fn until_within(&self, patience: Duration, what: &str, mut done: impl FnMut() -> bool) -> Duration {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < patience, "waited {patience:?} for {what}\n{}", self.words());
            thread::sleep(LOOK);
        }
        began.elapsed()
    }

    /// Creates a service and waits until all nodes answer on `port`.
    ///
    /// # Panics
    /// When they do not.
    pub fn serve(&self, port: u16, args: &[&str]) {
        let create = ["service", "create", "-d"];
        self.must(1, &[create.as_slice(), args].concat());
        self.until("all nodes to answer", || (1..=3).all(|n| self.client(n, port).is_ok()));
    }

    /// The client's address as a task saw it that was reached through a node, from outside.
    ///
    /// # Errors
    /// What curl says.
    pub fn client(&self, node: u8, port: u16) -> Result<String, String> {
        self.get("client", &format!("http://{}/client", SocketAddr::new(self.lab.address(node), port)))
    }

    /// Ids of the service's running tasks.
    #[must_use]
    pub fn running(&self, service: &str) -> Vec<String> {
        let listed = self.must(
            1,
            &[
                "service",
                "ps",
                service,
                "--filter",
                "desired-state=running",
                "--no-trunc",
                "--format",
                "{{.ID}} {{.CurrentState}}",
            ],
        );
        let running = listed.lines().filter(|l| l.contains(" Running"));
        running.filter_map(|l| l.split(' ').next().map(str::to_owned)).collect()
    }

    /// Loads an image on all nodes.
    ///
    /// # Panics
    /// When one refuses it.
    pub fn load(&self, image: &Path) {
        let image = image.to_string_lossy();
        (1..=self.lab.nodes()).for_each(|node| drop(self.must(node, &["load", "-i", &image])));
    }

    /// The last words of all daemons.
    #[must_use]
    pub fn words(&self) -> String {
        let tail = |node: u8| {
            let log = std::fs::read_to_string(self.lab.log(node)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("node{node}:\n{}\n", lines[lines.len().saturating_sub(8)..].join("\n"))
        };
        (1..=self.lab.nodes()).map(tail).collect()
    }
}
