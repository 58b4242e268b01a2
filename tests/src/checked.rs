//! A service whose server checks every byte, and what happens to its tasks.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::{Swarm, checker};

/// The port that the service of the stories is published on.
pub const PORT: u16 = 8080;

impl Swarm {
    /// A swarm of three nodes with the image of the server that checks every byte on each.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn start_checked(story: &str) -> Self {
        let swarm = Self::nodes(story);
        swarm.form();
        swarm.with_checker()
    }

    /// The same of that many nodes, of which the first `managers` are managers.
    ///
    /// # Panics
    /// When something of that fails.
    #[must_use]
    pub fn managed_checked(story: &str, nodes: u8, managers: u8) -> Self {
        Self::managed(story, nodes, managers).with_checker()
    }

    fn with_checker(self) -> Self {
        let image = self.lab.dir().join("checker.tar");
        checker(&image);
        (1..=self.lab.nodes()).for_each(|node| drop(self.must(node, &["load", "-i", &image.to_string_lossy()])));
        self
    }

    /// Creates the service `web`, published on [`PORT`], and waits until it runs and all nodes take connections.
    ///
    /// # Panics
    /// When they do not.
    pub fn serve_web(&self, replicas: usize, flags: &[&str], image: &[&str]) {
        let (count, port) = (replicas.to_string(), format!("{PORT}:80"));
        let create = ["service", "create", "-d", "--name", "web", "-p", &port, "--replicas", &count];
        let update = ["--update-monitor", "500ms"];
        self.must(1, &[&create[..], &update, flags, image].concat());
        self.until("all tasks to run", || self.running("web").len() == replicas);
        self.until("all nodes to take connections", || (1..=self.lab.nodes()).all(|node| self.connects(node)));
    }

    fn connects(&self, node: u8) -> bool {
        let target = SocketAddr::from((self.lab.address(node), PORT));
        let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok();
        self.lab.run("client", connect).expect("a place")
    }

    /// Short ids of the containers that run on a node.
    ///
    /// # Panics
    /// When the node does not say.
    #[must_use]
    pub fn containers(&self, node: u8) -> BTreeSet<String> {
        self.must(node, &["ps", "-q"]).lines().map(str::to_owned).collect()
    }

    /// Short ids of the containers that run on all nodes.
    ///
    /// # Panics
    /// When a node does not say.
    #[must_use]
    pub fn all_containers(&self) -> BTreeSet<String> {
        (1..=self.lab.nodes()).flat_map(|node| self.containers(node)).collect()
    }

    /// Updates `web` with these flags, and waits until all of its tasks are others and none of the old ones is left.
    ///
    /// # Panics
    /// When that does not come to pass.
    pub fn roll(&self, flags: &[&str]) {
        let before = self.all_containers();
        self.must(1, &[&["service", "update", "-d", "--force"], flags, &["web"]].concat());
        let state = || self.must(1, &["service", "inspect", "--format", "{{.UpdateStatus.State}}", "web"]);
        self.until("the update", || state() == "completed");
        self.until("the old tasks to be gone", || self.all_containers().is_disjoint(&before));
    }
}
