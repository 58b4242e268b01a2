//! What a container's program may do, as the kernel tells it.

mod kit;

use std::fs;
use std::path::Path;

use kit::{Kit, first_line};
use skep_model::{Mount, MountKind, TmpfsOptions, Ulimit, VolumeOptions};
use skep_runtime::{Container, ContainerFile, Runtime};

const STATUS: &str =
    "grep -E '^(Seccomp|NoNewPrivs|Cap|SigIgn|SigBlk|Uid|Groups)' /proc/self/status | tr -s '\\t ' ' '";

#[tokio::test]
async fn root_has_dockers_capabilities_and_a_filter() {
    let kit = Kit::new();
    let runtime = kit.open();
    let (exit, out, err) = kit.run(&runtime, kit.container(1, STATUS)).await;
    assert_eq!((exit.code, err.as_str()), (Some(0), ""));
    let caps = "00000000a80425fb";
    for line in [
        "CapInh: 0000000000000000",
        &format!("CapPrm: {caps}"),
        &format!("CapEff: {caps}"),
        &format!("CapBnd: {caps}"),
        "CapAmb: 0000000000000000",
        "Seccomp: 2",
        "NoNewPrivs: 0",
        "SigIgn: 0000000000000000",
        "SigBlk: 0000000000000000",
    ] {
        assert!(out.lines().any(|l| l.trim() == line), "{line} is missing in\n{out}");
    }
}

#[tokio::test]
async fn another_user_has_none_and_writes_to_its_outputs() {
    let kit = Kit::new();
    let runtime = kit.open();
    let mut container = kit.container(1, &format!("{STATUS}; id; echo $HOME; echo through > /dev/stdout"));
    container.spec.user = Some("web".to_owned());
    let (exit, out, err) = kit.run(&runtime, container).await;
    assert_eq!((exit.code, err.as_str()), (Some(0), ""));
    for line in [
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        "CapBnd: 00000000a80425fb",
        "CapAmb: 0000000000000000",
        "Seccomp: 2",
        "NoNewPrivs: 0",
        "Uid: 101 101 101 101",
        "Groups: 7",
        "/home/web",
        "through",
        "uid=101(web) gid=102(web) groups=7(log)",
    ] {
        assert!(out.lines().any(|l| l.trim() == line), "{line} is missing in\n{out}");
    }
}

#[tokio::test]
async fn devices_mounts_and_kernel_are_out_of_reach() {
    let kit = Kit::new();
    let runtime = kit.open();
    let script = "mknod /tmp/disk b 7 0 && echo made; head -c1 /tmp/disk; mount -t tmpfs t /tmp; unshare -m true; \
        echo x > /proc/sys/kernel/hostname; head -c1 /proc/kcore | wc -c; ls /sys/firmware | wc -l; head -c1 /dev/zero | wc -c; \
        readlink /proc/1/exe; cat /proc/1/cgroup | head -1 | cut -d: -f3; echo $$";
    let (_, out, err) = kit.run(&runtime, kit.container(1, script)).await;
    assert_eq!(out, "made\n0\n0\n1\n/bin/busybox\n/\n1\n", "{err}");
    assert!(err.contains("/tmp/disk: Operation not permitted"), "{err}");
    assert!(err.contains("mount") && err.contains("unshare") && err.contains("Read-only file system"), "{err}");
    assert!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim() != "x");
}

#[tokio::test]
async fn the_shims_program_is_out_of_reach() {
    let kit = Kit::new();
    let runtime = kit.open();
    let container = kit.container(2, "echo; exec sleep 100");
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    runtime.start(&id).await.unwrap();
    let shim = fs::read_to_string(kit.dir.path().join(format!("containers/{id}/shim.json"))).unwrap();
    let shim: serde_json::Value = serde_json::from_str(&shim).unwrap();
    let exe = fs::read_link(format!("/proc/{}/exe", shim["shim"]["pid"])).unwrap();
    assert!(exe.to_string_lossy().starts_with("/memfd:skep"), "{exe:?}");
    runtime.remove(&id).await.unwrap();
}

/// With a bind mount of `host`, a named volume, a tmpfs, and limits of every kind.
fn demanding(kit: &Kit, host: &Path) -> Container {
    let script = "cat /etc/hostname; hostname; grep box /etc/hosts; grep -c 1.2.3.4 /etc/resolv.conf; ulimit -n; \
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo $A; echo $B; pwd; touch /x; touch /scratch/x && echo scratch; \
        cat /data/seed /host/file; touch /host/y; stat -c %a /scratch; cat /proc/self/oom_score_adj; echo ready; exec sleep 100";
    let mut container = kit.container(1, script);
    let spec = &mut container.spec;
    spec.read_only = true;
    spec.dns.nameservers = vec!["1.2.3.4".to_owned()];
    spec.ulimits = vec![Ulimit { name: "nofile".to_owned(), soft: 77, hard: 99 }];
    spec.env = vec!["A=1".to_owned(), "B=1".to_owned()];
    spec.dir = Some("/tmp".to_owned());
    spec.oom_score_adj = 321;
    let bind = MountKind::Bind { source: host.to_str().unwrap().to_owned(), propagation: None };
    spec.mounts = vec![
        Mount { kind: bind, target: "/host".to_owned(), read_only: true },
        Mount {
            kind: MountKind::Volume { source: Some("v".to_owned()), options: VolumeOptions::default() },
            target: "/data".to_owned(),
            read_only: false,
        },
        Mount {
            kind: MountKind::Tmpfs(TmpfsOptions { size: Some(1 << 20), mode: Some(0o700) }),
            target: "/scratch".to_owned(),
            read_only: false,
        },
    ];
    container.env = vec!["B=2".to_owned()];
    container.resources.limits = skep_model::ResourceLimits { nano_cpus: 500_000_000, memory: 32 << 20, pids: 20 };
    container
}

#[tokio::test]
async fn limits_and_settings_arrive() {
    let kit = Kit::new();
    let runtime = kit.open();
    let host = kit.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "from the host\n").unwrap();
    let container = demanding(&kit, &host);
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    runtime.start(&id).await.unwrap();
    let mut lines = runtime.logs(&id, skep_runtime::LogOptions { follow: true, ..Default::default() }).await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    // The two outputs are read apart: their lines may come in another order than they were written.
    while out.last().is_none_or(|l| l != "ready") || err.len() < 2 {
        let line = lines.recv().await.unwrap();
        let text = String::from_utf8(line.line).unwrap();
        if line.stream == skep_runtime::LogStream::Stdout { out.push(text) } else { err.push(text) }
    }
    let expected = [
        "box",
        "box",
        "10.9.8.7\tbox",
        "1",
        "77",
        "0",
        "1",
        "2",
        "/tmp",
        "scratch",
        "seed",
        "from the host",
        "700",
        "321",
        "ready",
    ];
    assert_eq!(out, expected, "{err:?}");
    let read_only = |path: &str| err.iter().any(|e| e.contains(path) && e.contains("Read-only file system"));
    assert!(read_only("/x") && read_only("/host/y"), "{err:?}");
    assert_eq!(fs::read_to_string(kit.dir.path().join("volumes/v/_data/seed")).unwrap(), "seed\n");
    let value = |names: &[&str]| {
        let cgroups = kit.cgroups();
        let found =
            cgroups.iter().flat_map(|c| names.iter().map(|n| c.join(n))).find_map(|f| fs::read_to_string(f).ok());
        found.unwrap_or_else(|| panic!("none of {names:?} in {cgroups:?}")).trim().to_owned()
    };
    assert_eq!(value(&["memory.limit_in_bytes", "memory.max"]), (32 << 20).to_string());
    assert_eq!(value(&["pids.max"]), "20");
    assert!(["50000", "50000 100000"].contains(&value(&["cpu.cfs_quota_us", "cpu.max"]).as_str()));
    runtime.remove(&id).await.unwrap();
    assert!(kit.dir.path().join("volumes/v/_data/seed").exists() && host.join("file").exists());
}

#[tokio::test]
async fn a_reaper_reaps_and_hands_signals_on() {
    let kit = Kit::new();
    let runtime = kit.open();
    let script = "trap 'exit 5' TERM; (true & exec true); echo $PPID; while :; do sleep 1 & wait; done";
    let mut container = kit.container(1, script);
    container.spec.init = Some(true);
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    runtime.start(&id).await.unwrap();
    assert_eq!(first_line(&runtime, &id).await, "1");
    runtime.signal(&id, 15).await.unwrap();
    assert_eq!(runtime.wait(&id).await.unwrap().code, Some(5));
    let mut container = kit.container(2, "");
    container.spec.command = vec!["nosuch".to_owned()];
    container.spec.init = Some(true);
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    match runtime.start(&id).await {
        Err(error) => assert_eq!(error.to_string(), "exec: \"nosuch\": executable file not found in $PATH"),
        // Its own first process finds out, as with Docker.
        Ok(_) if kit::oci_runtime().is_some() => assert_eq!(runtime.wait(&id).await.unwrap().code, Some(127)),
        Ok(pid) => panic!("it runs: {pid}"),
    }
}

#[tokio::test]
async fn files_in_memory_are_the_containers_and_go_with_it() {
    let kit = Kit::new();
    let runtime = kit.open();
    let script = "stat -c '%u %g %a' /run/secrets/key /etc/site.conf; cat /run/secrets/key; \
        (echo x > /run/secrets/key) 2>/dev/null || echo read only; echo ready; exec sleep 100";
    let mut container = kit.container(1, script);
    container.spec.user = Some("web".to_owned());
    let file = |path: &str, uid, mode, text: &str| ContainerFile {
        path: path.to_owned(),
        uid,
        gid: 7,
        mode,
        data: skep_model::Data(text.as_bytes().to_vec()),
    };
    container.files = vec![file("/run/secrets/key", 101, 0o400, "hush\n"), file("/etc/site.conf", 0, 0o444, "a=b\n")];
    let id = container.id.clone();
    let dir = kit.dir.path().join(format!("containers/{id}"));
    runtime.prepare(container).await.unwrap();
    let kept = || fs::read_dir(dir.join("memory")).map(Iterator::count).unwrap_or_default();
    assert_eq!(kept(), 2);
    assert!(
        kit.mounts().iter().any(|line| line.contains("/memory ") && line.contains(" - tmpfs ")),
        "{:?}",
        kit.mounts()
    );
    runtime.start(&id).await.unwrap();
    let mut lines = runtime.logs(&id, skep_runtime::LogOptions { follow: true, ..Default::default() }).await.unwrap();
    let mut out = Vec::new();
    while out.last().is_none_or(|line| line != "ready") {
        out.push(String::from_utf8(lines.recv().await.unwrap().line).unwrap());
    }
    assert_eq!(out, ["101 7 400", "0 7 444", "hush", "read only", "ready"]);
    // Its end takes them away, although it is remembered.
    runtime.signal(&id, 9).await.unwrap();
    runtime.wait(&id).await.unwrap();
    assert!(kept() == 0 && !kit.mounts().iter().any(|line| line.contains("/memory ")), "{:?}", kit.mounts());
    runtime.remove(&id).await.unwrap();

    // One whose files went with a restart of the machine is not started without them.
    let mut container = kit.container(2, "true");
    container.files = vec![file("/run/secrets/key", 0, 0o400, "hush\n")];
    let id = container.id.clone();
    runtime.prepare(container).await.unwrap();
    let place = kit.dir.path().join(format!("containers/{id}/memory"));
    assert!(std::process::Command::new("umount").arg(&place).status().unwrap().success());
    let error = runtime.start(&id).await.unwrap_err();
    assert!(matches!(error, skep_runtime::RuntimeError::FilesGone(_)), "{error}");
    runtime.remove(&id).await.unwrap();
}
