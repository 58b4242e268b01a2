//! Daemons and shims that go away at a bad moment.

mod kit;

use std::fs;

use kit::{Kit, first_line, output};
use skep_runtime::{ContainerId, ContainerState, Runtime};

fn shim(kit: &Kit, id: &ContainerId) -> i32 {
    let text = fs::read_to_string(kit.dir.path().join(format!("containers/{id}/shim.json"))).unwrap();
    let shim: serde_json::Value = serde_json::from_str(&text).unwrap();
    i32::try_from(shim["shim"]["pid"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_new_daemon_adopts_what_runs_and_what_ended_meanwhile() {
    let kit = Kit::new();
    let first = kit.open();
    let (a, b) = (
        kit.container(1, "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 1 & wait; done"),
        kit.container(2, "exit 9"),
    );
    let (running, ended, created) = (a.id.clone(), b.id.clone(), kit.container(3, "exit 6"));
    let waiting = created.id.clone();
    let (image, netns) = (a.image, a.netns.clone());
    for container in [a, b, created] {
        first.prepare(container).await.unwrap();
    }
    let pid = first.start(&running).await.unwrap();
    first.start(&ended).await.unwrap();
    assert_eq!(first.wait(&ended).await.unwrap().code, Some(9));
    assert_eq!(first_line(&first, &running).await, "up");
    drop(first);
    let second = kit.open();
    let all = second.list().await.unwrap();
    assert_eq!(all.iter().map(|c| &c.id).collect::<Vec<_>>(), [&running, &ended, &waiting]);
    assert_eq!(all[0].state, ContainerState::Running { pid });
    assert!(matches!(all[1].state, ContainerState::Exited(exit) if exit.code == Some(9)));
    assert_eq!(all[2].state, ContainerState::Created);
    assert_eq!((all[0].image, &all[0].netns, all[0].hostname.as_str()), (image, &netns, "box"));
    assert_eq!((all[0].labels["a"].as_str(), all[0].command[0].as_str()), ("b", "sh"));
    assert_eq!(second.start(&running).await.unwrap(), pid);
    second.signal(&running, 15).await.unwrap();
    assert_eq!(second.wait(&running).await.unwrap().code, Some(4));
    assert_eq!(output(&second, &running).await.0, "up\nbye\n");
    let (_, exit) = tokio::join!(second.start(&waiting), second.wait(&waiting));
    assert_eq!(exit.unwrap().code, Some(6));
}

#[tokio::test]
async fn a_container_whose_shim_is_killed_ends_without_a_code() {
    let kit = Kit::new();
    let runtime = kit.open();
    let container = kit.container(1, "echo up; sleep 100 & exec sleep 200");
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    let pid = runtime.start(&id).await.unwrap();
    assert_eq!(first_line(&runtime, &id).await, "up");
    let wait = runtime.wait(&id);
    kill(shim(&kit, &id));
    assert_eq!(wait.await.unwrap().code, None);
    assert!(
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z"))
            || !fs::exists(format!("/proc/{pid}")).unwrap()
    );
    assert!(kit.cgroups().is_empty());
    runtime.remove(&id).await.unwrap();
    assert!(kit.mounts().is_empty());
}

#[tokio::test]
async fn half_made_and_half_started_containers_are_cleaned_up() {
    let kit = Kit::new();
    let runtime = kit.open();
    let (a, b) = (kit.container(1, "exec sleep 100"), kit.container(2, "exec sleep 100"));
    let (half_removed, half_started) = (a.id.clone(), b.id.clone());
    runtime.prepare(a).await.unwrap();
    runtime.prepare(b).await.unwrap();
    runtime.start(&half_removed).await.unwrap();
    let pid = runtime.start(&half_started).await.unwrap();
    let dir = kit.dir.path().join("containers");
    fs::remove_file(dir.join(half_removed.as_str()).join("container.json")).unwrap();
    // As it is between the shim's first word on disk and its second.
    let path = dir.join(half_started.as_str()).join("shim.json");
    let mut shim: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    shim["init"] = serde_json::Value::Null;
    fs::write(&path, shim.to_string()).unwrap();
    drop(runtime);
    let runtime = kit.open();
    let all = runtime.list().await.unwrap();
    assert_eq!((all.len(), all[0].state), (1, ContainerState::Created));
    assert!(!dir.join(half_removed.as_str()).exists() && kit.cgroups().is_empty());
    let again = runtime.start(&half_started).await.unwrap();
    assert_ne!(again, pid);
    runtime.remove(&half_started).await.unwrap();
    assert!(kit.mounts().is_empty() && kit.cgroups().is_empty());
}

#[tokio::test]
async fn a_dropped_wait_and_a_wait_for_the_unstarted_do_no_harm() {
    let kit = Kit::new();
    let runtime = kit.open();
    // Long enough for `start` to return before it ends.
    let container = kit.container(1, "sleep 1; exit 2");
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    {
        let wait = runtime.wait(&id);
        tokio::select! { biased; exit = wait => panic!("{exit:?}"), started = runtime.start(&id) => drop(started.unwrap()) }
    }
    assert_eq!(runtime.wait(&id).await.unwrap().code, Some(2));
    let container = kit.container(2, "exit 2");
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    let (exit, removed) = tokio::join!(runtime.wait(&id), runtime.remove(&id));
    assert!(exit.is_err() && removed.is_ok());
}
