//! What a service's containers survive, how many there may be, and that nothing of them stays.
//!
//! `SKEP_CYCLES=1000` lets as many containers come and go, `SKEP_CONTAINERS=500` runs as many at once, and `SKEP_ABSENCE=60` stops the daemon for as
//! many seconds.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use skep_e2e::{Holdings, PATIENCE, Swarm, binary, busybox};

/// How many, or for how long, unless the caller says otherwise.
fn asked(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

fn start(story: &str) -> Swarm {
    let swarm = Swarm::managed(story, 1, 1);
    swarm.load(&busybox());
    swarm
}

/// Containers that a node has, of which `filter` tells.
fn containers(swarm: &Swarm, filter: &str) -> Vec<String> {
    swarm.must(1, &["ps", "-aq", "--no-trunc", "--filter", filter]).lines().map(str::to_owned).collect()
}

fn scale(swarm: &Swarm, service: &str, replicas: usize) {
    swarm.must(1, &["service", "scale", "-d", &format!("{service}={replicas}")]);
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// Containers that start and end in one round.
const ROUND: usize = 10;
/// What the daemon's memory may differ by between two looks, whatever happens: what the allocator keeps for later.
const SLACK: u64 = 24 << 20;

/// A service whose containers have all that containers can have.
fn create_rich(swarm: &Swarm) {
    for what in ["secret", "config"] {
        assert!(swarm.docker_with(1, &[what, "create", "-l", "a=b", what, "-"], "hush").ok);
    }
    swarm.must(1, &["network", "create", "-d", "overlay", "back"]);
    let flags = [
        "--replicas=0",
        "--name=rich",
        "--init",
        "--publish=8080:80",
        "--network=back",
        "--secret=secret",
        "--config=config",
        "--mount=target=/anonymous",
        "--mount=type=tmpfs,target=/scratch",
        "--limit-memory=64m",
        "--limit-pids=50",
        "--health-cmd=true",
        "--health-interval=200ms",
        "--stop-grace-period=5s",
    ];
    swarm.must(1, &[&["service", "create", "-d"], &flags[..], &["box"]].concat());
}

/// Starts as many as a round has, does with one what people do with containers, and ends them all.
fn round(swarm: &Swarm) {
    scale(swarm, "rich", ROUND);
    let label = "label=com.docker.swarm.service.name=rich";
    swarm
        .until("all to be healthy", || swarm.must(1, &["ps", "--filter", label]).matches("(healthy)").count() == ROUND);
    let one = &containers(swarm, label)[0];
    assert_eq!(swarm.must(1, &["exec", "-t", one, "echo", "hello"]), "hello");
    swarm.must(1, &["logs", one]);
    swarm.must(1, &["stats", "--no-stream", one]);
    scale(swarm, "rich", 0);
    swarm.until("all to be gone", || containers(swarm, label).is_empty());
}

/// Waits until the node holds nothing that it did not hold before.
fn nothing_is_left(swarm: &Swarm, before: &Holdings) {
    let began = Instant::now();
    loop {
        let grown = swarm.holdings(1).more_than(before);
        if grown.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "there is more than before: {grown:#?}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn nothing_grows_however_often_containers_start_and_stop() {
    let swarm = start("cycles");
    create_rich(&swarm);
    // What is made once and stays.
    round(&swarm);
    round(&swarm);
    let (before, memory) = (swarm.holdings(1), swarm.memory(1));
    let cycles = asked("SKEP_CYCLES", 40);
    let began = Instant::now();
    for number in 1..=cycles.div_ceil(ROUND) {
        round(&swarm);
        if number % 10 == 0 {
            println!("after {} cycles the daemon has {} MiB", number * ROUND, mib(swarm.memory(1).resident));
        }
    }
    println!("{cycles} cycles in {:.0?}", began.elapsed());
    nothing_is_left(&swarm, &before);
    let now = swarm.memory(1);
    println!("the daemon had {} MiB, and has {} MiB", mib(memory.resident), mib(now.resident));
    assert!(now.resident < memory.resident + SLACK, "{memory:?}, then {now:?}");
}

#[test]
fn one_node_runs_many_containers() {
    let swarm = start("many");
    let many = asked("SKEP_CONTAINERS", 40);
    swarm.must(1, &["service", "create", "-d", "--name", "many", "--replicas", "0", "box", "sleep", "100000"]);
    // What is made once and stays.
    scale(&swarm, "many", 1);
    swarm.until("the first", || swarm.running("many").len() == 1);
    swarm.lab.kill_daemon(1).expect("killed");
    swarm.lab.start_daemon(1).expect("started");
    scale(&swarm, "many", 0);
    swarm.until("it to be gone", || swarm.must(1, &["ps", "-aq"]).is_empty());
    let (before, alone) = (swarm.holdings(1), swarm.memory(1));
    let patience = Duration::from_secs(30 + many as u64);
    scale(&swarm, "many", many);
    let all = swarm.until_within(patience, "all to run", || swarm.running("many").len() == many);
    let (with, (shims, of_shims)) = (swarm.memory(1), swarm.shims(1));
    assert_eq!(shims, many);
    println!("{many} containers run after {all:.1?}");
    println!("the daemon had {} MiB, and has {} MiB", mib(alone.resident), mib(with.resident));
    println!("each shim has {} KiB of its own and its share", of_shims.share / shims as u64 / 1024);

    let pids = |swarm: &Swarm| swarm.must(1, &["ps", "-q", "--no-trunc"]).lines().count();
    swarm.lab.kill_daemon(1).expect("killed");
    let began = Instant::now();
    swarm.lab.start_daemon(1).expect("started");
    assert_eq!(pids(&swarm), many);
    println!("the next daemon shows them after {:.1?}", began.elapsed());
    swarm.until("it to say that they run", || swarm.running("many").len() == many);
    assert_eq!(swarm.shims(1).0, many, "the same containers");

    let began = Instant::now();
    swarm.must(1, &["service", "rm", "many"]);
    swarm.until_within(patience, "all to be gone", || swarm.must(1, &["ps", "-aq"]).is_empty());
    println!("all gone after {:.1?}", began.elapsed());
    nothing_is_left(&swarm, &before);
}

/// Counts, twenty lines a second; a file tells it to end.
const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";

#[test]
fn a_daemon_that_was_away_finds_out_what_happened_meanwhile() {
    let swarm = start("absence");
    let seconds = asked("SKEP_ABSENCE", 4) as u64;
    let shared = swarm.lab.dir().join("shared");
    fs::create_dir_all(&shared).expect("a directory");
    fs::write(shared.join("well"), "").expect("a file");
    let bind = format!("--mount=type=bind,source={},target=/shared", shared.display());
    let create = |name: &str, flags: &[&str], script: &str| {
        let fixed = ["service", "create", "-d", "--name", name, &bind, "--restart-delay", "0s"];
        swarm.must(1, &[&fixed, flags, &["box", "sh", "-c", script]].concat());
    };
    create("counts", &[], COUNTING);
    let ends = "while [ ! -e /shared/end ]; do sleep 0.05; done; echo bye; exit 3";
    create("ends", &["--restart-condition", "none"], ends);
    let check = ["--health-cmd", "test -e /shared/well", "--health-interval", "200ms", "--health-retries", "2"];
    create("sick", &check, "exec sleep 100000");
    swarm.until("all to run", || ["counts", "ends", "sick"].iter().all(|name| swarm.running(name).len() == 1));
    let tasks = swarm.running("counts");
    let [ends] = &containers(&swarm, "label=com.docker.swarm.service.name=ends")[..] else { panic!("one container") };
    let exit = swarm.lab.data_root(1).join("containers").join(ends).join("exit.json");

    swarm.lab.stop_daemon(1).expect("stopped");
    let away = Instant::now();
    fs::write(shared.join("end"), "").expect("a file");
    fs::remove_file(shared.join("well")).expect("the file goes");
    swarm.until("the container to end", || exit.exists());
    thread::sleep(Duration::from_secs(seconds).saturating_sub(away.elapsed()));
    // Another build of the program: it has another content, and lies elsewhere.
    swarm.lab.start_daemon_from(&another_build(&swarm), 1).expect("started");

    let told = |service: &str| {
        let format = "{{.CurrentState}} {{.Error}}";
        swarm.must(1, &["service", "ps", "--no-trunc", "--format", format, service])
    };
    swarm.until("the exit to be told", || told("ends").contains("non-zero exit (3)"));
    assert!(told("ends").starts_with("Failed"), "{}", told("ends"));
    swarm.until("the check to be told", || told("sick").contains("unhealthy container"));
    assert_eq!(swarm.must(1, &["service", "logs", "--raw", "ends"]), "bye");
    assert_eq!(swarm.running("counts"), tasks, "the same task");
    let logs = || swarm.must(1, &["service", "logs", "--raw", "counts"]);
    let counted: Vec<u64> = logs().lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(counted, (1..=counted.len() as u64).collect::<Vec<_>>(), "no line is missing");
    assert!(counted.len() as u64 > seconds * 5, "{} lines", counted.len());
    // The new build runs programs in the containers of the old one, and takes over what they write.
    let [counts] = &containers(&swarm, "label=com.docker.swarm.service.name=counts")[..] else {
        panic!("one container")
    };
    assert_eq!(swarm.must(1, &["exec", counts, "hostname"]).len(), 12);
    swarm.until("more lines", || logs().lines().count() > counted.len());
}

/// The program with some bytes more, which the kernel does not look at.
fn another_build(swarm: &Swarm) -> PathBuf {
    let path = swarm.lab.dir().join("skep-next");
    fs::copy(binary(), &path).expect("copied");
    let mut bytes = fs::OpenOptions::new().append(true).open(&path).expect("opened");
    std::io::Write::write_all(&mut bytes, b"another build").expect("written");
    path
}

#[test]
fn tasks_come_back_after_the_machine_was_without_power() {
    let swarm = Swarm::managed("power", 2, 1);
    swarm.load(&busybox());
    let flags = ["--mode", "global", "--restart-delay", "0s", "--mount", "source=data,target=/data", "-p", "8080:80"];
    let script = "echo here >> /data/starts; exec httpd -f -p 80 -h /data";
    swarm.must(1, &[&["service", "create", "-d", "--name", "web"], &flags[..], &["box", "sh", "-c", script]].concat());
    let starts = |place: &str, node: u8| {
        let url = format!("http://{}:8080/starts", swarm.lab.address(node));
        swarm.get(place, &url).unwrap_or_default().lines().count()
    };
    swarm.until("both tasks", || swarm.running("web").len() == 2 && (1..=2).all(|node| starts("client", node) == 1));
    // First the worker, then the manager, then both at once.
    for (round, nodes) in [&[2][..], &[1], &[1, 2]].iter().enumerate() {
        let before = swarm.running("web");
        nodes.iter().for_each(|node| swarm.lab.lose_power(*node).expect("no power"));
        nodes.iter().for_each(|node| swarm.lab.start_daemon(*node).expect("started"));
        swarm.until("tasks in the place of those that were lost", || {
            let now = swarm.running("web");
            now.len() == 2 && before.iter().filter(|task| now.contains(task)).count() == 2 - nodes.len()
        });
        for node in 1..=2 {
            swarm.until("it to answer", || starts("client", node) > 0);
        }
        println!("round {}: tasks are back", round + 1);
    }
    // What was on the disk is there: each node was without power twice.
    for node in 1..=2 {
        let file = swarm.lab.data_root(node).join("volumes/data/_data/starts");
        assert_eq!(fs::read_to_string(file).expect("the volume").lines().count(), 3, "node{node}");
    }
}
