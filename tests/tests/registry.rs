//! Images from a registry: pulled by people, pinned and pulled for services, with a login that nobody gets to see.

use skep_e2e::{Registry, Swarm, nginx};

/// The registry is on an address of the lab, and speaks plain HTTP.
const FLAGS: [&str; 2] = ["--insecure-registry", "0.0.0.0/0"];

#[test]
fn a_service_brings_its_image_to_every_node() {
    let swarm = Swarm::empty("registry", &FLAGS);
    let mut registry = Registry::start(&swarm);
    registry.push(&swarm, &nginx(), "team/web:1");
    let image = format!("{}/team/web:1", registry.addr);
    let create = ["service", "create", "-d", "--name", "web", "--mode", "global", "-p", "8080:80"];
    let quick = ["--restart-delay", "200ms"];

    // Without a login: the tasks say what is wrong, and are tried again.
    swarm.must(1, &[&create[..], &quick, &[&image]].concat());
    let errors = || swarm.must(1, &["service", "ps", "web", "--no-trunc", "--format", "{{.Error}}"]);
    swarm.until("tasks that say why", || errors().contains("no basic auth credentials"));
    assert!(errors().contains("No such image"), "{}", errors());

    let login =
        |password: &str| swarm.docker_with(1, &["login", "-u", "ann", "--password-stdin", &registry.addr], password);
    let wrong = login("wrong");
    assert!(!wrong.ok && wrong.err.contains("unauthorized"), "{wrong:?}");
    assert!(login("secret").ok);
    swarm.must(1, &["service", "update", "-d", "--with-registry-auth", "--image", &image, "web"]);
    swarm.until("all nodes to run it", || swarm.running("web").len() == 3);
    swarm.until("all nodes to answer", || (1..=3).all(|node| swarm.client(node, 8080).is_ok()));

    // The tag is pinned, and the login is nobody's to see.
    let spec = swarm.must(1, &["service", "inspect", "web"]);
    assert!(spec.contains(&format!("{image}@sha256:")) && spec.contains("\"Platforms\""), "{spec}");
    for secret in ["secret", "YW5uOnNlY3JldA", "egistryAuth", "egistry_auth"] {
        assert!(!spec.contains(secret), "{spec}");
        assert!(!swarm.words().contains(secret), "{}", swarm.words());
    }
    the_image_is_kept_while_it_is_used(&swarm, &image);

    // What is here needs no registry: other tasks, and the same digest again.
    registry.stop();
    let before = swarm.running("web");
    swarm.must(1, &["service", "update", "-d", "--force", "--update-parallelism", "0", "web"]);
    swarm.until("other tasks", || {
        let now = swarm.running("web");
        now.len() == 3 && now.iter().all(|task| !before.contains(task))
    });
}

fn the_image_is_kept_while_it_is_used(swarm: &Swarm, image: &str) {
    // By its digest it has no tag, so pruning would take it.
    let pruned = swarm.must(2, &["image", "prune", "-f"]);
    assert!(pruned.contains("Total reclaimed space: 0B"), "{pruned}");
    let listed = swarm.must(2, &["images", "--format", "{{.Repository}}"]);
    assert!(listed.contains(image.rsplit_once(':').expect("a tag").0), "{listed}");
    // A person pulls what a service has brought: nothing is downloaded, and the tag is new.
    let pulled = swarm.must(1, &["pull", image]);
    assert!(pulled.contains("Digest: sha256:") && !pulled.contains("Pull complete"), "{pulled}");
    let again = swarm.must(1, &["pull", image]);
    assert!(again.contains("Image is up to date"), "{again}");
    let gone = swarm.docker(1, &["pull", &image.replace(":1", ":9")]);
    assert!(!gone.ok && gone.err.contains("manifest unknown"), "{gone:?}");
}
