//! `swarm join`: a member of somebody else's swarm.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_ca::{JoinToken, NodeKeys};
use skep_engine::backend::node::SwarmState;
use skep_engine::backend::swarm::JoinOptions;
use skep_engine::{Error, ErrorKind};
use skep_model::Availability;
use skep_rpc::{MembershipClient, RpcError, proto};

use super::node::{DATA_PATH_PORT, LocalNode, Member, unknown};
use super::node_file::Membership;
use super::{advertise, identity};

/// How long a manager that has joined may need to be one.
const JOINING: Duration = Duration::from_secs(20);
/// How long managers may need to have a leader again.
const ELECTION: Duration = Duration::from_secs(5);

impl LocalNode {
    /// Joins a swarm.
    pub(crate) async fn join(self: &Arc<Self>, options: JoinOptions) -> Result<(), Error> {
        let mut member = self.try_write()?;
        if member.is_some() {
            return Err(Error::already_in_swarm());
        }
        let token: JoinToken = options.token.parse().map_err(|e: skep_ca::CaError| Error::invalid(e.to_string()))?;
        let facts = self.facts().await?;
        let advertised = match &options.advertise_addr {
            Some(given) => Some(advertise::resolve(&facts, Some(given))?),
            None => None,
        };
        if let Some(addr) = advertised {
            self.same_data_path(&facts, options.data_path_addr.as_ref(), addr)?;
        }
        let listen = advertise::listen(&facts, &options.listen_addr)?;
        let port = options.advertise_addr.as_ref().map_or(listen.port(), |a| a.port);
        let keys = NodeKeys::generate().map_err(unknown)?;
        let request = proto::JoinRequest {
            csr: keys.request().map_err(unknown)?.into(),
            description: skep_rpc::encode(&self.description(&facts).map_err(unknown)?),
            advertise_addr: advertised.map(|a| a.to_string()).unwrap_or_default(),
            availability: availability(options.availability).to_owned(),
            routes: facts.routes.iter().map(ToString::to_string).collect(),
        };
        self.set_state(SwarmState::Pending);
        let joined = self.admitted(&mut member, &options, (listen, port), (&token, keys), request).await;
        if member.is_none() {
            self.set_state(SwarmState::Inactive);
            self.forget();
        }
        joined
    }

    async fn admitted(
        self: &Arc<Self>,
        member: &mut Option<Member>,
        options: &JoinOptions,
        listen: (SocketAddr, u16),
        (token, keys): (&JoinToken, NodeKeys),
        request: proto::JoinRequest,
    ) -> Result<(), Error> {
        let (manager, answer) = ask_to_join(&options.remote_addrs, token, request).await?;
        let garbled =
            |what: &str| Error::new(ErrorKind::Unknown, format!("the manager at {manager} answered with a bad {what}"));
        let identity = identity::joined(token, keys, &answer).map_err(|e| garbled(&format!("certificate: {e:#}")))?;
        let membership = Membership {
            cluster: identity.cluster().clone(),
            node: identity.node().clone(),
            addr: answer.node_addr.parse().map_err(|_| garbled("node address"))?,
            managers: vec![manager.clone()],
            data_path_port: DATA_PATH_PORT,
            listen: listen.0,
            advertise_port: listen.1,
            manager: None,
        };
        self.certificates.store(&identity.credentials()).map_err(unknown)?;
        self.file.store(&membership).map_err(unknown)?;
        let mut entered = self.enter(membership, identity, None).await.map_err(unknown)?;
        entered.agent.joined().await;
        let manages = if answer.role == "manager" { self.join_managers(&mut entered).await } else { Ok(()) };
        match manages {
            Ok(()) | Err(Error { kind: ErrorKind::Unavailable, .. }) => *member = Some(entered),
            Err(_) => drop(entered.agent.leave().await),
        }
        manages
    }

    /// A node that has joined as a manager becomes one.
    async fn join_managers(&self, member: &mut Member) -> Result<(), Error> {
        self.open_seat(member).await.map_err(unknown)?;
        let Some(seat) = &member.seat else { return Ok(()) };
        tokio::time::timeout(JOINING, seat.joined()).await.map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node.",
            )
        })
    }
}

/// Asks one manager after the other, and the one that leads as soon as one says which that is. What a manager of the token's swarm answers,
/// counts.
async fn ask_to_join(
    managers: &[String],
    token: &JoinToken,
    request: proto::JoinRequest,
) -> Result<(String, proto::JoinResponse), Error> {
    let mut last = Error::invalid("at least one manager's address is needed to join a swarm");
    let mut ahead: VecDeque<String> = managers.iter().cloned().collect();
    let deadline = Instant::now() + ELECTION;
    while let Some(manager) = ahead.pop_front() {
        match MembershipClient::join(&manager, token, request.clone()).await {
            Ok(answer) => return Ok((manager, answer)),
            Err(e @ RpcError::NoLeader { .. }) if Instant::now() > deadline => {
                return Err(Error::new(ErrorKind::Unavailable, e.to_string()));
            }
            Err(RpcError::NoLeader { leader: Some(leader), .. }) if leader != manager => ahead.push_front(leader),
            // One will be elected soon.
            Err(RpcError::NoLeader { .. }) => {
                tokio::time::sleep(ELECTION / 20).await;
                ahead.push_back(manager);
            }
            Err(e @ (RpcError::Unreachable { .. } | RpcError::Timeout { .. })) => {
                last = Error::new(ErrorKind::Unavailable, e.to_string());
            }
            // Somebody else has that address; the next one may be a manager's.
            Err(e @ (RpcError::Untrusted { .. } | RpcError::Clock { .. })) => last = Error::invalid(e.to_string()),
            Err(e) => return Err(Error::invalid(e.to_string())),
        }
    }
    Err(last)
}

fn availability(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}
