//! The gRPC service that lets machines join, and keeps them members.

use std::net::IpAddr;
use std::sync::Arc;

use skep_ca::SigningRequest;
use skep_model::{Availability, Role, Timestamp};
use skep_rpc::proto::{JoinRequest, JoinResponse, RenewRequest, RenewResponse, membership_server};
use skep_store::ProposeError;
use tonic::{Request, Response, Status};

use super::Hub;
use crate::control::{Joining, issue, join, renew};
use crate::{ControlError, ErrorKind};

/// Makes machines members. Made by [`crate::Manager::membership`].
pub struct MembershipService(Arc<Hub>);

impl MembershipService {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

#[tonic::async_trait]
impl membership_server::Membership for MembershipService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let admitted = skep_rpc::admitted(&request)?;
        self.0.leads()?;
        let request = request.into_inner();
        let csr = signing_request(&request.csr)?;
        let joining = joining(admitted.role, admitted.addr.ip(), csr.digest(), &request)?;
        let now = Timestamp::now();
        let joined = self.0.writer.update(|tables| {
            let cluster = tables.cluster().ok_or(ControlError::NoCluster)?;
            let (node, changes) = join(tables, joining, now)?;
            let issued = issue(cluster, &node, &csr, now)?;
            Ok(((cluster.id.clone(), node, issued), changes))
        });
        let (cluster, node, issued) = joined.await.map_err(|error| status(&ControlError::from(error)))?;
        let role = match node.spec.role {
            Role::Worker => "worker",
            Role::Manager => "manager",
        };
        Ok(Response::new(JoinResponse {
            node_id: node.id.to_string(),
            cluster_id: cluster.to_string(),
            node_addr: node.status.addr.map(|addr| addr.to_string()).unwrap_or_default(),
            role: role.to_owned(),
            certificate: issued.certificate,
            roots: issued.roots,
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer = skep_rpc::peer(&request)?;
        self.0.leads()?;
        let csr = signing_request(&request.get_ref().csr)?;
        let now = Timestamp::now();
        let renewed = self.0.writer.update(|tables| {
            let cluster = tables.cluster().ok_or(ControlError::NoCluster)?;
            let (node, changes) = renew(tables, &peer.node, &csr)?;
            Ok((issue(cluster, &node, &csr, now)?, changes))
        });
        let issued = renewed.await.map_err(|error| status(&ControlError::from(error)))?;
        Ok(Response::new(RenewResponse { certificate: issued.certificate, roots: issued.roots }))
    }
}

fn joining(role: Role, from: IpAddr, credential: String, request: &JoinRequest) -> Result<Joining, Status> {
    let bad = |what: &str| Status::invalid_argument(format!("the join request has a bad {what}"));
    let addr = match request.advertise_addr.as_str() {
        "" => from,
        // With or without a port: it is the address that counts.
        text => text
            .parse()
            .or_else(|_| text.parse::<std::net::SocketAddr>().map(|a| a.ip()))
            .map_err(|_| bad("address"))?,
    };
    let availability = match request.availability.as_str() {
        "" | "active" => Availability::Active,
        "pause" => Availability::Pause,
        "drain" => Availability::Drain,
        _ => return Err(bad("availability")),
    };
    let routes =
        request.routes.iter().map(|route| route.parse().map_err(|_| bad("route"))).collect::<Result<_, _>>()?;
    let description = skep_rpc::decode(&request.description)?;
    Ok(Joining { role, credential, description, addr: addr.to_canonical(), availability, routes })
}

fn signing_request(csr: &[u8]) -> Result<SigningRequest, Status> {
    SigningRequest::from_der(csr).map_err(|error| status(&error.into()))
}

fn status(error: &ControlError) -> Status {
    let message = error.to_string();
    // Asked again, whoever leads then finds the member or makes it one.
    if matches!(error, ControlError::Propose(ProposeError::Unknown)) {
        return Status::unavailable(message);
    }
    match error.kind() {
        ErrorKind::InvalidArgument => Status::invalid_argument(message),
        ErrorKind::NotFound => Status::not_found(message),
        ErrorKind::AlreadyExists => Status::already_exists(message),
        ErrorKind::FailedPrecondition => Status::failed_precondition(message),
        ErrorKind::Unimplemented => Status::unimplemented(message),
        ErrorKind::OutOfSequence => Status::aborted(message),
        ErrorKind::NoLeader => Status::unavailable(message),
        ErrorKind::Internal => Status::internal(message),
    }
}
