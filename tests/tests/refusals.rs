//! Bad input gets a clear error and changes nothing.

use std::fs;
use std::process::Command;

use skep_e2e::{Swarm, nginx};

#[test]
fn services_that_make_no_sense_are_refused() {
    let swarm = Swarm::start("refused");
    swarm.serve(8080, &["--name", "pub", "-p", "8080:80", "nginx"]);
    let create = |more: &[&str], fragment: &str| {
        swarm.refused(1, &[&["service", "create", "-d"], more].concat(), fragment);
    };
    create(&["--name", "dup", "-p", "8080:80", "nginx"], "port '8080' is already in use by service 'pub'");
    create(&["--name", "zone", "-p", "70000:80", "nginx"], "70000");
    create(&["--name", "proto", "-p", "81:80/foo", "nginx"], "foo");
    create(&["--name", "target", "--publish", "published=81", "nginx"], "target");
    create(&["--name", "image", "NGINX"], "lowercase");
    create(&["--name", "bad name", "nginx"], "name");
    create(&["--name", "pub", "nginx"], "already exists");
    create(&["--name", "constraint", "--constraint", "node.role=manager", "nginx"], "operator");
    create(&["--name", "ssh", "-p", "22:80", "nginx"], "22");
    assert_eq!(swarm.must(1, &["service", "ls", "-q"]).lines().count(), 1, "nothing was created");

    swarm.refused(2, &["service", "ls"], "not a swarm manager");
    swarm.refused(1, &["swarm", "init"], "already part of a swarm");
    swarm.refused(1, &["swarm", "leave"], "--force");
    // skep's own command line says the same.
    let said = swarm.skep(1, &["service", "create", "-d", "--name", "dup", "-p", "8080:80", "nginx"]);
    assert!(!said.ok && said.err.contains("already in use by service 'pub'"), "{}", said.err);
}

#[test]
fn a_wrong_token_joins_nothing_and_a_worker_leaves_and_comes_back() {
    let swarm = Swarm::nodes("tokens");
    swarm.form();
    let join =
        |token: &str| swarm.docker(3, &["swarm", "join", "--token", token, &format!("{}:2377", swarm.lab.address(1))]);
    swarm.must(3, &["swarm", "leave"]);
    let good = swarm.must(1, &["swarm", "join-token", "-q", "worker"]);
    let wrong = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    let said = join(&wrong);
    assert!(!said.ok && said.err.contains("A valid join token is necessary to join this cluster"), "{}", said.err);
    assert!(!join("nonsense").ok);
    assert!(swarm.must(3, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).contains("inactive"));
    let said = join(&good);
    assert!(said.ok && said.out.contains("joined a swarm as a worker"), "{}", said.err);
    swarm.until("both entries", || swarm.must(1, &["node", "ls"]).matches("Down").count() == 1);
    let rotated = swarm.must(1, &["swarm", "join-token", "-q", "--rotate", "worker"]);
    assert_ne!(rotated, good);
    swarm.must(3, &["swarm", "leave"]);
    assert!(!join(&good).ok, "the old token admits nobody");
    assert!(join(&rotated).ok);
}

#[test]
fn archives_of_both_kinds_load_and_damaged_ones_leave_nothing() {
    let swarm = Swarm::nodes("images");
    swarm.form();
    let dir = swarm.lab.dir();
    let damaged = dir.join("damaged.tar");
    let whole = fs::read(nginx()).expect("the archive");
    fs::write(&damaged, &whole[..whole.len() / 2]).expect("written");
    for node in 1..=2 {
        swarm.refused(node, &["load", "-i", &damaged.to_string_lossy()], "archive");
    }
    assert_eq!(swarm.must(1, &["images", "-q"]), "");

    // A missing image is the task's error, and says so.
    swarm.must(1, &["service", "create", "-d", "--name", "early", "--restart-delay", "1s", "nginx"]);
    swarm.until("the error", || {
        swarm.must(1, &["service", "ps", "--no-trunc", "early"]).contains("No such image: nginx")
    });

    let oci = dir.join("oci.tar");
    let (from, to) =
        (format!("docker-archive:{}", nginx().display()), format!("oci-archive:{}:nginx:latest", oci.display()));
    assert!(
        Command::new("skopeo")
            .args(["copy", "-q", &format!("{from}:nginx:latest"), &to])
            .status()
            .expect("skopeo runs")
            .success()
    );
    swarm.must(1, &["load", "-i", &oci.to_string_lossy()]);
    let said = swarm.skep(2, &["image", "load", "-i", &nginx().to_string_lossy()]);
    assert!(said.ok, "{}", said.err);
    swarm.must(3, &["load", "-i", &nginx().to_string_lossy()]);
    assert!(swarm.must(2, &["images"]).contains("nginx"));
    swarm.until("the task to run now", || swarm.running("early").len() == 1);
}
