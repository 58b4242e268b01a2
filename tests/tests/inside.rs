//! What somebody expects of a task's container who comes from Docker: programs in it, and health checks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use skep_e2e::{Swarm, busybox};

/// The container of a service's task on a node.
fn container(swarm: &Swarm, node: u8, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    swarm.must(node, &["ps", "-q", "--no-trunc", "--filter", &filter])
}

#[test]
fn programs_are_run_in_the_container_of_a_task() {
    let swarm = Swarm::start("exec");
    swarm.load(&busybox());
    swarm.serve(8080, &["--name", "web", "-p", "8080:80", "--mode", "global", "--user", "web", "--init", "box"]);
    let id = container(&swarm, 2, "web");
    let exec = |args: &[&str]| swarm.docker(2, &[&["exec"], args].concat());
    assert_eq!(exec(&[&id, "id", "-u"]).out, "101");
    let said =
        exec(&["-u", "0", "-e", "A=b", "-w", "/tmp", &id, "sh", "-c", "id -u; pwd; echo $A; echo no >&2; exit 7"]);
    assert_eq!((said.ok, said.out.as_str()), (false, "0\n/tmp\nb"));
    assert!(said.err.starts_with("no"), "{}", said.err);
    // What comes in goes on, and its end too.
    let said = swarm.docker_with(2, &["exec", "-i", &id, "wc", "-c"], "12345");
    assert_eq!(said.out, "6");
    assert_eq!(exec(&["-t", &id, "tty"]).out, "/dev/pts/0");
    for (program, reason) in [("nosuch", "executable file not found in $PATH"), ("/etc/passwd", "permission denied")] {
        let said = exec(&[&id, program]);
        assert!(!said.ok && (said.out.clone() + &said.err).contains(reason), "{said:?}");
    }
    let status = exec(&[&id, "grep", "-E", "Seccomp:|CapEff|CapBnd|NoNewPrivs", "/proc/self/status"]).out;
    let first = exec(&[&id, "grep", "-E", "Seccomp:|CapEff|CapBnd|NoNewPrivs", "/proc/1/status"]).out;
    assert_eq!((status.as_str(), status.contains("2")), (first.as_str(), true));
    assert!(exec(&["-d", &id, "sh", "-c", "sleep 0.2; touch /tmp/later"]).ok);
    swarm.until("the program that goes on alone", || exec(&[&id, "ls", "/tmp/later"]).ok);
    swarm.refused(2, &["exec", "nobody", "true"], "No such container");
    // Only where it runs.
    swarm.refused(1, &["exec", &id, "true"], "No such container");
}

#[test]
fn exec_refuses_privileges_and_other_clients_get_the_exit_code_too() {
    let swarm = Swarm::start("execs");
    swarm.load(&busybox());
    swarm.serve(8080, &["--name", "web", "-p", "8080:80", "--mode", "global", "--init", "box"]);
    let id = container(&swarm, 1, "web");
    let socket = swarm.lab.socket(1).display().to_string();
    let ask = |path: &str, body: &str| {
        let url = format!("http://skep/v1.47{path}");
        let argv = ["curl", "-sS", "--unix-socket", &socket, "-H", "content-type: application/json", "-d", body, &url];
        let said = std::process::Command::new(argv[0]).args(&argv[1..]).output().expect("curl runs");
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let refused = ask(&format!("/containers/{id}/exec"), r#"{"Cmd":["id"],"Privileged":true}"#);
    assert!(refused.contains("--cap-add"), "{refused}");
    // One that does not take over the connection.
    let made = ask(&format!("/containers/{id}/exec"), r#"{"Cmd":["sh","-c","echo out; exit 3"],"AttachStdout":true}"#);
    let exec = made.split('"').nth(3).expect("an id");
    assert!(ask(&format!("/exec/{exec}/start"), "{}").ends_with("out\n"));
    let get =
        ["curl", "-sS", "--unix-socket", &socket, &format!("http://skep/v1.47/exec/{exec}/json")].map(str::to_owned);
    let shown = std::process::Command::new(&get[0]).args(&get[1..]).output().expect("curl runs").stdout;
    assert!(String::from_utf8_lossy(&shown).contains(r#""ExitCode":3"#));
    assert!(ask(&format!("/exec/{exec}/start"), "{}").contains("has been started already"));
}

#[test]
fn a_task_that_becomes_unhealthy_is_replaced_and_no_request_fails() {
    let swarm = Swarm::start("health");
    swarm.load(&busybox());
    let check = ["--health-cmd", "test ! -e /tmp/sick", "--health-interval", "300ms", "--health-retries", "2"];
    let service = ["--name", "web", "-p", "8080:80", "--replicas", "2", "--restart-delay", "0s", "--init", "box"];
    swarm.serve(8080, &[&check[..], &service[..]].concat());
    swarm.until("both tasks", || swarm.running("web").len() == 2);
    let before = swarm.running("web");
    let node = (1..=3).find(|node| !container(&swarm, *node, "web").is_empty()).expect("a node with a task");
    let id = container(&swarm, node, "web").lines().next().expect("a container").to_owned();
    swarm.until("its health", || swarm.must(node, &["ps", "--filter", &format!("id={id}")]).contains("(healthy)"));
    let shown =
        swarm.must(node, &["inspect", "--format", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", &id]);
    assert_eq!(shown, "healthy 0");

    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut asked, mut failed) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                for node in 1..=3 {
                    asked += 1;
                    failed.extend(swarm.client(node, 8080).err());
                }
            }
            (asked, failed)
        });
        swarm.must(node, &["exec", &id, "touch", "/tmp/sick"]);
        swarm.until("another task in its place", || {
            let now = swarm.running("web");
            now.len() == 2 && now != before
        });
        thread::sleep(Duration::from_secs(1));
        done.store(true, Ordering::Relaxed);
        let (asked, failed) = asking.join().expect("the client ends");
        assert!(asked > 20 && failed.is_empty(), "{asked} asked, failed: {failed:?}");
    });
    let told = swarm.must(1, &["service", "ps", "--no-trunc", "--format", "{{.Error}}", "web"]);
    assert!(told.contains("unhealthy container: 2 health checks in a row failed"), "{told}");
}

#[test]
fn a_task_gets_no_request_before_it_is_healthy_and_stays_so_over_a_restart_of_the_daemon() {
    let swarm = Swarm::start("starting");
    swarm.load(&busybox());
    let check = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-start-period", "60s"];
    let start = ["--health-start-interval", "200ms", "--name", "web", "-p", "8080:80", "--mode", "global"];
    swarm.must(1, &[&["service", "create", "-d"], &check[..], &start[..], &["--init", "box"]].concat());
    swarm.until("containers", || (1..=3).all(|node| !container(&swarm, node, "web").is_empty()));
    thread::sleep(Duration::from_secs(1));
    let states = swarm.must(1, &["service", "ps", "--format", "{{.CurrentState}}", "web"]);
    assert_eq!(states.matches("Starting").count(), 3, "{states}");
    assert!(swarm.must(2, &["ps"]).contains("(health: starting)"));
    assert!(swarm.client(1, 8080).is_err(), "it is not healthy yet");
    let id = container(&swarm, 2, "web");
    swarm.must(2, &["exec", &id, "touch", "/tmp/well"]);
    swarm.until("the one that is well", || swarm.running("web").len() == 1);
    for node in 1..=3 {
        swarm.until("all nodes to send to it", || swarm.client(node, 8080).is_ok());
    }
    swarm.lab.kill_daemon(2).expect("killed");
    swarm.lab.start_daemon(2).expect("started");
    swarm.until("its health", || swarm.must(2, &["ps"]).contains("(healthy)"));
    assert_eq!(container(&swarm, 2, "web"), id);
    swarm.must(2, &["exec", &id, "rm", "/tmp/well"]);
    swarm.until("its replacement", || container(&swarm, 2, "web") != id);
}
