//! Registries that lie, break, stall and never end. Each gets a clear error, and nothing half done stays in the store.

mod kit;

use std::time::{Duration, Instant};

use kit::{Bench, FakeRegistry, Packing, Pushed, Reply, Seen, noise, sample};
use serde_json::json;
use skep_runtime::images::{Digest, ImageBuilder};

struct Trial {
    registry: FakeRegistry,
    bench: Bench,
    pushed: Pushed,
}

impl Trial {
    async fn new() -> Self {
        let (registry, bench) = (FakeRegistry::start().await, Bench::new());
        let pushed = registry.push("web:1", &sample("1"), &[Packing::Gzip]);
        Self { registry, bench, pushed }
    }

    /// What is said when the registry does so.
    async fn refused(&self, hook: impl FnMut(&Seen) -> Option<Reply> + Send + 'static) -> String {
        self.registry.hook(hook);
        self.bench.refused(&self.registry.image("web:1")).await
    }

    /// What is said when the second layer is answered so.
    async fn refused_layer(&self, mut reply: impl FnMut() -> Reply + Send + 'static) -> String {
        let digest = self.pushed.layers[1].to_string();
        self.refused(move |seen| seen.path.ends_with(&digest).then(&mut reply)).await
    }
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{error:?} should say {part:?}");
    }
    assert!(error.len() < 800, "{error}");
}

#[tokio::test]
async fn content_that_is_not_what_it_is_called_is_refused() {
    let trial = Trial::new().await;
    let real = kit::pack(&sample("1").parts().unwrap().layers[1], Packing::Gzip).1;
    let mut other = real.clone();
    *other.last_mut().unwrap() ^= 1;
    let said = trial.refused_layer(move || Reply::ok(other.clone())).await;
    says(&said, &["differs from its digest", &trial.pushed.layers[1].to_string()]);

    let config = trial.pushed.config.to_string();
    let size = sample("1").parts().unwrap().config.len();
    let said = trial.refused(move |seen| seen.path.ends_with(&config).then(|| Reply::ok(vec![b' '; size]))).await;
    says(&said, &["configuration", "differs from its digest"]);

    let lie = ("Docker-Content-Digest".to_owned(), Digest::of(b"lie").to_string());
    let said = trial
        .refused(move |seen| {
            let (headers, body) = (vec![lie.clone()], b"{}".to_vec());
            seen.is_manifest().then_some(Reply::Answer { status: 200, headers, body })
        })
        .await;
    says(&said, &["the manifest of", "differs from its digest", &Digest::of(b"lie").to_string()]);

    // By digest, and something else is sent.
    trial.registry.hook(|seen| seen.is_manifest().then(|| Reply::ok(b"{}".to_vec())));
    let wanted = trial.registry.image("web").by_digest(&trial.pushed.manifest.to_string());
    says(&trial.bench.refused(&wanted).await, &["differs from its digest"]);
}

#[tokio::test]
async fn a_layer_whose_content_is_not_the_configurations_is_refused() {
    let trial = Trial::new().await;
    let (mut manifest, ..) = trial.registry.described(&sample("1"), &[Packing::Gzip]);
    let other = kit::pack(&ImageBuilder::new("x").file("evil", 0o755, "x").parts().unwrap().layers[0], Packing::Gzip).1;
    let size = other.len();
    manifest["layers"][1]["digest"] = trial.registry.blob(other).to_string().into();
    manifest["layers"][1]["size"] = size.into();
    trial.registry.manifest("web", "1", "", manifest.to_string().as_bytes());
    says(&trial.bench.refused(&trial.registry.image("web:1")).await, &["layer sha256:", "differs from its digest"]);

    manifest["layers"].as_array_mut().unwrap().pop();
    trial.registry.manifest("web", "1", "", manifest.to_string().as_bytes());
    says(&trial.bench.refused(&trial.registry.image("web:1")).await, &["it lists 3 layers, the manifest has 2"]);
}

#[tokio::test]
async fn sizes_are_kept_to() {
    let trial = Trial::new().await;
    says(&trial.refused_layer(|| Reply::ok(noise(10))).await, &["should have", "and has 10"]);
    says(&trial.refused_layer(|| Reply::ok(noise(2_000_000))).await, &["should have", "and has 2000000"]);
    says(&trial.refused_layer(|| Reply::Endless).await, &["should have", "and has more"]);
    let said = trial.refused(|seen| seen.is_manifest().then_some(Reply::Endless)).await;
    says(&said, &["the manifest of", "more than 4194304 bytes"]);
    let config = trial.pushed.config.to_string();
    let said = trial.refused(move |seen| seen.path.ends_with(&config).then_some(Reply::Endless)).await;
    says(&said, &["the configuration of", "more than 4194304 bytes"]);
}

#[tokio::test]
async fn a_registry_that_dies_midway_is_given_up_after_some_tries() {
    let trial = Trial::new().await;
    let body = kit::pack(&sample("1").parts().unwrap().layers[1], Packing::Gzip).1;
    let whole = body.clone();
    let said = trial.refused_layer(move || Reply::Cut { headers: Vec::new(), body: whole.clone(), after: 1000 }).await;
    says(&said, &["the connection with", "broke"]);
    let tries = trial.registry.asked().iter().filter(|l| l.contains(&trial.pushed.layers[1].to_string())).count();
    assert_eq!(tries, 3);

    let began = Instant::now();
    let said = trial.refused_layer(move || Reply::Stall { body: body.clone(), after: 1000 }).await;
    says(&said, &["is silent: nothing came for"]);
    says(&trial.refused(|seen| seen.is_manifest().then_some(Reply::Silent)).await, &["is silent"]);
    assert!(began.elapsed() < Duration::from_secs(60));
    // Nobody is there at all.
    let nobody = "127.0.0.1:1/web:1".parse().unwrap();
    says(&trial.bench.refused(&nobody).await, &["cannot reach 127.0.0.1:1", "refused"]);
}

#[tokio::test]
async fn manifests_that_make_no_sense_are_refused() {
    let trial = Trial::new().await;
    for (manifest, part) in [
        ("<html>".to_owned(), "cannot be understood"),
        ("{}".to_owned(), "schema version 2"),
        (json!({ "schemaVersion": 1 }).to_string(), "schema version 1"),
        (json!({ "schemaVersion": 2, "manifests": [] }).to_string(), "no matching manifest for linux/"),
        (json!({ "schemaVersion": 2, "config": {}, "layers": [] }).to_string(), "cannot be understood"),
    ] {
        trial.registry.manifest("web", "1", "", manifest.as_bytes());
        says(&trial.bench.refused(&trial.registry.image("web:1")).await, &[part]);
    }
    // Indexes in indexes without end.
    let mut inner = json!({ "schemaVersion": 2, "manifests": [] });
    for _ in 0..8 {
        let text = inner.to_string();
        let digest = trial.registry.manifest("web", "1", "", text.as_bytes());
        inner = json!({ "schemaVersion": 2, "manifests": [{ "digest": digest, "size": text.len() }] });
    }
    trial.registry.manifest("web", "1", "", inner.to_string().as_bytes());
    says(&trial.bench.refused(&trial.registry.image("web:1")).await, &["nested too deep"]);
    // Terabytes, by its own word.
    let (mut manifest, ..) = trial.registry.described(&sample("1"), &[Packing::Gzip]);
    manifest["layers"][0]["size"] = (1_u64 << 42).into();
    trial.registry.manifest("web", "1", "", manifest.to_string().as_bytes());
    says(&trial.bench.refused(&trial.registry.image("web:1")).await, &["layer", "which is the limit"]);
    // For another machine.
    let foreign = sample("1").parts().unwrap().config;
    let foreign = String::from_utf8(foreign).unwrap().replace("\"linux\"", "\"plan9\"").into_bytes();
    let (mut manifest, ..) = trial.registry.described(&sample("1"), &[Packing::Gzip]);
    manifest["config"]["size"] = foreign.len().into();
    manifest["config"]["digest"] = trial.registry.blob(foreign).to_string().into();
    trial.registry.manifest("web", "1", "", manifest.to_string().as_bytes());
    says(&trial.bench.refused(&trial.registry.image("web:1")).await, &["the image is for plan9/"]);
}

#[tokio::test]
async fn redirects_end() {
    let trial = Trial::new().await;
    let said = trial.refused(|seen| Some(Reply::redirect(&seen.path))).await;
    says(&said, &["redirects more than 5 times"]);
    for to in ["ftp://x/", "", "http:// x", "relative"] {
        says(&trial.refused(move |_| Some(Reply::redirect(to))).await, &["redirects to", "it is no address"]);
    }
    // Plain HTTP to somebody whom nobody has called insecure (TEST-NET-1).
    says(&trial.refused(|_| Some(Reply::redirect("http://192.0.2.1/x"))).await, &["plain HTTP is for registries"]);
}

/// An answer of the token server, and what is said of it.
type Case = (fn() -> Reply, &'static [&'static str]);

#[tokio::test]
async fn token_servers_may_be_wrong_too() {
    let trial = Trial::new().await;
    let here = format!("http://{}/token", trial.registry.addr);
    let with = |realm: String, answer: fn() -> Reply| {
        move |seen: &Seen| match seen.path.starts_with("/token") {
            true => Some(answer()),
            false => Some(Reply::challenge(&format!("Bearer realm=\"{realm}\",service=\"x\""))),
        }
    };
    let cases: [Case; 6] = [
        (|| Reply::ok("<html>"), &["the token server", "sends no token"]),
        (|| Reply::ok("{}"), &["the token server", "sends no token"]),
        (|| Reply::ok(r#"{"token":"a\nb"}"#), &["no header can hold"]),
        (|| Reply::status(403, r#"{"details":"no"}"#), &["unauthorized"]),
        (|| Reply::Endless, &["more than 1048576 bytes"]),
        (|| Reply::Silent, &["is silent"]),
    ];
    for (answer, parts) in cases {
        says(&trial.refused(with(here.clone(), answer)).await, parts);
    }
    // It gives one that the registry does not take.
    says(&trial.refused(with(here.clone(), || Reply::ok(r#"{"token":"t"}"#))).await, &["unauthorized"]);
    says(&trial.refused(with("nowhere".into(), || Reply::Silent)).await, &["the token server nowhere", "no address"]);
    says(&trial.refused(|_| Some(Reply::challenge("Negotiate"))).await, &["not understood", "Negotiate"]);
}

#[tokio::test]
async fn what_a_registry_says_cannot_paint_the_terminal() {
    let trial = Trial::new().await;
    let said = trial.refused(|_| Some(Reply::status(400, &"\x1b[2J\r\n".repeat(500)))).await;
    assert!(!said.contains('\x1b') && !said.contains('\n'), "{said:?}");
    says(&said, &["answers 400"]);
}
