//! Images that leave a node and come to another without a registry, and root file systems that become images.

use std::fs::{self, File};
use std::process::Command;

use skep_e2e::{Swarm, busybox};

#[test]
fn images_are_saved_loaded_and_imported() {
    let swarm = Swarm::managed("archives", 2, 1);
    let archive = busybox();
    swarm.must(1, &["load", "-i", &archive.to_string_lossy()]);
    swarm.must(1, &["tag", "box", "team/box:2"]);
    let dir = swarm.lab.dir();
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    swarm.must(1, &["save", "-o", &file("box.tar"), "box", "team/box:2"]);
    let loaded = swarm.must(2, &["load", "-i", &file("box.tar")]);
    assert!(loaded.contains("box:latest") && loaded.contains("team/box:2"), "{loaded}");
    swarm.refused(1, &["save", "-o", &file("none.tar"), "nosuch"], "No such image");
    // What other tools make of it.
    let listed = Command::new("tar").args(["-tf", &file("box.tar")]).output().expect("tar runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("manifest.json") && listed.matches("layer.tar").count() == 1, "{listed}");

    // The other node runs it.
    let here = ["service", "create", "-d", "--constraint", "node.hostname==node2", "--no-resolve-image", "--name"];
    swarm.must(1, &[&here[..], &["web", "team/box:2", "sh", "-c", "echo it runs; exec sleep 1000"]].concat());
    let logs = |service: &str| swarm.must(1, &["service", "logs", "--raw", service]);
    swarm.until("its words", || logs("web") == "it runs");

    let rootfs = dir.join("rootfs");
    fs::create_dir_all(rootfs.join("bin")).expect("made");
    fs::copy("/bin/busybox", rootfs.join("bin/sh")).expect("busybox");
    let packed = Command::new("tar").args(["-C", &file("rootfs"), "-cf", &file("rootfs.tar"), "."]).status();
    assert!(packed.expect("tar runs").success());
    let change = ["-c", "CMD [\"sh\", \"-c\", \"echo $WORD; exec sleep 1000\"]", "-c", "ENV WORD=imported"];
    let made = swarm.must(2, &[&["import"], &change[..], &[&file("rootfs.tar"), "mine:1"]].concat());
    assert!(made.starts_with("sha256:"), "{made}");
    assert_eq!(swarm.must(2, &["image", "inspect", "--format", "{{.Id}}", "mine:1"]), made);
    swarm.refused(2, &["import", "-c", "RUN make", &file("rootfs.tar"), "no:1"], "is no change of an image");
    File::create(dir.join("empty.tar")).expect("made");
    swarm.refused(2, &["import", &file("empty.tar"), "no:1"], "tar");
    swarm.must(1, &[&here[..], &["own", "mine:1"]].concat());
    swarm.until("its words", || logs("own") == "imported");
}
