//! Makes small images on the spot, without any other tool: for demonstrations, tests and benchmarks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::json;
use skep_model::{Protocol, Timestamp};

use super::digest::{Digest, ImageId};
use super::manifest::architecture;

/// An image in the making; [`ImageBuilder::write`] puts it out as `docker save` would. The same calls make the same bytes.
///
/// ```
/// use skep_runtime::images::ImageBuilder;
/// let mut archive = Vec::new();
/// let image = ImageBuilder::new("hello:1")
///     .dir("tmp", 0o1777)
///     .file("etc/motd", 0o644, "hello\n")
///     .symlink("motd", "etc/motd")
///     .cmd(["cat", "/motd"])
///     .write(&mut archive)?;
/// assert_eq!(image.hex().len(), 64);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    reference: String,
    layers: Vec<Vec<Node>>,
    config: BTreeMap<&'static str, serde_json::Value>,
    env: Vec<String>,
    exposed: BTreeSet<String>,
    volumes: BTreeSet<String>,
    labels: BTreeMap<String, String>,
    created: Timestamp,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Its configuration.
    pub config: Vec<u8>,
    /// The tar of each layer, lowest first.
    pub layers: Vec<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Node {
    path: String,
    mode: u32,
    owner: (u64, u64),
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    File(Vec<u8>),
    Directory,
    Symlink(String),
}

fn words<I: IntoIterator<Item: Into<String>>>(items: I) -> serde_json::Value {
    items.into_iter().map(Into::into).collect::<Vec<String>>().into()
}

impl ImageBuilder {
    /// An empty image that will be called `reference`, which is written down as it is.
    #[must_use]
    pub fn new(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            layers: vec![Vec::new()],
            config: BTreeMap::new(),
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            exposed: BTreeSet::new(),
            volumes: BTreeSet::new(),
            labels: BTreeMap::new(),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn node(mut self, path: impl Into<String>, mode: u32, content: Content) -> Self {
        let node = Node { path: path.into(), mode, owner: (0, 0), content };
        if let Some(layer) = self.layers.last_mut() {
            layer.push(node);
        }
        self
    }

    fn set(mut self, key: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.config.insert(key, value.into());
        self
    }

    /// Adds a file, owned by root. Directories above that are not mentioned belong to root, mode 0755.
    #[must_use]
    pub fn file(self, path: impl Into<String>, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.node(path, mode, Content::File(bytes.into()))
    }

    /// Adds a directory, owned by root.
    #[must_use]
    pub fn dir(self, path: impl Into<String>, mode: u32) -> Self {
        self.node(path, mode, Content::Directory)
    }

    /// Adds a symbolic link at `path` that says `target`.
    #[must_use]
    pub fn symlink(self, path: impl Into<String>, target: impl Into<String>) -> Self {
        self.node(path, 0o777, Content::Symlink(target.into()))
    }

    /// Changes the owner of what was added last.
    #[must_use]
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        if let Some(node) = self.layers.last_mut().and_then(|layer| layer.last_mut()) {
            node.owner = (uid.into(), gid.into());
        }
        self
    }

    /// What is added from here on goes into another layer, on top.
    #[must_use]
    pub fn next_layer(mut self) -> Self {
        self.layers.push(Vec::new());
        self
    }

    /// The program and its first arguments.
    #[must_use]
    pub fn entrypoint<I: IntoIterator<Item: Into<String>>>(self, command: I) -> Self {
        self.set("Entrypoint", words(command))
    }

    /// The default arguments, or the program when there is no entrypoint.
    #[must_use]
    pub fn cmd<I: IntoIterator<Item: Into<String>>>(self, command: I) -> Self {
        self.set("Cmd", words(command))
    }

    /// Adds an environment variable; `PATH` is there already.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Adds a port that the program listens on.
    #[must_use]
    pub fn expose(mut self, port: u16, protocol: Protocol) -> Self {
        self.exposed.insert(format!("{port}/{protocol}"));
        self
    }

    /// Adds a path that should be a volume.
    #[must_use]
    pub fn volume(mut self, path: impl Into<String>) -> Self {
        self.volumes.insert(path.into());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// The user, as `user`, `uid`, `user:group` or `uid:gid`.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.set("User", user)
    }

    /// Where the program starts.
    #[must_use]
    pub fn working_dir(self, path: &str) -> Self {
        self.set("WorkingDir", path)
    }

    /// The signal that asks the program to end: `SIGQUIT`, `3`.
    #[must_use]
    pub fn stop_signal(self, signal: &str) -> Self {
        self.set("StopSignal", signal)
    }

    /// When the image says it was made; the beginning of 1970 otherwise, so that the same image is the same bytes.
    #[must_use]
    pub fn created(mut self, at: Timestamp) -> Self {
        self.created = at;
        self
    }

    /// What the image is made of, for those who write it in another form.
    ///
    /// # Errors
    /// As [`ImageBuilder::write`].
    pub fn parts(&self) -> io::Result<Parts> {
        let layers = self.layers.iter().map(|nodes| layer(nodes)).collect::<io::Result<Vec<_>>>()?;
        let digests: Vec<Digest> = layers.iter().map(|bytes| Digest::of(bytes)).collect();
        Ok(Parts { config: serde_json::to_vec(&self.config(&digests))?, layers })
    }

    /// Writes the archive, and returns the id that the image will have.
    ///
    /// # Errors
    /// Those of `out`, and of paths that a tar archive cannot hold (absolute ones, `..`).
    pub fn write(&self, out: &mut impl Write) -> io::Result<ImageId> {
        let Parts { config, layers } = self.parts()?;
        let digests: Vec<Digest> = layers.iter().map(|bytes| Digest::of(bytes)).collect();
        let id = ImageId(Digest::of(&config));
        let manifest = json!([{
            "Config": format!("{}.json", id.hex()),
            "RepoTags": [self.reference],
            "Layers": digests.iter().map(|digest| format!("{}/layer.tar", digest.hex())).collect::<Vec<_>>(),
        }]);
        let mut archive = tar::Builder::new(out);
        let mut written = BTreeSet::new();
        for (digest, bytes) in digests.iter().zip(&layers) {
            if written.insert(digest) {
                append(&mut archive, &format!("{}/layer.tar", digest.hex()), bytes)?;
            }
        }
        append(&mut archive, &format!("{}.json", id.hex()), &config)?;
        append(&mut archive, "manifest.json", &serde_json::to_vec(&manifest)?)?;
        archive.into_inner()?.flush()?;
        Ok(id)
    }

    fn config(&self, layers: &[Digest]) -> serde_json::Value {
        let set = |names: &BTreeSet<String>| -> serde_json::Value {
            names.iter().map(|name| (name.clone(), json!({}))).collect::<serde_json::Map<_, _>>().into()
        };
        let mut config = self.config.clone();
        config.insert("Env", words(&self.env));
        config.insert("Labels", json!(self.labels));
        config.insert("ExposedPorts", set(&self.exposed));
        config.insert("Volumes", set(&self.volumes));
        json!({
            "created": self.created.to_string(),
            "architecture": architecture(),
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": layers },
        })
    }
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, bytes)
}

fn layer(nodes: &[Node]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for node in nodes {
        let mut header = tar::Header::new_gnu();
        header.set_mode(node.mode);
        header.set_uid(node.owner.0);
        header.set_gid(node.owner.1);
        header.set_size(0);
        match &node.content {
            Content::File(bytes) => {
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, &node.path, &bytes[..])?;
            }
            Content::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, &node.path, io::empty())?;
            }
            Content::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, &node.path, target)?;
            }
        }
    }
    archive.into_inner()
}
