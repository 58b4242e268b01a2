//! Where the daemon listens.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, anyhow, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where a daemon listens when nobody says otherwise.
pub(super) const DEFAULT: &str = "unix:///run/skep/skep.sock";

/// A place to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// `host:port`
    Tcp(String),
}

/// A byte stream to the daemon.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            if path.is_empty() {
                bail!("the host {text:?} names no socket: write unix:///path/to/socket");
            }
            return Ok(Self::Unix(path.into()));
        }
        let Some(rest) = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")) else {
            bail!("the host {text:?} is neither unix:///path nor tcp://host:port");
        };
        let host = rest.trim_end_matches('/');
        match host.rsplit_once(':').map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(_)) => Ok(Self::Tcp(host.to_owned())),
            Some(Err(_)) | None => bail!("the host {text:?} names no port: write tcp://host:port"),
        }
    }
}

impl Address {
    pub(super) async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(e) => Err(match e.kind() {
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
                        "Cannot connect to the skep daemon at unix://{}. Nothing listens there: start it with `skep daemon` as root, \
                         or name another one with -H or $SKEP_HOST.",
                        path.display()
                    ),
                    ErrorKind::PermissionDenied => {
                        anyhow!(
                            "permission denied at unix://{}: run this as root, or as a member of the socket's group",
                            path.display()
                        )
                    }
                    _ => anyhow!(e).context(format!("cannot connect to unix://{}", path.display())),
                }),
            },
            Self::Tcp(host) => {
                let stream = TcpStream::connect(host).await.with_context(|| {
                    format!("Cannot connect to the skep daemon at tcp://{host}. Is `skep daemon -H tcp://{host}` running there?")
                })?;
                Ok(Box::new(stream))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!("unix:///run/x.sock".parse::<Address>().unwrap(), Address::Unix("/run/x.sock".into()));
        assert_eq!("tcp://[::1]:2375".parse::<Address>().unwrap(), Address::Tcp("[::1]:2375".into()));
        for bad in ["", "/run/x.sock", "unix://", "tcp://host", "ssh://me@host", "tcp://h:99999"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_missing_daemon_says_how_to_start_it() {
        let text = match Address::Unix("/nonexistent/skep.sock".into()).connect().await {
            Ok(_) => String::new(),
            Err(e) => e.to_string(),
        };
        assert!(text.contains("`skep daemon`") && text.contains("/nonexistent/skep.sock"), "{text}");
    }
}
