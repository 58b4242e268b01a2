use super::*;
use skep_model::VolumeOptions;

fn open(dir: &Path) -> Volumes {
    Volumes::open(&dir.join("volumes"), NodeEvents::default()).unwrap()
}

fn named(name: &str) -> NewVolume {
    NewVolume { name: Some(name.to_owned()), ..NewVolume::default() }
}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn container(number: u64) -> ContainerId {
    format!("{number:064x}").parse().unwrap()
}

#[test]
fn made_once_listed_removed_and_kept_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path());
    let labels = options(&[("team", "blue")]);
    let made = volumes.create(&NewVolume { labels: labels.clone(), ..named("db") }).unwrap();
    assert_eq!((made.labels.clone(), made.options.len()), (labels, 0));
    fs::write(made.mountpoint.join("x"), "12345").unwrap();
    assert_eq!(volumes.create(&named("db")).unwrap(), made, "once is enough");
    let other = NewVolume { options: options(&[("type", "tmpfs"), ("device", "tmpfs")]), ..named("db") };
    assert!(matches!(volumes.create(&other), Err(VolumeError::Differs(_))));
    let anonymous = volumes.create(&NewVolume::default()).unwrap();
    assert!(anonymous.labels.contains_key(ANONYMOUS) && anonymous.name.len() == 64);

    let again = open(dir.path());
    assert_eq!(again.list().unwrap().len(), 2);
    assert_eq!(again.find("db").unwrap(), made);
    assert_eq!(again.size(&made).unwrap(), Some(5));
    again.remove("db").unwrap();
    assert!(matches!(again.remove("db"), Err(VolumeError::NotFound(_))));
    assert_eq!(again.list().unwrap(), [anonymous]);
}

#[test]
fn what_a_container_has_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path());
    let content = Content { rootfs: dir.path(), target: Path::new("/none") };
    let no_options = VolumeOptions::default();
    let (name, place) = volumes.take(&container(1), (Some("db"), 0), &no_options, &content).unwrap();
    let (own, _) = volumes.take(&container(1), (None, 1), &no_options, &content).unwrap();
    assert_eq!(place, volumes.mountpoint(&name));
    volumes.release(&container(1));
    let refused = volumes.remove("db").unwrap_err().to_string();
    assert!(refused.contains("volume is in use - [0000") && volumes.find("db").unwrap().users == [container(1)]);
    assert!(volumes.find(&own).unwrap().labels.contains_key(ANONYMOUS));
    volumes.forget(&container(1));
    assert!(matches!(volumes.find(&own), Err(VolumeError::NotFound(_))), "it goes with its container");
    volumes.remove("db").unwrap();
}

#[test]
fn a_volume_without_a_name_goes_when_its_container_went_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let content = Content { rootfs: dir.path(), target: Path::new("/none") };
    let take = |volumes: &Volumes, id| volumes.take(&id, (None, 0), &VolumeOptions::default(), &content).unwrap().0;
    let volumes = open(dir.path());
    let (gone, there) = (take(&volumes, container(1)), take(&volumes, container(2)));
    let again = open(dir.path());
    again.restore(&container(2), &[there.clone()].into(), Live::No);
    again.settle();
    assert!(again.find(&gone).is_err() && again.find(&there).is_ok());
}

#[test]
fn what_is_half_done_is_cleared_away_and_what_was_put_there_is_taken_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("volumes");
    for (file, content) in [
        (".new-1-1/_data/x", ""),
        (".old-1-1/_data/x", ""),
        ("dockers/_data/x", "docker"),
        ("plain/sub/x", "plain"),
        (".adopted-half/_data/x", "half"),
        (".adopted-none/volume.json", "{}"),
    ] {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), content).unwrap();
    }
    let volumes = open(dir.path());
    let names: Vec<_> = volumes.list().unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(names, ["dockers", "half", "plain"]);
    for (name, file) in [("dockers", "x"), ("half", "x"), ("plain", "sub/x")] {
        let content = fs::read_to_string(volumes.mountpoint(name).join(file)).unwrap();
        assert!(name.starts_with(&content), "{name}: {content}");
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 3);
}

#[test]
fn an_empty_volume_is_filled_once_and_only_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = dir.path().join("rootfs");
    fs::create_dir_all(rootfs.join("data/sub")).unwrap();
    fs::write(rootfs.join("data/sub/seed"), "seed").unwrap();
    let content = Content { rootfs: &rootfs, target: Path::new("/data") };
    let volumes = open(dir.path());
    let take =
        |name, options: &VolumeOptions| volumes.take(&container(1), (Some(name), 0), options, &content).unwrap().1;
    let bare = take("bare", &VolumeOptions { no_copy: true, ..VolumeOptions::default() });
    assert_eq!(fs::read_dir(bare).unwrap().count(), 0);
    volumes.create(&named("db")).unwrap();
    // A daemon that died while it filled the volume leaves this.
    fs::create_dir(dir.path().join("volumes/db/filling")).unwrap();
    let place = take("db", &VolumeOptions::default());
    assert_eq!(fs::read_to_string(place.join("sub/seed")).unwrap(), "seed");
    fs::write(place.join("sub/seed"), "changed").unwrap();
    take("db", &VolumeOptions::default());
    assert_eq!(fs::read_to_string(place.join("sub/seed")).unwrap(), "changed");
}
