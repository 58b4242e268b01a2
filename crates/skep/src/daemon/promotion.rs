//! From worker to manager and back, as the managers want it.

use std::net::SocketAddr;
use std::sync::PoisonError;

use anyhow::Result;
use skep_engine::backend::node::SwarmState;
use skep_model::Role;
use tracing::info;

use super::node::{LocalNode, Member, rand_id, remove_dir};
use super::node_file::ManagerSeat;
use super::seat::{Begin, Opened, Seat};

impl LocalNode {
    /// Is a manager from now on.
    pub(super) fn take_seat(&self, member: &mut Member, seat: Seat) {
        *self.finder.lock().unwrap_or_else(PoisonError::into_inner) = Some(seat.finder().clone());
        self.store.send_replace(Some(seat.store().clone()));
        self.set_state(SwarmState::Manager);
        let opened = member.membership.manager.as_ref().map(|seat| (seat.raft_id, seat.advertise));
        member.agent.manages(opened);
        member.seat = Some(seat);
    }

    /// Stops managing.
    pub(super) async fn give_up(&self, seat: Seat) {
        *self.finder.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.store.send_replace(None);
        seat.close().await;
    }

    /// The managers want this node among them, and it is not yet.
    pub(super) async fn open_seat(&self, member: &mut Member) -> Result<()> {
        // One that is locked is a manager, which somebody else has to open.
        if member.seat.is_some() || member.membership.manager.is_some() {
            return Ok(());
        }
        let mut membership = member.membership.clone();
        let seat = ManagerSeat {
            raft_id: rand_id(),
            listen: membership.listen,
            advertise: SocketAddr::new(membership.addr, membership.advertise_port),
        };
        // Something that an earlier time as a manager has left is of no use to this one.
        remove_dir(&self.raft_dir())?;
        let opened = Opened::new(&self.flags.data_root, &seat, member.identity.clone(), Begin::AsBefore(None)).await?;
        membership.manager = Some(seat);
        membership.managers = member.agent.managers().borrow().clone();
        self.file.store(&membership)?;
        member.membership = membership;
        self.take_seat(member, opened.manage(self.tunnels(), self.again.clone()));
        info!("promoted: this node becomes a manager");
        Ok(())
    }

    /// The managers do without this node from now on.
    async fn close_seat(&self, member: &mut Member) -> Result<()> {
        if member.membership.manager.take().is_none() {
            return Ok(());
        }
        member.membership.managers = member.agent.managers().borrow().clone();
        self.file.store(&member.membership)?;
        member.agent.manages(None);
        if let Some(seat) = member.seat.take() {
            self.give_up(seat).await;
        }
        self.set_state(SwarmState::Worker);
        info!("demoted: this node is a worker");
        remove_dir(&self.raft_dir())
    }

    /// Becomes what the managers want it to be.
    pub(crate) async fn follow(&self, wanted: Role) -> Result<()> {
        let mut member = self.member.write().await;
        let Some(member) = member.as_mut() else { return Ok(()) };
        match wanted {
            Role::Manager => self.open_seat(member).await,
            Role::Worker => self.close_seat(member).await,
        }
    }
}
