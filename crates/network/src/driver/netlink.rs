//! The one place that knows rtnetlink.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::FromRawFd;

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType};
use rtnetlink::proto::Connection;
use rtnetlink::sys::{Socket, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};

use crate::error::NetworkError;
use crate::facts::{Address, Link, Way};
use crate::namespace::Namespace;
use crate::node::{HOST_MAC, MacAddr, OVERLAY_MAC, Overlay, TASK_LINK_PREFIX};

/// A netlink socket of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

/// A link with what only this crate wants to know of it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) link: Link,
    pub(crate) alias: Option<String>,
    /// Index of a virtual Ethernet device's other end, in that end's namespace.
    pub(crate) peer: Option<u32>,
    /// Port of a VXLAN device that takes its keys from each packet.
    pub(crate) vxlan_port: Option<u16>,
}

impl Netlink {
    /// For the namespace of the calling thread, which in a daemon is every thread's.
    pub(crate) fn here() -> Result<Self, NetworkError> {
        Self::over(Socket::new(NETLINK_ROUTE))
    }

    /// For another namespace: a socket stays in the one where it was made.
    pub(crate) fn inside(namespace: &Namespace) -> Result<Self, NetworkError> {
        Self::over(namespace.run(|| Socket::new(NETLINK_ROUTE))?)
    }

    fn over(socket: io::Result<Socket>) -> Result<Self, NetworkError> {
        use std::os::fd::IntoRawFd;
        let socket = socket.map_err(|e| NetworkError::netlink("open a netlink socket", e))?;
        socket.set_non_blocking(true).map_err(|e| NetworkError::netlink("open a netlink socket", e))?;
        // SAFETY: the descriptor was just released by its owner and is open.
        let socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
        let (connection, handle, _) = rtnetlink::from_socket(socket);
        let connection: Connection<_, TokioSocket> = connection;
        // Ends when the last handle is dropped.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(crate) async fn links(&self) -> Result<Vec<Found>, NetworkError> {
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(|e| failed("list links", e))?;
        Ok(messages.into_iter().map(read_link).collect())
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<Found>, NetworkError> {
        let mut answer = Box::pin(self.handle.link().get().match_name(name).execute());
        match answer.next().await {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(read_link(message))),
            Some(Err(error)) if code(&error) == Some(libc::ENODEV) => Ok(None),
            Some(Err(error)) => Err(failed(format!("look for {name}"), error)),
        }
    }

    pub(crate) async fn require(&self, name: &str) -> Result<Found, NetworkError> {
        self.find(name).await?.ok_or_else(|| NetworkError::NoInterface(name.to_owned()))
    }

    pub(crate) async fn delete(&self, index: u32) -> Result<(), NetworkError> {
        match self.handle.link().del(index).execute().await {
            Err(error) if code(&error) != Some(libc::ENODEV) => Err(failed(format!("remove link {index}"), error)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn delete_by_name(&self, name: &str) -> Result<(), NetworkError> {
        match self.find(name).await? {
            Some(found) => self.delete(found.link.index).await,
            None => Ok(()),
        }
    }

    async fn add(&self, name: &str, message: LinkMessage) -> Result<(), NetworkError> {
        self.handle.link().add(message).execute().await.map_err(|e| failed(format!("create {name}"), e))
    }

    pub(crate) async fn add_overlay(&self, overlay: &Overlay) -> Result<(), NetworkError> {
        let message = LinkMessageBuilder::<LinkVxlan>::new(&overlay.name)
            .collect_metadata(true)
            .learning(false)
            .port(overlay.port)
            .mtu(overlay.mtu)
            .address(OVERLAY_MAC.0.to_vec())
            .build();
        self.add(&overlay.name, message).await
    }

    /// A pair whose one end is `name` here, with the host's address, and the other `peer` inside `namespace`.
    pub(crate) async fn add_task_pair(
        &self,
        name: &str,
        peer: &str,
        namespace: &Namespace,
        mtu: u32,
        mac: MacAddr,
    ) -> Result<(), NetworkError> {
        let other = unspec().name(peer).mtu(mtu).address(mac.0.to_vec()).setns_by_fd(namespace.raw()).build();
        let message = LinkMessageBuilder::<LinkVeth>::new(name, peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
            .mtu(mtu)
            .address(HOST_MAC.0.to_vec())
            .build();
        self.add(name, message).await
    }

    /// A pair whose one end is `name` here, and the other `peer` inside `namespace`.
    pub(crate) async fn add_pair(&self, name: &str, peer: &str, namespace: &Namespace) -> Result<(), NetworkError> {
        let other = unspec().name(peer).setns_by_fd(namespace.raw()).build();
        let message = LinkMessageBuilder::<LinkVeth>::new(name, peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
            .build();
        self.add(name, message).await
    }

    pub(crate) async fn add_bridge(&self, name: &str) -> Result<(), NetworkError> {
        self.add(name, LinkMessageBuilder::<LinkBridge>::new(name).build()).await
    }

    async fn change(&self, name: &str, message: LinkMessage) -> Result<(), NetworkError> {
        self.handle.link().set(message).execute().await.map_err(|e| failed(format!("set up {name}"), e))
    }

    /// Sets MTU and address of a link, and switches it on. One that is so already is left alone: the kernel would forget the neighbours
    /// behind it.
    pub(crate) async fn set(&self, link: &Link, mtu: u32, mac: MacAddr) -> Result<(), NetworkError> {
        if link.up && link.mtu == mtu && link.mac == Some(mac) {
            return Ok(());
        }
        let message = unspec().index(link.index).mtu(mtu).address(mac.0.to_vec()).up();
        self.change(&link.name, message.build()).await
    }

    pub(crate) async fn set_alias(&self, index: u32, name: &str, alias: &str) -> Result<(), NetworkError> {
        self.change(name, unspec().index(index).alias(alias).build()).await
    }

    pub(crate) async fn raise(&self, name: &str) -> Result<(), NetworkError> {
        let index = self.require(name).await?.link.index;
        self.change(name, unspec().index(index).up().build()).await
    }

    pub(crate) async fn lower(&self, name: &str) -> Result<(), NetworkError> {
        let index = self.require(name).await?.link.index;
        self.change(name, unspec().index(index).down().build()).await
    }

    pub(crate) async fn plug(&self, name: &str, bridge: &str) -> Result<(), NetworkError> {
        let (index, bridge) = (self.require(name).await?.link.index, self.require(bridge).await?.link.index);
        self.change(name, unspec().index(index).controller(bridge).up().build()).await
    }

    pub(crate) async fn addresses(&self) -> Result<Vec<Address>, NetworkError> {
        let mut answer = Box::pin(self.handle.address().get().execute());
        let mut found = Vec::new();
        while let Some(message) = answer.try_next().await.map_err(|e| failed("list addresses", e))? {
            found.extend(read_address(&message));
        }
        found.sort_by_key(|a| a.ip.is_ipv6());
        Ok(found)
    }

    pub(crate) async fn add_address(
        &self,
        index: u32,
        name: &str,
        ip: IpAddr,
        prefix_len: u8,
    ) -> Result<(), NetworkError> {
        let mut request = self.handle.address().add(index, ip, prefix_len).replace();
        if ip.is_ipv6() {
            request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(|e| failed(format!("give {name} the address {ip}"), e))
    }

    pub(crate) async fn remove_address(&self, index: u32, name: &str, ip: IpAddr) -> Result<(), NetworkError> {
        let what = || format!("take the address {ip} from {name}");
        let mut answer = Box::pin(self.handle.address().get().set_link_index_filter(index).execute());
        while let Some(message) = answer.try_next().await.map_err(|e| failed(what(), e))? {
            if own_address(&message) == Some(ip) {
                self.handle.address().del(message).execute().await.map_err(|e| failed(what(), e))?;
            }
        }
        Ok(())
    }

    pub(crate) async fn add_neighbour(
        &self,
        index: u32,
        name: &str,
        ip: IpAddr,
        mac: MacAddr,
    ) -> Result<(), NetworkError> {
        let request = self.handle.neighbours().add(index, ip).link_layer_address(&mac.0).replace();
        request.execute().await.map_err(|e| failed(format!("make {ip} known on {name}"), e))
    }

    /// A route by a gateway that is on the link, whatever else is, and by one of the link's own addresses.
    pub(crate) async fn add_route(
        &self,
        index: u32,
        to: IpNet,
        gateway: IpAddr,
        source: IpAddr,
        mtu: Option<u32>,
    ) -> Result<(), NetworkError> {
        let what = || format!("route {to} to {gateway} by {source}");
        let mixed = || NetworkError::netlink(what(), io::ErrorKind::InvalidInput.into());
        let mut route = match (to, gateway, source) {
            (IpNet::V4(to), IpAddr::V4(gateway), IpAddr::V4(source)) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.network(), to.prefix_len())
                .output_interface(index)
                .gateway(gateway)
                .pref_source(source)
                .onlink()
                .build(),
            (IpNet::V6(to), IpAddr::V6(gateway), IpAddr::V6(source)) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.network(), to.prefix_len())
                .output_interface(index)
                .gateway(gateway)
                .pref_source(source)
                .build(),
            _ => return Err(mixed()),
        };
        route.attributes.extend(mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        let request = self.handle.route().add(route).replace();
        request.execute().await.map_err(|e| failed(what(), e))
    }

    /// Destinations of the main table, and the best way to each of those that lead somewhere.
    pub(crate) async fn routes(&self) -> Result<(Vec<IpNet>, Vec<Way>), NetworkError> {
        let mut found = Vec::new();
        let mut ways = BTreeMap::new();
        for all in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()] {
            let messages: Vec<RouteMessage> =
                self.handle.route().get(all).execute().try_collect().await.map_err(|e| failed("list routes", e))?;
            for (message, to) in messages.iter().filter_map(|message| Some((message, read_route(message)?))) {
                found.push(to);
                let Some(way) = read_way(message, to) else { continue };
                let metric = metric(message);
                match ways.entry(to) {
                    Entry::Vacant(entry) => drop(entry.insert((metric, way))),
                    Entry::Occupied(mut best) if metric < best.get().0 => drop(best.insert((metric, way))),
                    Entry::Occupied(_) => {}
                }
            }
        }
        found.sort();
        found.dedup();
        Ok((found, ways.into_values().map(|(_, way)| way).collect()))
    }
}

fn unspec() -> LinkMessageBuilder<LinkUnspec> {
    LinkMessageBuilder::<LinkUnspec>::new()
}

/// The node's own address: on a point-to-point link `Address` is the other end. IPv6 leaves `Local` out where there is no such end.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let ipv6 = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip @ IpAddr::V6(_)) => Some(*ip),
        _ => None,
    });
    local.or(ipv6)
}

/// Nothing for an address that cannot be used: one that another machine has too, or one that needs a link beside it.
fn read_address(message: &AddressMessage) -> Option<Address> {
    let (ip, header) = (own_address(message)?, &message.header);
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if link_local || (ip.is_ipv6() && header.flags.contains(AddressHeaderFlags::Dadfailed)) {
        return None;
    }
    // What IPv4 calls secondary, IPv6 calls temporary.
    let passing = AddressHeaderFlags::Secondary | AddressHeaderFlags::Deprecated;
    Some(Address {
        ip,
        prefix_len: header.prefix_len,
        link: header.index,
        global: header.scope == AddressScope::Universe,
        lasting: ip.is_ipv4() || !header.flags.intersects(passing),
    })
}

fn read_route(message: &RouteMessage) -> Option<IpNet> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let destination = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let everywhere = match header.address_family {
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let destination = destination.unwrap_or(everywhere);
    let telling = !matches!(destination, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast());
    IpNet::new(destination, header.destination_prefix_length).ok().filter(|_| telling)
}

/// Which of several routes to one destination counts: the smallest.
fn metric(message: &RouteMessage) -> u32 {
    let of = |a: &RouteAttribute| if let RouteAttribute::Priority(metric) = a { Some(*metric) } else { None };
    message.attributes.iter().find_map(of).unwrap_or(0)
}

/// Nothing for a route that refuses, or is lost.
fn read_way(message: &RouteMessage, to: IpNet) -> Option<Way> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let link = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    })?;
    let source = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    Some(Way { to, link, source })
}

fn read_link(message: LinkMessage) -> Found {
    let flags = message.header.flags;
    let mut found = Found {
        link: Link {
            index: message.header.index,
            name: String::new(),
            kind: None,
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            loopback: flags.contains(LinkFlags::Loopback),
            own: false,
            master: None,
        },
        alias: None,
        peer: None,
        vxlan_port: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.link.name = name,
            LinkAttribute::IfAlias(alias) => found.alias = Some(alias),
            LinkAttribute::Mtu(mtu) => found.link.mtu = mtu,
            LinkAttribute::Link(index) => found.peer = Some(index),
            LinkAttribute::Controller(index) => found.link.master = Some(index),
            LinkAttribute::Address(bytes) => found.link.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::LinkInfo(info) => read_info(info, &mut found),
            _ => {}
        }
    }
    let task_link = found.link.kind.as_deref() == Some("veth") && found.link.name.starts_with(TASK_LINK_PREFIX);
    found.link.own = task_link || (found.vxlan_port.is_some() && found.link.mac == Some(OVERLAY_MAC));
    found
}

fn read_info(info: Vec<LinkInfo>, found: &mut Found) {
    for part in info {
        match part {
            LinkInfo::Kind(kind) => found.link.kind = Some(kind.to_string()),
            LinkInfo::Data(InfoData::Vxlan(data)) if data.contains(&InfoVxlan::CollectMetadata(true)) => {
                found.vxlan_port = data.iter().find_map(|d| match d {
                    InfoVxlan::Port(port) => Some(*port),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|c| -c.get()),
        _ => None,
    }
}

fn failed(action: impl Into<String>, error: rtnetlink::Error) -> NetworkError {
    let source = match code(&error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error),
    };
    NetworkError::netlink(action, source)
}
