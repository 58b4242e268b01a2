//! A data plane without a kernel.

use std::sync::{Arc, Mutex, PoisonError};

use skep_model::TaskId;

use crate::datapath::{Applied, Counters, Datapath, DatapathError};
use crate::flow::{Flow, FlowTable, Usage};
use crate::table::Tables;

/// Remembers what was applied. Clones share their memory, so that a test can keep one and hand the other away.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tables: Option<Tables>,
    open_flows: u64,
    counters: Counters,
    flows: Vec<Flow>,
    usage: Vec<Usage>,
    removed: bool,
}

impl Fake {
    /// One that nothing has been applied to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was applied last.
    #[must_use]
    pub fn tables(&self) -> Option<Tables> {
        self.state().tables.clone()
    }

    /// What [`FlowTable::open_flows`] will say of any task.
    pub fn set_open_flows(&self, count: u64) {
        self.state().open_flows = count;
    }

    /// What is to be seen from now on.
    pub fn show(&self, counters: Counters, flows: Vec<Flow>, usage: Vec<Usage>) {
        let mut state = self.state();
        (state.counters, state.flows, state.usage) = (counters, flows, usage);
    }

    /// Whether it was closed and removed.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.state().removed
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Datapath for Fake {
    fn apply(&mut self, tables: &Tables) -> Result<Applied, DatapathError> {
        let mut state = self.state();
        let written = usize::from(state.tables.as_ref() != Some(tables));
        state.tables = Some(tables.clone());
        Ok(Applied { written, ..Applied::default() })
    }

    fn counters(&self) -> Result<Counters, DatapathError> {
        Ok(self.state().counters.clone())
    }

    fn flow_table(&self) -> Result<Box<dyn FlowTable>, DatapathError> {
        Ok(Box::new(self.clone()))
    }

    fn usage(&self) -> Result<Vec<Usage>, DatapathError> {
        Ok(self.state().usage.clone())
    }

    fn close_and_remove(self: Box<Self>) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.tables = None;
        state.removed = true;
        Ok(())
    }
}

impl FlowTable for Fake {
    fn flows(&self) -> Result<Vec<Flow>, DatapathError> {
        Ok(self.state().flows.clone())
    }

    fn open_flows(&self, _task: &TaskId) -> Result<u64, DatapathError> {
        Ok(self.state().open_flows)
    }

    fn usage(&self) -> Result<Usage, DatapathError> {
        Ok(Usage { table: "flows", used: self.state().flows.len() as u64, room: 1 << 20 })
    }
}
