//! The node's own resolvers, as its `/etc/resolv.conf` names them (resolv.conf(5)).

use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where resolvers listen.
pub(crate) const PORT: u16 = 53;
/// More than these the C library does not ask either.
const MOST: usize = 3;

/// The node's own resolvers. The file is read anew when it has changed.
#[derive(Debug)]
pub struct NodeResolvers {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Vec<SocketAddr>)>>,
}

/// Tells two versions of a file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl NodeResolvers {
    /// As the file at `path` names them, whenever that is asked.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), read: Mutex::default() }
    }

    /// The resolvers now, in the order of the file; none when there is no such file.
    #[must_use]
    pub fn servers(&self) -> Vec<SocketAddr> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stamp) = fs::metadata(&self.path).ok().map(|meta| Stamp::of(&meta)) else {
            *read = None;
            return Vec::new();
        };
        match read.as_ref() {
            Some((known, servers)) if *known == stamp => servers.clone(),
            _ => {
                let servers = parse(&fs::read_to_string(&self.path).unwrap_or_default());
                *read = Some((stamp, servers.clone()));
                servers
            }
        }
    }
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), size: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    servers.filter_map(address).take(MOST).collect()
}

/// The address of a resolver; `fe80::1%eth0` is one on a link.
pub(crate) fn address(text: &str) -> Option<SocketAddr> {
    if let Some((address, link)) = text.split_once('%') {
        let scope = link.parse().ok().or_else(|| nix::net::if_::if_nametoindex(link).ok())?;
        return Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into());
    }
    text.parse::<IpAddr>().ok().map(|address| (address, PORT).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_the_c_library_does() {
        let text = "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1\n\tnameserver  2001:db8::1 \nnameserver x\n\
                    nameservers 192.0.2.3\nnameserver fe80::1%lo\nnameserver 192.0.2.4\n";
        let read: Vec<_> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn a_changed_file_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let node = NodeResolvers::of(&path);
        assert!(node.servers().is_empty());
        for server in ["192.0.2.1:53", "192.0.2.2:53"] {
            fs::write(&path, format!("nameserver {}\n", server.trim_end_matches(":53"))).unwrap();
            assert_eq!(node.servers(), [server.parse().unwrap()]);
            assert_eq!(node.servers(), [server.parse().unwrap()]);
        }
        // As programs that manage it replace it.
        let aside = dir.path().join("aside");
        fs::write(&aside, "nameserver 192.0.2.3\n").unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(node.servers(), ["192.0.2.3:53".parse().unwrap()]);
        fs::remove_file(&path).unwrap();
        assert!(node.servers().is_empty());
    }
}
