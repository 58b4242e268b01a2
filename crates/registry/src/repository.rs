//! What one repository has: manifests by tag and by digest, and small blobs.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use skep_model::ImageRef;
use skep_runtime::images::Digest;

use crate::error::RegistryError;
use crate::http::content_length;
use crate::manifest::{self, Descriptor, Document, LIMIT, Manifest, Platform};
use crate::pull::Distribution;
use crate::session::{Answer, Request, Session, rest};

/// By which registries say the digest of what they answer with.
const DIGEST: &str = "docker-content-digest";
/// An index may name indexes; nobody nests them deeper.
const NESTING: usize = 4;

/// A repository, and what is wanted of it.
pub(crate) struct Repository {
    session: Arc<Session>,
    /// As people write it, for messages.
    reference: String,
    /// The tag or digest.
    wanted: String,
    /// The digest, where one is asked for.
    digest: Option<Digest>,
}

/// A manifest as it came.
struct Fetched {
    bytes: Bytes,
    content_type: String,
    digest: Digest,
}

impl Repository {
    pub(crate) fn new(session: Session, reference: &ImageRef) -> Self {
        let wanted = reference.digest().or(reference.tag()).unwrap_or("latest").to_owned();
        let digest = reference.digest().and_then(|digest| digest.parse().ok());
        Self { session: Arc::new(session), reference: reference.familiar(), wanted, digest }
    }

    pub(crate) fn session(&self) -> Arc<Session> {
        self.session.clone()
    }

    /// The digest of what is wanted, without fetching it; `None` when the registry does not say it so.
    pub(crate) async fn digest(&self) -> Result<Option<Digest>, RegistryError> {
        if self.digest.is_some() {
            return Ok(self.digest);
        }
        let path = format!("manifests/{}", self.wanted);
        let request = Request { method: Method::HEAD, path: &path, headers: accepting(), what: &self.reference };
        match self.session.patiently(&request).await {
            Ok(answer) => Ok(said(answer.response.headers())),
            // Some registries do not answer this one; and a refusal has no words.
            Err(RegistryError::Refused { .. } | RegistryError::NoManifest { .. } | RegistryError::Denied { .. }) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The image for a kind of machine, and the digest of what is wanted.
    pub(crate) async fn image(&self, platform: &Platform) -> Result<(Digest, Manifest), RegistryError> {
        let top = self.fetch(&self.wanted, self.digest).await?;
        let mut document = self.parse(&top)?;
        for _ in 0..NESTING {
            let Some(entry) = document.choose(&self.reference, platform)? else { break };
            let (entry, expected) = (entry.digest.to_string(), entry.clone());
            let inner = self.fetch(&entry, Some(expected.digest)).await?;
            sized(&format!("the manifest {entry}"), &expected, inner.bytes.len())?;
            document = self.parse(&inner)?;
        }
        match document {
            Document::Image(manifest) => Ok((top.digest, manifest)),
            Document::Index(_) => Err(RegistryError::Malformed {
                what: format!("the manifest of {}", self.reference),
                reason: "indexes are nested too deep".to_owned(),
            }),
        }
    }

    /// What is wanted, for those who pin it.
    pub(crate) async fn describe(&self) -> Result<Distribution, RegistryError> {
        let top = self.fetch(&self.wanted, self.digest).await?;
        let document = self.parse(&top)?;
        let platforms = match &document {
            Document::Index(_) => document.platforms(),
            Document::Image(manifest) => {
                let config = self.small(&manifest.config, "the configuration").await?;
                // A configuration that says nothing of it is for any machine.
                let platform: Option<Platform> = serde_json::from_slice(&config).ok();
                platform.into_iter().filter(|platform| !platform.architecture.is_empty()).collect()
            }
        };
        let media_type = Some(media_type(&top.bytes)).filter(|kind| !kind.is_empty()).unwrap_or(top.content_type);
        Ok(Distribution { media_type, digest: top.digest, size: top.bytes.len() as u64, platforms })
    }

    fn parse(&self, fetched: &Fetched) -> Result<Document, RegistryError> {
        Document::parse(&self.reference, &fetched.content_type, &fetched.bytes)
    }

    /// A manifest by tag or by digest, checked against what it is called by.
    async fn fetch(&self, name: &str, expected: Option<Digest>) -> Result<Fetched, RegistryError> {
        let what = format!("the manifest of {}", self.reference);
        let path = format!("manifests/{name}");
        let request = Request { method: Method::GET, path: &path, headers: accepting(), what: &self.reference };
        let (headers, bytes) = self.read(&request, &what).await?;
        let digest = Digest::of(&bytes);
        for expected in expected.into_iter().chain(said(&headers)) {
            if expected != digest {
                return Err(RegistryError::DigestDiffers { what, expected, found: digest });
            }
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Fetched { bytes, content_type, digest })
    }

    /// A small blob, checked.
    pub(crate) async fn small(&self, blob: &Descriptor, what: &str) -> Result<Bytes, RegistryError> {
        let what = format!("{what} of {}", self.reference);
        if blob.size > LIMIT as u64 {
            return Err(RegistryError::TooBig { what, limit: LIMIT as u64 });
        }
        let path = format!("blobs/{}", blob.digest);
        let request = Request { method: Method::GET, path: &path, headers: HeaderMap::new(), what: &what };
        let (_, bytes) = self.read(&request, &what).await?;
        sized(&what, blob, bytes.len())?;
        let found = Digest::of(&bytes);
        if found == blob.digest {
            return Ok(bytes);
        }
        Err(RegistryError::DigestDiffers { what, expected: blob.digest, found })
    }

    /// All of a small answer; once more when it breaks off.
    async fn read(&self, request: &Request<'_>, what: &str) -> Result<(HeaderMap, Bytes), RegistryError> {
        let http = &self.session.http;
        let mut tries = 1;
        loop {
            let Answer { from, response } = self.session.patiently(request).await?;
            let (headers, announced) = (response.headers().clone(), content_length(response.headers()));
            match http.bytes(&from, what, LIMIT, response).await {
                Err(e) if e.is_passing() && tries < http.patience.tries => {
                    tracing::debug!(%what, ?announced, "{e}; again in a moment");
                    rest(http.patience.pause, tries, &e).await;
                    tries += 1;
                }
                read => return Ok((headers, read?)),
            }
        }
    }
}

fn accepting() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))])
}

fn said(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DIGEST)?.to_str().ok()?.parse().ok()
}

fn sized(what: &str, expected: &Descriptor, found: usize) -> Result<(), RegistryError> {
    if expected.size == found as u64 {
        return Ok(());
    }
    Err(RegistryError::SizeDiffers { what: what.to_owned(), expected: expected.size, found: found.to_string() })
}

/// What a manifest calls itself.
fn media_type(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        #[serde(default)]
        media_type: String,
    }
    serde_json::from_slice(bytes).map(|kind: Kind| kind.media_type).unwrap_or_default()
}
