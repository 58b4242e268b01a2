//! The web service of the demo: says who answers and who asked. It is the skep binary itself, so that the demo's image can be made on
//! the spot, without a registry and without anything installed.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Port that it listens on, in its container.
pub(crate) const PORT: u16 = 80;
/// A client that says nothing does not hold a thread for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers until it is killed.
pub(crate) fn main() -> Result<()> {
    let hostname = nix::unistd::gethostname().context("host name")?.to_string_lossy().into_owned();
    // The second where the kernel has no IPv6.
    let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))];
    let listener = TcpListener::bind(any.as_slice()).with_context(|| format!("port {PORT}"))?;
    for stream in listener.incoming() {
        let (stream, hostname) = (stream?, hostname.clone());
        thread::spawn(move || {
            // A client that goes away in the middle is its own affair.
            let _ = answer(&stream, &hostname);
        });
    }
    Ok(())
}

fn answer(stream: &TcpStream, hostname: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let client = stream.peer_addr()?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    // The head ends with an empty line (RFC 9112, 2.1); nothing in it matters here.
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let body = body(hostname, client);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = stream;
    stream.write_all((head + &body).as_bytes())
}

fn body(hostname: &str, client: SocketAddr) -> String {
    format!("task {hostname} saw {}\n", client.ip().to_canonical())
}

/// What an answer says: the task's host name and the client's address.
pub(crate) fn parse(body: &str) -> Option<(String, String)> {
    let (task, client) = body.trim().strip_prefix("task ")?.split_once(" saw ")?;
    Some((task.to_owned(), client.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood() {
        let said = body("0123456789ab", "192.0.2.7:4711".parse().unwrap());
        assert_eq!(parse(&said), Some(("0123456789ab".to_owned(), "192.0.2.7".to_owned())));
        // As a socket for both families shows them.
        for (shown, said) in [("[::ffff:192.0.2.7]:1", "192.0.2.7"), ("[2001:db8::7]:1", "2001:db8::7")] {
            assert!(body("x", shown.parse().unwrap()).ends_with(&format!(" saw {said}\n")), "{shown}");
        }
    }
}
