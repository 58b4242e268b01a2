//! What registries and archives say images are, and what is in them.

use std::fs;

use serde_json::json;
use skep_runtime::images::{ImageBuilder, Images, Limits};
use tempfile::TempDir;

/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;

pub(super) fn manifest(bytes: &[u8]) {
    skep_registry::fuzz::document(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        skep_registry::fuzz::challenge(text);
    }
}

pub(super) fn manifests() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let of =
        |kind: &str| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": 100});
    let image = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": of("config.v1+json"),
        "layers": [of("layer.v1.tar+gzip"), of("layer.v1.tar+zstd")],
    });
    let mut entry = of("manifest.v1+json");
    entry["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
    let challenge = "Bearer realm=\"https://auth.example/token\",service=\"reg\",scope=\"repository:a/b:pull\"";
    vec![image.to_string().into(), index.to_string().into(), challenge.into()]
}

pub(super) fn config(bytes: &[u8]) {
    skep_runtime::images::fuzz::config(bytes);
}

pub(super) fn configs() -> Vec<Vec<u8>> {
    let builder =
        ImageBuilder::new("a:1").cmd(["true"]).env("A", "b").expose(80, skep_model::Protocol::Tcp).volume("/v");
    let built = builder.user("1:1").working_dir("/w").stop_signal("SIGQUIT").label("k", "v").parts().expect("parts");
    let health = json!({"rootfs": {"type": "layers", "diff_ids": []}, "config": {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000}}});
    vec![built.config, health.to_string().into()]
}

/// Whatever an archive says, nothing but the folder that it is unpacked into is touched.
pub(super) fn layer(bytes: &[u8]) {
    let outside = TempDir::new_in(scratch()).expect("a folder");
    let root = outside.path().join("root");
    fs::create_dir(&root).expect("a folder");
    fs::write(outside.path().join("beside"), "untouched").expect("a file");
    skep_runtime::images::fuzz::unpack(&with_checksums(bytes), &root, &limits());
    let mut names: Vec<_> = fs::read_dir(outside.path()).expect("there").flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["beside", "root"], "something was written beside the folder");
    assert_eq!(fs::read(outside.path().join("beside")).expect("there"), b"untouched");
}

pub(super) fn layers() -> Vec<Vec<u8>> {
    let mut odd = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, target: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        // Paths that the builder refuses are what is wanted.
        let head = header.as_mut_bytes();
        head[..path.len()].copy_from_slice(path.as_bytes());
        head[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        odd.append(&header, content).expect("memory");
    };
    add(tar::EntryType::Directory, "d/", "", b"");
    add(tar::EntryType::Symlink, "d/up", "../..", b"");
    add(tar::EntryType::Regular, "d/up/beside", "", b"harm");
    add(tar::EntryType::Regular, "../beside", "", b"harm");
    add(tar::EntryType::Link, "hard", "../beside", b"");
    add(tar::EntryType::Symlink, "abs", "/", b"");
    add(tar::EntryType::Regular, "abs/f", "", b"x");
    add(tar::EntryType::Regular, "d/.wh..wh..opq", "", b"");
    add(tar::EntryType::Regular, ".wh.d", "", b"");
    let plain = ImageBuilder::new("a:1").dir("etc", 0o755).file("etc/motd", 0o644, "hello").symlink("m", "etc/motd");
    let mut seeds = vec![odd.into_inner().expect("memory")];
    seeds.extend(plain.parts().expect("parts").layers);
    seeds
}

/// Makes headers valid again that were spoiled: else nothing would get past their checksums.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// A whole `docker save`.
pub(super) fn archive(bytes: &[u8]) {
    let dir = TempDir::new_in(scratch()).expect("a folder");
    let images = Images::open_with(dir.path(), limits()).expect("a store");
    let images = std::sync::Arc::new(images);
    if images.load(&with_checksums(bytes)[..], &mut |_| {}).is_ok() {
        images.list().iter().for_each(|image| assert!(images.find(&image.id.to_string()).is_ok()));
    }
}

pub(super) fn archives() -> Vec<Vec<u8>> {
    let mut archive = Vec::new();
    ImageBuilder::new("a:1")
        .file("f", 0o644, "x")
        .next_layer()
        .file("g", 0o644, "y")
        .write(&mut archive)
        .expect("memory");
    vec![archive]
}

fn limits() -> Limits {
    Limits { bytes: 1 << 20, entries: 1000, text: 64 << 10 }
}

/// Memory where there is some to write files to: each of them is synced.
fn scratch() -> &'static str {
    if fs::exists("/dev/shm").unwrap_or_default() { "/dev/shm" } else { "/tmp" }
}
