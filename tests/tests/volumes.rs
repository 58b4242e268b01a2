//! Volumes: by hand, of services, of stacks.

use std::fs;

use serde_json::{Value, json};
use skep_e2e::{Swarm, busybox};

fn start(story: &str) -> Swarm {
    let swarm = Swarm::managed(story, 1, 1);
    swarm.load(&busybox());
    swarm
}

/// Runs a service of one task whose shell runs `script` and stays.
fn create(swarm: &Swarm, name: &str, flags: &[&str], script: &str) {
    let begin = ["service", "create", "-d", "--name", name, "--restart-delay", "0s"];
    let script = format!("{script}; exec sleep 1000");
    swarm.must(1, &[&begin, flags, &["box", "sh", "-c", &script]].concat());
}

fn logs(swarm: &Swarm, service: &str) -> String {
    swarm.must(1, &["service", "logs", "--raw", service])
}

fn volume(swarm: &Swarm, name: &str) -> Value {
    let shown: Value = serde_json::from_str(&swarm.must(1, &["volume", "inspect", name])).expect("JSON");
    shown[0].clone()
}

/// Names of volumes that a list shows.
fn listed(swarm: &Swarm, filter: &str) -> Vec<String> {
    let shown = swarm.must(1, &["volume", "ls", "-q", "--filter", filter]);
    shown.lines().map(str::to_owned).collect()
}

#[test]
fn volumes_are_made_shown_used_and_removed_by_hand() {
    let swarm = start("byhand");
    assert_eq!(swarm.must(1, &["volume", "create", "--label", "team=blue", "data"]), "data");
    assert_eq!(swarm.must(1, &["volume", "create", "data"]), "data", "once is enough");
    let made = volume(&swarm, "data");
    assert_eq!(
        (&made["Driver"], &made["Scope"], &made["Labels"]),
        (&json!("local"), &json!("local"), &json!({"team":"blue"}))
    );
    let place = made["Mountpoint"].as_str().expect("a path").to_owned();
    swarm.refused(1, &["volume", "create", "-d", "rexray", "other"], "skep has \"local\" alone");
    swarm.refused(1, &["volume", "create", "-o", "size=1g", "other"], "invalid option: \"size\"");
    swarm.refused(1, &["volume", "create", "a/b"], "is no name of a volume");
    swarm.refused(1, &["volume", "inspect", "other"], "no such volume");
    let unnamed = swarm.must(1, &["volume", "create"]);
    assert_eq!(listed(&swarm, "label=team=blue"), ["data"]);
    assert_eq!(listed(&swarm, "name=at"), ["data"]);
    assert_eq!(listed(&swarm, "dangling=false"), Vec::<String>::new());

    create(&swarm, "web", &["--mount", "source=data,target=/www"], "echo $(cat /www/client) > /www/said");
    swarm.until("its content", || fs::read_to_string(format!("{place}/said")).is_ok_and(|said| said == "up\n"));
    assert_eq!(listed(&swarm, "dangling=false"), ["data"]);
    assert_eq!(listed(&swarm, "dangling=true"), [unnamed.as_str()]);
    swarm.refused(1, &["volume", "rm", "data"], "volume is in use");
    let usage = swarm.must(1, &["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]);
    assert!(usage.contains("Local Volumes 2 1"), "{usage}");
    let shown = swarm.must(1, &["ps", "-q", "--no-trunc"]);
    let shown: Value = serde_json::from_str(&swarm.must(1, &["inspect", &shown])).expect("JSON");
    let mount = &shown[0]["Mounts"][0];
    assert_eq!((&mount["Name"], &mount["Source"], &mount["Driver"]), (&json!("data"), &json!(place), &json!("local")));

    swarm.must(1, &["service", "rm", "web"]);
    swarm.until("its container to be gone", || swarm.must(1, &["ps", "-aq"]).is_empty());
    assert!(swarm.must(1, &["volume", "prune", "-f"]).contains(&unnamed));
    assert_eq!(listed(&swarm, "driver=local"), ["data"], "what has a name stays");
    assert_eq!(swarm.must(1, &["volume", "rm", "data"]), "data");
    swarm.refused(1, &["volume", "rm", "data"], "no such volume");
    swarm.must(1, &["volume", "create", "data"]);
    assert!(swarm.must(1, &["volume", "prune", "-f", "-a"]).contains("data"));
    assert!(listed(&swarm, "driver=local").is_empty());
}

#[test]
fn what_a_service_asks_of_its_volume_arrives() {
    let swarm = start("asked");
    let mount = "source=scratch,target=/v,volume-label=a=b,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,\"volume-opt=o=size=1m,mode=0711\"";
    create(&swarm, "one", &["--mount", mount, "--mount", "target=/own"], "grep ' /v ' /proc/mounts; echo kept > /v/x");
    swarm.until("it to say so", || logs(&swarm, "one").contains("tmpfs"));
    assert!(logs(&swarm, "one").contains("size=1024k"), "{}", logs(&swarm, "one"));
    assert_eq!(volume(&swarm, "scratch")["Labels"], json!({"a":"b"}));
    let spec: Value = serde_json::from_str(&swarm.must(1, &["service", "inspect", "one"])).expect("JSON");
    let options = &spec[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["VolumeOptions"];
    assert_eq!(options["DriverConfig"]["Options"]["o"], "size=1m,mode=0711");

    // Two containers share it; a daemon that starts again knows who has it.
    create(&swarm, "two", &["--mount", "source=scratch,target=/v"], "cat /v/x");
    swarm.until("the other to see it", || logs(&swarm, "two") == "kept");
    swarm.lab.stop_daemon(1).expect("stopped");
    swarm.lab.start_daemon(1).expect("started");
    swarm.until("the services", || swarm.docker(1, &["service", "rm", "one"]).ok);
    swarm.until("the container to be gone", || swarm.must(1, &["ps", "-aq"]).lines().count() == 1);
    let place = volume(&swarm, "scratch")["Mountpoint"].as_str().expect("a path").to_owned();
    let is_mounted = || fs::read_to_string("/proc/self/mountinfo").expect("a table").contains(&format!(" {place} "));
    assert!(is_mounted() && fs::read_to_string(format!("{place}/x")).is_ok_and(|x| x == "kept\n"));
    let left = || listed(&swarm, "dangling=true");
    assert_eq!(left(), Vec::<String>::new(), "a volume without a name goes with its container");
    swarm.must(1, &["service", "rm", "two"]);
    swarm.until("it to be unmounted", || !is_mounted());
    swarm.until("its container to be gone", || swarm.must(1, &["ps", "-aq"]).is_empty());
    swarm.must(1, &["volume", "rm", "scratch"]);

    swarm.refused(
        1,
        &["service", "create", "-d", "--name", "no", "--mount", "source=a,target=/a,volume-driver=rexray", "box"],
        "\"local\" alone",
    );
    swarm.refused(
        1,
        &["service", "create", "-d", "--name", "no", "--mount", "source=a,target=/a,volume-opt=colour=red", "box"],
        "invalid option",
    );
    let nowhere = "source=bad,target=/a,volume-opt=type=nosuchfs,volume-opt=device=x";
    create(&swarm, "bad", &["--mount", nowhere], "true");
    let said = || swarm.must(1, &["service", "ps", "--no-trunc", "--format", "{{.Error}}", "bad"]);
    swarm.until("it to say why", || said().contains("the kernel of the node has no file system of the type"));
}

const STACK: &str = "
services:
  db:
    image: box
    command: [sh, -c, 'date +%s%N >> /data/starts; exec sleep 1000']
    volumes: ['data:/data', 'logs:/logs:ro', '/scratch']
    deploy: { update_config: { order: stop-first }, restart_policy: { delay: 0s } }
volumes:
  data:
    labels: { team: blue }
  logs:
    driver: local
    driver_opts: { type: tmpfs, device: tmpfs, o: 'size=2m' }
";

/// Deploys the stack; without the docker CLI, by what it sends.
fn deploy(swarm: &Swarm) {
    let file = swarm.lab.dir().join("compose.yml");
    fs::write(&file, STACK).expect("written");
    if swarm.docker(1, &["stack", "ls"]).ok {
        let flags =
            ["stack", "deploy", "--detach=true", "--resolve-image", "never", "-c", &file.to_string_lossy(), "shop"];
        swarm.must(1, &flags);
        return;
    }
    let stack = "volume-label=com.docker.stack.namespace=shop";
    let data = format!("source=shop_data,target=/data,volume-label=team=blue,{stack}");
    let logs = format!(
        "source=shop_logs,target=/logs,readonly,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=2m,{stack}"
    );
    let flags = ["--mount", &data, "--mount", &logs, "--mount", "target=/scratch"];
    create(swarm, "shop_db", &flags, "date +%s%N >> /data/starts");
}

#[test]
fn the_volumes_of_a_stack_keep_their_content() {
    let swarm = start("stacked");
    deploy(&swarm);
    swarm.until("its task", || swarm.running("shop_db").len() == 1);
    let ours = "label=com.docker.stack.namespace=shop";
    assert_eq!(listed(&swarm, ours), ["shop_data", "shop_logs"]);
    assert_eq!(volume(&swarm, "shop_data")["Labels"]["team"], "blue");
    let starts = format!("{}/starts", volume(&swarm, "shop_data")["Mountpoint"].as_str().expect("a path"));
    let count = || fs::read_to_string(&starts).unwrap_or_default().lines().count();
    swarm.until("its first start", || count() == 1);
    swarm.must(1, &["service", "update", "-d", "--force", "shop_db"]);
    swarm.until("another start", || count() == 2);
    swarm.lab.kill_daemon(1).expect("killed");
    swarm.lab.start_daemon(1).expect("started");
    swarm.until("the swarm", || swarm.docker(1, &["service", "update", "-d", "--force", "shop_db"]).ok);
    swarm.until("another start", || count() == 3);
    assert_eq!(listed(&swarm, ours), ["shop_data", "shop_logs"]);
    swarm.must(1, &["service", "rm", "shop_db"]);
    swarm.until("all containers to be gone", || swarm.must(1, &["ps", "-aq"]).is_empty());
    assert_eq!(count(), 3);
    swarm.must(1, &["volume", "rm", "shop_data", "shop_logs"]);
    assert!(listed(&swarm, "driver=local").is_empty());
}
