//! Programs that clients have run in containers: made by one request, started by the next, looked at by others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::exec::{ExecSpec, Resize, WindowSize};
use crate::error::{Error, ErrorKind};

/// How long one is remembered that has ended, or was never started, as in Docker.
const MEMORY: Duration = Duration::from_secs(300);

/// What there is to know of one.
#[derive(Clone)]
pub(crate) struct Exec {
    /// The container's whole id.
    pub(crate) container: String,
    pub(crate) spec: ExecSpec,
    pub(crate) attached: Attached,
    pub(crate) phase: Phase,
    resize: Option<Resize>,
    changed: Instant,
}

/// What a client wants to have to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
    /// How a client leaves a terminal without ending the program; empty is the default.
    pub(crate) detach_keys: String,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    /// Between the order and the answer.
    Starting,
    Running {
        pid: i32,
    },
    /// Without a process when it could not be started.
    Ended {
        pid: Option<i32>,
        code: Option<i32>,
    },
}

/// All of them.
#[derive(Default)]
pub(crate) struct Execs(Mutex<BTreeMap<String, Exec>>);

impl Execs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Exec>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers another one; its id.
    pub(crate) fn create(&self, container: String, spec: ExecSpec, attached: Attached) -> String {
        let (high, low): (u128, u128) = (rand::random(), rand::random());
        let id = format!("{high:032x}{low:032x}");
        let mut all = self.all();
        let runs = |exec: &Exec| matches!(exec.phase, Phase::Starting | Phase::Running { .. });
        all.retain(|_, exec| runs(exec) || exec.changed.elapsed() < MEMORY);
        let changed = Instant::now();
        all.insert(id.clone(), Exec { container, spec, attached, phase: Phase::Created, resize: None, changed });
        id
    }

    pub(crate) fn find(&self, id: &str) -> Result<Exec, Error> {
        self.all().get(id).cloned().ok_or_else(|| missing(id))
    }

    /// Those of a container that run.
    pub(crate) fn running(&self, container: &str) -> Vec<String> {
        let all = self.all();
        let of =
            |(_, exec): &(&String, &Exec)| exec.container == container && matches!(exec.phase, Phase::Running { .. });
        all.iter().filter(of).map(|(id, _)| id.clone()).collect()
    }

    /// Takes it for being started, which nobody else may then.
    pub(crate) fn begin(&self, id: &str) -> Result<Exec, Error> {
        let mut all = self.all();
        let exec = all.get_mut(id).ok_or_else(|| missing(id))?;
        if exec.phase != Phase::Created {
            return Err(Error::new(ErrorKind::Conflict, format!("exec command {id} has been started already")));
        }
        exec.phase = Phase::Starting;
        Ok(exec.clone())
    }

    /// It can be started again: it was not.
    pub(crate) fn not_begun(&self, id: &str) {
        self.change(id, |exec| exec.phase = Phase::Created);
    }

    pub(crate) fn began(&self, id: &str, pid: i32, resize: Option<Resize>) {
        self.change(id, |exec| (exec.phase, exec.resize) = (Phase::Running { pid }, resize));
    }

    pub(crate) fn ended(&self, id: &str, code: Option<i32>) {
        self.change(id, |exec| {
            let pid = if let Phase::Running { pid } = exec.phase { Some(pid) } else { None };
            (exec.phase, exec.resize) = (Phase::Ended { pid, code }, None);
        });
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Exec)) {
        if let Some(exec) = self.all().get_mut(id) {
            exec.changed = Instant::now();
            change(exec);
        }
    }

    /// Gives its terminal another size.
    pub(crate) fn resize(&self, id: &str, size: WindowSize) -> Result<(), Error> {
        let exec = self.find(id)?;
        let Phase::Running { .. } = exec.phase else {
            return Err(Error::new(ErrorKind::Conflict, format!("exec command {id} is not running")));
        };
        let resize = exec.resize.ok_or_else(|| Error::invalid(format!("exec command {id} has no terminal")))?;
        resize(size).map_err(|e| Error::new(ErrorKind::Unknown, format!("the terminal keeps its size: {e}")))
    }
}

fn missing(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("No such exec instance: {id}"))
}
