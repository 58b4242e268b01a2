//! `swarm init --force-new-cluster`: the manager that is left goes on alone, with everything that it has.

use std::net::SocketAddr;

use skep_ca::UnlockKey;
use skep_engine::backend::swarm::InitOptions;
use skep_engine::{Error, ErrorKind};
use skep_model::NodeId;
use tracing::{info, warn};

use super::advertise;
use super::lock;
use super::node::{LocalNode, Member, unknown};
use super::node_file::ManagerSeat;
use super::seat::{Begin, Opened};

impl LocalNode {
    /// Makes this manager the only one of its swarm.
    pub(super) async fn recover(&self, member: &mut Member, options: &InitOptions) -> Result<NodeId, Error> {
        let Some(seat) = &member.membership.manager else {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "this node is a worker, and has nothing to start a new cluster from: use --force-new-cluster on a former manager, or leave the swarm and start another one",
            ));
        };
        let advertise = match &options.advertise_addr {
            Some(given) => {
                let port = given.port;
                SocketAddr::new(advertise::resolve(&self.facts().await?, Some(given))?, port)
            }
            None => seat.advertise,
        };
        let seat = ManagerSeat { advertise, ..seat.clone() };
        let Some(running) = member.seat.take() else { return Err(Error::locked()) };
        let unlock_key = running.store().view(|tables| tables.cluster().and_then(|cluster| lock::key_of(cluster)));
        self.give_up(running).await;
        let recovered = self.alone(member, seat, unlock_key.clone()).await;
        if recovered.is_err() {
            // As it was before.
            self.reopen(member, unlock_key).await;
        }
        recovered.map(|()| member.membership.node.clone())
    }

    async fn alone(&self, member: &mut Member, seat: ManagerSeat, unlock_key: Option<UnlockKey>) -> Result<(), Error> {
        let identity = member.identity.clone();
        let opened =
            Opened::new(&self.flags.data_root, &seat, identity, Begin::Alone(unlock_key)).await.map_err(unknown)?;
        opened.write_alone().await.map_err(|e| super::backend::refusal(&e))?;
        let mut membership = member.membership.clone();
        membership.addr = seat.advertise.ip();
        membership.managers = vec![seat.advertise.to_string()];
        membership.manager = Some(seat);
        self.store_membership(&membership).map_err(unknown)?;
        member.membership = membership;
        self.take_seat(member, opened.manage(self.tunnels(), self.again.clone()));
        info!("this manager goes on alone: the other managers of before are workers from now on");
        Ok(())
    }

    async fn reopen(&self, member: &mut Member, unlock_key: Option<UnlockKey>) {
        let Some(seat) = member.membership.manager.clone() else { return };
        match Opened::new(&self.flags.data_root, &seat, member.identity.clone(), Begin::AsBefore(unlock_key)).await {
            Ok(opened) => self.take_seat(member, opened.manage(self.tunnels(), self.again.clone())),
            Err(e) => warn!("this manager does not manage any more until its daemon is restarted: {e:#}"),
        }
    }
}
