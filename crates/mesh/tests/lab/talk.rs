//! Servers that say who asked, and clients that ask.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::Netns;

/// Long enough for a busy machine; nothing that works takes a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves on `port` of the address, TCP and UDP.
pub fn serve(ns: &Netns, own: Ipv4Addr, port: u16) {
    serve_at(ns, own, own.into(), port);
}

/// Serves on `port` of address `at`, TCP and UDP, in the name of `own`: each request is answered with "<own address> <peer's address>". TCP requests are
/// HTTP-like (up to an empty line), any number per connection; UDP answers repeat the length of the request.
pub fn serve_at(ns: &Netns, own: Ipv4Addr, at: IpAddr, port: u16) {
    let tcp = ns.run(|| TcpListener::bind((at, port))).unwrap();
    let udp = ns.run(|| UdpSocket::bind((at, port))).unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            thread::spawn(move || answer(stream, own));
        }
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            let mut text = format!("{own} {peer} ").into_bytes();
            text.resize(length.max(text.len()), b'.');
            let _ = udp.send_to(&text, peer);
        }
    });
}

fn answer(mut stream: TcpStream, own: Ipv4Addr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let body = format!("{own} {peer}");
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (mut buffer, mut filled) = (vec![0; 4096], 0);
    // The first request of a connection says whether it is to be closed after each.
    let mut closing = None;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        while let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            let closing = *closing.get_or_insert_with(|| buffer[..end].windows(5).any(|w| w == b"close"));
            stream.write_all(response.as_bytes())?;
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
            if closing {
                return Ok(());
            }
        }
    }
}

/// Sends one request over a connection and returns the answer's body: "<server's address> <peer's address>".
pub fn ask_on(stream: &mut TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut text = String::new();
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
        if Some(body.len()) == length {
            return Ok(body.to_owned());
        }
    }
}

/// Asks once over a new connection.
pub fn ask_tcp(to: impl Into<IpAddr>, port: u16) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to.into(), port)), PATIENCE)?;
    Ok(Answer::parse(&ask_on(&mut stream)?))
}

/// Sends a datagram of `length` bytes from a new socket; the answer must be as long.
pub fn ask_udp(to: impl Into<IpAddr>, port: u16, length: usize) -> io::Result<Answer> {
    let to = to.into();
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((to, port))?;
    ask_udp_on(&socket, length)
}

pub fn ask_udp_on(socket: &UdpSocket, length: usize) -> io::Result<Answer> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&vec![b'x'; length])?;
    let mut buffer = vec![0; 65536];
    let read = socket.recv(&mut buffer)?;
    assert!(read >= length, "asked with {length} bytes, answered with {read}");
    Ok(Answer::parse(&String::from_utf8_lossy(&buffer[..read])))
}

/// Who answered, and whom it saw.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    pub server: Ipv4Addr,
    pub peer: SocketAddr,
}

impl Answer {
    pub fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        Self { server: words.next().unwrap().parse().unwrap(), peer: words.next().unwrap().parse().unwrap() }
    }

    pub fn peer_ip(&self) -> IpAddr {
        self.peer.ip()
    }
}

/// Connects from a port of one's choice, which another connection may use too.
pub fn connect_from(port: u16, to: Ipv4Addr, published: u16) -> io::Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
    use std::os::fd::AsRawFd;
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    let [a, b, c, d] = to.octets();
    connect(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, published))?;
    Ok(fd.into())
}

/// Whether asking is refused at once, rather than left without an answer.
pub fn is_refused<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
