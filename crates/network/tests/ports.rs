//! Reserved ports against a real kernel, in namespaces of their own.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use skep_model::Protocol;
use skep_network::{KernelPorts, Namespace, NodePorts, PortAddress, Reservation, ReserveError, raise_file_limit};

/// Runs `story` in a new namespace, which is gone afterwards.
fn within(name: &str, story: impl FnOnce() + Send) {
    assert!(nix::unistd::geteuid().is_root(), "kernel tests need root: they make network namespaces");
    let path = std::env::temp_dir().join(format!("skep-ports-{name}-{}", std::process::id()));
    let namespace = Namespace::create(&path).expect("a namespace");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| namespace.run(story)));
    Namespace::delete(&path).expect("deleted");
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).expect("entered");
}

fn port(protocol: Protocol, port: u16, address: Option<&str>) -> PortAddress {
    let address = address.map(|text| text.parse::<IpAddr>().unwrap());
    PortAddress { protocol, port: NonZeroU16::new(port).unwrap(), address }
}

fn reserve(protocol: Protocol, number: u16, address: Option<&str>) -> Result<Reservation, ReserveError> {
    KernelPorts.reserve(&port(protocol, number, address))
}

/// Who stands in the way, in words.
fn holder(of: &PortAddress) -> Option<String> {
    let listeners = KernelPorts.listeners().unwrap();
    listeners.iter().find(|listener| of.meets(listener)).map(|l| KernelPorts.holder(l).unwrap_or_default())
}

#[test]
fn others_cannot_bind_a_reserved_port_and_its_clients_are_refused_at_once() {
    within("bind", || {
        let tcp = reserve(Protocol::Tcp, 8080, None).unwrap();
        let udp = reserve(Protocol::Udp, 8080, None).unwrap();
        // The standard library sets SO_REUSEADDR, as servers do.
        for address in ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080", "[::1]:8080"] {
            assert_eq!(TcpListener::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse, "{address}");
            assert_eq!(UdpSocket::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse, "{address}");
        }
        let refused = TcpStream::connect_timeout(&"127.0.0.1:8080".parse().unwrap(), Duration::from_secs(5));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        drop((tcp, udp));
        TcpListener::bind("0.0.0.0:8080").unwrap();
        UdpSocket::bind("0.0.0.0:8080").unwrap();
    });
}

#[test]
fn a_port_reserved_on_one_address_leaves_the_others_free() {
    within("address", || {
        let resolver = UdpSocket::bind("127.0.0.53:53").unwrap();
        let _one = reserve(Protocol::Udp, 53, Some("127.0.0.1")).unwrap();
        let _six = reserve(Protocol::Udp, 53, Some("::1")).unwrap();
        assert!(UdpSocket::bind("127.0.0.1:53").is_err() && UdpSocket::bind("0.0.0.0:53").is_err());
        UdpSocket::bind("127.0.0.2:53").unwrap();
        assert!(matches!(reserve(Protocol::Udp, 53, None), Err(ReserveError::InUse)));
        assert!(matches!(reserve(Protocol::Udp, 53, Some("192.0.2.1")), Err(ReserveError::Refused(_))));
        drop(resolver);
    });
}

#[test]
fn nothing_piles_up_in_a_reserved_udp_port() {
    within("pile", || {
        let _udp = reserve(Protocol::Udp, 8080, None).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 1000], "127.0.0.1:8080").unwrap();
        }
        let sockets = fs::read_to_string("/proc/thread-self/net/udp6").unwrap();
        let reserved = sockets.lines().find(|line| line.contains(":1F90 ")).expect("the reserved socket");
        assert!(reserved.contains(" 00000000:00000000 "), "bytes wait in {reserved}");
    });
}

#[test]
fn whoever_listens_is_found_and_named_and_a_client_is_no_conflict() {
    within("found", || {
        let server = TcpListener::bind("0.0.0.0:8080").unwrap();
        let wanted = port(Protocol::Tcp, 8080, None);
        assert!(matches!(KernelPorts.reserve(&wanted), Err(ReserveError::InUse)));
        let own = format!("(process {})", std::process::id());
        assert!(holder(&wanted).unwrap().contains(&own), "{:?}", holder(&wanted));
        // The number of a client's own end: in use, and nobody listens.
        let client = TcpStream::connect("127.0.0.1:8080").unwrap();
        let clients = port(Protocol::Tcp, client.local_addr().unwrap().port(), None);
        assert!(matches!(KernelPorts.reserve(&clients), Err(ReserveError::InUse)));
        assert_eq!(holder(&clients), None);
        drop((server, client));
        KernelPorts.reserve(&wanted).unwrap();
        let udp = UdpSocket::bind("[::]:53").unwrap();
        assert!(holder(&port(Protocol::Udp, 53, Some("10.0.0.1"))).is_some());
        drop(udp);
    });
}

#[test]
fn the_kernel_gives_a_reserved_port_to_no_client() {
    within("ephemeral", || {
        let server = TcpListener::bind("127.0.0.1:80").unwrap();
        let address = server.local_addr().unwrap();
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003").unwrap();
        let _kept: Vec<_> = [40_000, 40_001, 40_003]
            .into_iter()
            .flat_map(|number| [Protocol::Tcp, Protocol::Udp].map(|p| reserve(p, number, None).unwrap()))
            .collect();
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(client.local_addr().unwrap().port(), 40_002);
        assert!(TcpStream::connect(address).is_err(), "there is no other port");
        let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert_eq!(client.local_addr().unwrap().port(), 40_002);
    });
}

#[test]
fn ten_thousand_ports_are_reserved_in_no_time() {
    within("many", || {
        assert!(raise_file_limit(11_000).unwrap() >= 11_000, "root may open more files");
        let began = Instant::now();
        let kept: Vec<_> = (20_000..30_000).map(|number| reserve(Protocol::Tcp, number, None).unwrap()).collect();
        let took = began.elapsed();
        println!("{} ports reserved in {took:?}", kept.len());
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}
