//! A node's ports in memory.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{NodePorts, PortAddress, Reservation, ReserveError};
use crate::error::NetworkError;
use crate::listeners::Listener;

/// The same promises as the kernel's, without a kernel.
#[derive(Debug, Default)]
pub struct FakePorts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listeners: Vec<Listener>,
    clients: BTreeSet<PortAddress>,
    asked: usize,
}

impl FakePorts {
    /// What listens from now on.
    pub fn set_listeners(&self, listeners: Vec<Listener>) {
        self.state().listeners = listeners;
    }

    /// A client's socket has the port, and listens to nobody.
    pub fn set_client(&self, port: PortAddress) {
        self.state().clients.insert(port);
    }

    /// No client has a port any more.
    pub fn clear_clients(&self) {
        self.state().clients.clear();
    }

    /// How often it was asked what listens.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodePorts for FakePorts {
    fn listeners(&self) -> Result<Vec<Listener>, NetworkError> {
        let mut state = self.state();
        state.asked += 1;
        Ok(state.listeners.clone())
    }

    fn reserve(&self, port: &PortAddress) -> Result<Reservation, ReserveError> {
        let state = self.state();
        let taken = state.listeners.iter().any(|listener| port.meets(listener)) || state.clients.contains(port);
        if taken { Err(ReserveError::InUse) } else { Ok(Reservation(None)) }
    }

    fn holder(&self, listener: &Listener) -> Option<String> {
        Some(format!("fake (process {})", listener.inode))
    }
}
