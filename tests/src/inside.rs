//! Programs in the containers of tasks.

use std::path::PathBuf;

use crate::{Said, Swarm};

impl Swarm {
    /// Runs a program in the container of a service's task on a node.
    ///
    /// # Panics
    /// When no task of the service runs there, or the command line cannot be run.
    #[must_use]
    pub fn exec(&self, node: u8, service: &str, program: &[&str]) -> Said {
        self.docker(node, &[&["exec", self.container(node, service).as_str()], program].concat())
    }

    /// As [`Self::exec`]: what the program says when it ends well.
    ///
    /// # Panics
    /// As [`Self::exec`] does.
    #[must_use]
    pub fn inside(&self, node: u8, service: &str, program: &[&str]) -> Option<String> {
        let said = self.exec(node, service, program);
        if !said.ok {
            println!("{program:?}: {said:?}");
        }
        said.ok.then_some(said.out)
    }

    /// The short id of the newest container of a service on a node.
    fn container(&self, node: u8, service: &str) -> String {
        let filter = format!("label=com.docker.swarm.service.name={service}");
        let listed = self.must(node, &["ps", "-q", "--filter", &filter]);
        listed.lines().next().unwrap_or_else(|| panic!("no task of {service} runs on node{node}")).to_owned()
    }

    /// Where the network namespace of a service's task on a node is found.
    ///
    /// # Panics
    /// When none runs there.
    #[must_use]
    pub fn namespace(&self, node: u8, service: &str) -> PathBuf {
        let container = self.container(node, service);
        self.must(node, &["inspect", "--format", "{{.NetworkSettings.SandboxKey}}", &container]).into()
    }
}
