//! Layers made to break out of the image, one test for each trick. Every trick is tried in the lowest layer, which is
//! unpacked into a plain directory, and in a layer on top, which is unpacked through an overlay mount.

mod images_kit;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use images_kit::{Bench, Raw, saved};
use skep_runtime::images::{ImageError, Limits};
use tar::EntryType;

fn base() -> Vec<u8> {
    Raw::new().dir("etc").file("etc/shadow", "of the image").dir("tmp").finish()
}

/// The layer is refused with a reason that has `reason` in it, and nothing of it stays.
fn refused(reason: &str, layer: impl Fn(&Bench) -> Vec<u8>) {
    for below in [vec![], vec![base()]] {
        let bench = Bench::new();
        let before = bench.contents();
        let layers = [below, vec![layer(&bench)]].concat();
        let error = bench.load(&saved("evil", &layers)[..]).unwrap_err();
        assert!(matches!(error, ImageError::BadEntry { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        bench.assert_canary();
        assert_eq!(bench.contents(), before);
        assert!(bench.images.list().is_empty());
    }
}

/// The layer is unpacked within the image, and `check` looks at the mounted root file system.
fn contained(layer: impl Fn(&Bench) -> Vec<u8>, check: impl Fn(&Path)) {
    for below in [vec![], vec![base()]] {
        let bench = Bench::new();
        let layers = [below, vec![layer(&bench)]].concat();
        bench.load(&saved("evil", &layers)[..]).unwrap();
        bench.assert_canary();
        check(&bench.mount("evil"));
        bench.assert_canary();
    }
}

fn canary(bench: &Bench) -> String {
    bench.path("canary").to_str().unwrap().to_owned()
}

#[test]
fn dots_in_a_path_are_refused() {
    refused(".. in it", |_| Raw::new().file("../../canary/file", "overwritten").finish());
    refused(".. in it", |_| Raw::new().file("tmp/../../x", "overwritten").finish());
    refused(".. in it", |_| Raw::new().dir("tmp/..").finish());
}

#[test]
fn an_absolute_path_is_within_the_image() {
    contained(
        |bench| Raw::new().file(&format!("{}/file", canary(bench)), "overwritten").file("/abs", "x").finish(),
        |root| assert_eq!(fs::read_to_string(root.join("abs")).unwrap(), "x"),
    );
}

#[test]
fn writing_through_a_symbolic_link_stays_within_the_image() {
    // The link's target does not exist in the image: nothing is made outside, and the layer is refused.
    refused("symbolic link to nothing", |bench| {
        Raw::new().symlink("out", &canary(bench)).file("out/file", "overwritten").finish()
    });
    refused("symbolic link to nothing", |_| {
        Raw::new().symlink("out", "../../../canary").file("out/file", "overwritten").finish()
    });
    // It does exist in the image: the file is made there.
    contained(
        |bench| {
            let canary = canary(bench);
            Raw::new().dir(&canary).symlink("out", &canary).file("out/file", "inside").finish()
        },
        |root| assert!(fs::symlink_metadata(root.join("out")).unwrap().is_symlink()),
    );
}

#[test]
fn a_file_replaces_a_symbolic_link_instead_of_following_it() {
    contained(
        |bench| {
            let file = format!("{}/file", canary(bench));
            Raw::new().symlink("x", &file).file("x", "a file").finish()
        },
        |root| {
            assert!(fs::symlink_metadata(root.join("x")).unwrap().is_file());
            assert_eq!(fs::read_to_string(root.join("x")).unwrap(), "a file");
        },
    );
}

#[test]
fn a_directory_replaces_a_symbolic_link_instead_of_following_it() {
    contained(
        |bench| Raw::new().symlink("d", &canary(bench)).mode(0o700).dir("d").file("d/file", "inside").finish(),
        |root| {
            assert!(fs::symlink_metadata(root.join("d")).unwrap().is_dir());
            assert_eq!(fs::read_to_string(root.join("d/file")).unwrap(), "inside");
        },
    );
}

#[test]
fn a_directory_swapped_for_a_link_does_not_lead_out() {
    refused("symbolic link to nothing", |bench| {
        Raw::new().dir("d").file("d/a", "1").symlink("d", &canary(bench)).file("d/file", "overwritten").finish()
    });
}

#[test]
fn hard_links_to_files_outside_find_nothing() {
    let missing = "does not exist";
    refused(missing, |bench| Raw::new().hard("x", &format!("{}/file", canary(bench))).finish());
    refused(".. in it", |_| Raw::new().hard("x", "../../canary/file").finish());
    refused(missing, |bench| Raw::new().symlink("out", &canary(bench)).hard("x", "out/file").finish());
    refused("hard link to a directory", |_| Raw::new().dir("d").hard("x", "d").finish());
    refused("hard link to the root", |_| Raw::new().hard("x", "./").finish());
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_the_link_itself() {
    contained(
        |bench| {
            let file = format!("{}/file", canary(bench));
            Raw::new().symlink("l", &file).hard("x", "l").file("x", "a file").finish()
        },
        |root| {
            assert!(fs::symlink_metadata(root.join("l")).unwrap().is_symlink());
            assert_eq!(fs::read_to_string(root.join("x")).unwrap(), "a file");
        },
    );
}

#[test]
fn a_hard_link_to_itself_keeps_the_file() {
    contained(
        |_| Raw::new().file("x", "kept").hard("./x", "x").finish(),
        |root| assert_eq!(fs::read_to_string(root.join("x")).unwrap(), "kept"),
    );
}

#[test]
fn whiteouts_delete_only_within_the_image() {
    refused("whiteout of nothing", |_| Raw::new().file("tmp/.wh...", "").finish());
    refused("whiteout of nothing", |_| Raw::new().file("tmp/.wh..", "").finish());
    refused("whiteout of nothing", |_| Raw::new().file(".wh.", "").finish());
    contained(
        |bench| {
            let canary = canary(bench);
            let out = Raw::new().symlink("out", &canary).symlink("up", "../../canary");
            out.file("out/.wh.file", "").file("up/.wh..wh..opq", "").finish()
        },
        |root| assert!(fs::symlink_metadata(root.join("out")).unwrap().is_symlink()),
    );
}

#[test]
fn a_device_that_means_whiteout_is_refused() {
    refused("0:0", |_| Raw::new().entry(EntryType::Char, "etc", "0:0", b"").finish());
}

#[test]
fn other_devices_and_pipes_are_made_as_they_are() {
    contained(
        |_| {
            let raw = Raw::new().mode(0o640).owner(1, 2);
            raw.entry(EntryType::Char, "null", "1:3", b"").entry(EntryType::Fifo, "pipe", "", b"").finish()
        },
        |root| {
            let (null, pipe) = (fs::metadata(root.join("null")).unwrap(), fs::metadata(root.join("pipe")).unwrap());
            assert!(null.file_type().is_char_device() && pipe.file_type().is_fifo());
            assert_eq!((null.rdev(), null.mode() & 0o7777, null.uid(), null.gid()), (0x103, 0o640, 1, 2));
            assert_eq!(pipe.mode() & 0o7777, 0o640);
        },
    );
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let n = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}

#[test]
fn only_harmless_attributes_are_taken() {
    contained(
        |_| {
            let names = ["trusted.overlay.opaque", "trusted.x", "security.selinux", "user.overlay.redirect", "user.ok"];
            let keys: Vec<String> = names.iter().map(|name| format!("SCHILY.xattr.{name}")).collect();
            let records: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "y")).collect();
            Raw::new().pax(&records).dir("etc").pax(&records).file("f", "x").finish()
        },
        |root| {
            for path in [root.join("etc"), root.join("f")] {
                assert_eq!(attribute(&path, "user.ok").unwrap(), b"y");
                for name in ["trusted.x", "security.selinux", "user.overlay.redirect"] {
                    assert_eq!(attribute(&path, name), None, "{name}");
                }
            }
            // An opaque directory would hide the file that the layer below has in it.
            let shadow = root.join("etc/shadow");
            assert!(!root.join("tmp").exists() || shadow.exists());
        },
    );
}

#[test]
fn capabilities_and_setuid_bits_survive_the_change_of_owner() {
    // Version 2, effective, cap_net_bind_service (linux/capability.h).
    let capability = "\u{1}\0\0\u{2}\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    contained(
        move |_| {
            let raw = Raw::new().mode(0o4755).owner(1000, 1000);
            raw.file("su", "x").pax(&[("SCHILY.xattr.security.capability", capability)]).file("ping", "x").finish()
        },
        |root| {
            let su = fs::metadata(root.join("su")).unwrap();
            assert_eq!((su.permissions().mode() & 0o7777, su.uid(), su.gid()), (0o4755, 1000, 1000));
            assert_eq!(attribute(&root.join("ping"), "security.capability").unwrap(), capability.as_bytes());
        },
    );
}

#[test]
fn entries_of_unknown_kind_and_owners_out_of_range_are_refused() {
    refused("type of the entry is unknown", |_| Raw::new().entry(EntryType::new(b'M'), "x", "", b"").finish());
    refused("owner's number", |_| Raw::new().pax(&[("uid", "4294967295")]).file("x", "").finish());
    refused("only a directory can be the root", |_| Raw::new().file("./", "x").finish());
}

#[test]
fn a_file_where_a_directory_should_be_is_refused() {
    refused("Not a directory", |_| Raw::new().file("f", "x").file("f/x", "y").finish());
}

#[test]
fn trees_too_deep_to_delete_are_refused() {
    let deep = "d/".repeat(49);
    refused("too deep", |_| {
        let mut raw = Raw::new();
        // Each link shortens the path to the depth reached so far.
        for n in 0..4 {
            let above = if n == 0 { String::new() } else { format!("l{}/", n - 1) };
            let target = deep.repeat(n + 1);
            raw = raw.pax(&[("path", &format!("{above}{deep}"))]).dir("x");
            raw = raw.pax(&[("linkpath", &target)]).symlink(&format!("l{n}"), "x");
        }
        raw.finish()
    });
    refused("too many components", |_| Raw::new().pax(&[("path", &"d/".repeat(200))]).dir("x").finish());
}

#[test]
fn bombs_are_stopped_at_the_limits() {
    let limits = Limits { bytes: 200_000, entries: 50, text: 20_000 };
    let full = |layer: Vec<u8>, unit: &str| {
        let bench = Bench::with(limits);
        let before = bench.contents();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &layer).unwrap();
        let archive = images_kit::packed("bomb", &[layer], &[gzip.finish().unwrap()]);
        let error = bench.load(&archive[..]).unwrap_err().to_string();
        assert!(error.contains(unit), "{error}");
        assert_eq!(bench.contents(), before);
    };
    full(Raw::new().file("x", &"0".repeat(300_000)).finish(), "more than 200000 bytes");
    full((0..60).fold(Raw::new(), |raw, n| raw.file(&format!("f{n}"), "")).finish(), "more than 50 entries");
    full([Raw::new().finish(), vec![0; 300_000]].concat(), "more than 200000 bytes");
    full(Raw::new().pax(&[("path", &"x".repeat(100_000))]).file("x", "").finish(), "more data than allowed");

    let bench = Bench::with(limits);
    let many = (0..60).fold(Raw::new(), |raw, n| raw.file(&format!("f{n}"), "")).finish();
    assert!(matches!(bench.load(&many[..]), Err(ImageError::TooBig { unit: "entries", .. })));
    let big = Raw::new().file("x", &"0".repeat(300_000)).finish();
    assert!(matches!(bench.load(&big[..]), Err(ImageError::TooBig { unit: "bytes", .. })));
}
