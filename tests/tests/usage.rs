//! What tasks' containers use, which processes they have, what happens to them, and services with a terminal.

use serde_json::Value;
use skep_e2e::{Swarm, busybox};

fn start(story: &str) -> Swarm {
    let swarm = Swarm::managed(story, 1, 1);
    swarm.load(&busybox());
    swarm
}

#[test]
fn stats_and_top_show_what_a_container_does() {
    let swarm = start("usage");
    let busy = "while :; do :; done & exec sleep 1000";
    let create = ["service", "create", "-d", "--limit-memory", "64m", "--limit-pids", "50"];
    swarm.must(
        1,
        &[&create[..], &["--name", "busy", "--mount", "source=data,target=/v", "box", "sh", "-c", busy]].concat(),
    );
    swarm.must(1, &["service", "create", "-d", "--name", "idle", "box"]);
    swarm.until("both", || swarm.must(1, &["ps", "-q"]).lines().count() == 2);
    let id = swarm.must(1, &["ps", "-q", "--filter", "name=busy"]);
    assert_eq!(swarm.must(1, &["ps", "-q", "--filter", "volume=data"]), id);

    let top = swarm.must(1, &["top", &id]);
    let lines: Vec<&str> = top.lines().collect();
    assert!(lines[0].starts_with("UID") && lines[0].ends_with("CMD") && lines.len() == 3, "{top}");
    assert!(top.contains("sleep 1000") && top.contains("sh -c while"), "{top}");
    let chosen = swarm.must(1, &["top", &id, "-o", "pid,comm"]);
    assert!(chosen.contains("COMMAND") && chosen.contains("sleep"), "{chosen}");
    swarm.refused(1, &["top", &id, "--nonsense"], "cannot show processes");

    let format = "{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.PIDs}}|{{.NetIO}}";
    let once = || swarm.must(1, &["stats", "--no-stream", "--format", format]);
    swarm.until("the one to be busy", || {
        let shown = once();
        let line = shown.lines().find(|line| line.starts_with("busy.")).expect("a line").to_owned();
        let fields: Vec<&str> = line.split('|').collect();
        assert!(fields[2].ends_with("/ 64MiB") && fields[3] == "2", "{shown}");
        assert!(shown.lines().any(|line| line.starts_with("idle.") && !line.contains("/ 64MiB")), "{shown}");
        fields[1].trim_end_matches('%').parse::<f64>().expect("a number") > 5.0
    });
    assert_eq!(swarm.must(1, &["stats", "--no-stream", "--format", "{{.PIDs}}", &id]), "2");

    swarm.must(1, &["service", "scale", "-d", "busy=0"]);
    swarm.until("it to be gone", || swarm.must(1, &["ps", "-q"]).lines().count() == 1);
    swarm.refused(1, &["top", "nosuch"], "No such container");
}

#[test]
fn a_service_with_a_terminal_writes_to_it() {
    let swarm = start("terminal");
    let script = "tty; echo $TERM; echo to-stderr >&2; exec sleep 1000";
    swarm.must(1, &["service", "create", "-d", "--name", "term", "-t", "box", "sh", "-c", script]);
    let logs = || swarm.must(1, &["service", "logs", "--raw", "term"]);
    swarm.until("its lines", || logs().contains("to-stderr"));
    assert_eq!(logs(), "/dev/pts/0\r\nxterm\r\nto-stderr");
    let id = swarm.must(1, &["ps", "-q"]);
    assert_eq!(swarm.must(1, &["logs", &id]), logs(), "not framed: it comes as it was written");
    let shown: Value = serde_json::from_str(&swarm.must(1, &["inspect", &id])).expect("JSON");
    assert_eq!(shown[0]["Config"]["Tty"], true);
    // Other programs in the container have terminals of their own.
    assert_eq!(swarm.must(1, &["exec", &id, "sh", "-c", "tty; ls /dev/pts"]).replace("not a tty\n", ""), "0\nptmx");
}

#[test]
fn events_tell_of_containers_volumes_secrets_and_configs() {
    let swarm = start("events");
    let said = swarm.docker_with(1, &["secret", "create", "key", "-"], "hush");
    assert!(said.ok, "{said:?}");
    let said = swarm.docker_with(1, &["config", "create", "site", "-"], "text");
    assert!(said.ok, "{said:?}");
    let flags = ["--restart-condition", "none", "--mount", "source=data,target=/v", "box", "sh", "-c", "exit 3"];
    swarm.must(1, &[&["service", "create", "-d", "--name", "short"], &flags[..]].concat());
    swarm.until("its end", || swarm.must(1, &["ps", "-aq", "--filter", "status=exited"]).lines().count() == 1);
    swarm.must(1, &["service", "rm", "short"]);
    swarm.until("its container to be gone", || swarm.must(1, &["ps", "-aq"]).is_empty());
    for command in [["secret", "rm", "key"], ["config", "rm", "site"], ["volume", "rm", "data"]] {
        swarm.must(1, &command);
    }
    let told = |filter: &str| {
        let format = "{{.Type}} {{.Action}}";
        let now = skep_model::Timestamp::now().as_second() + 1;
        let until = now.to_string();
        let args = ["events", "--since", "1", "--until", &until, "--filter", filter, "--format", format];
        swarm.must(1, &args).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = ["container create", "container start", "container die", "container destroy"];
    swarm.until("all events of the container", || told("type=container") == expected);
    assert_eq!(told("volume=data"), ["volume create", "volume destroy"]);
    assert_eq!(told("secret=key"), ["secret create", "secret remove"]);
    assert_eq!(told("config=site"), ["config create", "config remove"]);
    let format = "{{index .Actor.Attributes \"exitCode\"}} {{index .Actor.Attributes \"image\"}}";
    let now = (skep_model::Timestamp::now().as_second() + 1).to_string();
    let died = ["events", "--since", "1", "--until", &now, "--filter", "event=die", "--format", format];
    let died = swarm.must(1, &died);
    assert!(died.starts_with("3 box"), "{died}");
}
