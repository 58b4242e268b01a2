//! Ports that are bound to an address: `127.0.0.1:8080:80`.
//!
//! The Engine API has no place for the address. A client that sends it all the same, as `HostIP`, must not end up with a port that is open to the
//! world: it becomes the label that binds the port, or is refused.

use std::net::IpAddr;

use crate::error::Error;
use crate::types::meta::StringMap;
use crate::types::service as wire;

/// Ports in a row that are bound alike.
struct Run<'a> {
    first: i64,
    last: i64,
    protocol: &'a str,
    address: IpAddr,
}

/// The labels of a spec, and those that its ports' addresses come to.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for an address that is none, that has no published port, or that a label
/// contradicts.
pub(super) fn labels(spec: &wire::ServiceSpec) -> Result<StringMap, Error> {
    let mut labels = spec.labels.clone();
    for run in runs(spec)? {
        let ports = if run.first == run.last { run.first.to_string() } else { format!("{}-{}", run.first, run.last) };
        let (label, address) = (format!("skep.publish.{ports}/{}.addr", run.protocol), run.address.to_string());
        match labels.get(&label) {
            Some(other) if *other != address => {
                return Err(Error::invalid(format!(
                    "EndpointSpec: HostIP binds port {ports} to {address}, and the label {label:?} to {other:?}: remove one"
                )));
            }
            _ => labels.insert(label, address),
        };
    }
    Ok(labels)
}

fn runs(spec: &wire::ServiceSpec) -> Result<Vec<Run<'_>>, Error> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for port in spec.endpoint_spec.iter().flat_map(|e| &e.ports) {
        let Some(address) = address(port)? else { continue };
        let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
        match runs.last_mut() {
            Some(run) if (run.last + 1, run.protocol, run.address) == (port.published_port, protocol, address) => {
                run.last += 1;
            }
            _ => runs.push(Run { first: port.published_port, last: port.published_port, protocol, address }),
        }
    }
    Ok(runs)
}

/// The address that a port is bound to; `None` for all of them.
fn address(port: &wire::PortConfig) -> Result<Option<IpAddr>, Error> {
    let text = port.host_ip.trim_start_matches('[').trim_end_matches(']');
    if text.is_empty() {
        return Ok(None);
    }
    let address: IpAddr = text.parse().map_err(|_| {
        Error::invalid(format!(
            "EndpointSpec: HostIP {:?} is no address: write one, or set the service label skep.publish.<port>.addr to a network or a network device",
            port.host_ip
        ))
    })?;
    if address.is_unspecified() {
        return Ok(None);
    }
    if port.published_port == 0 {
        return Err(Error::invalid(format!(
            "EndpointSpec: HostIP {address} of target port {} needs a PublishedPort: name one, or set the service label skep.publish.<port>.addr once a port was chosen",
            port.target_port
        )));
    }
    Ok(Some(address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::go_json;

    fn spec(ports: &str, labels: &str) -> wire::ServiceSpec {
        let text = format!(r#"{{"Name":"x","Labels":{labels},"EndpointSpec":{{"Ports":[{ports}]}}}}"#);
        go_json::from_slice(text.as_bytes()).expect("a spec")
    }

    fn shown(ports: &str, labels_before: &str) -> Result<Vec<String>, String> {
        let labels = labels(&spec(ports, labels_before)).map_err(|e| e.to_string())?;
        Ok(labels.into_iter().map(|(label, value)| format!("{label}={value}")).collect())
    }

    #[test]
    fn an_address_becomes_the_label() {
        let bound = shown(r#"{"TargetPort":80,"PublishedPort":8080,"hostIp":"127.0.0.1"}"#, "{}");
        assert_eq!(bound.unwrap(), ["skep.publish.8080/tcp.addr=127.0.0.1"]);
        let bound = shown(r#"{"TargetPort":53,"PublishedPort":53,"HostIP":"[::1]","Protocol":"udp"}"#, r#"{"a":"b"}"#);
        assert_eq!(bound.unwrap(), ["a=b", "skep.publish.53/udp.addr=::1"]);
        let row = (8000..8003).map(|p| format!(r#"{{"TargetPort":80,"PublishedPort":{p},"HostIP":"10.0.0.5"}}"#));
        let row = row.chain([r#"{"TargetPort":80,"PublishedPort":9000,"HostIP":"10.0.0.5"}"#.to_owned()]);
        let bound = shown(&row.collect::<Vec<_>>().join(","), "{}").unwrap();
        assert_eq!(bound, ["skep.publish.8000-8002/tcp.addr=10.0.0.5", "skep.publish.9000/tcp.addr=10.0.0.5"]);
        let same = r#"{"skep.publish.8080/tcp.addr":"127.0.0.1"}"#;
        assert_eq!(shown(r#"{"TargetPort":80,"PublishedPort":8080,"HostIP":"127.0.0.1"}"#, same).unwrap().len(), 1);
        for all in ["", "0.0.0.0", "::", "[::]"] {
            let port = format!(r#"{{"TargetPort":80,"PublishedPort":8080,"HostIP":"{all}"}}"#);
            assert!(shown(&port, "{}").unwrap().is_empty(), "{all}");
        }
    }

    #[test]
    fn what_cannot_be_a_label_is_refused_and_names_it() {
        let refused = |port: &str, labels: &str| shown(port, labels).unwrap_err();
        let said = refused(r#"{"TargetPort":80,"HostIP":"127.0.0.1"}"#, "{}");
        assert!(said.contains("PublishedPort") && said.contains("skep.publish.<port>.addr"), "{said}");
        let said = refused(r#"{"TargetPort":80,"PublishedPort":8080,"HostIP":"eth0"}"#, "{}");
        assert!(said.contains("\"eth0\" is no address") && said.contains("skep.publish.<port>.addr"), "{said}");
        let other = r#"{"skep.publish.8080/tcp.addr":"10.0.0.1"}"#;
        let said = refused(r#"{"TargetPort":80,"PublishedPort":8080,"HostIP":"127.0.0.1"}"#, other);
        assert!(said.contains("remove one"), "{said}");
    }
}
