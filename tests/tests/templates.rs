//! What a service leaves to the nodes of its tasks to fill in.

use std::collections::BTreeSet;

use serde_json::Value;
use skep_e2e::{Swarm, busybox};

fn create(swarm: &Swarm, name: &str, flags: &[&str], script: &str) {
    let begin = ["service", "create", "-d", "--name", name, "--restart-delay", "0s"];
    let script = format!("{script}; exec sleep 1000");
    swarm.must(1, &[&begin, flags, &["box", "sh", "-c", &script]].concat());
}

fn lines(swarm: &Swarm, service: &str) -> BTreeSet<String> {
    swarm.must(1, &["service", "logs", "--raw", service]).lines().map(str::to_owned).collect()
}

#[test]
fn host_names_variables_and_mounts_are_each_tasks_own() {
    let swarm = Swarm::managed("templates", 2, 1);
    swarm.load(&busybox());
    let flags = [
        "--hostname={{.Service.Name}}-{{.Task.Slot}}",
        "--env=WHERE={{.Node.Hostname}} {{.Node.Platform.OS}} {{index .Service.Labels \"zone\"}}",
        "--env=WHO={{.Task.Name}} {{.Task.ID}}",
        "--label=zone=a",
        "--mount=source={{.Service.Name}}-{{.Task.Slot}},target=/v,volume-label=of={{.Service.Name}}",
        "--replicas=2",
    ];
    create(&swarm, "web", &flags, "echo $(hostname) on $WHERE; echo $WHO");
    swarm.until("all lines", || lines(&swarm, "web").len() == 4);
    let tasks = swarm.running("web");
    let said = lines(&swarm, "web");
    let on = |slot: u8| -> String {
        let here = format!("web-{slot} on ");
        let line = said.iter().find_map(|line| line.strip_prefix(&here)).unwrap_or_else(|| panic!("{said:?}"));
        line.to_owned()
    };
    assert_eq!(BTreeSet::from([on(1), on(2)]), ["node1", "node2"].map(|node| format!("{node} linux a")).into());
    for task in &tasks {
        assert!(
            said.iter().any(|line| line.ends_with(&format!(".{task} {task}")) && line.starts_with("web.")),
            "{said:?}"
        );
    }
    // Tasks of both nodes, and each node has the volume of its own task.
    let volumes = |node| swarm.must(node, &["volume", "ls", "-q", "--filter", "label=of=web"]);
    assert_eq!(BTreeSet::from([volumes(1), volumes(2)]), BTreeSet::from(["web-1".to_owned(), "web-2".to_owned()]));
    let id = swarm.must(1, &["ps", "-q"]);
    let shown: Value = serde_json::from_str(&swarm.must(1, &["inspect", &id])).expect("JSON");
    assert!(shown[0]["Config"]["Env"].to_string().contains("WHERE=node1 linux a"), "{}", shown[0]["Config"]["Env"]);
    let spec = swarm.must(1, &["service", "inspect", "web"]);
    assert!(spec.contains("{{.Task.Slot}}"), "the service itself stays as it was written");

    // A restart of the daemon makes nothing different.
    let before: BTreeSet<_> = tasks.into_iter().collect();
    swarm.lab.stop_daemon(2).expect("stopped");
    swarm.lab.start_daemon(2).expect("started");
    swarm.until("the node", || swarm.docker(2, &["ps", "-q"]).ok);
    swarm.until("its task", || swarm.running("web").len() == 2);
    assert_eq!(before, swarm.running("web").into_iter().collect());

    let no = ["service", "create", "-d", "--name", "no"];
    for (flag, fragment) in [
        ("--hostname={{.Service.Nme}}", "Hostname"),
        ("--env=A={{.Task.Slot", "Env"),
        ("--mount=source={{.Volume}},target=/v", "Mounts.Source"),
        ("--mount=source={{.Task.Slot}}/x,target=/v", "is no name of a volume"),
    ] {
        swarm.refused(1, &[&no[..], &[flag, "box"]].concat(), fragment);
    }
}

#[test]
fn configs_and_secrets_are_filled_in_where_they_are_templates() {
    let swarm = Swarm::managed("payloads", 1, 1);
    swarm.load(&busybox());
    let put = |what: &str, flags: &[&str], content: &str| {
        let said = swarm.docker_with(1, &[&[what, "create"], flags, &["-"]].concat(), content);
        assert!(said.ok, "{said:?}");
    };
    put("secret", &["password"], "hush");
    put("config", &["plain"], "{{.Task.Slot}}");
    let text = "{{.Service.Name}}.{{.Task.Slot}} {{env \"MODE\"}} {{secret \"password\"}}";
    put("config", &["--template-driver", "golang", "site"], text);
    put("secret", &["--template-driver", "golang", "url"], "db://{{secret \"password\"}}@{{.Node.Hostname}}");
    put("config", &["--template-driver", "golang", "lost"], "{{secret \"nobody\"}}");
    let bad = swarm.docker_with(1, &["config", "create", "--template-driver", "golang", "bad", "-"], "{{.Task");
    assert!(!bad.ok && bad.err.contains("cannot be filled in"), "{bad:?}");
    swarm.refused(1, &["config", "create", "--template-driver", "jinja", "bad", "/etc/hostname"], "golang");
    let shown = swarm.must(1, &["config", "inspect", "--format", "{{json .Spec.Templating}}", "site"]);
    assert!(shown.contains("golang"), "{shown}");

    let flags =
        ["--secret=password", "--secret=url", "--config=plain", "--config=site", "--env=MODE=fast-{{.Task.Slot}}"];
    create(&swarm, "web", &flags, "cat /site /plain /run/secrets/url");
    swarm.until("its files", || lines(&swarm, "web").iter().any(|line| line.starts_with("db://")));
    let said = lines(&swarm, "web");
    // What was typed into the command line ends with a line feed, here as elsewhere.
    assert!(said.contains("web.1 fast-1 hush"), "{said:?}");
    assert!(said.contains("{{.Task.Slot}}") && said.contains("db://hush"), "{said:?}");

    create(&swarm, "no", &["--config=lost"], "true");
    let why = || swarm.must(1, &["service", "ps", "--no-trunc", "--format", "{{.Error}}", "no"]);
    swarm.until("it to say why", || why().contains("the service has no secret \"nobody\""));
}
