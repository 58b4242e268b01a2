//! Real containers: exit codes, output, signals, removal, and what is left behind.

mod kit;

use kit::{Kit, first_line, output};
use skep_model::{Mount, MountKind};
use skep_runtime::{ContainerState, LogOptions, LogStream, Runtime, RuntimeError};

#[tokio::test]
async fn a_container_runs_and_says_how_it_ended() {
    let kit = Kit::new();
    let runtime = kit.open();
    let container = kit.container(1, "echo out; echo err >&2; printf rest; exit 7");
    let id = container.id.clone();
    let before = skep_model::Timestamp::now();
    let (exit, out, err) = kit.run(&runtime, container).await;
    assert_eq!((exit.code, out.as_str(), err.as_str()), (Some(7), "out\nrest\n", "err\n"));
    assert!(exit.at >= before && exit.at <= skep_model::Timestamp::now());
    assert_eq!(runtime.state(&id).await.unwrap(), Some(ContainerState::Exited(exit)));
    assert!(matches!(runtime.start(&id).await, Err(RuntimeError::Ended(_))));
    assert!(kit.cgroups().is_empty(), "{:?}", kit.cgroups());
    runtime.signal(&id, 15).await.unwrap();
    runtime.remove(&id).await.unwrap();
    runtime.remove(&id).await.unwrap();
    assert_eq!(runtime.state(&id).await.unwrap(), None);
    assert!(matches!(runtime.wait(&id).await, Err(RuntimeError::NotFound(_))));
    assert!(matches!(runtime.signal(&id, 15).await, Err(RuntimeError::NotFound(_))));
    assert_eq!(kit.mounts(), Vec::<String>::new());
}

#[tokio::test]
async fn causes_of_failed_starts_are_told() {
    let kit = Kit::new();
    let runtime = kit.open();
    let cases: [(&[&str], &str); 3] = [
        (&["nosuch"], "exec: \"nosuch\": executable file not found in $PATH"),
        (&["/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
        (&["/no/such"], "exec: \"/no/such\": stat /no/such: no such file or directory"),
    ];
    for (number, (command, expected)) in (10..).zip(cases) {
        let mut container = kit.container(number, "");
        container.spec.command = command.iter().map(|s| (*s).to_owned()).collect();
        let id = container.id.clone();
        runtime.prepare(container).await.unwrap();
        let error = runtime.start(&id).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(runtime.state(&id).await.unwrap(), Some(ContainerState::Created));
        runtime.remove(&id).await.unwrap();
    }
    let mut container = kit.container(20, "true");
    container.spec.mounts = vec![Mount {
        kind: MountKind::Bind { source: "/no/such/dir".into(), propagation: None },
        target: "/x".into(),
        read_only: false,
    }];
    let error = runtime.prepare(container).await.unwrap_err().to_string();
    assert!(error.ends_with("bind source path does not exist: /no/such/dir"), "{error}");
    let mut container = kit.container(21, "true");
    container.netns = "/run/netns/nosuch".into();
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    let error = runtime.start(&id).await.unwrap_err().to_string();
    assert!(error.contains("/run/netns/nosuch"), "{error}");
    assert!(kit.cgroups().is_empty());
}

#[tokio::test]
async fn signals_end_it_and_removal_kills_it() {
    let kit = Kit::new();
    let runtime = kit.open();
    let container = kit.container(1, "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1 & wait; done");
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    let pid = runtime.start(&id).await.unwrap();
    assert_eq!(runtime.start(&id).await.unwrap(), pid);
    assert_eq!(first_line(&runtime, &id).await, "ready");
    runtime.signal(&id, 15).await.unwrap();
    assert_eq!(runtime.wait(&id).await.unwrap().code, Some(3));
    assert_eq!(output(&runtime, &id).await.0, "ready\nbye\n");
    let container = kit.container(2, "sleep 1000");
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    let pid = runtime.start(&id).await.unwrap();
    runtime.signal(&id, 9).await.unwrap();
    assert_eq!(runtime.wait(&id).await.unwrap().code, Some(137));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let container = kit.container(3, "sleep 1000");
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    runtime.start(&id).await.unwrap();
    runtime.remove(&id).await.unwrap();
    assert_eq!((runtime.state(&id).await.unwrap(), kit.cgroups()), (None, Vec::new()));
}

#[tokio::test]
async fn logs_are_followed_cut_and_chosen() {
    let kit = Kit::new();
    let runtime = kit.open();
    let container = kit.container(1, "echo 1; echo 2 >&2; read x; echo 3; echo 4");
    let mut container = container;
    container.spec.open_stdin = true;
    container.spec.command[2] = "echo 1; echo 2 >&2; trap 'echo 3; exit' TERM; while :; do sleep 1 & wait; done".into();
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    let mut follow = runtime.logs(&id, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    runtime.start(&id).await.unwrap();
    let mut first = vec![follow.recv().await.unwrap().line, follow.recv().await.unwrap().line];
    first.sort();
    assert_eq!(first, [b"1".to_vec(), b"2".to_vec()]);
    runtime.signal(&id, 15).await.unwrap();
    assert_eq!(follow.recv().await.unwrap().line, b"3");
    assert!(follow.recv().await.is_none());
    let lines = async |options| {
        let mut lines = runtime.logs(&id, options).await.unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.recv().await {
            all.push(line);
        }
        all
    };
    let all = lines(LogOptions::default()).await;
    assert_eq!(all.len(), 3);
    let last = lines(LogOptions { tail: Some(1), ..LogOptions::default() }).await;
    assert_eq!(last, all[2..]);
    assert_eq!(lines(LogOptions { tail: Some(0), ..LogOptions::default() }).await, []);
    assert_eq!(lines(LogOptions { since: Some(all[2].timestamp), ..LogOptions::default() }).await, last);
    let err = lines(LogOptions { stdout: false, ..LogOptions::default() }).await;
    assert!(err.len() == 1 && err[0].stream == LogStream::Stderr && err[0].line == b"2");
}

#[tokio::test]
async fn thirty_containers_leave_nothing_behind() {
    let kit = Kit::new();
    let runtime = kit.open();
    for number in 0..30 {
        let container = kit.container(number, "echo hello; exec sleep 100");
        let id = container.id.clone();
        runtime.prepare(container).await.unwrap();
        runtime.start(&id).await.unwrap();
        runtime.remove(&id).await.unwrap();
    }
    assert_eq!(kit.mounts(), Vec::<String>::new());
    assert_eq!(kit.cgroups(), Vec::<std::path::PathBuf>::new());
    assert_eq!(std::fs::read_dir(kit.dir.path().join("containers")).unwrap().count(), 0);
    let shims = std::process::Command::new("pgrep").args(["-f", kit.dir.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shims.stdout), "");
}

#[tokio::test]
async fn a_service_may_have_a_terminal() {
    let kit = Kit::new();
    let runtime = kit.open();
    let script = "tty; tty <&2; echo $TERM; stat -c %u $(tty); echo to-stderr >&2; echo here > /dev/tty; ps -o tty,pid | grep ' 1$'; \
                  seq 20000; printf rest; exit 4";
    for (number, init) in [(1, None), (2, Some(true))] {
        let mut container = kit.container(number, script);
        (container.spec.tty, container.spec.init) = (true, init);
        container.spec.user = Some("web".to_owned());
        let (exit, out, err) = kit.run(&runtime, container).await;
        assert_eq!((exit.code, err.as_str()), (Some(4), ""), "all of it is one stream");
        let lines: Vec<&str> = out.split("\r\n").collect();
        let first = ["/dev/pts/0", "/dev/pts/0", "xterm", "101", "to-stderr", "here"];
        assert_eq!(lines[..6], first, "{:?}", &out[..200]);
        assert!(lines[6].starts_with("136,0"), "{:?}: it is the terminal of the first process's session", lines[6]);
        assert_eq!((lines.len(), lines[20_006]), (20_008, "20000"), "not a line is lost");
        assert_eq!(lines[20_007], "rest\n");
    }
    assert!(kit.cgroups().is_empty());
}

#[tokio::test]
async fn a_program_that_lets_go_of_its_terminal_can_come_back_to_it() {
    let kit = Kit::new();
    let runtime = kit.open();
    let script = "exec 3>&1 >/dev/null 2>&1 </dev/null 3>&-; sleep 0.1; echo again > /dev/pts/0; echo twice > /dev/tty";
    let mut container = kit.container(1, script);
    container.spec.tty = true;
    let (exit, out, _) = kit.run(&runtime, container).await;
    assert_eq!((exit.code, out.as_str()), (Some(0), "again\r\ntwice\r\n"));
}

#[tokio::test]
async fn what_happens_is_told_once() {
    use skep_model::VolumeOptions;
    use skep_runtime::{ContainerAction, Happened, VolumeAction};
    let kit = Kit::new();
    let mut heard = kit.events.subscribe();
    let runtime = kit.open();
    let mut container = kit.container(1, "exit 7");
    let kind = MountKind::Volume { source: Some("v".to_owned()), options: VolumeOptions::default() };
    container.spec.mounts = vec![Mount { kind, target: "/v".to_owned(), read_only: false }];
    let (id, labels) = (container.id.clone(), container.labels.clone());
    runtime.prepare(container).await.unwrap();
    runtime.start(&id).await.unwrap();
    // However many wait, and whatever daemon.
    let (one, other) = tokio::join!(runtime.wait(&id), runtime.wait(&id));
    assert_eq!(one.unwrap(), other.unwrap());
    kit.open().wait(&id).await.unwrap();
    runtime.remove(&id).await.unwrap();
    let mut told = Vec::new();
    while let Ok(event) = heard.try_recv() {
        told.push(event.what);
    }
    let of = |action| Happened::Container { id: id.clone(), labels: labels.clone(), action };
    let made = Happened::Volume { name: "v".to_owned(), action: VolumeAction::Create };
    let (die, destroy) = (of(ContainerAction::Die(Some(7))), of(ContainerAction::Destroy));
    assert_eq!(told, [made, of(ContainerAction::Create), of(ContainerAction::Start), die, destroy]);
}
