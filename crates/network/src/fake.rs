//! A node's network in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use skep_model::TaskId;
use tokio::sync::watch;

use crate::changes::Changes;
use crate::error::NetworkError;
use crate::facts::Facts;
use crate::node::{
    Attachment, HOST_MAC, HostLink, NodeNetwork, OVERLAY_MAC, Overlay, OverlayLink, TaskLink, host_link_name, task_mac,
};

/// The same promises as the kernel's, without a kernel.
#[derive(Debug)]
pub struct FakeNetwork {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    facts: Facts,
    next_index: u32,
    overlays: BTreeMap<String, (Overlay, u32)>,
    namespaces: BTreeSet<PathBuf>,
    links: BTreeMap<String, (HostLink, Attachment)>,
}

impl State {
    fn index(&mut self) -> u32 {
        self.next_index += 1;
        100 + self.next_index
    }
}

impl FakeNetwork {
    /// A node with the given links and addresses.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        Self { state: Mutex::new(State { facts, ..State::default() }), changed: watch::Sender::new(0) }
    }

    /// The node gets other links and addresses; those who watch are told.
    pub fn set_facts(&self, facts: Facts) {
        self.state().facts = facts;
        self.changed.send_modify(|n| *n += 1);
    }

    /// The overlay device as it was last asked for.
    #[must_use]
    pub fn overlay(&self, name: &str) -> Option<Overlay> {
        self.state().overlays.get(name).map(|(o, _)| o.clone())
    }

    /// The namespaces that are pinned.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<PathBuf> {
        self.state().namespaces.clone()
    }

    /// The attachments that exist.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        self.state().links.values().map(|(_, a)| a.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NodeNetwork for FakeNetwork {
    async fn prepare(&self) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn ensure_overlay(&self, overlay: &Overlay) -> Result<OverlayLink, NetworkError> {
        let mut state = self.state();
        let ifindex = match state.overlays.get(&overlay.name) {
            Some((_, index)) => *index,
            None => state.index(),
        };
        state.overlays.insert(overlay.name.clone(), (overlay.clone(), ifindex));
        Ok(OverlayLink { ifindex, mac: OVERLAY_MAC, mtu: overlay.mtu })
    }

    async fn remove_overlay(&self, name: &str) -> Result<(), NetworkError> {
        self.state().overlays.remove(name);
        Ok(())
    }

    async fn ensure_namespace(&self, path: &Path) -> Result<(), NetworkError> {
        self.state().namespaces.insert(path.to_owned());
        Ok(())
    }

    async fn remove_namespace(&self, path: &Path) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.namespaces.remove(path);
        // As in the kernel, a link goes with either end's namespace.
        state.links.retain(|_, (_, attachment)| attachment.netns != path);
        Ok(())
    }

    async fn attach(&self, attachment: &Attachment) -> Result<TaskLink, NetworkError> {
        let mut state = self.state();
        if !state.namespaces.contains(&attachment.netns) {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(NetworkError::Namespace { action: "open", path: attachment.netns.clone(), source });
        }
        let name = host_link_name(&attachment.task);
        let ifindex = match state.links.get(&name) {
            Some((link, _)) => link.ifindex,
            None => state.index(),
        };
        let link = HostLink { name: name.clone(), ifindex, task: Some(attachment.task.clone()) };
        state.links.insert(name, (link, attachment.clone()));
        let task_mac = task_mac(attachment.addresses.first().map_or(Ipv4Addr::UNSPECIFIED, |a| a.ip));
        Ok(TaskLink { host_ifindex: ifindex, host_mac: HOST_MAC, task_mac, task_ifindex: 2, ipv6: true })
    }

    async fn detach(&self, task: &TaskId) -> Result<(), NetworkError> {
        self.state().links.remove(&host_link_name(task));
        Ok(())
    }

    async fn remove_link(&self, link: &HostLink) -> Result<(), NetworkError> {
        self.state().links.remove(&link.name);
        Ok(())
    }

    async fn task_links(&self) -> Result<Vec<HostLink>, NetworkError> {
        Ok(self.state().links.values().map(|(link, _)| link.clone()).collect())
    }

    async fn facts(&self) -> Result<Facts, NetworkError> {
        Ok(self.state().facts.clone())
    }

    fn watch(&self) -> Result<Changes, NetworkError> {
        Ok(Changes::faked(self.changed.subscribe()))
    }
}
