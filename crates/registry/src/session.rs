//! Speaks with one repository of a registry, and proves who asks.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;
use skep_model::RegistryAuth;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::challenge::{self, Challenge};
use crate::error::RegistryError;
use crate::http::{Ask, SharedHttp};
use crate::token::{self, Wanted};
use crate::url::{Scheme, Url};

/// How often a request may be sent on: as often as browsers of old.
const REDIRECTS: usize = 5;
/// The longest that a registry may ask to be left alone; more is a refusal.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Bytes of a refusal that are read.
const REFUSAL: usize = 64 << 10;

/// A registry's repository, and who asks.
pub(crate) struct Session {
    pub(crate) http: SharedHttp,
    /// The registry's root.
    pub(crate) base: Url,
    /// The registry as people call it.
    pub(crate) registry: String,
    /// `library/nginx`; empty for the registry itself.
    pub(crate) repository: String,
    auth: Option<RegistryAuth>,
    /// What the registry has been told, and took: used again for everything.
    proof: Mutex<Option<HeaderValue>>,
}

/// An answer, and where it came from in the end.
pub(crate) struct Answer {
    pub(crate) from: Url,
    pub(crate) response: Response<Incoming>,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Below the repository: `manifests/latest`.
    pub(crate) path: &'a str,
    pub(crate) headers: HeaderMap,
    /// For people.
    pub(crate) what: &'a str,
}

impl Session {
    pub(crate) fn new(
        http: SharedHttp,
        base: Url,
        registry: &str,
        repository: &str,
        auth: Option<RegistryAuth>,
    ) -> Self {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Self { http, base, registry, repository, auth, proof: Mutex::default() }
    }

    /// Tries again what may go well in a moment.
    pub(crate) async fn patiently(&self, request: &Request<'_>) -> Result<Answer, RegistryError> {
        let patience = self.http.patience;
        let mut tries = 1;
        loop {
            match self.send(request).await {
                // Nobody is there: that does not change in a moment.
                Err(e @ RegistryError::Unreachable { .. }) => return Err(e),
                Err(e) if e.is_passing() && tries < patience.tries => {
                    tracing::debug!(registry = %self.registry, tries, "{e}; again in a moment");
                    rest(patience.pause, tries, &e).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks the registry whether it lets in whoever asks.
    pub(crate) async fn ping(&self) -> Result<(), RegistryError> {
        let request = Request { method: Method::GET, path: "", headers: HeaderMap::new(), what: "its API" };
        self.patiently(&request).await.map(drop)
    }

    /// Sends a request, with a proof of who asks where the registry wants one.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Answer, RegistryError> {
        let before = self.proof.lock().await.clone();
        let answer = self.follow(request, before.as_ref()).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED || !answer.from.same_server(&self.base) {
            return self.judged(request, answer).await;
        }
        let proof = self.prove(&answer.response, before).await?;
        let answer = self.follow(request, Some(&proof)).await?;
        self.judged(request, answer).await
    }

    /// Answers a challenge. Of several requests that are challenged at the same time the first one does it for all.
    async fn prove(
        &self,
        refused: &Response<Incoming>,
        used: Option<HeaderValue>,
    ) -> Result<HeaderValue, RegistryError> {
        let mut proof = self.proof.lock().await;
        if let Some(newer) = proof.clone().filter(|proof| Some(proof) != used.as_ref()) {
            return Ok(newer);
        }
        let headers = refused.headers().get_all(WWW_AUTHENTICATE);
        let words: Vec<&str> = headers.iter().filter_map(|header| header.to_str().ok()).collect();
        let misunderstood = || RegistryError::Challenge {
            registry: self.registry.clone(),
            challenge: words.join(", ").chars().take(200).collect(),
        };
        let refuse =
            |reason: &str| RegistryError::Unauthorized { registry: self.registry.clone(), reason: reason.to_owned() };
        let made = match (challenge::choose(words.iter().copied()).ok_or_else(misunderstood)?, &self.auth) {
            (_, Some(RegistryAuth::RegistryToken(token))) => token::bearer(token),
            (Challenge::Basic, Some(RegistryAuth::Password { username, password })) => token::basic(username, password),
            (Challenge::Basic, None) => return Err(refuse("no basic auth credentials")),
            (Challenge::Basic, Some(RegistryAuth::IdentityToken(_))) => {
                return Err(refuse("it wants a password, and there is a token"));
            }
            (Challenge::Bearer { realm, service, scope }, auth) => {
                let pull = (!self.repository.is_empty()).then(|| format!("repository:{}:pull", self.repository));
                let scope = pull.or(scope);
                let wanted = Wanted { realm: &realm, service: service.as_deref(), scope: scope.as_deref() };
                Some(token::fetch(&self.http, &self.base, &wanted, auth.as_ref()).await?)
            }
        };
        let made = made.ok_or_else(|| refuse("the credentials have characters that no header can hold"))?;
        *proof = Some(made.clone());
        Ok(made)
    }

    /// Goes where the registry sends. The proof is for the registry alone.
    async fn follow(&self, request: &Request<'_>, proof: Option<&HeaderValue>) -> Result<Answer, RegistryError> {
        let path = match self.repository.as_str() {
            "" => "/v2/".to_owned(),
            repository => format!("/v2/{repository}/{}", request.path),
        };
        let bad = |to: &str, reason| RegistryError::BadRedirect {
            registry: self.registry.clone(),
            to: to.chars().take(200).collect(),
            reason,
        };
        let mut url = self.base.with_path(&path).ok_or_else(|| bad(&path, "it is no path"))?;
        for _ in 0..=REDIRECTS {
            let mut ask = Ask::new(request.method.clone(), url.clone());
            ask.headers.clone_from(&request.headers);
            if let Some(proof) = proof.filter(|_| url.same_server(&self.base)) {
                ask.headers.insert(AUTHORIZATION, proof.clone());
            }
            let response = self.http.send(&ask).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer { from: url, response });
            }
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            let next = url.follow(to).ok_or_else(|| bad(to, "it is no address"))?;
            if url.scheme == Scheme::Https && next.scheme == Scheme::Http {
                return Err(bad(to, "from TLS to plain HTTP"));
            }
            url = next;
        }
        let (registry, what) = (self.registry.clone(), request.what.to_owned());
        Err(RegistryError::Redirects { registry, what, limit: REDIRECTS })
    }

    /// Sorts out refusals.
    async fn judged(&self, request: &Request<'_>, answer: Answer) -> Result<Answer, RegistryError> {
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let after = retry_after(answer.response.headers());
        let read = self.http.bytes(&answer.from, "a refusal", REFUSAL, answer.response).await;
        let reason = match read {
            Ok(body) if !body.is_empty() => said(&body),
            _ => status.canonical_reason().unwrap_or("no reason given").to_owned(),
        };
        let registry = self.registry.clone();
        Err(match status.as_u16() {
            401 => RegistryError::Unauthorized { registry, reason },
            403 => RegistryError::Denied { repository: self.name(), reason },
            404 if request.path.starts_with("manifests/") => {
                RegistryError::NoManifest { reference: request.what.to_owned(), reason }
            }
            status => RegistryError::Refused { registry, what: request.what.to_owned(), status, reason, after },
        })
    }

    fn name(&self) -> String {
        if self.registry == "docker.io" {
            self.repository.clone()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }
}

/// Waits before the next try: longer each time, or as long as the registry asks for within reason.
pub(crate) async fn rest(pause: Duration, tries: u32, error: &RegistryError) {
    let asked = match error {
        RegistryError::Refused { after: Some(after), .. } => (*after).min(LONGEST_REST),
        _ => Duration::ZERO,
    };
    let doubled = pause.saturating_mul(1 << (tries - 1).min(5));
    sleep(doubled.min(LONGEST_REST).max(asked)).await;
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a refusal says, on one line and not too long.
pub(crate) fn said(body: &Bytes) -> String {
    let told = |one: One| match (one.code.to_lowercase().replace('_', " "), one.message) {
        (code, message) if message.is_empty() => code,
        (code, message) => format!("{code}: {message}"),
    };
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { errors }) if !errors.is_empty() => errors.into_iter().map(told).collect::<Vec<_>>().join("; "),
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let line: String = text.split(char::is_control).collect::<Vec<_>>().join(" ");
    line.trim().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_in_a_line() {
        let docker = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"9"}}]}"#;
        assert_eq!(said(&Bytes::from_static(docker)), "manifest unknown: manifest unknown");
        assert_eq!(said(&Bytes::from_static(b"{\"errors\":[]}")), "{\"errors\":[]}");
        assert_eq!(said(&Bytes::from_static(b" a\x1b[31m\nb ")), "a [31m b");
        assert_eq!(said(&Bytes::from(vec![b'x'; 5000])).len(), 300);
    }
}
