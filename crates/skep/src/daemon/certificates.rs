//! The node's certificate on the disk: `certificates/` below the data root.
//!
//! | file | what | mode |
//! |---|---|---|
//! | `root.crt` | the root certificates that this node trusts | 0644 |
//! | `node.crt` | the node's own certificate, then its issuer's | 0644 |
//! | `node.key` | the private key of the node's certificate | 0600 |

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skep_ca::{NodeCredentials, NodeKeys, Roots};

const ROOTS: &str = "root.crt";
const CERTIFICATE: &str = "node.crt";
const KEY: &str = "node.key";

/// The directory's name below the data root.
pub(crate) const DIRECTORY: &str = "certificates";

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Certificates(PathBuf);

impl Certificates {
    pub(crate) fn new(data_root: &Path) -> Self {
        Self(data_root.join(DIRECTORY))
    }

    /// What was stored last.
    pub(crate) fn load(&self) -> Result<NodeCredentials> {
        let read = |name: &str| {
            let path = self.0.join(name);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let load = || -> Result<NodeCredentials> {
            let roots = Roots::from_pem(&read(ROOTS)?)?;
            let keys = NodeKeys::all_from_pem(&read(KEY)?)?;
            Ok(NodeCredentials::with_one_of(keys, &read(CERTIFICATE)?, &roots)?)
        };
        load().with_context(|| {
            format!(
                "this node's certificate in {} cannot be used: bring it back from a copy, or move swarm.json away and join the swarm again",
                self.0.display()
            )
        })
    }

    /// Stores it. Whenever the daemon or the machine dies meanwhile, what is there is either the old certificate or the new one: the file of keys has
    /// both keys until the new certificate is in its place.
    pub(crate) fn store(&self, credentials: &NodeCredentials) -> Result<()> {
        let store = || -> std::io::Result<()> {
            fs::create_dir_all(&self.0)?;
            self.steps(credentials).iter().try_for_each(|(name, mode, text)| self.write(name, *mode, text))
        };
        store().with_context(|| self.0.display().to_string())
    }

    /// What is written to store it, one file after the other.
    fn steps(&self, credentials: &NodeCredentials) -> [(&'static str, u32, String); 4] {
        let key = credentials.keys().to_pem();
        let old = fs::read_to_string(self.0.join(KEY)).unwrap_or_default();
        [
            (KEY, 0o600, key.clone() + &old),
            (ROOTS, 0o644, credentials.roots().to_pem()),
            (CERTIFICATE, 0o644, credentials.chain_pem()),
            (KEY, 0o600, key),
        ]
    }

    /// One file, all or nothing.
    fn write(&self, name: &str, mode: u32, text: &str) -> std::io::Result<()> {
        let (path, aside) = (self.0.join(name), self.0.join(format!("{name}.tmp")));
        // What a daemon that was killed left aside may have another mode.
        match fs::remove_file(&aside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = open_new(&aside, mode)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(&self.0)?.sync_all()
    }
}

/// A key is never readable by others, not even for a moment.
fn open_new(path: &Path, mode: u32) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests {
    use skep_ca::{PeerIdentity, RootCa};
    use skep_model::{ClusterId, NodeId, Role, Timestamp};

    use super::*;

    fn credentials(root: &RootCa) -> NodeCredentials {
        let keys = NodeKeys::generate().unwrap();
        let identity = PeerIdentity { cluster: ClusterId::random(), node: NodeId::random(), role: Role::Worker };
        let chain = root.sign_own(&keys, &identity, Timestamp::now()).unwrap();
        NodeCredentials::new(keys, &chain, Roots::new(vec![root.certificate().clone()]).unwrap()).unwrap()
    }

    #[test]
    fn what_was_stored_is_loaded_and_the_key_is_for_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::new(dir.path());
        let root = RootCa::generate(Timestamp::now()).unwrap();
        for _ in 0..2 {
            let stored = credentials(&root);
            certificates.store(&stored).unwrap();
            let loaded = certificates.load().unwrap();
            assert_eq!(loaded.identity(), stored.identity());
            assert_eq!(loaded.keys().digest(), stored.keys().digest());
        }
        let mode = |name: &str| fs::metadata(certificates.0.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([KEY, CERTIFICATE, ROOTS].map(mode), [0o600, 0o644, 0o644]);
        assert_eq!(fs::read_dir(&certificates.0).unwrap().count(), 3, "nothing is left aside");
        assert_eq!(NodeKeys::all_from_pem(&fs::read_to_string(certificates.0.join(KEY)).unwrap()).unwrap().len(), 1);
    }

    #[test]
    fn a_daemon_that_dies_while_it_stores_has_the_old_certificate_or_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::new(dir.path());
        let root = RootCa::generate(Timestamp::now()).unwrap();
        let (old, new) = (credentials(&root), credentials(&root));
        certificates.store(&old).unwrap();
        for (step, (name, mode, text)) in certificates.steps(&new).iter().enumerate() {
            let loaded = certificates.load().unwrap();
            let expected = if step < 3 { &old } else { &new };
            assert_eq!(loaded.identity(), expected.identity(), "before step {step}");
            certificates.write(name, *mode, text).unwrap();
            let key = fs::metadata(certificates.0.join(KEY)).unwrap().permissions().mode() & 0o777;
            assert_eq!(key, 0o600, "after step {step}");
        }
        assert_eq!(certificates.load().unwrap().identity(), new.identity());
    }

    #[test]
    fn files_that_do_not_belong_together_are_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::new(dir.path());
        let error = format!("{:#}", certificates.load().unwrap_err());
        assert!(error.contains("root.crt") && error.contains("join the swarm again"), "{error}");
        let root = RootCa::generate(Timestamp::now()).unwrap();
        certificates.store(&credentials(&root)).unwrap();
        certificates.write(KEY, 0o600, &NodeKeys::generate().unwrap().to_pem()).unwrap();
        let error = format!("{:#}", certificates.load().unwrap_err());
        assert!(error.contains("not the one that the certificate was issued for"), "{error}");
    }
}
