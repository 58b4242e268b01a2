//! A container's `/etc/resolv.conf` (resolv.conf(5)).

use std::fs;
use std::net::IpAddr;

use skep_model::Dns;

use crate::container::Container;

/// What the service says of name resolution; what it leaves open is as on the node.
pub(super) fn of(container: &Container) -> String {
    let node = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text(&container.spec.dns, container.resolver, &node)
}

fn text(dns: &Dns, resolver: Option<IpAddr>, node: &str) -> String {
    let of_node = |keyword: &str| {
        let lines = node.lines().map(str::split_whitespace);
        let words = lines.filter_map(|mut words| (words.next() == Some(keyword)).then(|| words.map(str::to_owned)));
        words.flatten().collect::<Vec<_>>()
    };
    let or_node = |given: &[String], keyword: &str| if given.is_empty() { of_node(keyword) } else { given.to_vec() };
    let servers = resolver.map_or_else(|| or_node(&dns.nameservers, "nameserver"), |ip| vec![ip.to_string()]);
    let mut search = or_node(&dns.search, "search");
    // A lone dot is how a person asks for none.
    if search == ["."] {
        search.clear();
    }
    let mut options = or_node(&dns.options, "options");
    // Names of services have no dot: they are asked for as they are, before any search domain is tried.
    if resolver.is_some() && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (keyword, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            text.push_str(&format!("{keyword} {}\n", words.join(" ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "# made by hand\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.org sub.example.org\noptions edns0\n";

    fn dns(nameservers: &[&str], search: &[&str], options: &[&str]) -> Dns {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Dns { nameservers: owned(nameservers), search: owned(search), options: owned(options) }
    }

    #[test]
    fn a_task_asks_its_own_resolver_and_keeps_what_else_the_node_says() {
        let own = Some([127, 0, 0, 11].into());
        for (given, node, expected) in [
            (dns(&[], &[], &[]), "", "nameserver 127.0.0.11\noptions ndots:0\n"),
            (
                dns(&[], &[], &[]),
                NODE,
                "nameserver 127.0.0.11\nsearch example.org sub.example.org\noptions edns0 ndots:0\n",
            ),
            (
                dns(&["192.0.2.1"], &["a.test"], &["ndots:2", "use-vc"]),
                NODE,
                "nameserver 127.0.0.11\nsearch a.test\noptions ndots:2 use-vc\n",
            ),
            (dns(&[], &["."], &["timeout:1"]), NODE, "nameserver 127.0.0.11\noptions timeout:1 ndots:0\n"),
        ] {
            assert_eq!(text(&given, own, node), expected);
        }
    }

    #[test]
    fn without_one_it_asks_whom_it_is_told_or_whom_the_node_asks() {
        assert_eq!(text(&dns(&[], &[], &[]), None, NODE), NODE.split_once('\n').unwrap().1);
        assert_eq!(text(&dns(&["192.0.2.1"], &["."], &[]), None, NODE), "nameserver 192.0.2.1\noptions edns0\n");
    }
}
