//! A swarm whose containers are made by runc.

use skep_e2e::{Swarm, binary, busybox};

#[test]
fn containers_are_made_by_another_runtime_and_nothing_else_is_different() {
    let swarm = Swarm::empty("runc", &["--oci-runtime=runc"]);
    swarm.load(&busybox());
    let info = swarm.must(1, &["info", "--format", "{{.DefaultRuntime}}"]);
    assert_eq!(info, "runc");
    let flags = ["--name", "web", "-p", "8080:80", "--mode", "global", "--init", "--user", "web"];
    let check = ["--health-cmd", "test ! -e /tmp/sick", "--health-interval", "300ms", "--health-retries", "2"];
    swarm.serve(8080, &[&flags[..], &check, &["--restart-delay", "0s", "box"]].concat());
    swarm.until("all tasks", || swarm.running("web").len() == 3);
    let container = || swarm.must(2, &["ps", "-q", "--filter", "name=web"]);
    let id = container();
    let first = swarm.must(2, &["exec", &id, "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"]);
    assert!(first.starts_with("/sbin/docker-init -- httpd"), "{first}");
    let said = swarm.docker(2, &["exec", "-t", &id, "sh", "-c", "tty; id -u; exit 7"]);
    assert!(!said.ok && said.out.replace('\r', "") == "/dev/pts/0\n101", "{said:?}");

    // It lives on without the daemon, also with one that has another runtime for what it makes.
    swarm.lab.kill_daemon(2).expect("killed");
    swarm.lab.start_daemon(2).expect("started");
    swarm.until("the same container", || container() == id);
    assert!(swarm.must(2, &["stats", "--no-stream", "--format", "{{.PIDs}}", &id]).parse::<u32>().is_ok());
    swarm.must(2, &["exec", &id, "touch", "/tmp/sick"]);
    swarm.until("another one in its place", || !container().is_empty() && container() != id);
    swarm.until("it to be healthy", || swarm.running("web").len() == 3);

    swarm.must(1, &["service", "create", "-d", "--name", "lost", "--restart-condition", "none", "box", "nosuch"]);
    let why = || swarm.must(1, &["service", "ps", "--no-trunc", "--format", "{{.Error}}", "lost"]);
    swarm.until("it to say why not", || why().contains("executable file not found in $PATH"));
    swarm.must(1, &["service", "rm", "web", "lost"]);
    swarm.until("all to be gone", || (1..=3).all(|node| swarm.must(node, &["ps", "-aq"]).is_empty()));
    let left: Vec<_> = (1..=3).map(|node| swarm.lab.processes(node).len()).collect();
    assert_eq!(left, [1, 1, 1], "the daemons");
}

#[test]
fn a_runtime_that_is_not_there_is_named_when_the_daemon_starts() {
    let said = std::process::Command::new(binary())
        .args([
            "daemon",
            "--oci-runtime",
            "nosuch-runtime",
            "--data-root",
            "/nonexistent/data",
            "--exec-root",
            "/nonexistent/run",
        ])
        .output()
        .expect("it runs");
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && err.contains("--oci-runtime: there is no program nosuch-runtime"), "{err}");
    assert!(!std::path::Path::new("/nonexistent").exists(), "nothing was made");
}
