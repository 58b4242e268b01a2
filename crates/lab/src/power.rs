//! A node that loses its power: what was on its disk is there afterwards, and nothing else.

use std::fs;
use std::io::ErrorKind;

use skep_network::Namespace;

use crate::error::LabError;
use crate::place::Place;
use crate::processes::{self, Marks};
use crate::state::State;
use crate::{cgroups, mounts, topology};

/// By what the processes of a node are recognised.
pub(crate) fn marks(state: &State, node: u8) -> Result<Marks, LabError> {
    let namespace = Namespace::open(&state.net_path(&Place::Node(node).to_string()))?;
    let dirs = vec![state.data_root(node)];
    Ok(Marks { namespaces: vec![namespace.inode()?], cgroup: state.node_cgroup(node), dirs })
}

/// Kills every process of a node at once, containers too.
pub(crate) fn kill(state: &State, node: u8) -> Result<(), LabError> {
    processes::kill(&marks(state, node)?)
}

/// Takes away what a machine has in its memory alone: processes, mounts, control groups, namespaces, devices, and the directory that is a
/// tmpfs elsewhere.
pub(crate) fn lose(state: &State, node: u8) -> Result<(), LabError> {
    kill(state, node)?;
    let mut errors = mounts::clear(&state.exec_root(node));
    errors.extend(mounts::clear(&state.data_root(node)));
    errors.extend(cgroups::clear(&state.node_cgroup(node)));
    // Never through a mount.
    if errors.is_empty() {
        errors.extend(remove_files(state, node).err());
    }
    errors.extend(topology::renew(state, node).err());
    LabError::collect(errors)
}

/// Everything in the node's directory but the log, which is whoever's who looks on.
fn remove_files(state: &State, node: u8) -> Result<(), LabError> {
    let dir = state.node_dir(node);
    for entry in fs::read_dir(&dir).map_err(|e| LabError::file("list", &dir, e))?.flatten() {
        let path = entry.path();
        if path == state.log(node) {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(LabError::file("remove", path, e)),
            _ => {}
        }
    }
    Ok(())
}
