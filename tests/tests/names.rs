//! What names lead to, asked from a task's namespace by `dig` and by the resolvers that programs have.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;
use skep_e2e::{Swarm, busybox, musl_lookup};

/// More than fit into 512 bytes.
const MANY: usize = 40;

struct Names {
    swarm: Swarm,
    /// Where names are asked for: in the namespace of the task of `cli`.
    inside: String,
}

/// Three nodes; on `app`, which has IPv6: `web` with an address of its own and a further name, `many` without one, and `cli`; on `plain`, which
/// has not: `db` and `cli`.
fn start() -> Names {
    let swarm = Swarm::managed("names", 3, 1);
    swarm.load(&busybox());
    swarm.must(1, &["network", "create", "-d", "overlay", "--ipv6", "app"]);
    swarm.must(1, &["network", "create", "-d", "overlay", "plain"]);
    let create = |name: &str, rest: &[&str]| {
        let create = ["service", "create", "-d", "--no-resolve-image", "--name", name];
        swarm.must(1, &[&create[..], rest, &["box"]].concat());
    };
    create("web", &["--network", "name=app,alias=www", "--replicas", "3"]);
    create("many", &["--network", "app", "--endpoint-mode", "dnsrr", "--replicas", &MANY.to_string()]);
    create("db", &["--network", "plain"]);
    let on = ["--network", "app", "--network", "plain", "--constraint", "node.hostname==node2"];
    create("cli", &[&on[..], &["--dns-search", "web"]].concat());
    let all = [("web", 3), ("many", MANY), ("db", 1), ("cli", 1)];
    swarm.until("all tasks", || all.iter().all(|(name, tasks)| swarm.running(name).len() == *tasks));
    let inside = format!("--net={}", swarm.namespace(2, "cli").display());
    let names = Names { swarm, inside };
    names.swarm.until("all names", || names.short(&["+tcp", "tasks.many"]).len() == MANY);
    names.swarm.until("the others", || names.short(&["tasks.web"]).len() == 3 && names.short(&["tasks.db"]).len() == 1);
    names
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Names {
    /// What dig says to such arguments.
    fn dig(&self, args: &[&str]) -> String {
        let options = ["@127.0.0.11", "+time=6", "+tries=1"];
        let dig = Command::new("nsenter").args([&self.inside, "dig"]).args(options).args(args).output();
        text(&dig.expect("dig runs"))
    }

    /// The values alone.
    fn short(&self, args: &[&str]) -> BTreeSet<String> {
        let said = self.dig(&[&["+short"], args].concat());
        said.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect()
    }

    /// The code of the answer, the flags and the number of records in it, as dig writes them.
    fn heading(&self, args: &[&str]) -> (String, String, usize) {
        let said = self.dig(args);
        let after = |mark: &str, end: char| {
            let rest = said.split_once(mark).map(|(_, rest)| rest).unwrap_or_default();
            rest.split(end).next().unwrap_or_default().trim().to_owned()
        };
        let records = after("ANSWER:", ',').parse().unwrap_or_else(|_| panic!("{args:?}: {said}"));
        (after("status:", ','), after(";; flags:", ';'), records)
    }

    /// Runs a program of this machine as if it were in the task: in its network, with its `/etc/resolv.conf`.
    fn as_task(&self, program: &[&str]) -> String {
        let conf = self.swarm.inside(2, "cli", &["cat", "/etc/resolv.conf"]).expect("its resolv.conf");
        let file = self.swarm.lab.dir().join("resolv.conf");
        std::fs::write(&file, conf + "\n").expect("written");
        let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\" 2>&1";
        let mut command = Command::new("nsenter");
        command.args([&self.inside, "unshare", "--mount", "sh", "-c", mount]).arg(file).args(program);
        text(&command.output().expect("it runs"))
    }

    /// What the API says of a service's own address on a network, and of its tasks' ones.
    fn addresses(&self, service: &str, network: &str) -> (String, BTreeSet<String>) {
        let id = self.swarm.api(1, &format!("/networks/{network}"))["Id"].clone();
        let shown = self.swarm.api(1, &format!("/services/{service}"));
        let bare = |text: &Value| text.as_str().unwrap_or_default().split('/').next().unwrap_or_default().to_owned();
        let own = shown["Endpoint"]["VirtualIPs"].as_array().into_iter().flatten().find(|vip| vip["NetworkID"] == id);
        let tasks = self.swarm.api(1, "/tasks");
        let of = tasks.as_array().into_iter().flatten().filter(|task| task["ServiceID"] == shown["ID"]);
        let on = of.flat_map(|task| task["NetworksAttachments"].as_array().into_iter().flatten());
        let there = on.filter(|at| at["Network"]["ID"] == id).map(|at| bare(&at["Addresses"][0]));
        (own.map(|vip| bare(&vip["Addr"])).unwrap_or_default(), there.collect())
    }
}

fn one(address: &str) -> BTreeSet<String> {
    BTreeSet::from([address.to_owned()])
}

fn heading(status: &str, records: usize) -> (String, usize) {
    (status.to_owned(), records)
}

#[test]
fn a_task_is_told_what_the_table_of_names_says() {
    let names = start();
    let (web, tasks) = names.addresses("web", "app");
    for name in ["web", "WEB", "web.app", "www", "www.app"] {
        assert_eq!(names.short(&[name]), one(&web), "{name}");
    }
    assert_eq!(names.short(&["tasks.web"]), tasks);
    assert_eq!(names.short(&["tasks.www"]), tasks);
    assert_eq!(names.short(&["db"]), one(&names.addresses("db", "plain").0));

    // Both families where the network has both; nothing of the kind is not nobody of the name.
    let twins = names.short(&["tasks.web", "AAAA"]);
    assert!(twins.len() == 3 && twins.iter().all(|twin| twin.starts_with("fd73:6b65:7000::")), "{twins:?}");
    let code = |args: &[&str]| {
        let (status, _, records) = names.heading(args);
        (status, records)
    };
    assert_eq!(code(&["db", "AAAA"]), heading("NOERROR", 0));
    assert_eq!(code(&["web", "MX"]), heading("NOERROR", 0));
    assert_eq!(code(&["web", "-c", "CH"]), heading("REFUSED", 0));
    assert_eq!(code(&["web", "+edns=1", "+noednsnegotiation"]), heading("BADVERS", 0));
    assert_eq!(code(&["web", "+opcode=NOTIFY"]), heading("NOTIMP", 0));
    // Others are asked, of whom none answers in the lab.
    assert_eq!(code(&["nobody.example"]), heading("SERVFAIL", 0));

    // And back again; an address that nobody has is nobody else's business.
    assert_eq!(names.short(&["-x", &web]), one("web.app."));
    for task in &tasks {
        let back = names.short(&["-x", task]);
        let name = back.first().expect("a name");
        assert!(name.starts_with("web.") && name.ends_with(".app."), "{name}");
        assert_eq!(names.short(&[name]), one(task));
    }
    let last = web.rsplit_once('.').map(|(net, _)| format!("{net}.250")).expect("an address");
    assert_eq!(code(&["-x", &last]), heading("NXDOMAIN", 0));

    // All of that is counted where it was asked.
    let metrics = names.swarm.get("node2", "http://127.0.0.1:9323/metrics").expect("metrics");
    let counted = |kind: &str, answer: &str| -> f64 {
        let series = format!("skep_dns_questions_total{{type=\"{kind}\",answer=\"{answer}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&series));
        found.unwrap_or_else(|| panic!("no {series}: {metrics}")).parse().expect("a number")
    };
    for (kind, answer, least) in [
        ("A", "records", 7.0),
        ("A", "failed", 1.0),
        ("AAAA", "records", 1.0),
        ("AAAA", "nodata", 1.0),
        ("PTR", "records", 4.0),
        ("PTR", "nxdomain", 1.0),
        ("other", "nodata", 1.0),
        ("other", "refused", 3.0),
    ] {
        assert!(counted(kind, answer) >= least, "{kind} {answer}: {metrics}");
    }

    let served = names.short(&["_80._tcp.tasks.web", "SRV"]);
    assert!(served.len() == 3 && served.iter().all(|record| record.split(' ').nth(2) == Some("80")), "{served:?}");
}

#[test]
fn long_answers_come_whole_however_they_are_asked_for() {
    let names = start();
    let tasks = names.addresses("many", "app").1;
    assert_eq!(tasks.len(), MANY);
    let (status, flags, records) = names.heading(&["+noedns", "+ignore", "many"]);
    assert!(status == "NOERROR" && flags.split(' ').any(|flag| flag == "tc"), "{flags}");
    assert!(0 < records && records < MANY, "what fits into 512 bytes, and no more: {records}");
    // By TCP after that, by TCP at once, and in one datagram that may be long.
    for how in [&["+noedns"][..], &["+tcp"], &["+bufsize=4096", "+ignore"]] {
        assert_eq!(names.short(&[how, &["many"]].concat()), tasks, "{how:?}");
    }
    // The resolvers of glibc, of busybox (without EDNS), of musl, and of Go, which a docker CLI has where there is one.
    let told = names.as_task(&["getent", "ahostsv4", "many"]);
    let told: BTreeSet<_> = told.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(told, tasks);
    let told = names.swarm.inside(2, "cli", &["nslookup", "-type=a", "tasks.web"]).expect("an answer");
    assert_eq!(told.matches("Address: ").count(), 3, "{told}");
    // Of musl, which asks for both families at once, and for no more than fits into a datagram.
    let lookup = musl_lookup().display().to_string();
    let musl = |args: &[&str]| -> BTreeSet<String> {
        names.as_task(&[&[lookup.as_str()], args].concat()).lines().map(str::to_owned).collect()
    };
    let (web, all) = names.addresses("web", "app");
    assert_eq!((musl(&["web", "4"]), musl(&["tasks.web", "4"])), (one(&web), all.clone()));
    let both = musl(&["tasks.web"]);
    assert!(both.len() == 6 && both.is_superset(&all), "{both:?}");
    assert_eq!(musl(&["www.app", "6"]), names.short(&["web", "AAAA"]));
    assert_eq!(musl(&["db"]), one(&names.addresses("db", "plain").0), "an empty answer for AAAA is no failure");
    let some = musl(&["many", "4"]);
    assert!(!some.is_empty() && some.is_subset(&tasks), "{some:?}");
    if Command::new("docker").arg("--version").output().is_ok() {
        let said = names.as_task(&["env", "GODEBUG=netdns=go", "docker", "-H", "tcp://web:80", "version"]);
        assert!(said.contains("404"), "a server that knows no Docker: {said}");
    }
    // `tasks` is nobody's name, `tasks.web` is found by the search domain.
    let told = names.as_task(&["getent", "ahostsv4", "tasks"]);
    let told: BTreeSet<_> = told.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(told, names.addresses("web", "app").1);
    assert!(names.as_task(&["getent", "ahostsv6", "web"]).starts_with("fd73:6b65:7000::"));
}
