//! The networks that a service asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::{Network, NetworkId};

use super::unsupported;
use crate::error::{Error, ErrorKind};
use crate::types::service as wire;

/// The networks of a swarm.
pub type Networks = BTreeMap<NetworkId, Arc<Network>>;

/// Which network a name means: a whole id, a name, or the beginning of one id.
fn find<'a>(name: &str, networks: &'a Networks) -> Option<&'a Arc<Network>> {
    let all = || networks.values().filter(|n| !n.retired);
    let exact = all().find(|n| n.id.as_str() == name).or_else(|| all().find(|n| n.spec.name == name));
    exact.or_else(|| {
        let mut begin = all().filter(|n| !name.is_empty() && n.id.as_str().starts_with(name));
        begin.next().filter(|_| begin.next().is_none())
    })
}

/// Reads `Networks`: names become ids.
///
/// # Errors
/// For a network that is not there, with Docker's words and status; for the routing mesh's, and for what tasks cannot be attached to.
pub fn from_wire(
    attached: &[wire::NetworkAttachmentConfig],
    networks: &Networks,
) -> Result<Vec<(NetworkId, Vec<String>)>, Error> {
    attached.iter().map(|one| attachment(one, networks)).collect()
}

fn attachment(wire: &wire::NetworkAttachmentConfig, networks: &Networks) -> Result<(NetworkId, Vec<String>), Error> {
    let name = wire.target.as_str();
    let network = match (find(name, networks), name) {
        (Some(network), _) if network.spec.ingress => {
            return Err(Error::invalid(
                "TaskTemplate.Networks: Service cannot be explicitly attached to the ingress network; publish a port instead",
            ));
        }
        (Some(network), _) => network,
        (None, "host" | "bridge" | "none") => {
            let why = format!(
                "tasks are attached to overlay networks, not to {name:?}: use --publish mode=host to be reached at a node's own address"
            );
            return Err(unsupported("TaskTemplate.Networks", &why));
        }
        (None, _) => return Err(Error::new(ErrorKind::Unknown, format!("network {name} not found"))),
    };
    if !wire.driver_opts.is_empty() {
        return Err(unsupported(
            "TaskTemplate.Networks.DriverOpts",
            "skep has no options of an attachment: leave them out",
        ));
    }
    let mut aliases = Vec::new();
    for alias in &wire.aliases {
        if !aliases.contains(alias) {
            aliases.push(alias.clone());
        }
    }
    Ok((network.id.clone(), aliases))
}
