//! The image store from outside: what goes in by archives, what comes out as root file systems, and what stays after
//! damage, crashes and crowds.

mod images_kit;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use images_kit::{Bench, Raw, packed, saved};
use serde_json::json;
use skep_model::Protocol;
use skep_runtime::images::{Digest, ImageBuilder, ImageError, Images, InUse, LoadEvent, Removal, Removed};
use tar::EntryType;

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// No container is there.
fn unused(images: &Images) -> InUse {
    InUse::new(images.moment(), BTreeSet::new())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn built(builder: &ImageBuilder) -> Vec<u8> {
    let mut archive = Vec::new();
    builder.write(&mut archive).unwrap();
    archive
}

#[test]
fn an_image_made_on_the_spot_loads_and_runs() {
    let bench = Bench::new();
    let builder = ImageBuilder::new("web:1")
        .file("bin/busybox", 0o755, fs::read("/bin/busybox").unwrap())
        .symlink("bin/sh", "busybox")
        .dir("tmp", 0o1777)
        .next_layer()
        .file("srv/data", 0o600, "secret")
        .owned_by(1000, 1001)
        .entrypoint(["/bin/sh", "-c"])
        .cmd(["echo hi"])
        .env("A", "b c")
        .expose(80, Protocol::Tcp)
        .expose(53, Protocol::Udp)
        .user("1000:1001")
        .working_dir("/srv")
        .stop_signal("SIGQUIT")
        .volume("/data")
        .label("team", "blue");
    let mut archive = Vec::new();
    let id = builder.write(&mut archive).unwrap();
    assert_eq!(built(&builder), archive, "the same image is the same bytes");

    let mut lines = Vec::new();
    let loaded = bench.images.load(&archive[..], &mut |event| lines.push(event)).unwrap();
    assert_eq!(loaded[0].id, id);
    assert_eq!(lines.last().unwrap().to_string(), "Loaded image: web:1");
    let done = lines.iter().filter(|e| matches!(e, LoadEvent::Layer { done, total, .. } if done == total)).count();
    assert_eq!(done, 2, "{lines:?}");

    let image = bench.images.find("web:1").unwrap();
    assert_eq!((image.id, image.layers.len(), image.size), (id, 2, fs::metadata("/bin/busybox").unwrap().len() + 6));
    let config = &image.config;
    assert_eq!(
        (config.entrypoint.as_slice(), config.cmd[0].as_str()),
        (&["/bin/sh".into(), "-c".into()][..], "echo hi")
    );
    assert_eq!(
        (config.user.as_str(), config.working_dir.as_str(), config.env[1].as_str()),
        ("1000:1001", "/srv", "A=b c")
    );
    assert_eq!((config.stop_signal.as_deref(), config.os.as_str()), (Some("SIGQUIT"), "linux"));
    assert_eq!(config.exposed_ports.iter().map(|p| p.port.get()).collect::<Vec<_>>(), [53, 80]);
    assert!(config.volumes.contains("/data") && config.labels["team"] == "blue");

    let root = bench.mount("web:1");
    let owner = fs::metadata(root.join("srv/data")).unwrap();
    assert_eq!((owner.uid(), owner.gid(), owner.mode() & 0o7777), (1000, 1001, 0o600));
    let out = std::process::Command::new("chroot").arg(&root).args(["/bin/sh", "-c", "echo hi"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "hi\n");
}

#[test]
fn what_containers_write_stays_out_of_the_image() {
    let bench = Bench::new();
    bench.load(&built(&ImageBuilder::new("a").dir("d", 0o755).file("d/f", 0o644, "of the image"))[..]).unwrap();
    let (one, two) = (bench.mount("a"), bench.mount("a"));
    fs::write(one.join("d/f"), "of one").unwrap();
    assert_eq!((text(one.join("d/f")), text(two.join("d/f"))), ("of one".into(), "of the image".into()));

    // Mounting again is the same mount; unmounting twice is fine; what was written is still there afterwards.
    let (id, at) = (bench.images.find("a").unwrap().id, bench.path("c0"));
    assert_eq!(bench.images.mount(&id, &at).unwrap(), one);
    bench.images.unmount(&at).unwrap();
    assert!(!one.join("d").exists());
    bench.images.unmount(&at).unwrap();
    bench.images.mount(&id, &at).unwrap();
    assert_eq!(text(one.join("d/f")), "of one");
    assert!(bench.images.unmount(&bench.path("never")).is_ok());
}

#[test]
fn layers_apply_to_the_layers_below_them() {
    let bench = Bench::new();
    let lower = Raw::new()
        .mode(0o4750)
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .owner(1000, 1000)
        .dir("data")
        .file("data/tool", "tool")
        .file("data/gone", "x")
        .dir("opaque")
        .file("opaque/old", "x")
        .dir("opaque/sub")
        .file("opaque/sub/old", "x")
        .dir("replaced")
        .file("replaced/inner", "x")
        .file("hidden", "old")
        .finish();
    let upper = Raw::new()
        .file("data/new", "new")
        .hard("data/link", "data/tool")
        .file("data/.wh.gone", "")
        .file("lib/so", "so")
        .file("opaque/sub/new", "y")
        .file("opaque/new", "y")
        // Whiteouts reach only what lower layers have, wherever they stand.
        .file("opaque/.wh..wh..opq", "")
        .file("hidden", "new")
        .file(".wh.hidden", "")
        .file("replaced", "a file now")
        .file(".wh..wh.plnk", "")
        .finish();
    bench.load(&saved("tricky", &[lower, upper])[..]).unwrap();
    let root = bench.mount("tricky");
    let data = fs::metadata(root.join("data")).unwrap();
    assert_eq!((data.uid(), data.mode() & 0o7777), (1000, 0o755), "a parent keeps its owner and mode");
    let link = fs::metadata(root.join("data/link")).unwrap();
    assert_eq!((link.uid(), link.mode() & 0o7777, text(root.join("data/link"))), (1000, 0o4750, "tool".into()));
    assert_eq!(link.mtime(), 1_000_000_000);
    assert!(!root.join("data/gone").exists() && root.join("data/new").exists());
    assert_eq!(text(root.join("usr/lib/so")), "so");
    let names = |dir: &str| {
        let names = fs::read_dir(root.join(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(names("opaque"), ["new", "sub"]);
    assert_eq!(names("opaque/sub"), ["new"]);
    assert_eq!((text(root.join("hidden")), text(root.join("replaced"))), ("new".into(), "a file now".into()));
    assert!(!names("").iter().any(|name| name.starts_with(".wh.")));
}

#[test]
fn the_root_directory_keeps_its_owner_and_mode_through_layers() {
    let bench = Bench::new();
    let lower = Raw::new().mode(0o711).owner(7, 8).entry(EntryType::Directory, "./", "", b"").finish();
    bench.load(&saved("a", &[lower, Raw::new().file("f", "x").finish()])[..]).unwrap();
    let root = fs::metadata(bench.mount("a")).unwrap();
    assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (7, 8, 0o711));
}

#[test]
fn many_layers_and_none_at_all_can_be_mounted() {
    let bench = Bench::new();
    let layers: Vec<Vec<u8>> = (0..120).map(|n| Raw::new().file(&format!("f{n}"), "x").finish()).collect();
    bench.load(&saved("many", &layers)[..]).unwrap();
    assert_eq!(fs::read_dir(bench.mount("many")).unwrap().count(), 120);
    bench.load(&saved("none", &[])[..]).unwrap();
    assert_eq!(fs::read_dir(bench.mount("none")).unwrap().count(), 0);
}

#[test]
fn compressed_layers_and_archives_are_the_same_image() {
    let bench = Bench::new();
    let layer = Raw::new().file("f", &"content ".repeat(1000)).finish();
    let layers = std::slice::from_ref(&layer);
    let plain = saved("a", layers);
    let zipped = packed("a", layers, &[gzip(&layer)]);
    let zstd = packed("a", layers, &[zstd::encode_all(&layer[..], 3).unwrap()]);
    let variants = [plain.clone(), gzip(&plain), zstd::encode_all(&plain[..], 3).unwrap(), zipped, zstd];
    let ids: BTreeSet<_> = variants
        .iter()
        .map(|archive| {
            let bench = Bench::new();
            let id = bench.load(&archive[..]).unwrap()[0].id;
            assert_eq!(text(bench.mount("a").join("f")).len(), 8000);
            bench.load(&archive[..]).unwrap();
            id
        })
        .collect();
    assert_eq!(ids.len(), 1);
    bench.load(&plain[..]).unwrap();
    let before = bench.contents();
    let mut unpacked = 0;
    bench
        .images
        .load(&variants[4][..], &mut |e| unpacked += usize::from(matches!(e, LoadEvent::Layer { .. })))
        .unwrap();
    assert_eq!(unpacked, 0, "a layer that is there is not unpacked again");
    let same: Vec<_> = bench.contents().into_keys().collect();
    assert_eq!(same, before.into_keys().collect::<Vec<_>>());
}

#[test]
fn damaged_archives_are_named_for_what_is_wrong_and_leave_nothing() {
    let bench = Bench::new();
    bench.load(&saved("kept", &[Raw::new().file("f", "kept").finish()])[..]).unwrap();
    let before = bench.contents();
    let layer = Raw::new().file("f", "content").finish();
    let good = saved("a", std::slice::from_ref(&layer));
    let mut flipped = layer.clone();
    flipped[512] ^= 1;
    let mut bad_zip = gzip(&layer);
    let middle = bad_zip.len() / 2;
    bad_zip[middle] ^= 0xff;
    let one = std::slice::from_ref(&layer);
    let file = |name: &str, data: &str| Raw::new().file(name, data).finish();
    let config = |text: &str| {
        let manifest = json!([{ "Config": "c.json", "RepoTags": null, "Layers": [] }]).to_string();
        Raw::new().file("c.json", text).file("manifest.json", &manifest).finish()
    };
    let lacking = json!([{ "Config": "c.json", "Layers": ["l.tar"] }]).to_string();
    let named = json!([{ "Config": format!("{}.json", "0".repeat(64)), "Layers": [] }]).to_string();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "neither manifest.json"),
        (b"hello, I am no archive".repeat(100), "not a tar archive"),
        (gzip(b"hello"), "not a tar archive"),
        (good[..700].to_vec(), "cut off after 1 entries"),
        (gzip(&good)[..200].to_vec(), "cut off"),
        (file("x", "y"), "neither manifest.json"),
        (file("repositories", "{}"), "before 1.10"),
        (file("manifest.json", "{"), "manifest.json of the archive cannot be understood"),
        (file("manifest.json", "[]"), "names no image"),
        (file("manifest.json", &lacking), "lacks config c.json"),
        (Raw::new().file("manifest.json", &lacking).file("c.json", "{}").finish(), "lacks layer l.tar"),
        (
            Raw::new().file("manifest.json", &named).file(&format!("{}.json", "0".repeat(64)), "{}").finish(),
            "differs from its digest",
        ),
        (config("not json"), "config c.json is unreadable"),
        (config(r#"{"rootfs":{"diff_ids":["sha256:1"]}}"#), "is not a digest"),
        (
            config(&json!({"rootfs": {"diff_ids": [Digest::of(b"")]}}).to_string()),
            "it lists 1 layers, the archive has 0",
        ),
        (saved("WRONG NAME", one), "invalid reference format"),
        (packed("a", one, &[flipped.clone()]), "differs from its digest: expected"),
        (packed("a", one, &[gzip(&flipped)]), "differs from its digest: expected"),
        (packed("a", one, &[bad_zip]), "damaged"),
        (saved("a", &[Raw::new().file("f", "0").cut(), b"nonsense".repeat(100)]), "damaged"),
        (saved("a", &[Raw::new().file("f", "0123456789").cut()[..600].to_vec()]), "f"),
    ];
    for (number, (archive, reason)) in cases.iter().enumerate() {
        let error = bench.load(&archive[..]).err().unwrap_or_else(|| panic!("case {number} ({reason}) was loaded"));
        assert!(error.to_string().contains(reason), "case {number}: {error}");
        assert_eq!(bench.contents(), before, "case {number}");
    }
    assert_eq!(fs::read_dir(bench.path("store/tmp")).unwrap().count(), 0);
}

#[test]
fn one_bad_image_keeps_the_whole_archive_out() {
    let bench = Bench::new();
    let before = bench.contents();
    let layer = Raw::new().file("f", "x").finish();
    let config = json!({"rootfs": {"diff_ids": [Digest::of(&layer)]}}).to_string();
    let wrong = json!({"rootfs": {"diff_ids": [Digest::of(b"other")]}}).to_string();
    let manifest = json!([
        { "Config": "a.json", "RepoTags": ["a:1"], "Layers": ["l.tar"] },
        { "Config": "b.json", "RepoTags": ["b:1"], "Layers": ["l.tar"] },
    ]);
    let raw = Raw::new().entry(EntryType::Regular, "l.tar", "", &layer).file("a.json", &config).file("b.json", &wrong);
    let error = bench.load(&raw.file("manifest.json", &manifest.to_string()).finish()[..]).unwrap_err();
    assert!(matches!(error, ImageError::DigestDiffers { .. }), "{error}");
    assert_eq!(bench.contents(), before);
    assert!(bench.images.list().is_empty());
}

#[test]
fn links_of_old_archives_are_followed() {
    let bench = Bench::new();
    let layer = Raw::new().file("f", "x").finish();
    let config = json!({"rootfs": {"diff_ids": [Digest::of(&layer), Digest::of(&layer)]}}).to_string();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["old:1"], "Layers": ["a/layer.tar", "./b/layer.tar"] }]);
    let archive = Raw::new()
        .dir("a")
        .entry(EntryType::Regular, "a/layer.tar", "", &layer)
        .symlink("b/layer.tar", "../a/layer.tar")
        .symlink("loop", "loop")
        .file("c.json", &config)
        .file("./manifest.json", &manifest.to_string());
    bench.load(&archive.finish()[..]).unwrap();
    assert_eq!(bench.images.find("old:1").unwrap().layers.len(), 2);
    assert_eq!(text(bench.mount("old:1").join("f")), "x");
}

#[test]
fn a_name_moves_to_the_newer_image_and_removal_frees_what_nobody_needs() {
    let bench = Bench::new();
    let empty = bench.contents();
    let shared = Raw::new().file("shared", "x").finish();
    let layered = |top: &str| saved("web:1", &[shared.clone(), Raw::new().file("top", top).finish()]);
    let one = bench.load(&layered("1")[..]).unwrap()[0].id;
    let mut events = Vec::new();
    let two = bench.images.load(&layered("2")[..], &mut |e| events.push(e.to_string())).unwrap()[0].id;
    let moved = format!("The image web:1 already exists, renaming the old one with ID {one} to empty string");
    assert!(events.contains(&moved), "{events:?}");
    assert_eq!(bench.images.find("web:1").unwrap().id, two);
    assert!(bench.images.find(&one.hex()).unwrap().refs.is_empty());

    let used = BTreeSet::from([one]);
    assert!(matches!(
        bench.images.remove(&one.short(), Removal::Forced, &InUse::new(bench.images.moment(), used.clone())),
        Err(ImageError::InUse(_))
    ));
    bench.images.tag(&two, &"web:2".parse().unwrap()).unwrap();
    let removed =
        bench.images.remove("web:1", Removal::Careful, &InUse::new(bench.images.moment(), used.clone())).unwrap();
    assert_eq!(removed, [Removed::Untagged("web:1".parse().unwrap())]);
    bench.images.remove("web:2", Removal::Careful, &InUse::new(bench.images.moment(), used.clone())).unwrap();
    let root = bench.mount(&one.hex());
    assert_eq!((text(root.join("shared")), text(root.join("top"))), ("x".into(), "1".into()));
    bench.images.unmount(&bench.path("c0")).unwrap();
    bench.images.remove(&one.hex(), Removal::Careful, &unused(&bench.images)).unwrap();
    let left: Vec<_> = bench.contents().into_keys().filter(|path| !path.ends_with("index.json")).collect();
    assert_eq!(left, empty.into_keys().collect::<Vec<_>>());
}

#[test]
fn the_store_survives_being_closed_and_cleans_up_after_a_crash() {
    let bench = Bench::new();
    let store = bench.path("store");
    let id = bench.load(&saved("web:1", &[Raw::new().file("f", "x").finish()])[..]).unwrap()[0].id;
    assert!(matches!(Images::open(&store), Err(ImageError::Locked(_))));
    let Bench { images, dir, .. } = &bench;
    let list = images.list();
    // What a load leaves behind that is killed: files aside, an unpack mount, a layer that nothing names, a half-written index.
    let aside = store.join("tmp/7");
    fs::create_dir_all(aside.join("merged")).unwrap();
    fs::write(aside.join("archive"), "half").unwrap();
    fs::write(store.join("tmp/file-0"), "{").unwrap();
    rustix::mount::mount("tmpfs", aside.join("merged"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    fs::create_dir_all(store.join("layers").join("0".repeat(64)).join("diff")).unwrap();
    fs::write(store.join("blobs/sha256").join("1".repeat(64)), "x").unwrap();

    let copy = dir.path().join("copy");
    // The lock is held by this very process, so the crash is played on a renamed store.
    fs::rename(&store, &copy).unwrap();
    fs::remove_file(copy.join("lock")).unwrap();
    let reopened = Images::open(&copy).unwrap();
    assert_eq!(reopened.list(), list);
    assert_eq!(fs::read_dir(copy.join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(copy.join("layers")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(copy.join("blobs/sha256")).unwrap().count(), 1);
    let at = dir.path().join("after");
    assert_eq!(text(reopened.mount(&id, &at).unwrap().join("f")), "x");
    reopened.unmount(&at).unwrap();
    drop(reopened);

    // An image whose config was damaged is lost; the store is not.
    fs::write(copy.join("blobs/sha256").join(id.hex()), "{}").unwrap();
    assert!(Images::open(&copy).unwrap().list().is_empty());
    fs::write(copy.join("index.json"), "{").unwrap();
    assert!(matches!(Images::open(&copy), Err(ImageError::BadIndex { .. })));
}

#[test]
fn many_may_load_remove_and_mount_at_once() {
    let bench = Bench::new();
    let base: Vec<Vec<u8>> = (0..3).map(|n| Raw::new().file(&format!("base{n}"), "x").finish()).collect();
    let archive = |n: usize| {
        let layers = [&base[..], &[Raw::new().file("top", &n.to_string()).finish()]].concat();
        saved(&format!("app:{n}"), &layers)
    };
    let images = &bench.images;
    std::thread::scope(|threads| {
        for n in 0..6 {
            let (archive, at) = (archive(n), bench.path(&format!("at{n}")));
            threads.spawn(move || {
                for _ in 0..5 {
                    let id = images.load(&archive[..], &mut |_| {}).unwrap()[0].id;
                    let root = images.mount(&id, &at).unwrap();
                    assert_eq!((text(root.join("base2")), text(root.join("top"))), ("x".into(), n.to_string()));
                    images.unmount(&at).unwrap();
                    images.remove(&format!("app:{n}"), Removal::Careful, &unused(images)).unwrap();
                }
            });
        }
    });
    assert!(images.list().is_empty());
    assert_eq!(fs::read_dir(bench.path("store/layers")).unwrap().count(), 0);
}
