//! A runtime of its own for each test: image store, containers, a network namespace, and an image of busybox.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use skep_model::{ContainerSpec, Resources};
use skep_runtime::images::{ImageBuilder, ImageId, Images};
use skep_runtime::{
    Container, ContainerId, ContainerState, Embedded, EmbeddedConfig, Exit, LogLine, LogOptions, LogStream, NodeEvents,
    OciRuntime, Runtime, Shim, Volumes,
};

/// Removes what it made when it goes, also after a failure.
pub(crate) struct Kit {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) images: Arc<Images>,
    pub(crate) image: ImageId,
    pub(crate) cgroup: String,
    /// What happens in the runtimes of this test.
    pub(crate) events: NodeEvents,
    netns: String,
}

/// `SKEP_OCI_RUNTIME=runc` lets that one make the containers of all tests.
pub(crate) fn oci_runtime() -> Option<OciRuntime> {
    let name = std::env::var("SKEP_OCI_RUNTIME").ok()?;
    Some(OciRuntime::find(&name, None).expect("a runtime that is installed"))
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n";

impl Kit {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = Arc::new(Images::open(&dir.path().join("images")).expect("this test needs root"));
        let busybox = fs::read("/bin/busybox").expect("this test needs busybox-static at /bin/busybox");
        let mut image = ImageBuilder::new("busybox")
            .dir("tmp", 0o1777)
            .dir("root", 0o700)
            .dir("bin", 0o755)
            .file("etc/passwd", 0o644, PASSWD)
            .file("etc/group", 0o644, "root:x:0:\nweb:x:102:\nlog:x:7:web\n")
            .file("bin/busybox", 0o755, busybox)
            .file("data/seed", 0o644, "seed\n")
            .cmd(["sh"]);
        let applets = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|a| *a != "busybox") {
            image = image.symlink(format!("bin/{applet}"), "busybox");
        }
        let mut archive = Vec::new();
        let id = image.write(&mut archive).unwrap();
        images.load(&archive[..], &mut |_| {}).unwrap();
        let name = dir.path().file_name().unwrap().to_string_lossy().replace('.', "").to_lowercase();
        let netns = format!("skrt{}{name}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &netns]).status().unwrap();
        assert!(made.success(), "this test needs root");
        Self { dir, images, image: id, cgroup: format!("{netns}-cg"), events: NodeEvents::default(), netns }
    }

    pub(crate) fn open(&self) -> Embedded {
        self.open_with_volumes().0
    }

    /// As a daemon does, with the volumes that the runtime knows.
    pub(crate) fn open_with_volumes(&self) -> (Embedded, Arc<Volumes>) {
        let volumes = Arc::new(Volumes::open(&self.dir.path().join("volumes"), self.events.clone()).unwrap());
        let runtime = Embedded::open(EmbeddedConfig {
            root: self.dir.path().join("containers"),
            volumes: volumes.clone(),
            events: self.events.clone(),
            images: self.images.clone(),
            cgroup_parent: self.cgroup.clone(),
            shim: Shim::Program(PathBuf::from(env!("CARGO_BIN_EXE_skep-shim"))),
            oci_runtime: oci_runtime(),
        });
        (runtime.unwrap(), volumes)
    }

    pub(crate) fn container(&self, number: u64, script: &str) -> Container {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        Container {
            id: format!("{number:064x}").parse().unwrap(),
            image: self.image,
            spec: ContainerSpec { command, ..ContainerSpec::default() },
            resources: Resources::default(),
            netns: Path::new("/run/netns").join(&self.netns),
            hostname: "box".to_owned(),
            addresses: vec!["10.9.8.7".parse().unwrap()],
            resolver: None,
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            env: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Directories of cgroups that are there.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let pattern = format!("*/{}/*", self.cgroup);
        let out = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-path", &pattern]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().lines().map(PathBuf::from).collect()
    }

    pub(crate) fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.dir.path().join("containers");
        mounts.lines().filter(|l| l.contains(root.to_str().unwrap())).map(str::to_owned).collect()
    }

    /// Runs a script to its end: exit, standard output, standard error.
    pub(crate) async fn run(&self, runtime: &Embedded, container: Container) -> (Exit, String, String) {
        let id = container.id.clone();
        runtime.prepare(container).await.unwrap();
        runtime.start(&id).await.unwrap();
        let exit = runtime.wait(&id).await.unwrap();
        let (out, err) = output(runtime, &id).await;
        (exit, out, err)
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        // A test that failed leaves containers: an open runtime removes them.
        let (root, images, cgroup) = (self.dir.path().join("containers"), self.images.clone(), self.cgroup.clone());
        let volumes = Arc::new(Volumes::open(&self.dir.path().join("volumes"), NodeEvents::default()).unwrap());
        let cleaner = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let events = NodeEvents::default();
            let config = EmbeddedConfig {
                root,
                volumes,
                images,
                cgroup_parent: cgroup,
                shim: Shim::Myself,
                oci_runtime: None,
                events,
            };
            tokio.block_on(async {
                let runtime = Embedded::open(config).unwrap();
                for container in runtime.list().await.unwrap() {
                    runtime.remove(&container.id).await.unwrap();
                }
            });
        });
        let cleaned = cleaner.join();
        let _ = Command::new("ip").args(["netns", "delete", &self.netns]).status();
        let parents =
            Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &self.cgroup, "-delete"]).status();
        if !std::thread::panicking() {
            assert!(cleaned.is_ok() && parents.is_ok());
        }
    }
}

/// What a container wrote so far.
pub(crate) async fn output(runtime: &Embedded, id: &ContainerId) -> (String, String) {
    let mut lines = runtime.logs(id, LogOptions::default()).await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    while let Some(LogLine { stream, line, .. }) = lines.recv().await {
        let text = if stream == LogStream::Stdout { &mut out } else { &mut err };
        text.push_str(&format!("{}\n", String::from_utf8_lossy(&line)));
    }
    (out, err)
}

/// Waits for the first line that a container writes.
pub(crate) async fn first_line(runtime: &Embedded, id: &ContainerId) -> String {
    let mut lines = runtime.logs(id, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    String::from_utf8(lines.recv().await.expect("the container writes a line").line).unwrap()
}

pub(crate) async fn pid(runtime: &Embedded, id: &ContainerId) -> i32 {
    match runtime.state(id).await.unwrap() {
        Some(ContainerState::Running { pid }) => pid,
        other => panic!("it does not run: {other:?}"),
    }
}
