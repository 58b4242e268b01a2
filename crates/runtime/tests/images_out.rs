//! Images that leave the store, and root file systems that come in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::json;
use skep_runtime::images::{ImageBuilder, ImageError, Images, Import};

fn store(dir: &Path, name: &str) -> Images {
    Images::open(&dir.join(name)).expect("this test needs root")
}

/// Two layers: the second removes a file, hides a directory's content, adds a link.
fn layered() -> Vec<u8> {
    let mut archive = Vec::new();
    let image = ImageBuilder::new("layers:1")
        .dir("etc", 0o755)
        .file("etc/gone", 0o644, "gone")
        .file("etc/kept", 0o640, "kept")
        .owned_by(7, 8)
        .dir("tmp", 0o1777)
        .file("data/old", 0o644, "old")
        .next_layer()
        .file("etc/.wh.gone", 0o644, "")
        .file("data/.wh..wh..opq", 0o644, "")
        .file("data/new", 0o4755, "new")
        .symlink("link", "etc/kept")
        .cmd(["cat", "/etc/kept"]);
    image.write(&mut archive).unwrap();
    archive
}

/// What a root file system of the image shows: modes, owners, and content or target.
fn shown(store: &Images, name: &str, at: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::MetadataExt as _;
    fs::create_dir_all(at).unwrap();
    let rootfs = store.mount(&store.find(name).unwrap().id, at).unwrap();
    let mut found = BTreeMap::new();
    let mut left = vec![rootfs.clone()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut text = format!("{:o} {} {}", meta.mode(), meta.uid(), meta.gid());
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_symlink() {
            text.push_str(&format!(" {}", fs::read_link(&path).unwrap().display()));
        } else {
            text.push_str(&format!(" {}", fs::read_to_string(&path).unwrap()));
        }
        found.insert(path.strip_prefix(&rootfs).unwrap().display().to_string(), text);
    }
    store.unmount(at).unwrap();
    found
}

fn saved(store: &Images, names: &[&str]) -> Result<Vec<u8>, ImageError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut archive = Vec::new();
    store.save(&store.to_save(&names)?, &mut archive)?;
    Ok(archive)
}

#[test]
fn what_is_saved_is_the_same_image_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (store(dir.path(), "here"), store(dir.path(), "there"));
    here.load(&layered()[..], &mut |_| {}).unwrap();
    let before = shown(&here, "layers:1", &dir.path().join("a"));
    assert!(before.contains_key("data/new") && !before.contains_key("data/old") && !before.contains_key("etc/gone"));

    let archive = saved(&here, &["layers:1"]).unwrap();
    let loaded = there.load(&archive[..], &mut |_| {}).unwrap();
    assert_eq!(loaded[0].refs, ["layers:1".parse().unwrap()]);
    assert_eq!(shown(&there, "layers:1", &dir.path().join("b")), before);
    let (one, other) = (here.find("layers:1").unwrap(), there.find("layers:1").unwrap());
    assert_eq!((one.config, one.layers.len()), (other.config.clone(), other.layers.len()));

    // Packed anew it has an id of its own; from then on it keeps it, byte for byte.
    let again = saved(&there, &["layers:1"]).unwrap();
    assert_eq!(again, archive);
    assert_eq!(here.load(&again[..], &mut |_| {}).unwrap()[0].id, other.id);
    // By its id an image goes without names, and each layer is in the archive once.
    let both = saved(&there, &[&other.id.to_string(), "layers:1"]).unwrap();
    assert_eq!(both, archive, "one image, named once");
    let nameless = saved(&there, &[&other.id.to_string()]).unwrap();
    assert!(!String::from_utf8_lossy(&nameless).contains("layers:1"));
    assert!(matches!(saved(&there, &["nosuch"]), Err(ImageError::NotFound(_))));
    assert_eq!(fs::read_dir(dir.path().join("there/tmp")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let images = store(dir.path(), "images");
    let mut rootfs = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0o755);
    rootfs.append_data(&mut header, "bin/tool", &b"hi\n"[..]).unwrap();
    let rootfs = rootfs.into_inner().unwrap();
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(&rootfs[..], flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
    let import = Import {
        reference: Some("tool:1".parse().unwrap()),
        message: "by hand".to_owned(),
        config: json!({ "Cmd": ["/bin/tool"], "Env": ["A=1"], "ExposedPorts": { "80/tcp": {} } }),
    };
    for bytes in [&rootfs, &packed] {
        let made = images.import(&bytes[..], &import).unwrap();
        let found = images.find("tool:1").unwrap();
        assert_eq!((found.id, found.layers.len()), (made.id, 1));
        assert_eq!(
            (&found.config.cmd[..], &found.config.env[..]),
            (&["/bin/tool".to_owned()][..], &["A=1".to_owned()][..])
        );
    }
    let files = shown(&images, "tool:1", &dir.path().join("a"));
    assert_eq!(files["bin/tool"], "100755 0 0 hi\n");
    for bad in [&b""[..], b"no archive at all, only words that go on for a while", &[0xff; 2000]] {
        assert!(images.import(bad, &import).is_err());
    }
    assert_eq!(fs::read_dir(dir.path().join("images/tmp")).unwrap().count(), 0);
}
