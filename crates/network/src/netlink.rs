//! Requests to the kernel, one at a time and waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::{Device, Facts, NetworkError};

/// A connection to the kernel, in the network namespace in which it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Netlink(Handle);

/// A device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) mac: Vec<u8>,
    pub(crate) kind: Option<InfoKind>,
    loopback: bool,
    ethernet: bool,
    enslaved: bool,
}

pub(crate) fn refused(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let doing = doing.into();
    move |error| NetworkError::Netlink { doing, why: words(&error) }
}

/// The kernel's answer as its error message, not as a dump of the packet.
fn words(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(m) if m.to_io().raw_os_error() == Some(errno))
}

impl Netlink {
    /// Opens a connection. It belongs to the calling thread's network namespace and to the current tokio runtime.
    pub(crate) fn open() -> Result<Self, NetworkError> {
        let failed = |e: std::io::Error| NetworkError::Netlink { doing: "open a netlink socket".to_owned(), why: e.to_string() };
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// A device by its name.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, NetworkError> {
        let mut answers = self.0.link().get().match_name(name).execute();
        match answers.try_next().await {
            Ok(message) => Ok(message.map(|m| read_link(&m))),
            Err(e) if is(&e, libc::ENODEV) || is(&e, libc::EINVAL) => Ok(None),
            Err(e) => Err(refused(format!("look for device {name}"))(e)),
        }
    }

    /// A device that must be there.
    pub(crate) async fn existing(&self, name: &str) -> Result<Link, NetworkError> {
        let gone = || NetworkError::Netlink { doing: format!("find device {name}"), why: "it is gone".to_owned() };
        self.link(name).await?.ok_or_else(gone)
    }

    pub(crate) async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        let messages = self.0.link().get().execute();
        messages.map_ok(|m| read_link(&m)).try_collect().await.map_err(refused("list devices"))
    }

    /// Makes a device; one of that name that is there already is no error.
    pub(crate) async fn add(&self, name: &str, message: LinkMessage) -> Result<(), NetworkError> {
        match self.0.link().add(message).execute().await {
            Err(e) if !is(&e, libc::EEXIST) => Err(refused(format!("make device {name}"))(e)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), NetworkError> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        match self.0.link().del(link.index).execute().await {
            Err(e) if !is(&e, libc::ENODEV) => Err(refused(format!("remove device {name}"))(e)),
            _ => Ok(()),
        }
    }

    /// Sets MTU and switches the device on.
    pub(crate) async fn set_up(&self, link: &Link, mtu: u32) -> Result<(), NetworkError> {
        if link.up && link.mtu == mtu {
            return Ok(());
        }
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_index(link.index).mtu(mtu).up().build();
        self.0.link().change(message).execute().await.map_err(refused(format!("switch device {} on", link.name)))
    }

    pub(crate) async fn set_mac(&self, link: &Link, mac: [u8; 6]) -> Result<(), NetworkError> {
        if link.mac == mac {
            return Ok(());
        }
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_index(link.index).address(mac.to_vec()).build();
        let doing = format!("set the hardware address of device {}", link.name);
        self.0.link().change(message).execute().await.map_err(refused(doing))
    }

    pub(crate) async fn add_address(&self, link: &Link, addr: Ipv4Net) -> Result<(), NetworkError> {
        let adding = self.0.address().add(link.index, IpAddr::V4(addr.addr()), addr.prefix_len()).replace();
        adding.execute().await.map_err(refused(format!("give {addr} to device {}", link.name)))
    }

    /// A neighbour that need not be asked for.
    pub(crate) async fn add_neighbour(&self, link: &Link, addr: Ipv4Addr, mac: [u8; 6]) -> Result<(), NetworkError> {
        let adding = self.0.neighbours().add(link.index, IpAddr::V4(addr)).link_layer_address(&mac).replace();
        adding.execute().await.map_err(refused(format!("name neighbour {addr} on device {}", link.name)))
    }

    /// Sends everything to `gateway`, which is on the link whatever its address.
    pub(crate) async fn add_default_route(&self, link: &Link, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(link.index).onlink().build();
        let adding = self.0.route().add(route).replace().execute();
        adding.await.map_err(refused(format!("route through {gateway} on device {}", link.name)))
    }

    /// Devices with their addresses, and routes.
    pub(crate) async fn facts(&self) -> Result<Facts, NetworkError> {
        let mut devices: BTreeMap<u32, Device> = BTreeMap::new();
        for link in self.links().await? {
            devices.insert(link.index, device(link));
        }
        let mut addresses = self.0.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(refused("list addresses"))? {
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            });
            let net = local.and_then(|ip| Ipv4Net::new(ip, message.header.prefix_len).ok());
            if let (Some(net), Some(device)) = (net, devices.get_mut(&message.header.index)) {
                device.addresses.push(net);
            }
        }
        Ok(Facts { devices, routes: self.routes().await? })
    }

    async fn routes(&self) -> Result<BTreeSet<Ipv4Net>, NetworkError> {
        let mut routes = BTreeSet::new();
        let mut messages = self.0.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        while let Some(message) = messages.try_next().await.map_err(refused("list routes"))? {
            let main = message.header.table == libc::RT_TABLE_MAIN;
            let destination = message.attributes.iter().find_map(|a| match a {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(*ip),
                _ => None,
            });
            let prefix = message.header.destination_prefix_length;
            if let (true, AddressFamily::Inet, Some(ip)) = (main, message.header.address_family, destination) {
                routes.extend(Ipv4Net::new(ip, prefix).ok());
            }
        }
        Ok(routes)
    }
}

fn device(link: Link) -> Device {
    Device {
        name: link.name,
        mtu: link.mtu,
        up: link.up,
        loopback: link.loopback,
        ethernet: link.ethernet,
        enslaved: link.enslaved,
        addresses: Vec::new(),
    }
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        mac: Vec::new(),
        kind: None,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        enslaved: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Controller(index) => link.enslaved = *index != 0,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}
