//! Nodes prove who they are, and nobody else can read along.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use skep_e2e::{Said, Swarm};

fn certificates(swarm: &Swarm, node: u8) -> PathBuf {
    swarm.lab.data_root(node).join("certificates")
}

fn openssl(args: &[&str]) -> Said {
    Command::new("openssl").args(args).stdin(Stdio::null()).output().expect("openssl runs").into()
}

/// What another TLS library than skep's finds at the manager port, from outside.
fn connect(swarm: &Swarm, more: &[&str]) -> Said {
    let at = format!("{}:2377", swarm.lab.address(1));
    let argv = [
        "timeout",
        "5",
        "openssl",
        "s_client",
        "-brief",
        "-alpn",
        "h2",
        "-servername",
        "swarm-manager",
        "-connect",
        &at,
    ];
    let argv: Vec<String> = argv.iter().chain(more).map(|&word| word.to_owned()).collect();
    let mut command = swarm.lab.exec("client", &argv).expect("a place");
    command.stdin(Stdio::null()).output().expect("openssl runs").into()
}

fn json(swarm: &Swarm, args: &[&str]) -> Value {
    serde_json::from_str(&swarm.must(1, args)).expect("JSON")
}

#[test]
fn every_node_has_a_certificate_of_the_swarm_and_the_port_speaks_nothing_but_tls() {
    let swarm = Swarm::nodes("certificates");
    swarm.form();
    let info = json(&swarm, &["info", "--format", "{{json .Swarm.Cluster.TLSInfo}}"]);
    let root = info["TrustRoot"].as_str().expect("a root certificate").to_owned();
    assert!(root.starts_with("-----BEGIN CERTIFICATE-----"), "{info}");
    let of_node = json(&swarm, &["node", "inspect", "self", "--format", "{{json .Description.TLSInfo}}"]);
    assert_eq!(of_node, info);
    for node in 1..=3 {
        let dir = certificates(&swarm, node);
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let mode = |name: &str| fs::metadata(dir.join(name)).expect(name).permissions().mode() & 0o777;
        assert_eq!(["node.key", "node.crt", "root.crt"].map(mode), [0o600, 0o644, 0o644]);
        assert_eq!(fs::read_to_string(dir.join("root.crt")).expect("the root"), root, "node{node}");
        let verified = openssl(&["verify", "-CAfile", &path("root.crt"), &path("node.crt")]);
        assert!(verified.ok, "{}", verified.err);
        let subject = openssl(&["x509", "-in", &path("node.crt"), "-noout", "-subject"]).out;
        let role = if node == 1 { "swarm-manager" } else { "swarm-worker" };
        let id = swarm.must(node, &["info", "--format", "{{.Swarm.NodeID}}"]);
        assert!(subject.contains(role) && subject.contains(id.trim()), "node{node}: {subject}");
    }
    let roots = certificates(&swarm, 1).join("root.crt").to_string_lossy().into_owned();
    let said =
        connect(&swarm, &["-tls1_3", "-CAfile", &roots, "-verify_return_error", "-verify_hostname", "swarm-manager"]);
    let told = said.out + &said.err;
    assert!(told.contains("TLSv1.3") && told.contains("Verification: OK"), "{told}");
    assert!(!connect(&swarm, &["-tls1_2"]).ok, "nothing older than TLS 1.3");
    let at = format!("http://{}:2377/", swarm.lab.address(1));
    assert!(swarm.get("client", &at).is_err(), "nothing in the clear");
}

#[test]
fn a_member_stays_one_over_restarts_and_a_removed_one_is_refused() {
    let swarm = Swarm::nodes("members");
    swarm.form();
    let ready = || swarm.must(1, &["node", "ls"]).matches("Ready").count();
    swarm.until("three nodes", || ready() == 3);
    for node in 1..=3 {
        swarm.lab.stop_daemon(node).expect("it stops");
    }
    for node in 1..=3 {
        swarm.lab.start_daemon(node).expect("it starts");
    }
    swarm.until("the same three nodes again", || swarm.docker(1, &["node", "ls"]).ok && ready() == 3);
    let removed = swarm.must(3, &["info", "--format", "{{.Swarm.NodeID}}"]);
    swarm.must(1, &["node", "rm", "--force", removed.trim()]);
    let error = ["info", "--format", "{{.Swarm.Error}}"];
    swarm.until("the reason", || swarm.must(3, &error).contains("this node is not a member of the swarm"));
    // A key that is not the certificate's is noticed before anything is done with it.
    swarm.lab.stop_daemon(2).expect("it stops");
    let of = |node: u8| certificates(&swarm, node).join("node.key");
    fs::copy(of(3), of(2)).expect("copied");
    let refused = swarm.lab.start_daemon(2).expect_err("it should not start").to_string();
    assert!(refused.contains("not the one that the certificate was issued for"), "{refused}");
    swarm.must(3, &["swarm", "leave", "--force"]);
    assert!(!certificates(&swarm, 3).exists(), "what only a member has is gone");
}
