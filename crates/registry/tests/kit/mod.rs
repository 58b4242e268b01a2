//! A registry in this process that can be made to misbehave, and stores to pull into.

#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use skep_model::{ImageRef, RegistryAuth};
use skep_registry::{Outcome, Patience, PullRequest, Puller, RegistryConfig};
use skep_runtime::images::{Digest, ImageBuilder, Images};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request as the registry has seen it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

/// What the registry does about a request.
pub(crate) enum Reply {
    /// Answers.
    Answer { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Announces all of it, sends so many bytes, and closes.
    Cut { headers: Vec<(String, String)>, body: Vec<u8>, after: usize },
    /// Announces all of it, sends so many bytes, and says nothing more.
    Stall { body: Vec<u8>, after: usize },
    /// Announces no length and never ends.
    Endless,
    /// Takes the request and says nothing.
    Silent,
}

impl Reply {
    pub(crate) fn status(status: u16, body: &str) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Answer { status: 200, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::Answer { status: 307, headers: vec![("Location".into(), to.into())], body: Vec::new() }
    }

    pub(crate) fn challenge(words: &str) -> Self {
        Self::Answer { status: 401, headers: vec![("WWW-Authenticate".into(), words.into())], body: Vec::new() }
    }
}

type Hook = Box<dyn FnMut(&Seen) -> Option<Reply> + Send>;

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    /// By `repository/manifests/name`: what kind, and the bytes.
    manifests: HashMap<String, (String, Vec<u8>)>,
    seen: Vec<Seen>,
    hook: Option<Hook>,
}

/// A registry on a loopback address, until it is dropped.
pub(crate) struct FakeRegistry {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An image as it was pushed.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    pub(crate) manifest: Digest,
    pub(crate) config: Digest,
    pub(crate) layers: Vec<Digest>,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub(crate) fn pack(layer: &[u8], packing: Packing) -> (&'static str, Vec<u8>) {
    match packing {
        Packing::Plain => ("application/vnd.oci.image.layer.v1.tar", layer.to_vec()),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, layer).unwrap();
            ("application/vnd.oci.image.layer.v1.tar+gzip", encoder.finish().unwrap())
        }
        Packing::Zstd => ("application/vnd.oci.image.layer.v1.tar+zstd", zstd::encode_all(layer, 1).unwrap()),
    }
}

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl FakeRegistry {
    pub(crate) async fn start() -> Self {
        Self::with(None).await
    }

    /// With TLS, if there is something to prove itself with.
    pub(crate) async fn with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { addr, state, task }
    }

    /// A reference to something in it.
    pub(crate) fn image(&self, rest: &str) -> ImageRef {
        format!("{}/{rest}", self.addr).parse().unwrap()
    }

    /// Asked first about every request.
    pub(crate) fn hook(&self, hook: impl FnMut(&Seen) -> Option<Reply> + Send + 'static) {
        self.state.lock().unwrap().hook = Some(Box::new(hook));
    }

    /// What was asked for since the last call: method, path and range.
    pub(crate) fn asked(&self) -> Vec<String> {
        let seen = std::mem::take(&mut self.state.lock().unwrap().seen);
        let line = |seen: Seen| format!("{} {} {}", seen.method, seen.path, seen.header("range")).trim_end().to_owned();
        seen.into_iter().map(line).collect()
    }

    /// The requests themselves, since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    pub(crate) fn blob(&self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.state.lock().unwrap().blobs.insert(digest.to_string(), bytes);
        digest
    }

    /// Has the bytes of a manifest under its digest and under a tag.
    pub(crate) fn manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut state = self.state.lock().unwrap();
        for name in [tag, &digest.to_string()] {
            state.manifests.insert(format!("{repository}/manifests/{name}"), (kind.to_owned(), bytes.to_vec()));
        }
        digest
    }

    /// Has an image, one layer after the other packed in the ways of `packings`.
    pub(crate) fn push(&self, name: &str, image: &ImageBuilder, packings: &[Packing]) -> Pushed {
        let (repository, tag) = name.split_once(':').unwrap();
        let (manifest, config, layers) = self.described(image, packings);
        let manifest = self.manifest(repository, tag, IMAGE, manifest.to_string().as_bytes());
        Pushed { manifest, config, layers }
    }

    pub(crate) fn described(&self, image: &ImageBuilder, packings: &[Packing]) -> (Value, Digest, Vec<Digest>) {
        let parts = image.parts().unwrap();
        let mut layers = Vec::new();
        for (layer, packing) in parts.layers.iter().zip(packings.iter().cycle()) {
            let (kind, bytes) = pack(layer, *packing);
            let size = bytes.len();
            layers.push((self.blob(bytes), kind, size));
        }
        let size = parts.config.len();
        let config = self.blob(parts.config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size },
            "layers": layers.iter().map(|(digest, kind, size)| json!({ "mediaType": kind, "digest": digest, "size": size })).collect::<Vec<_>>(),
        });
        (manifest, config, layers.into_iter().map(|(digest, ..)| digest).collect())
    }

    /// Has an index of images for these machines, all but the first made up.
    pub(crate) fn push_index(&self, name: &str, image: &ImageBuilder, packings: &[Packing]) -> Digest {
        let (repository, tag) = name.split_once(':').unwrap();
        let pushed = self.push(&format!("{repository}:of-{tag}"), image, packings);
        let size = self.state.lock().unwrap().manifests[&format!("{repository}/manifests/of-{tag}")].1.len();
        let own = skep_registry::Platform::own();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                { "mediaType": IMAGE, "digest": Digest::of(b"none"), "size": 4, "platform": { "os": "linux", "architecture": "s390x" } },
                { "mediaType": IMAGE, "digest": pushed.manifest, "size": size, "platform": { "os": own.os, "architecture": own.architecture } },
            ],
        });
        self.manifest(repository, tag, INDEX, index.to_string().as_bytes())
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) {
    let Some(seen) = read_request(&mut stream).await else { return };
    let reply = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        let hooked = state.hook.as_mut().and_then(|hook| hook(&seen));
        hooked.unwrap_or_else(|| usual(&state, &seen))
    };
    let head = seen.method == "HEAD";
    let _ = write_reply(&mut stream, reply, head).await;
    let _ = stream.shutdown().await;
}

/// How a greeting by TLS begins.
const TLS: u8 = 0x16;

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
        if bytes == [TLS] {
            return None;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { method, path, headers, body: String::from_utf8(body).ok()? })
}

fn usual(state: &State, seen: &Seen) -> Reply {
    let unknown = |code: &str| {
        let body = json!({ "errors": [{ "code": code, "message": code.to_lowercase().replace('_', " ") }] });
        Reply::status(404, &body.to_string())
    };
    if seen.path == "/v2/" {
        return Reply::ok("{}");
    }
    let Some(path) = seen.path.strip_prefix("/v2/") else { return Reply::status(404, "not here") };
    if let Some((_, digest)) = path.split_once("/blobs/") {
        let Some(blob) = state.blobs.get(digest) else { return unknown("BLOB_UNKNOWN") };
        let from: Option<usize> =
            seen.header("range").strip_prefix("bytes=").and_then(|range| range.trim_end_matches('-').parse().ok());
        return match from {
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                Reply::Answer {
                    status: 206,
                    headers: vec![("Content-Range".into(), range)],
                    body: blob[from..].to_vec(),
                }
            }
            None => Reply::ok(blob.clone()),
        };
    }
    match state.manifests.get(path) {
        None => unknown("MANIFEST_UNKNOWN"),
        Some((kind, bytes)) => {
            let digest = Digest::of(bytes).to_string();
            let headers = vec![("Content-Type".into(), kind.clone()), ("Docker-Content-Digest".into(), digest)];
            Reply::Answer { status: 200, headers, body: bytes.clone() }
        }
    }
}

async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), reply: Reply, head: bool) -> std::io::Result<()> {
    let begin = |status: u16, headers: &[(String, String)], length: usize| {
        let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text + "\r\n"
    };
    match reply {
        Reply::Answer { status, headers, body } => {
            stream.write_all(begin(status, &headers, body.len()).as_bytes()).await?;
            if !head {
                stream.write_all(&body).await?;
            }
        }
        Reply::Cut { headers, body, after } => {
            let status = if headers.iter().any(|(name, _)| name == "Content-Range") { 206 } else { 200 };
            stream.write_all(begin(status, &headers, body.len()).as_bytes()).await?;
            stream.write_all(&body[..after]).await?;
        }
        Reply::Stall { body, after } => {
            stream.write_all(begin(200, &[], body.len()).as_bytes()).await?;
            stream.write_all(&body[..after]).await?;
            stream.flush().await?;
            std::future::pending::<()>().await;
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 X\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 4096]).await?;
            }
        }
        Reply::Silent => std::future::pending().await,
    }
    stream.flush().await
}

/// A store in a directory of its own, and somebody who pulls into it.
pub(crate) struct Bench {
    pub(crate) images: Arc<Images>,
    pub(crate) puller: Puller,
    pub(crate) dir: tempfile::TempDir,
}

/// Short, so that tests of patience do not need any.
pub(crate) fn impatient() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        answer: Duration::from_millis(1500),
        stall: Duration::from_millis(1500),
        tries: 3,
        pause: Duration::from_millis(5),
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(&RegistryConfig { patience: impatient(), ..RegistryConfig::default() })
    }

    pub(crate) fn with(config: &RegistryConfig) -> Self {
        assert!(rustix_is_root(), "this test unpacks images: run it as root");
        let dir = tempfile::tempdir().unwrap();
        let images = Arc::new(Images::open(&dir.path().join("store")).unwrap());
        Self { puller: Puller::new(images.clone(), config), images, dir }
    }

    pub(crate) async fn pull(&self, reference: &ImageRef) -> Outcome {
        self.pull_as(reference, None).await
    }

    pub(crate) async fn pull_as(&self, reference: &ImageRef, auth: Option<RegistryAuth>) -> Outcome {
        let request = PullRequest { reference: reference.clone(), auth, platform: None };
        let pulling = self.puller.pull(request).outcome();
        tokio::time::timeout(Duration::from_secs(30), pulling).await.expect("a pull ends")
    }

    /// Everything in the store but the lock: path and size.
    pub(crate) fn contents(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        walk(&self.dir.path().join("store"), &mut found);
        found
    }

    /// A pull that goes wrong; what it says. Nothing of it may stay.
    pub(crate) async fn refused(&self, reference: &ImageRef) -> String {
        let before = self.contents();
        let error = self.pull(reference).await.expect_err("the pull should fail").to_string();
        for _ in 0..500 {
            if self.contents() == before {
                return error;
            }
            // It is deleted where that holds up nobody, and nobody says when.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("something is left of a pull that failed ({error}): {:?}", self.contents());
    }
}

fn rustix_is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn walk(dir: &Path, found: &mut BTreeMap<String, u64>) {
    // What is deleted meanwhile is not there.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            walk(&path, found);
        }
        if path.file_name().is_some_and(|name| name != "lock" && name != "tmp") {
            let size = if meta.is_file() { meta.len() } else { 0 };
            found.insert(path.display().to_string(), size);
        }
    }
}

/// A small image of three layers.
pub(crate) fn sample(top: &str) -> ImageBuilder {
    ImageBuilder::new("sample")
        .file("base", 0o644, vec![b'b'; 200_000])
        .next_layer()
        .file("middle", 0o644, noise(300_000))
        .next_layer()
        .file("top", 0o644, top)
        .cmd(["/top"])
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn password(username: &str, password: &str) -> RegistryAuth {
    RegistryAuth::Password { username: username.to_owned(), password: password.to_owned() }
}
