//! A lab, from its making to its end.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use skep_network::Namespace;

use crate::error::LabError;
use crate::place::{Families, Place};
use crate::state::{self, State};
use crate::topology::{self, Cable};
use crate::{cgroups, daemon, power, teardown};

/// How a lab is made.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// Its name: 1 to 32 of a-z, 0-9 and `-`.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// The skep program.
    pub binary: PathBuf,
    /// Where the nodes keep their data; `None` is below `/var/lib/skep-lab`. Removed with the lab.
    pub data_dir: Option<PathBuf>,
    /// Which addresses everybody has.
    pub families: Families,
    /// Further flags of every daemon; `{address}` in them is the node's own address.
    pub daemon_flags: Vec<String>,
}

/// Several nodes on this machine, and a client outside of their swarm. Dropping it leaves it up; see [`crate::LabGuard`].
#[derive(Debug)]
pub struct Lab(State);

/// What is left of the lab called `name`: processes, mounts, cgroups, directories. Empty after [`Lab::down`].
#[must_use]
pub fn leftovers(name: &str) -> Vec<String> {
    let state = State::read(name).or_else(|_| State::unknown(name));
    state.map(|state| teardown::leftovers(&state)).unwrap_or_default()
}

impl Lab {
    /// Makes the lab and starts all daemons; returns once they answer. What was made before something failed is removed.
    ///
    /// # Errors
    /// When there is a lab of that name, without root, or when a daemon does not answer: then with the end of its log.
    pub fn up(config: LabConfig) -> Result<Self, LabError> {
        let state = State::create(config)?;
        let made = topology::build(&state)
            .and_then(|()| (1..=state.nodes).try_for_each(|node| daemon::spawn(&state, node)))
            .and_then(|()| (1..=state.nodes).try_for_each(|node| daemon::wait_ready(&state, node)));
        match made {
            Ok(()) => Ok(Self(state)),
            Err(e) => {
                // The first error is the one to tell; what cannot be removed is found by `leftovers`.
                let _ = teardown::down(&state);
                Err(e)
            }
        }
    }

    /// A lab that is up, also one that another process made.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn open(name: &str) -> Result<Self, LabError> {
        State::read(name).map(Self)
    }

    /// The names of all labs.
    ///
    /// # Errors
    /// When the directory of labs cannot be read.
    pub fn list() -> Result<Vec<String>, LabError> {
        state::names()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many nodes it has: node1, node2, …
    #[must_use]
    pub fn nodes(&self) -> u8 {
        self.0.nodes
    }

    /// A directory that goes with the lab.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.0.run_dir()
    }

    /// The `--data-root` of a node's daemon.
    #[must_use]
    pub fn data_root(&self, node: u8) -> PathBuf {
        self.0.data_root(node)
    }

    /// The `--exec-root` of a node's daemon.
    #[must_use]
    pub fn exec_root(&self, node: u8) -> PathBuf {
        self.0.exec_root(node)
    }

    /// The directories of a node's control groups and those of its containers, on every hierarchy.
    #[must_use]
    pub fn control_groups(&self, node: u8) -> Vec<PathBuf> {
        cgroups::dirs(&self.0.node_cgroup(node))
    }

    /// The processes of a node: daemon, shims, containers.
    #[must_use]
    pub fn processes(&self, node: u8) -> Vec<i32> {
        power::marks(&self.0, node).map(|marks| marks.find()).unwrap_or_default()
    }

    /// The API socket of a node.
    #[must_use]
    pub fn socket(&self, node: u8) -> PathBuf {
        self.0.socket(node)
    }

    /// The log of a node's daemon.
    #[must_use]
    pub fn log(&self, node: u8) -> PathBuf {
        self.0.log(node)
    }

    /// The address of a node by which its swarm knows it.
    #[must_use]
    pub fn address(&self, node: u8) -> IpAddr {
        self.addresses(node)[0]
    }

    /// The addresses of a node on its two interfaces, of the family by which its swarm knows it: IPv4 unless the lab has IPv6 alone.
    #[must_use]
    pub fn addresses(&self, node: u8) -> [IpAddr; 2] {
        self.known_by(Place::Node(node))
    }

    /// The IPv6 addresses of a node on its two interfaces.
    #[must_use]
    pub fn ipv6(&self, node: u8) -> [Ipv6Addr; 2] {
        Place::Node(node).ipv6(self.0.subnet)
    }

    /// The client's address on the network of [`Self::address`].
    #[must_use]
    pub fn client_address(&self) -> IpAddr {
        self.known_by(Place::Client)[0]
    }

    /// The client's IPv6 address on that network.
    #[must_use]
    pub fn client_ipv6(&self) -> Ipv6Addr {
        Place::Client.ipv6(self.0.subnet)[0]
    }

    fn known_by(&self, place: Place) -> [IpAddr; 2] {
        self.0.known_by(place)
    }

    /// A command that runs inside a node or the client (`node1`, …, `client`): its network and its host name, this machine's files.
    ///
    /// # Errors
    /// When there is no such place, or no command.
    pub fn exec(&self, place: &str, argv: &[String]) -> Result<Command, LabError> {
        let place = self.place(place)?;
        let (program, args) = argv.split_first().ok_or(LabError::NoProgram)?;
        let mut command = Command::new(program);
        command.args(args);
        daemon::enter(&self.0, place, &mut command)?;
        Ok(command)
    }

    /// Runs `work` on a thread of its own inside the network of a place, and returns what it does.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn run<T: Send>(&self, place: &str, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let namespace = Namespace::open(&self.0.net_path(&self.place(place)?.to_string()))?;
        Ok(namespace.run(work)?)
    }

    fn place(&self, place: &str) -> Result<Place, LabError> {
        let wrong = || LabError::Place { lab: self.0.name.clone(), place: place.to_owned(), nodes: self.0.nodes };
        let found: Place = place.parse().map_err(|_| wrong())?;
        match found {
            Place::Node(node) if node > self.0.nodes => Err(wrong()),
            found => Ok(found),
        }
    }

    /// The process id of a node's daemon, when one runs.
    #[must_use]
    pub fn daemon_pid(&self, node: u8) -> Option<i32> {
        daemon::pid(&self.0, node)
    }

    /// Starts a node's daemon and returns once it answers.
    ///
    /// # Errors
    /// When it does not, with the end of its log.
    pub fn start_daemon(&self, node: u8) -> Result<(), LabError> {
        daemon::spawn(&self.0, node)?;
        daemon::wait_ready(&self.0, node)
    }

    /// As [`Self::start_daemon`], with another build of the program.
    ///
    /// # Errors
    /// When it does not answer, with the end of its log.
    pub fn start_daemon_from(&self, binary: &Path, node: u8) -> Result<(), LabError> {
        let state = State { binary: binary.to_owned(), ..self.0.clone() };
        daemon::spawn(&state, node)?;
        daemon::wait_ready(&state, node)
    }

    /// Asks a node's daemon to end and waits for it. Its containers live on.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_daemon(&self, node: u8) -> Result<(), LabError> {
        daemon::end(&self.0, node, Signal::TERM)
    }

    /// Kills a node's daemon. Its containers live on.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_daemon(&self, node: u8) -> Result<(), LabError> {
        daemon::end(&self.0, node, Signal::KILL)
    }

    /// Kills every process of a node at once, containers too.
    ///
    /// # Errors
    /// When something does not end.
    pub fn kill_node(&self, node: u8) -> Result<(), LabError> {
        power::kill(&self.0, node)
    }

    /// Takes the power from a node, and gives it back: what was on its disk is there, and nothing else. Its daemon does not run.
    ///
    /// # Errors
    /// When something does not go.
    pub fn lose_power(&self, node: u8) -> Result<(), LabError> {
        power::lose(&self.0, node)
    }

    /// Cuts a node's cables.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn cut_link(&self, node: u8) -> Result<(), LabError> {
        topology::set_cables(&self.0, node, Cable::Cut)
    }

    /// Joins a node's cables again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join_link(&self, node: u8) -> Result<(), LabError> {
        topology::set_cables(&self.0, node, Cable::Joined)
    }

    /// Removes everything that the lab and its nodes have made. May be repeated.
    ///
    /// # Errors
    /// What could not be removed, after everything else was.
    pub fn down(&self) -> Result<(), LabError> {
        teardown::down(&self.0)
    }
}
