//! Further programs in a running container: confined as the first one is, as the kernel tells it.

mod kit;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use kit::{Kit, first_line};
use skep_model::{ResourceLimits, Ulimit};
use skep_runtime::{
    Container, ContainerId, Embedded, Exec, ExecCommand, ExecFiles, LogStream, Runtime, RuntimeError, Stdin,
    TerminalSize,
};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

const STATUS: &str =
    "grep -E '^(Seccomp|NoNewPrivs|Cap|SigIgn|SigBlk|Uid|Gid|Groups)' /proc/self/status | tr -s '\\t ' ' '";

fn command(script: &str) -> ExecCommand {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecCommand { args, env: Vec::new(), user: None, dir: None, files: ExecFiles::Pipes { stdin: Stdin::Empty } }
}

/// A container that does nothing, as `change` would have it.
async fn idle(kit: &Kit, runtime: &Embedded, change: impl FnOnce(&mut Container)) -> ContainerId {
    let mut container = kit.container(1, "echo up; while :; do sleep 100 & wait; done");
    change(&mut container);
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    runtime.start(&id).await.unwrap();
    first_line(runtime, &id).await;
    id
}

async fn ended(exec: &mut Exec) -> (Option<i32>, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((stream, piece)) = exec.output.recv().await {
        if stream == LogStream::Stdout { &mut out } else { &mut err }.extend(piece);
    }
    (exec.ended().await, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

async fn run(runtime: &Embedded, id: &ContainerId, command: ExecCommand) -> (Option<i32>, String, String) {
    ended(&mut runtime.exec(id, command).await.unwrap()).await
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|l| l.trim() == *line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn it_is_confined_as_the_first_program_is() {
    let kit = Kit::new();
    let runtime = kit.open();
    // Go before 1.19.9, with which Debian 12 has built its runc, may raise the soft limit of open files to the hard one.
    let soft = if kit::oci_runtime().is_some() { 99 } else { 77 };
    let id = idle(&kit, &runtime, |c| {
        c.spec.ulimits = vec![Ulimit { name: "nofile".to_owned(), soft, hard: 99 }];
        c.spec.oom_score_adj = 321;
        c.resources.limits = ResourceLimits { nano_cpus: 500_000_000, memory: 32 << 20, pids: 20 };
    })
    .await;
    let script = format!(
        "{STATUS}; ulimit -n; cat /proc/self/oom_score_adj; hostname; pwd; echo $HOME; \
         cat /proc/self/cgroup | grep -vE ':/$' | wc -l; for n in ipc mnt net pid uts cgroup; do \
         [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] && echo same $n; done; ls /proc/self/fd | wc -l"
    );
    let (code, out, err) = run(&runtime, &id, command(&script)).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let caps = "00000000a80425fb";
    has(
        &out,
        &[
            "CapInh: 0000000000000000",
            &format!("CapPrm: {caps}"),
            &format!("CapEff: {caps}"),
            &format!("CapBnd: {caps}"),
            "CapAmb: 0000000000000000",
            "Seccomp: 2",
            "NoNewPrivs: 0",
            "SigIgn: 0000000000000000",
            "SigBlk: 0000000000000000",
            &soft.to_string(),
            "321",
            "box",
            "/",
            "/root",
        ],
    );
    // No cgroup is another than the container's own, which it sees as the root.
    let rest: Vec<&str> = out.lines().skip_while(|l| *l != "/root").skip(1).collect();
    // Standard files, and the directory that is listed.
    assert_eq!(rest, ["0", "same ipc", "same mnt", "same net", "same pid", "same uts", "same cgroup", "4"]);
    let script =
        "mount -t tmpfs t /tmp; unshare -m true; mknod /tmp/d b 7 0 && head -c1 /tmp/d; mkdir /tmp/x && echo ok";
    let (_, out, err) = run(&runtime, &id, command(script)).await;
    assert_eq!(out, "ok\n");
    assert!(err.contains("mount") && err.contains("unshare") && err.contains("Operation not permitted"), "{err}");
    runtime.remove(&id).await.unwrap();
}

#[tokio::test]
async fn it_is_who_and_where_the_container_is_unless_told_otherwise() {
    let kit = Kit::new();
    let runtime = kit.open();
    let id = idle(&kit, &runtime, |c| {
        c.spec.user = Some("web".to_owned());
        c.spec.groups = vec!["9".to_owned()];
        c.spec.dir = Some("/data".to_owned());
        c.spec.env = vec!["A=1".to_owned(), "B=1".to_owned()];
    })
    .await;
    let script = format!("{STATUS}; pwd; echo $HOME $A $B $C; echo through > /dev/stdout");
    let (code, out, err) = run(&runtime, &id, command(&script)).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    has(
        &out,
        &[
            "CapPrm: 0000000000000000",
            "CapEff: 0000000000000000",
            "CapBnd: 00000000a80425fb",
            "Seccomp: 2",
            "Uid: 101 101 101 101",
            "Gid: 102 102 102 102",
            "Groups: 7 9",
            "/data",
            "/home/web 1 1",
            "through",
        ],
    );
    let root = ExecCommand {
        user: Some("0".to_owned()),
        dir: Some("/tmp".to_owned()),
        env: vec!["B=2".to_owned(), "C=3".to_owned()],
        ..command(&script)
    };
    let (_, out, _) = run(&runtime, &id, root).await;
    has(&out, &["CapEff: 00000000a80425fb", "Seccomp: 2", "Uid: 0 0 0 0", "Groups: 9", "/tmp", "/root 1 2 3"]);
    runtime.remove(&id).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_run_is_told_in_dockers_words() {
    let kit = Kit::new();
    let runtime = kit.open();
    let id = idle(&kit, &runtime, |_| {}).await;
    let refused = async |command: ExecCommand| runtime.exec(&id, command).await.unwrap_err().to_string();
    let of = |args: &[&str]| ExecCommand { args: args.iter().map(|a| (*a).to_owned()).collect(), ..command("") };
    assert_eq!(
        refused(of(&["nosuch"])).await,
        "exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH"
    );
    assert!(refused(of(&["/etc/passwd"])).await.ends_with("permission denied"));
    let elsewhere = ExecCommand { dir: Some("/nowhere".to_owned()), ..command("true") };
    assert!(refused(elsewhere).await.contains("chdir to cwd (\"/nowhere\")"));
    let nobody = ExecCommand { user: Some("ghost".to_owned()), ..command("true") };
    assert!(refused(nobody).await.contains("unable to find user ghost"));
    // A directory of the node, by a file that the way into the container has open.
    for fd in 3..12 {
        let leak = ExecCommand { dir: Some(format!("/proc/self/fd/{fd}")), ..command("true") };
        assert!(refused(leak).await.contains("chdir to cwd"), "{fd}");
    }
    runtime.signal(&id, 9).await.unwrap();
    runtime.wait(&id).await.unwrap();
    assert!(matches!(runtime.exec(&id, command("true")).await, Err(RuntimeError::NotRunning(_))));
    runtime.remove(&id).await.unwrap();
    assert!(matches!(runtime.exec(&id, command("true")).await, Err(RuntimeError::NotFound(_))));
}

#[tokio::test]
async fn it_reads_writes_and_ends_as_it_likes() {
    let kit = Kit::new();
    let runtime = kit.open();
    let id = idle(&kit, &runtime, |_| {}).await;
    let asked =
        ExecCommand { files: ExecFiles::Pipes { stdin: Stdin::Open }, ..command("cat; echo sorry >&2; exit 7") };
    let mut exec = runtime.exec(&id, asked).await.unwrap();
    // More than fits into a pipe, so that both directions must go on at once.
    let text = "0123456789".repeat(50_000);
    let mut input = exec.input.take().unwrap();
    let sent = text.clone();
    let writer = tokio::spawn(async move {
        input.write_all(sent.as_bytes()).await.unwrap();
        // And the end is what makes it go on.
        drop(input);
    });
    let (code, out, err) = ended(&mut exec).await;
    writer.await.unwrap();
    assert_eq!((code, out.len(), err.as_str()), (Some(7), text.len(), "sorry\n"));
    let (code, ..) = run(&runtime, &id, command("kill -TERM $$")).await;
    assert_eq!(code, Some(143));
    // What it leaves behind and what holds its output keeps nobody waiting for long.
    let (code, out, _) = run(&runtime, &id, command("sleep 1000 & echo left")).await;
    assert_eq!((code, out.as_str()), (Some(0), "left\n"));
    runtime.remove(&id).await.unwrap();
    assert_eq!(kit.cgroups(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_terminal_is_one_of_the_containers_and_the_users() {
    let kit = Kit::new();
    let runtime = kit.open();
    let id = idle(&kit, &runtime, |c| c.spec.user = Some("web".to_owned())).await;
    let files = ExecFiles::Terminal(TerminalSize { rows: 33, columns: 121 });
    let script =
        "trap 'stty size; exit 3' WINCH; tty; stty size; echo $TERM; stat -c %u $(tty); read line; echo got $line";
    let mut exec = runtime.exec(&id, ExecCommand { files, ..command(script) }).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("101\r\n") {
        let (stream, piece) = exec.output.recv().await.expect("it writes more");
        assert_eq!(stream, LogStream::Stdout);
        seen.push_str(&String::from_utf8(piece).unwrap());
    }
    assert_eq!(seen, "/dev/pts/0\r\n33 121\r\nxterm\r\n101\r\n");
    exec.terminal.as_ref().unwrap().resize(TerminalSize { rows: 10, columns: 20 }).unwrap();
    exec.input.as_mut().unwrap().write_all(b"\n").await.unwrap();
    let (code, out, _) = ended(&mut exec).await;
    assert!(out.contains("10 20") && code == Some(3), "{code:?} {out:?}");
    // Hanging up ends who sits at it.
    let mut exec = runtime.exec(&id, ExecCommand { files, ..command("exec sleep 1000") }).await.unwrap();
    exec.input = None;
    let pid = exec.pid;
    drop(exec);
    gone(pid).await;
    runtime.remove(&id).await.unwrap();
}

async fn gone(pid: i32) {
    for _ in 0..1000 {
        if fs::metadata(format!("/proc/{pid}")).is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test]
async fn one_that_nobody_waits_for_is_killed_with_its_children_unless_it_was_to_go_on() {
    let kit = Kit::new();
    let runtime = kit.open();
    let id = idle(&kit, &runtime, |_| {}).await;
    let mut exec = runtime.exec(&id, command("sleep 1000 & echo $!; wait")).await.unwrap();
    exec.output.recv().await.unwrap();
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", exec.pid)).unwrap();
    let (pid, child) = (exec.pid, child.trim().parse().unwrap());
    drop(exec);
    gone(pid).await;
    gone(child).await;

    let lonely = ExecCommand {
        files: ExecFiles::Nothing,
        ..command("while [ ! -e /tmp/go ]; do sleep 0.05; done; touch /tmp/went")
    };
    let exec = runtime.exec(&id, lonely).await.unwrap();
    let pid = exec.pid;
    drop(exec);
    drop(runtime);
    // Another daemon comes.
    let runtime = kit.open();
    assert_eq!(run(&runtime, &id, command("touch /tmp/go")).await.0, Some(0));
    gone(pid).await;
    assert_eq!(run(&runtime, &id, command("ls /tmp/went")).await.0, Some(0));
    // It goes with its container.
    let exec = runtime.exec(&id, command("sleep 1000")).await.unwrap();
    let pid = exec.pid;
    runtime.remove(&id).await.unwrap();
    gone(pid).await;
    let mut exec = exec;
    assert_eq!(exec.ended().await, Some(137));
}

#[tokio::test]
async fn many_leave_nothing_behind() {
    let kit = Kit::new();
    let runtime = kit.open();
    let id = idle(&kit, &runtime, |_| {}).await;
    let entries = || fs::read_dir(kit.dir.path().join(format!("containers/{id}"))).unwrap().count();
    let state = || fs::read_dir(kit.dir.path().join(format!("containers/{id}/state"))).unwrap().count();
    let before = (entries(), state());
    let runtime = Arc::new(runtime);
    let mut all = JoinSet::new();
    for n in 0..30 {
        let (runtime, id) = (runtime.clone(), id.clone());
        all.spawn(async move { (n, run(&runtime, &id, command(&format!("exit {n}"))).await.0) });
    }
    while let Some(ended) = all.join_next().await {
        let (n, code) = ended.unwrap();
        assert_eq!(code, Some(n));
    }
    assert_eq!((entries(), state()), before);
    let (_, out, _) = run(&runtime, &id, command("cat /proc/[0-9]*/status | grep -c 'State:.Z'")).await;
    assert_eq!(out, "0\n", "zombies");
    runtime.remove(&id).await.unwrap();
}
