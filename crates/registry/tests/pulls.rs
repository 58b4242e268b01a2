//! Pulls that go well, from a registry in this process: what is asked for, how often, and what is in the store afterwards.

mod kit;

use std::fs;
use std::sync::{Arc, Mutex};

use kit::{Bench, FakeRegistry, Packing, Reply, impatient, noise, password, sample};
use skep_registry::{LayerState, News, PullEvent, PullRequest, RegistryConfig};
use skep_runtime::images::{ImageBuilder, InUse, Removal};
use tokio_rustls::TlsAcceptor;

const ALL: [Packing; 3] = [Packing::Gzip, Packing::Zstd, Packing::Plain];

fn request(reference: &skep_model::ImageRef) -> PullRequest {
    PullRequest { reference: reference.clone(), auth: None, platform: None }
}

#[tokio::test]
async fn an_index_is_resolved_and_every_layer_comes_once() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    let digest = registry.push_index("team/web:1", &sample("1"), &ALL);
    let image = registry.image("team/web:1");
    let mut pulling = bench.puller.pull(request(&image));
    let mut events = Vec::new();
    while let Some(event) = pulling.next().await {
        events.push(event);
    }
    let held = pulling.outcome().await.unwrap();
    assert_eq!(held.layers.len(), 3);
    assert_eq!(events[0], PullEvent::Found { repository: "team/web".into(), wanted: "1".into() });
    assert_eq!(events.last(), Some(&PullEvent::Pulled { digest, news: News::Newer }));
    let complete = events.iter().filter(|e| matches!(e, PullEvent::Layer { state: LayerState::Complete, .. }));
    assert_eq!(complete.count(), 3);
    let blobs = registry.asked().into_iter().filter(|line| line.contains("/blobs/")).count();
    assert_eq!(blobs, 4, "three layers and a configuration");

    for name in [image.to_string(), image.by_digest(&digest.to_string()).to_string(), held.id.short()] {
        assert_eq!(bench.images.find(&name).unwrap().id, held.id, "{name}");
    }
    let root = bench.images.mount(&held.id, &bench.dir.path().join("at")).unwrap();
    assert_eq!(fs::read_to_string(root.join("top")).unwrap(), "1");
    assert_eq!(fs::read(root.join("middle")).unwrap(), noise(300_000));
    bench.images.unmount(&bench.dir.path().join("at")).unwrap();
}

#[tokio::test]
async fn what_is_here_is_not_downloaded_again() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    let pushed = registry.push("web:1", &sample("1"), &ALL);
    let image = registry.image("web:1");
    bench.pull(&image).await.unwrap();
    registry.asked();

    bench.pull(&image).await.unwrap();
    assert_eq!(registry.asked(), ["HEAD /v2/web/manifests/1"], "a tag may mean something else by now");
    bench.pull(&image.by_digest(&pushed.manifest.to_string())).await.unwrap();
    bench.pull(&image.pinned(&pushed.manifest.to_string())).await.unwrap();
    assert!(registry.asked().is_empty(), "a digest means the same for ever");

    // Another image on the same base, and another name for the first.
    registry.push("web:2", &sample("2"), &ALL);
    bench.pull(&registry.image("web:2")).await.unwrap();
    let blobs = registry.asked().into_iter().filter(|line| line.contains("/blobs/")).count();
    assert_eq!(blobs, 2, "the top layer and the configuration");
    registry.push("web:latest", &sample("1"), &ALL);
    bench.pull(&registry.image("web")).await.unwrap();
    assert_eq!(registry.asked(), ["HEAD /v2/web/manifests/latest"]);
    assert_eq!(bench.images.list().len(), 2);
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_what_comes() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    registry.push("web:1", &sample("1"), &ALL);
    registry.push("web:2", &sample("2"), &ALL);
    let (one, two) = (registry.image("web:1"), registry.image("web:2"));
    let (a, b, c) = tokio::join!(bench.pull(&one), bench.pull(&one), bench.pull(&two));
    assert_eq!(a.unwrap().id, b.unwrap().id);
    c.unwrap();
    let mut asked = registry.asked();
    let all = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), all, "nothing is asked for twice: {asked:?}");
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_ends_and_leaves_nothing() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::with(&RegistryConfig::default()));
    let image = sample("1");
    let pushed = registry.push("web:1", &image, &[Packing::Plain]);
    let before = bench.contents();
    let (digest, body) = (pushed.layers[1].to_string(), image.parts().unwrap().layers[1].clone());
    registry.hook(move |seen| seen.path.ends_with(&digest).then(|| Reply::Stall { body: body.clone(), after: 0 }));
    let mut pulling = bench.puller.pull(request(&registry.image("web:1")));
    let unpacked = |event: &PullEvent| matches!(event, PullEvent::Layer { state: LayerState::Complete, .. });
    while !unpacked(&pulling.next().await.expect("it is not done")) {}
    drop(pulling);
    while bench.contents() != before {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    let image = ImageBuilder::new("x").file("big", 0o644, noise(1_000_000));
    let pushed = registry.push("web:1", &image, &[Packing::Plain]);
    let layer = image.parts().unwrap().layers[0].clone();
    let digest = pushed.layers[0].to_string();
    let whole = layer.clone();
    // Three tries in a row are all there are, and more cuts than that: each brings something.
    registry.hook(move |seen| {
        let from: usize = match seen.header("range").strip_prefix("bytes=") {
            Some(range) => range.trim_end_matches('-').parse().unwrap(),
            None => 0,
        };
        (seen.path.ends_with(&digest) && from < 800_000).then(|| {
            let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
            let headers = if from > 0 { vec![("Content-Range".to_owned(), range)] } else { Vec::new() };
            Reply::Cut { headers, body: whole[from..].to_vec(), after: 150_000 }
        })
    });
    bench.pull(&registry.image("web:1")).await.unwrap();
    let tries: Vec<String> = registry.asked().into_iter().filter(|line| line.contains(&layer_name(&pushed))).collect();
    assert_eq!(tries.len(), 7, "{tries:?}");
    assert!(tries[1].ends_with("bytes=150000-") && tries[6].ends_with("bytes=900000-"), "{tries:?}");

    // A registry that does no parts is asked for the whole again.
    let bench = Bench::new();
    let mut first = true;
    let (digest, whole) = (pushed.layers[0].to_string(), layer);
    registry.hook(move |seen| {
        seen.path.ends_with(&digest).then(|| match std::mem::take(&mut first) {
            true => Reply::Cut { headers: Vec::new(), body: whole.clone(), after: 500_000 },
            false => Reply::ok(whole.clone()),
        })
    });
    bench.pull(&registry.image("web:1")).await.unwrap();
}

fn layer_name(pushed: &kit::Pushed) -> String {
    pushed.layers[0].to_string()
}

#[tokio::test]
async fn a_registry_that_is_busy_is_asked_again() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    registry.push("web:1", &sample("1"), &ALL);
    let mut refusals = 0;
    registry.hook(move |_| {
        refusals += 1;
        (refusals % 2 == 1).then(|| Reply::Answer {
            status: [429, 500, 503][refusals / 2 % 3],
            headers: vec![("Retry-After".into(), "0".into())],
            body: b"busy".to_vec(),
        })
    });
    bench.pull(&registry.image("web:1")).await.unwrap();
}

#[tokio::test]
async fn a_password_is_asked_for_and_goes_to_nobody_else() {
    let (registry, elsewhere, bench) = (FakeRegistry::start().await, FakeRegistry::start().await, Bench::new());
    let pushed = registry.push("web:1", &sample("1"), &ALL);
    for layer in &sample("1").parts().unwrap().layers {
        for packing in ALL {
            elsewhere.blob(kit::pack(layer, packing).1);
        }
    }
    let (to, config) = (format!("http://{}", elsewhere.addr), pushed.config.to_string());
    registry.hook(move |seen| match seen.header("authorization") {
        // ann:secret
        "Basic YW5uOnNlY3JldA==" if seen.is_blob() && !seen.path.ends_with(&config) => {
            Some(Reply::redirect(&format!("{to}{}", seen.path)))
        }
        "Basic YW5uOnNlY3JldA==" => None,
        _ => Some(Reply::challenge("Basic realm=\"x\"")),
    });
    let image = registry.image("web:1");
    let error = bench.refused(&image).await;
    assert!(error.contains("no basic auth credentials") && error.contains("docker login"), "{error}");
    let wrong = bench.pull_as(&image, Some(password("ann", "hunter2"))).await.unwrap_err();
    assert!(wrong.to_string().contains("unauthorized") && !format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
    bench.pull_as(&image, Some(password("ann", "secret"))).await.unwrap();
    let moved = elsewhere.seen();
    assert_eq!(moved.len(), 3);
    assert!(moved.iter().all(|seen| seen.header("authorization").is_empty()), "credentials went astray");

    let at = registry.addr.to_string();
    let login = |word: &str| bench.puller.login(&at, password("ann", word));
    login("secret").await.unwrap();
    assert!(login("wrong").await.unwrap_err().to_string().contains("unauthorized"));
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_when_it_is_no_longer_good() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    registry.push("team/web:1", &sample("1"), &ALL);
    let realm = format!("http://{}/token", registry.addr);
    let given = Arc::new(Mutex::new((0, 0)));
    let counted = given.clone();
    registry.hook(move |seen| {
        let (tokens, uses) = &mut *counted.lock().unwrap();
        if let Some(query) = seen.path.strip_prefix("/token?") {
            assert_eq!(query, "service=reg&scope=repository%3Ateam%2Fweb%3Apull&account=ann");
            assert_eq!(seen.header("authorization"), "Basic YW5uOnNlY3JldA==");
            *tokens += 1;
            return Some(Reply::ok(format!(r#"{{"access_token":"t{tokens}","expires_in":60}}"#)));
        }
        *uses += 1;
        // The first one is good for four requests.
        let good = format!("Bearer t{}", if *uses < 5 { 1 } else { 2 });
        if seen.header("authorization") == good {
            return None;
        }
        Some(Reply::challenge(&format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"other\"")))
    });
    bench.pull_as(&registry.image("team/web:1"), Some(password("ann", "secret"))).await.unwrap();
    assert_eq!(given.lock().unwrap().0, 2);
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_and_a_ready_one_taken_as_it_is() {
    use skep_model::RegistryAuth;
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    registry.push("web:1", &sample("1"), &ALL);
    let realm = format!("http://{}/token", registry.addr);
    registry.hook(move |seen| {
        if seen.path == "/token" {
            assert!(seen.method == "POST" && seen.body.contains("refresh_token=r%2F1"), "{seen:?}");
            return Some(Reply::ok(r#"{"access_token":"good"}"#));
        }
        (seen.header("authorization") != "Bearer good").then(|| Reply::challenge(&format!("Bearer realm=\"{realm}\"")))
    });
    bench.pull_as(&registry.image("web:1"), Some(RegistryAuth::IdentityToken("r/1".into()))).await.unwrap();
    let other = Bench::new();
    other.pull_as(&registry.image("web:1"), Some(RegistryAuth::RegistryToken("good".into()))).await.unwrap();
}

#[tokio::test]
async fn mirrors_are_asked_for_docker_images_and_not_told_who_asks() {
    let (mirror, dead) = (FakeRegistry::start().await, "http://127.0.0.1:1".parse().unwrap());
    mirror.push("library/nginx:1", &sample("1"), &ALL);
    let config = RegistryConfig {
        mirrors: vec![dead, format!("http://{}", mirror.addr).parse().unwrap()],
        patience: impatient(),
        ..RegistryConfig::default()
    };
    let bench = Bench::with(&config);
    let held = bench.pull_as(&"nginx:1".parse().unwrap(), Some(password("ann", "secret"))).await.unwrap();
    assert_eq!(bench.images.find("nginx:1").unwrap().id, held.id);
    assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn what_a_tag_means_is_told_without_pulling() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    let index = registry.push_index("web:all", &sample("1"), &ALL);
    let all = bench.puller.inspect(&registry.image("web:all"), None).await.unwrap();
    assert_eq!((all.digest, all.platforms.len()), (index, 2));
    assert_eq!(all.media_type, "application/vnd.oci.image.index.v1+json");
    let one = bench.puller.inspect(&registry.image("web:of-all"), None).await.unwrap();
    assert_eq!(one.platforms, [skep_registry::Platform::own()]);
    let none = bench.puller.inspect(&registry.image("web:9"), None).await.unwrap_err().to_string();
    assert!(none.ends_with("not found: manifest unknown: manifest unknown"), "{none}");
    assert!(bench.images.list().is_empty());
}

#[tokio::test]
async fn what_is_held_is_not_removed() {
    let (registry, bench) = (FakeRegistry::start().await, Bench::new());
    registry.push("web:1", &sample("1"), &ALL);
    let held = bench.pull(&registry.image("web:1")).await.unwrap();
    let moment = bench.images.moment();
    let remove =
        |moment| bench.images.remove(&held_name(&registry), Removal::Forced, &InUse::new(moment, Default::default()));
    assert!(remove(moment).unwrap_err().to_string().contains("a container is using"));
    drop(held);
    // A container may have been made of it between the look and now.
    assert!(remove(moment).unwrap_err().to_string().contains("try again"));
    let gone = remove(bench.images.moment()).unwrap();
    assert_eq!(gone.len(), 3, "the tag, the digest and the image: {gone:?}");
}

fn held_name(registry: &FakeRegistry) -> String {
    registry.image("web:1").to_string()
}

/// A certificate that nobody has issued.
fn certificate() -> TlsAcceptor {
    use rcgen::{CertificateParams, KeyPair};
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(skep_ca::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn tls_is_spoken_where_the_registry_does() {
    let registry = FakeRegistry::with(Some(certificate())).await;
    registry.push("web:1", &sample("1"), &ALL);
    // Loopback need not prove who it is.
    Bench::new().pull(&registry.image("web:1")).await.unwrap();
}
