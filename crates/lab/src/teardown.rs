//! Taking a lab away, whatever is left of it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use skep_network::Namespace;

use crate::error::LabError;
use crate::processes::{self, Marks};
use crate::state::State;
use crate::{cgroups, mounts};

/// By what all processes of the lab are recognised.
pub(crate) fn marks(state: &State) -> Marks {
    let namespaces = namespaces(state).iter().filter_map(|ns| ns.inode().ok()).collect();
    Marks { namespaces, cgroup: state.cgroup(), dirs: vec![state.run_dir(), state.data_dir.clone()] }
}

fn namespaces(state: &State) -> Vec<Namespace> {
    let pinned = Namespace::list(&state.run_dir().join("net")).unwrap_or_default();
    pinned.iter().filter_map(|path| Namespace::open(path).ok()).collect()
}

/// Removes everything that the lab and its nodes have made. Goes on after errors.
pub(crate) fn down(state: &State) -> Result<(), LabError> {
    let mut errors: Vec<LabError> = processes::kill(&marks(state)).err().into_iter().collect();
    for dir in [state.run_dir(), state.data_dir.clone()] {
        errors.extend(mounts::clear(&dir));
    }
    errors.extend(cgroups::clear(&state.cgroup()));
    for dir in [state.data_dir.clone(), state.run_dir()] {
        errors.extend(remove(&dir).err());
    }
    LabError::collect(errors)
}

fn remove(dir: &Path) -> Result<(), LabError> {
    // Never through a mount: what is mounted belongs to somebody.
    if let Some(mount) = mounts::below(dir).pop() {
        return Err(LabError::StillMounted { dir: dir.to_owned(), mount });
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(LabError::file("remove", dir, e)),
        _ => Ok(()),
    }
}

/// What is left of a lab: nothing, after [`down`].
pub(crate) fn leftovers(state: &State) -> Vec<String> {
    let mut left: Vec<String> = marks(state).find().iter().map(|pid| format!("process {pid}")).collect();
    for dir in [state.run_dir(), state.data_dir.clone()] {
        left.extend(mounts::below(&dir).iter().map(|m| format!("mount {}", m.display())));
        left.extend(dir.exists().then(|| format!("directory {}", dir.display())));
    }
    left.extend(cgroups::dirs(&state.cgroup()).iter().map(|d| format!("cgroup {}", d.display())));
    left
}
