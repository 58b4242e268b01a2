//! Which addresses the swarm's own networks are cut from.

use ipnet::{IpNet, Ipv4Net};

/// Prefix length of the routing mesh's network: room for 65,000 nodes, services and tasks.
const INGRESS_PREFIX: u8 = 16;

/// No subnet can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// All of the pool is in use by the node's own routes.
    #[error(
        "the address pool {subnet} collides with the route to {route} that this node has: give the swarm another pool with --default-addr-pool"
    )]
    Collides {
        /// What was tried.
        subnet: Ipv4Net,
        /// What the node has.
        route: Ipv4Net,
    },
    /// There is no pool to choose from.
    #[error("there is no address pool: give one with --default-addr-pool")]
    NoPool,
}

/// The first subnet of the pools for the routing mesh that collides with none of the routes.
///
/// # Errors
/// [`SubnetError::Collides`] names the first that was tried, when all collide.
pub fn ingress_subnet(pools: &[Ipv4Net], routes: &[IpNet]) -> Result<Ipv4Net, SubnetError> {
    let mut refused = None;
    for pool in pools {
        let length = INGRESS_PREFIX.max(pool.prefix_len());
        // A length between the pool's own and 32 is always valid.
        for subnet in pool.subnets(length).into_iter().flatten() {
            match collision(subnet, routes) {
                None => return Ok(subnet),
                Some(route) => refused = refused.or(Some(SubnetError::Collides { subnet, route })),
            }
        }
    }
    Err(refused.unwrap_or(SubnetError::NoPool))
}

/// The route that shares addresses with `subnet`. Default routes, also when they come as two halves, lead everywhere and say nothing; nor
/// do those of IPv6, whose addresses inside the mesh are nobody else's ([`skep_model::MESH_PREFIX`]).
pub(crate) fn collision(subnet: Ipv4Net, routes: &[IpNet]) -> Option<Ipv4Net> {
    let ipv4 = routes.iter().filter_map(|route| if let IpNet::V4(route) = route { Some(*route) } else { None });
    let telling = ipv4.filter(|route| route.prefix_len() > 1);
    telling.into_iter().find(|route| route.contains(&subnet) || subnet.contains(route))
}
