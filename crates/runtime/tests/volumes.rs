//! Volumes of real containers: what they share, what is mounted for how long, and what is said of those that cannot be.

mod kit;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kit::{Kit, first_line};
use skep_model::{Mount, MountKind, VolumeDriver, VolumeOptions};
use skep_runtime::{ANONYMOUS, Container, Embedded, NewVolume, Runtime, VolumeError};

fn driver(pairs: &[(&str, &str)]) -> VolumeOptions {
    let options = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    VolumeOptions { driver: Some(VolumeDriver { name: "local".to_owned(), options }), ..VolumeOptions::default() }
}

fn with(mut container: Container, name: Option<&str>, target: &str, options: &VolumeOptions) -> Container {
    let kind = MountKind::Volume { source: name.map(str::to_owned), options: options.clone() };
    container.spec.mounts.push(Mount { kind, target: target.to_owned(), read_only: false });
    container
}

/// What the node has mounted below a directory.
fn mounted(below: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(below.to_str().unwrap())).count()
}

async fn start(runtime: &Embedded, container: Container) {
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    runtime.start(&id).await.unwrap();
}

#[tokio::test]
async fn a_file_system_is_mounted_as_long_as_a_container_needs_it() {
    let kit = Kit::new();
    let runtime = kit.open();
    let place = kit.dir.path().join("volumes");
    let tmpfs = driver(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=0711,noexec")]);
    let wait = "echo ready; while [ ! -e /v/stop ]; do sleep 0.05; done; stat -c %a /v; cat /v/said";
    let one = with(kit.container(1, wait), Some("shared"), "/v", &tmpfs);
    let id = one.id.clone();
    start(&runtime, one).await;
    assert_eq!(first_line(&runtime, &id).await, "ready");
    assert_eq!(mounted(&place), 1);
    // Another daemon goes on: it knows who needs the file system.
    let runtime = kit.open();
    let two =
        with(kit.container(2, "echo hello > /v/said; touch /v/stop"), Some("shared"), "/v", &VolumeOptions::default());
    let (exit, _, err) = kit.run(&runtime, two).await;
    assert_eq!(exit.code, Some(0), "{err}");
    runtime.wait(&id).await.unwrap();
    let (out, _) = kit::output(&runtime, &id).await;
    assert_eq!(out, "ready\n711\nhello\n");
    assert_eq!(mounted(&place), 0, "nobody needs it any more");
    assert_eq!(fs::read_dir(place.join("shared/_data")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_was_needed_is_unmounted_by_the_next_daemon() {
    let kit = Kit::new();
    let place = kit.dir.path().join("volumes");
    let host = kit.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "from the host\n").unwrap();
    let bind = driver(&[("type", "none"), ("device", host.to_str().unwrap()), ("o", "bind,ro")]);
    let (one, runtime) = (with(kit.container(1, "cat /v/file; touch /v/x"), Some("b"), "/v", &bind), kit.open());
    let id = one.id.clone();
    runtime.prepare(one).await.unwrap();
    assert_eq!(mounted(&place), 1);
    // As after a restart of the machine: prepared, and nothing is mounted.
    rustix::mount::unmount(place.join("b/_data"), rustix::mount::UnmountFlags::empty()).unwrap();
    runtime.start(&id).await.unwrap();
    runtime.dead(&id).await.unwrap();
    let (runtime, volumes) = kit.open_with_volumes();
    runtime.wait(&id).await.unwrap();
    let (out, err) = kit::output(&runtime, &id).await;
    assert_eq!(out, "from the host\n");
    assert!(err.contains("Read-only file system"), "{err}");
    assert_eq!(mounted(&place), 0);
    runtime.remove(&id).await.unwrap();
    volumes.remove("b").unwrap();
    assert!(host.join("file").exists(), "what was bound there is nobody's to remove");
}

#[tokio::test]
async fn what_cannot_be_mounted_says_why_and_leaves_nothing() {
    let kit = Kit::new();
    let runtime = kit.open();
    for (number, options, expected) in [
        (1, driver(&[("type", "nosuchfs"), ("device", "x")]), "no file system of the type \"nosuchfs\""),
        (2, driver(&[("type", "none"), ("device", "/no/such/dir"), ("o", "bind")]), "/no/such/dir is not there"),
        (3, driver(&[("type", "ext4"), ("device", "/etc/passwd")]), "/etc/passwd is no block device"),
        (4, driver(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "colour=red")]), "does not take these options"),
        (5, driver(&[("type", "tmpfs")]), "missing required option: \"device\""),
    ] {
        let container = with(kit.container(number, "true"), Some(&format!("v{number}")), "/v", &options);
        let (id, error) = (container.id.clone(), runtime.prepare(container).await.unwrap_err().to_string());
        assert!(error.contains(expected), "{error}");
        assert_eq!(runtime.state(&id).await.unwrap(), None);
    }
    assert_eq!(mounted(&kit.dir.path().join("volumes")), 0);
    let host = with(kit.container(6, "nosuch"), Some("t"), "/v", &driver(&[("type", "tmpfs"), ("device", "t")]));
    let (id, mut host) = (host.id.clone(), host);
    host.spec.command = vec!["nosuch".to_owned()];
    runtime.prepare(host).await.unwrap();
    runtime.start(&id).await.unwrap_err();
    assert_eq!(mounted(&kit.dir.path().join("volumes")), 0, "a start that failed needs nothing");
}

#[tokio::test]
async fn volumes_are_filled_from_the_image_and_stay() {
    let kit = Kit::new();
    let runtime = kit.open();
    let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    let labelled = VolumeOptions { labels: labels.clone(), ..VolumeOptions::default() };
    let one = with(kit.container(1, "cat /data/seed; echo more > /data/more"), Some("db"), "/data", &labelled);
    let one = with(one, None, "/scratch", &VolumeOptions::default());
    let id = one.id.clone();
    let (exit, out, err) = kit.run(&runtime, one).await;
    assert_eq!((exit.code, out.as_str()), (Some(0), "seed\n"), "{err}");
    let (again, store) = kit.open_with_volumes();
    assert_eq!(store.find("db").unwrap().labels, labels);
    assert_eq!(store.find("db").unwrap().users, std::slice::from_ref(&id));
    assert!(matches!(store.remove("db"), Err(VolumeError::InUse { .. })));
    let anonymous = store.list().unwrap().into_iter().find(|v| v.labels.contains_key(ANONYMOUS)).unwrap();
    assert!(again.list().await.unwrap()[0].volumes.values().any(|name| *name == anonymous.name));
    again.remove(&id).await.unwrap();
    assert!(matches!(store.find(&anonymous.name), Err(VolumeError::NotFound(_))));
    assert_eq!(fs::read_to_string(store.mountpoint("db").join("more")).unwrap(), "more\n");
    store.create(&NewVolume { name: Some("db".to_owned()), ..NewVolume::default() }).unwrap();
    store.remove("db").unwrap();
}
