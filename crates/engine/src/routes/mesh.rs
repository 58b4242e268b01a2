//! `/skep/v1/mesh`: the routing mesh of this node.

use std::net::{IpAddr, SocketAddr};

use axum::extract::State;
use axum::response::IntoResponse;
use ipnet::IpNet;
use skep_model::Protocol;
use skep_model::seen::{FlowFilter, FlowState, TraceQuestion};

use super::Shared;
use super::answer::{Answer, Json, Refusal};
use super::params::Params;
use crate::error::Error;

/// How many flows are listed when nobody says.
const LIMIT: usize = 100;
/// How many may be asked for at once: what fits into an answer that one can still read.
const MOST: usize = 100_000;

pub(super) async fn report(State(app): Shared) -> Answer {
    Ok(Json::ok(app.backend.mesh().await?).into_response())
}

pub(super) async fn flows(State(app): Shared, params: Params) -> Answer {
    let (client, client_port) = client(params.text("client"))?;
    let filter = FlowFilter {
        port: optional(&params, "port", port)?,
        protocol: optional(&params, "protocol", protocol)?,
        client,
        client_port,
        task: text(&params, "task"),
        service: text(&params, "service"),
        state: optional(&params, "state", state)?,
        limit: optional(&params, "limit", limit)?.unwrap_or(LIMIT),
    };
    Ok(Json::ok(app.backend.mesh_flows(filter).await?).into_response())
}

pub(super) async fn trace(State(app): Shared, params: Params) -> Answer {
    let question = TraceQuestion {
        protocol: optional(&params, "protocol", protocol)?.unwrap_or(Protocol::Tcp),
        port: optional(&params, "port", port)?
            .ok_or_else(|| Error::invalid("name the published port: /skep/v1/mesh/trace?port=8080"))?,
        from: optional(&params, "from", socket)?,
        to: optional(&params, "to", address)?,
    };
    if let (Some(from), Some(to)) = (question.from, question.to)
        && from.is_ipv4() != to.is_ipv4()
    {
        let message = format!("a client at {} cannot ask {to}: one is IPv4 and the other IPv6", from.ip());
        return Err(Error::invalid(message).into());
    }
    Ok(Json::ok(app.backend.mesh_trace(question).await?).into_response())
}

/// A parameter that may be left out.
fn optional<T>(params: &Params, name: &str, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, Refusal> {
    let text = params.text(name);
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|what| Error::invalid(format!("invalid {name} {text:?}: {what}")).into())
}

fn text(params: &Params, name: &str) -> Option<String> {
    Some(params.text(name).to_owned()).filter(|text| !text.is_empty())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| "expected a number from 1 to 65535".to_owned())
}

fn protocol(text: &str) -> Result<Protocol, String> {
    text.parse().map_err(|_| "expected tcp, udp or sctp".to_owned())
}

fn state(text: &str) -> Result<FlowState, String> {
    let expected = || format!("expected {}", FlowState::ALL.map(FlowState::as_str).join(", "));
    FlowState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(expected)
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit <= MOST).ok_or_else(|| format!("expected a number up to {MOST}"))
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an address and a port, like 192.0.2.7:40000 or [2001:db8::7]:40000".to_owned())
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an address, like 192.0.2.7 or 2001:db8::7".to_owned())
}

/// A client is an address, a network, or an address with a port.
fn client(text: &str) -> Result<(Option<IpNet>, Option<u16>), Refusal> {
    if text.is_empty() {
        return Ok((None, None));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok((Some(socket.ip().into()), Some(socket.port())));
    }
    let net = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
    let expected =
        "expected an address (192.0.2.7), a network (192.0.2.0/24), or an address and a port (192.0.2.7:40000)";
    net.map(|net| (Some(net), None)).map_err(|_| Error::invalid(format!("invalid client {text:?}: {expected}")).into())
}
