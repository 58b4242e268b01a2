//! The root of the nodes' certificates is replaced while everything goes on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use skep_e2e::{Said, Swarm};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

fn openssl(args: &[&str]) -> Said {
    Command::new("openssl").args(args).stdin(Stdio::null()).output().expect("openssl runs").into()
}

fn file(swarm: &Swarm, node: u8, name: &str) -> String {
    swarm.lab.data_root(node).join("certificates").join(name).to_string_lossy().into_owned()
}

/// The root that the swarm has, or the roots while one is replaced.
fn root(swarm: &Swarm, by: u8) -> String {
    swarm.must(by, &["swarm", "ca"])
}

fn is_over(swarm: &Swarm, by: u8) -> bool {
    swarm.docker(by, &["info", "--format", "{{.Swarm.Cluster.RootRotationInProgress}}"]).out == "false"
}

/// Every one of these nodes trusts `root` alone, and has a certificate under it, as another program than skep sees it.
fn all_are_under(swarm: &Swarm, nodes: &[u8], root: &str) {
    for node in nodes {
        let own = file(swarm, *node, "root.crt");
        swarm.until("the node to trust the new root alone", || {
            fs::read_to_string(&own).is_ok_and(|trusted| trusted.trim() == root.trim())
        });
        let verified = openssl(&["verify", "-CAfile", &own, &file(swarm, *node, "node.crt")]);
        assert!(verified.ok, "node{node}: {} {}", verified.out, verified.err);
    }
}

/// Nobody has lost a session up to now.
fn sessions_stood(swarm: &Swarm, before: &[String]) {
    for (node, before) in (1u8..).zip(before) {
        let log = fs::read_to_string(swarm.lab.log(node)).unwrap_or_default();
        let since = &log[before.len()..];
        assert!(!since.contains("lost the session"), "node{node}: {since}");
    }
}

fn logs(swarm: &Swarm) -> Vec<String> {
    (1..=swarm.lab.nodes()).map(|node| fs::read_to_string(swarm.lab.log(node)).unwrap_or_default()).collect()
}

fn token(swarm: &Swarm, by: u8) -> String {
    swarm.must(by, &["swarm", "join-token", "-q", "worker"])
}

#[test]
fn the_root_is_replaced_while_everything_goes_on_and_the_old_token_is_good_for_nothing() {
    let swarm = Swarm::managed("root", 4, 3);
    let image = skep_e2e::nginx().to_string_lossy().into_owned();
    (1..=4).for_each(|node| drop(swarm.must(node, &["load", "-i", &image])));
    let published = ["-p", "8080:80", "--replicas", "3", "--no-resolve-image", "--name", "web", "nginx"];
    swarm.serve(8080, &published);
    let (old, old_token, before) = (root(&swarm, 1), token(&swarm, 1), logs(&swarm));
    assert!(old.starts_with(BEGIN) && old.matches(BEGIN).count() == 1, "{old}");

    let stop = AtomicBool::new(false);
    let (shown, created, asked) = thread::scope(|scope| {
        // By a manager that does not lead: through a tunnel to the one that does.
        let creating = scope.spawn(|| {
            let mut made = 0u16;
            while !stop.load(Ordering::Relaxed) {
                let name = format!("s{made}");
                let create = ["service", "create", "-d", "--no-resolve-image", "--replicas", "0", "--name"];
                swarm.must(2, &[create.as_slice(), &[&name, "nginx"]].concat());
                made += 1;
            }
            made
        });
        let asking = scope.spawn(|| {
            let mut asked = 0u32;
            while !stop.load(Ordering::Relaxed) {
                for node in 1..=4 {
                    let answer = swarm.client(node, 8080);
                    assert!(answer.is_ok(), "node{node}: {answer:?}");
                    asked += 1;
                }
            }
            asked
        });
        let began = Instant::now();
        let shown = swarm.must(1, &["swarm", "ca", "--rotate"]);
        println!("a root was replaced on four nodes in {:?}", began.elapsed());
        stop.store(true, Ordering::Relaxed);
        (shown, creating.join().expect("nothing was refused"), asking.join().expect("all were answered"))
    });
    println!("{created} services were created and {asked} requests answered meanwhile");
    let new = root(&swarm, 3);
    assert!(new != old && new.matches(BEGIN).count() == 1 && shown.trim().ends_with(new.trim()), "{shown}");
    assert!(is_over(&swarm, 2));
    all_are_under(&swarm, &[1, 2, 3, 4], &new);
    sessions_stood(&swarm, &before);

    // Who is outside needs a token of the new root.
    let manager = format!("{}:2377", swarm.lab.address(1));
    swarm.must(4, &["swarm", "leave"]);
    let refused = swarm.docker(4, &["swarm", "join", "--token", &old_token, &manager]);
    assert!(!refused.ok && refused.err.contains("the swarm's root certificate was replaced since"), "{}", refused.err);
    swarm.must(4, &["swarm", "join", "--token", &token(&swarm, 2), &manager]);
    all_are_under(&swarm, &[4], &new);
}

#[test]
fn a_node_that_is_away_is_waited_for_and_named_until_it_is_back_or_removed() {
    let swarm = Swarm::managed("root-away", 4, 3);
    let down = |node: u8| {
        swarm.until("the node to count as down", || {
            let host = format!("node{node}");
            let state = ["node", "ls", "--filter", &format!("name={host}"), "--format", "{{.Status}}"];
            swarm.docker(1, &state).out.contains("Down")
        });
    };
    let joined = token(&swarm, 1);
    swarm.lab.stop_daemon(4).expect("it stops");
    down(4);
    swarm.must(1, &["swarm", "ca", "--rotate", "--detach"]);
    let warns = || swarm.must(1, &["info", "--format", "{{json .Warnings}}"]);
    swarm.until("it to be named alone", || warns().contains("under the new one on node4 (down)."));
    assert_eq!(token(&swarm, 1), joined, "until it is over, tokens name the old root");
    // Whoever comes now gets in by the token that he was given, whichever root the manager's certificate is under.
    swarm.must(2, &["swarm", "leave", "--force"]);
    down(2);
    swarm.must(1, &["node", "rm", "--force", "node2"]);
    swarm.must(2, &["swarm", "join", "--token", &joined, &format!("{}:2377", swarm.lab.address(1))]);
    // Somebody asks for another one meanwhile, and a manager starts again.
    swarm.must(3, &["swarm", "ca", "--rotate", "--detach"]);
    swarm.lab.stop_daemon(1).expect("it stops");
    swarm.lab.start_daemon(1).expect("it starts");
    swarm.until("a leader", || swarm.docker(1, &["node", "ls"]).ok);
    swarm.until("the others to be under the third one", || {
        let ready = warns().contains("under the new one on node4 (down).");
        ready && fs::read_to_string(file(&swarm, 3, "root.crt")).is_ok_and(|roots| roots.matches(BEGIN).count() == 3)
    });
    assert!(!is_over(&swarm, 1));
    // It is back with what it had, and gets in by that.
    swarm.lab.start_daemon(4).expect("it starts");
    swarm.until("the end", || is_over(&swarm, 1));
    let third = root(&swarm, 1);
    all_are_under(&swarm, &[1, 2, 3, 4], &third);

    // One that does not come back is removed.
    swarm.lab.kill_daemon(4).expect("killed");
    down(4);
    swarm.must(1, &["swarm", "ca", "--rotate", "--detach"]);
    swarm.until("it to be waited for", || warns().contains("node4 (down)"));
    assert!(!is_over(&swarm, 1));
    swarm.must(1, &["node", "rm", "--force", "node4"]);
    swarm.until("the end", || is_over(&swarm, 3));
    all_are_under(&swarm, &[1, 2, 3], &root(&swarm, 3));
}

#[test]
fn a_root_of_ones_own_and_what_is_refused() {
    let swarm = Swarm::managed("root-own", 3, 2);
    let dir = swarm.lab.data_root(1);
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (certificate, key) = (path("own.crt"), path("own.key"));
    let make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/O=Example/CN=root"];
    let made = openssl(&[make.as_slice(), &["-keyout", &key, "-out", &certificate]].concat());
    assert!(made.ok && Path::new(&key).exists(), "{}", made.err);
    let before = root(&swarm, 1);
    let rotate = ["swarm", "ca", "--rotate", "--detach", "--ca-cert", &certificate];
    let external = [rotate.as_slice(), &["--external-ca", "protocol=cfssl,url=https://ca.example.org"]].concat();
    swarm.refused(1, &external, "ask no external CA");
    let other = file(&swarm, 1, "node.key");
    swarm.refused(
        1,
        &[rotate.as_slice(), &["--ca-key", &other]].concat(),
        "private key is not that of the certificate",
    );
    swarm.refused(1, &["swarm", "update", "--cert-expiry", "30m"], "minimum certificate expiry time is 1h0m0s");
    assert_eq!(root(&swarm, 2), before);

    let own =
        ["swarm", "ca", "--rotate", "--quiet", "--cert-expiry", "1000h", "--ca-cert", &certificate, "--ca-key", &key];
    assert_eq!(swarm.must(2, &own), "");
    all_are_under(&swarm, &[1, 2, 3], &fs::read_to_string(&certificate).expect("the root"));
    for node in 1..=3 {
        let issued =
            openssl(&["x509", "-in", &file(&swarm, node, "node.crt"), "-noout", "-issuer", "-checkend", "3596400"]);
        assert!(
            issued.ok && issued.out.contains("Example"),
            "node{node}: valid for 999 hours: {} {}",
            issued.out,
            issued.err
        );
        let longer = openssl(&["x509", "-in", &file(&swarm, node, "node.crt"), "-noout", "-checkend", "3610800"]);
        assert!(!longer.ok, "node{node}: and not for 1003");
    }
    // The key is nothing that anybody is shown.
    let spec = swarm.must(1, &["info", "--format", "{{json .Swarm.Cluster.Spec}}"]);
    assert!(!spec.contains("SigningCA") && spec.contains("\"NodeCertExpiry\":3600000000000000"), "{spec}");
    // And a root of the swarm's own can follow it.
    swarm.must(1, &["swarm", "ca", "--rotate", "--quiet"]);
    all_are_under(&swarm, &[1, 2, 3], &root(&swarm, 1));
}
