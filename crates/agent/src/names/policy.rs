//! What a task may ask, and whom for what is unknown: pure functions of the task and its networks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use skep_dns::{ADDRESS, Forwarder, Unknown, Upstream};
use skep_model::{Network, NetworkId, Task};
use tracing::warn;

type Networks = BTreeMap<NetworkId, Network>;

/// The networks whose names a task may ask for: nothing is named on that of the routing mesh.
pub(super) fn networks(task: &Task, all: &Networks) -> Vec<NetworkId> {
    of(task, all).map(|network| network.id.clone()).collect()
}

fn of<'a>(task: &'a Task, all: &'a Networks) -> impl Iterator<Item = &'a Network> + Clone {
    task.attachments.iter().filter_map(|on| all.get(&on.network)).filter(|network| !network.spec.ingress)
}

/// Whom to ask for a name that is on none of the task's networks: the resolvers that its service names, or else the node's.
pub(super) fn unknown(task: &Task, all: &Networks, netns: &Path, node: &Arc<Forwarder>) -> Unknown {
    let dns = &task.spec.container.dns;
    let given = dns.nameservers.iter().filter_map(|text| {
        let upstream = upstream(text, task, all, netns);
        if upstream.is_none() {
            warn!(task = %task.display_name(), "{text:?} is the address of no resolver");
        }
        upstream
    });
    // Asking itself would never end.
    let mut given: Vec<_> = given.filter(|upstream| upstream.address.ip() != IpAddr::V4(ADDRESS)).collect();
    let forwarder = if is_internal(task, all) {
        // Nothing of it may leave its networks, and neither may a question.
        given.retain(|upstream| upstream.netns.is_some());
        Arc::new(Forwarder::given(given))
    } else if dns.nameservers.is_empty() {
        node.clone()
    } else {
        Arc::new(Forwarder::given(given))
    };
    if has_ndots(&dns.options) { Unknown::ForwardLonger(forwarder) } else { Unknown::Forward(forwarder) }
}

/// A resolver within the task, or on a network of it, is asked from there: the node may not have a way to it.
fn upstream(text: &str, task: &Task, all: &Networks, netns: &Path) -> Option<Upstream> {
    let upstream = Upstream::named(text, None)?;
    let ip = upstream.address.ip();
    let inside = ip.is_loopback() || of(task, all).any(|network| network.spec.covers(ip));
    Some(Upstream { netns: inside.then(|| netns.to_owned()), ..upstream })
}

/// Whether a task is kept from the outside world: all its networks are internal, and it has some.
fn is_internal(task: &Task, all: &Networks) -> bool {
    let mut networks = of(task, all).peekable();
    networks.peek().is_some() && networks.all(|network| network.spec.internal)
}

fn has_ndots(options: &[String]) -> bool {
    let mut dots = options.iter().filter_map(|option| option.strip_prefix("ndots:")?.parse::<u32>().ok());
    dots.next_back().is_some_and(|dots| dots > 0)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use skep_dns::NodeResolvers;
    use skep_model::{IpamConfig, Meta, NetworkAttachment, NetworkSpec, Timestamp};

    use super::*;
    use crate::task::example;

    /// The mesh's network (i), one open to the world (o), one that is not (c).
    fn all() -> Networks {
        let network = |digit: char, third: u8| Network {
            id: digit.to_string().repeat(25).parse().unwrap(),
            meta: Meta::new(Timestamp::UNIX_EPOCH),
            spec: NetworkSpec {
                name: digit.to_string(),
                labels: BTreeMap::new(),
                ipam: IpamConfig {
                    subnet: format!("10.0.{third}.0/24").parse().unwrap(),
                    gateway: Ipv4Addr::new(10, 0, third, 1),
                    range: None,
                    ipv6: None,
                },
                ingress: digit == 'i',
                internal: digit == 'c',
                attachable: false,
                ipv6: false,
                options: BTreeMap::new(),
            },
            vni: 4096,
            last: None,
            retired: false,
        };
        [('i', 0), ('o', 1), ('c', 2)].map(|(digit, third)| network(digit, third)).map(|n| (n.id.clone(), n)).into()
    }

    fn task(on: &[char], servers: &[&str], options: &[&str]) -> Task {
        let mut task = example();
        let attachment = |(third, digit): (usize, &char)| NetworkAttachment {
            network: digit.to_string().repeat(25).parse().unwrap(),
            addr: format!("10.0.{third}.9/24").parse().unwrap(),
        };
        task.attachments = std::iter::once(&'i').chain(on).enumerate().map(attachment).collect();
        task.spec.container.dns.nameservers = servers.iter().map(|server| (*server).to_owned()).collect();
        task.spec.container.dns.options = options.iter().map(|option| (*option).to_owned()).collect();
        task
    }

    #[test]
    fn questions_go_where_the_task_may_go() {
        let node = Arc::new(Forwarder::node(Arc::new(NodeResolvers::of(Path::new("/etc/resolv.conf")))));
        let asked = |on: &[char], servers: &[&str]| {
            let task = task(on, servers, &[]);
            match unknown(&task, &all(), Path::new("/ns"), &node) {
                Unknown::Forward(others) if Arc::ptr_eq(&others, &node) => None,
                Unknown::Forward(others) => Some(others.servers().iter().map(shown).collect::<Vec<_>>()),
                other => panic!("{other:?}"),
            }
        };
        let shown = |servers: &[&str]| Some(servers.iter().map(|server| (*server).to_owned()).collect::<Vec<_>>());
        assert_eq!(asked(&[], &[]), None, "the node's resolvers");
        assert_eq!(asked(&['o', 'c'], &[]), None);
        assert_eq!(asked(&['c'], &[]), shown(&[]), "no way out");
        let given = ["192.0.2.1", "10.0.2.7", "127.0.0.1", "127.0.0.11", "nonsense", "fd73:6b65:7000::a00:207"];
        let twin = "[fd73:6b65:7000::a00:207]:53";
        let within = ["10.0.2.7:53 within", "127.0.0.1:53 within", &format!("{twin} within")];
        assert_eq!(asked(&['c'], &given), shown(&within));
        assert_eq!(asked(&['o'], &given), shown(&["192.0.2.1:53", "10.0.2.7:53", "127.0.0.1:53 within", twin]));
    }

    fn shown(upstream: &Upstream) -> String {
        let within = if upstream.netns.is_some() { " within" } else { "" };
        format!("{}{within}", upstream.address)
    }

    #[test]
    fn the_mesh_has_no_names_and_a_search_domain_is_tried_when_asked_for() {
        let node = Arc::new(Forwarder::given(Vec::new()));
        assert_eq!(
            networks(&task(&['c', 'o'], &[], &[]), &all())
                .iter()
                .map(|n| n.as_str()[..1].to_owned())
                .collect::<String>(),
            "co"
        );
        for (options, longer) in [(&[][..], false), (&["ndots:0"], false), (&["use-vc", "ndots:1"], true)] {
            let unknown = unknown(&task(&[], &[], options), &all(), Path::new("/ns"), &node);
            assert_eq!(matches!(unknown, Unknown::ForwardLonger(_)), longer, "{options:?}");
        }
    }
}
