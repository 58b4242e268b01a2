//! As much of HTTP/1.1 as it takes to ask a daemon on its socket how it is.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status, 100 to 599.
    pub status: u16,
    /// Everything after the head, as it came.
    pub body: Vec<u8>,
}

/// Asks for `path` on a socket, and reads until the server hangs up. No read or write lasts longer than `patience`.
///
/// # Errors
/// When nobody listens, or the answer does not come or is no HTTP.
pub fn get(socket: &Path, path: &str, patience: Duration) -> io::Result<Response> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: skep\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = words.next()?.parse().ok().filter(|s| (100..600).contains(s))?;
    Some(Response { status, body: answer[end + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let found = parse(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nOK");
        assert_eq!(found, Some(Response { status: 200, body: b"OK".to_vec() }));
        for wrong in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0 200 x\r\n\r\n", "HTTP/1.1 OK\r\n\r\n", "HTTP/1.1 7 x\r\n\r\n"]
        {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
