//! `swarm init`: a new swarm with this node as its manager.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use skep_ca::RootCa;
use skep_engine::Error;
use skep_engine::backend::node::SwarmState;
use skep_engine::backend::swarm::InitOptions;
use skep_manager::InitCluster;
use skep_model::NodeId;
use skep_network::Facts;
use skep_rpc::NodeIdentity;

use super::node::{DATA_PATH_PORT, LocalNode, Member, rand_id, unknown};
use super::node_file::{ManagerSeat, Membership};
use super::seat::{Begin, Opened};
use super::{advertise, identity};

impl LocalNode {
    /// Starts a swarm with this node as its manager.
    pub(crate) async fn init(self: &Arc<Self>, options: InitOptions) -> Result<NodeId, Error> {
        let mut member = self.try_write()?;
        match member.as_mut() {
            Some(member) if options.force_new_cluster => return self.recover(member, &options).await,
            Some(_) => return Err(Error::already_in_swarm()),
            None => {}
        }
        let facts = self.facts().await?;
        let addr = advertise::resolve(&facts, options.advertise_addr.as_ref())?;
        self.same_data_path(&facts, options.data_path_addr.as_ref(), addr)?;
        let listen = advertise::listen(&facts, &options.listen_addr)?;
        let port = options.advertise_addr.as_ref().map_or(listen.port(), |a| a.port);
        let (root, identity) = identity::founded(options.spec.certificates).map_err(unknown)?;
        let node = identity.node().clone();
        let seat = ManagerSeat { raft_id: rand_id(), listen, advertise: SocketAddr::new(addr, port) };
        let outcome = self.found(&mut member, options, (facts, addr), (seat, root, identity)).await;
        if outcome.is_err() {
            self.set_state(SwarmState::Inactive);
            self.forget();
        }
        outcome.map(|()| node)
    }

    async fn found(
        self: &Arc<Self>,
        member: &mut Option<Member>,
        options: InitOptions,
        (facts, addr): (Facts, IpAddr),
        (seat, root, identity): (ManagerSeat, RootCa, NodeIdentity),
    ) -> Result<(), Error> {
        self.set_state(SwarmState::Pending);
        let opened = Opened::new(&self.flags.data_root, &seat, identity.clone(), Begin::AsBefore(None))
            .await
            .map_err(unknown)?;
        opened.initialize().await.map_err(unknown)?;
        let data_path_port = options.data_path_port.unwrap_or(DATA_PATH_PORT);
        if data_path_port != DATA_PATH_PORT {
            return Err(Error::unimplemented(format!(
                "--data-path-port {data_path_port} is not supported yet: leave it out, and the overlay uses UDP port {DATA_PATH_PORT}"
            )));
        }
        let init = InitCluster {
            cluster: identity.cluster().clone(),
            root,
            node: identity.node().clone(),
            credential: identity.credentials().keys().digest(),
            description: self.description(&facts).map_err(unknown)?,
            addr: seat.advertise,
            raft_id: seat.raft_id,
            availability: options.availability,
            spec: options.spec,
            default_pools: options.default_addr_pool,
            subnet_size: options.subnet_size.unwrap_or(24),
            data_path_port,
            routes: facts.routes,
        };
        let cluster = opened.write_swarm(init).await.map_err(|e| super::backend::refusal(&e))?;
        let membership = Membership {
            cluster,
            node: identity.node().clone(),
            addr,
            managers: vec![seat.advertise.to_string()],
            data_path_port,
            listen: seat.listen,
            advertise_port: seat.advertise.port(),
            manager: Some(seat),
        };
        self.certificates.store(&identity.credentials()).map_err(unknown)?;
        self.file.store(&membership).map_err(unknown)?;
        *member = Some(self.enter(membership, identity, Some(opened)).await.map_err(unknown)?);
        Ok(())
    }
}
