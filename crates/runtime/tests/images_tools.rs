//! Archives as other tools make them, and the image of a real nginx. Needs skopeo and umoci, and Debian's archive for nginx.

mod images_kit;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use images_kit::{Bench, Raw};
use serde_json::{Value, json};
use skep_runtime::images::{Digest, ImageBuilder, ImageError, LoadEvent};
use tar::EntryType;

fn run(program: &str, args: &[&str]) -> Output {
    let out = Command::new(program).args(args).output();
    let out = out.unwrap_or_else(|e| panic!("this test needs {program} (apt-get install skopeo umoci): {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn sample(at: &Path) {
    let builder = ImageBuilder::new("team/web:1").file("etc/motd", 0o644, "hello").next_layer().file("b", 0o600, "b");
    builder.write(&mut fs::File::create(at).unwrap()).unwrap();
}

#[test]
fn archives_made_by_skopeo_are_the_same_image_and_share_its_layers() {
    let bench = Bench::new();
    let (saved, docker, oci) = (bench.path("saved.tar"), bench.path("docker.tar"), bench.path("oci.tar"));
    sample(&saved);
    let from = format!("docker-archive:{}", str(&saved));
    run("skopeo", &["copy", "--insecure-policy", &from, &format!("docker-archive:{}:team/web:2", str(&docker))]);
    run("skopeo", &["copy", "--insecure-policy", &from, &format!("oci-archive:{}:team/web:3", str(&oci))]);
    let mut unpacked = 0;
    for (archive, line) in [(&saved, "team/web:1"), (&docker, "team/web:2"), (&oci, "team/web:3")] {
        let mut lines = Vec::new();
        let loaded = bench.images.load(fs::File::open(archive).unwrap(), &mut |event| match event {
            LoadEvent::Layer { done, total, .. } => unpacked += usize::from(done == total),
            other => lines.push(other.to_string()),
        });
        assert_eq!(loaded.unwrap().len(), 1);
        assert_eq!(lines, [format!("Loaded image: {line}")]);
        assert_eq!(fs::read_to_string(bench.mount(line).join("etc/motd")).unwrap(), "hello");
    }
    assert_eq!(unpacked, 2, "layers that are there are not unpacked again");
    let image = bench.images.find("team/web:3").unwrap();
    let manifest = image.manifest.expect("an OCI archive has a manifest with a digest");
    assert_eq!(bench.images.find(&format!("team/web@{manifest}")).unwrap().id, image.id);
}

#[test]
fn a_layout_made_by_umoci_loads_without_a_name() {
    let bench = Bench::new();
    let (layout, bundle, tar) = (bench.path("layout"), bench.path("bundle"), bench.path("layout.tar"));
    let image = format!("{}:latest", str(&layout));
    run("umoci", &["init", "--layout", str(&layout)]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["unpack", "--image", &image, str(&bundle)]);
    fs::create_dir(bundle.join("rootfs/data")).unwrap();
    fs::write(bundle.join("rootfs/data/one"), "1").unwrap();
    std::os::unix::fs::chown(bundle.join("rootfs/data"), Some(1000), Some(1000)).unwrap();
    run("umoci", &["repack", "--refresh-bundle", "--image", &image, str(&bundle)]);
    // The second layer has data/two without its directory.
    fs::write(bundle.join("rootfs/data/two"), "2").unwrap();
    run("umoci", &["repack", "--image", &image, str(&bundle)]);
    run("umoci", &["config", "--image", &image, "--config.cmd", "/bin/true", "--config.exposedports", "80/tcp"]);
    run("tar", &["-C", str(&layout), "-cf", str(&tar), "."]);

    let loaded = bench.load(fs::File::open(&tar).unwrap()).unwrap();
    let id = loaded[0].id;
    assert_eq!(loaded[0].to_string(), format!("Loaded image ID: {id}"));
    bench.images.tag(&id, &"mine".parse().unwrap()).unwrap();
    assert_eq!(bench.images.find("mine:latest").unwrap().config.cmd, ["/bin/true"]);
    let root = bench.mount("mine");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(root.join("data")).unwrap());
    assert_eq!((owner, fs::read_to_string(root.join("data/two")).unwrap().as_str()), (1000, "2"));
}

/// An OCI layout with these blobs, and an index over `manifests`.
fn layout(blobs: &[Vec<u8>], manifests: &Value) -> Vec<u8> {
    let mut raw = Raw::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    for blob in blobs {
        raw = raw.entry(EntryType::Regular, &format!("blobs/sha256/{}", Digest::of(blob).hex()), "", blob);
    }
    raw.file("index.json", &json!({ "schemaVersion": 2, "manifests": manifests }).to_string()).finish()
}

fn descriptor(blob: &[u8], kind: &str, platform: Option<(&str, &str)>) -> Value {
    let mut value = json!({
        "mediaType": format!("application/vnd.oci.image.{kind}.v1+json"),
        "digest": Digest::of(blob), "size": blob.len(),
    });
    if let Some((os, architecture)) = platform {
        value["platform"] = json!({ "os": os, "architecture": architecture });
    }
    value
}

/// Config, layer and manifest of an image that says what it is for.
fn image(word: &str) -> [Vec<u8>; 3] {
    let layer = Raw::new().file("word", word).finish();
    let config = json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "config": descriptor(&config, "config", None),
        "layers": [descriptor(&layer, "layer", None)],
    });
    let manifest = manifest.to_string().into_bytes();
    [config, layer, manifest]
}

const HERE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
const ELSEWHERE: &str = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };

#[test]
fn of_a_nested_index_the_image_for_this_machine_is_taken() {
    let bench = Bench::new();
    let (ours, theirs) = (image("ours"), image("theirs"));
    let index = json!({ "schemaVersion": 2, "manifests": [
        descriptor(&theirs[2], "manifest", Some(("linux", ELSEWHERE))),
        descriptor(&theirs[2], "manifest", Some(("unknown", "unknown"))),
        descriptor(&ours[2], "manifest", Some(("linux", HERE))),
    ] });
    let index = index.to_string().into_bytes();
    let mut top = descriptor(&index, "index", None);
    top["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/multi:1" });
    // Of the other platform there is the manifest only, as in archives of one platform out of many.
    let blobs = [&ours[..], &theirs[2..], std::slice::from_ref(&index)].concat();
    let loaded = bench.load(&layout(&blobs, &json!([top]))[..]).unwrap();
    assert_eq!(loaded[0].to_string(), "Loaded image: multi:1");
    assert_eq!(fs::read_to_string(bench.mount("multi:1").join("word")).unwrap(), "ours");
    assert!(bench.images.find(&format!("multi@{}", Digest::of(&index))).is_ok());
}

#[test]
fn what_is_wrong_with_a_layout_is_named() {
    let bench = Bench::new();
    let before = bench.contents();
    let good = image("x");
    let foreign = json!([descriptor(&good[2], "manifest", Some(("linux", ELSEWHERE)))]);
    let plain = json!([descriptor(&good[2], "manifest", None)]);
    let error = bench.load(&layout(&good, &foreign)[..]).unwrap_err();
    assert!(matches!(error, ImageError::NoPlatform { .. }), "{error}");
    assert!(error.to_string().contains(&format!("linux/{HERE}; it has linux/{ELSEWHERE}")), "{error}");
    let error = bench.load(&layout(&good[..2], &plain)[..]).unwrap_err().to_string();
    assert!(error.contains("lacks manifest blobs/sha256/"), "{error}");
    let error = bench.load(&layout(&good[1..], &plain)[..]).unwrap_err().to_string();
    assert!(error.contains("lacks config blobs/sha256/"), "{error}");
    let error = bench.load(&layout(&[good[0].clone(), good[2].clone()], &plain)[..]).unwrap_err().to_string();
    assert!(error.contains("lacks layer blobs/sha256/"), "{error}");
    let mut wrong = layout(&good, &plain);
    let word = wrong.windows(4).position(|w| w == b"word").unwrap();
    wrong[word + 512] = b'y';
    let error = bench.load(&wrong[..]).unwrap_err().to_string();
    assert!(error.contains("layer blobs/sha256/") && error.contains("differs from its digest"), "{error}");
    let odd = json!([{ "mediaType": "x", "digest": "sha512:00", "size": 1 }]);
    assert!(bench.load(&layout(&good, &odd)[..]).unwrap_err().to_string().contains("is not a digest"));
    assert_eq!(bench.contents(), before);
}

#[test]
fn a_real_nginx_made_of_debians_packages_loads_and_starts() {
    let bench = Bench::new();
    let archive = bench.path("nginx.tar");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/make-nginx-image.sh");
    run(script, &[str(&archive)]);
    bench.load(fs::File::open(&archive).unwrap()).unwrap();
    let image = bench.images.find("nginx").unwrap();
    assert_eq!(image.config.exposed_ports.iter().map(|p| p.port.get()).collect::<Vec<_>>(), [80]);
    let root = bench.mount("nginx");
    let version = run("chroot", &[str(&root), "nginx", "-v"]);
    assert!(String::from_utf8_lossy(&version.stderr).starts_with("nginx version: nginx/1."), "{version:?}");
    fs::write(root.join("dev/stdout"), "").unwrap();
    fs::write(root.join("dev/stderr"), "").unwrap();
    let test = run("chroot", &[str(&root), "nginx", "-t"]);
    assert!(String::from_utf8_lossy(&test.stderr).contains("test is successful"), "{test:?}");
}
