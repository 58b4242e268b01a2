//! Tokens from the server that a registry names (Docker Registry v2 authentication: token and OAuth 2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use skep_model::RegistryAuth;

use crate::error::RegistryError;
use crate::http::{Ask, Http};
use crate::session::said;
use crate::url::{Scheme, Url, percent};

/// Bytes of an answer with a token.
const LIMIT: usize = 1 << 20;

/// Where tokens are had, and for what.
pub(crate) struct Wanted<'a> {
    pub(crate) realm: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) scope: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// `Basic` with a name and a password.
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let mut header =
        HeaderValue::try_from(format!("Basic {}", BASE64.encode(format!("{username}:{password}")))).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// `Bearer` with a token.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Fetches a token for whoever `auth` is; nobody gets one too, for what is public.
pub(crate) async fn fetch(
    http: &Http,
    registry: &Url,
    wanted: &Wanted<'_>,
    auth: Option<&RegistryAuth>,
) -> Result<HeaderValue, RegistryError> {
    let realm = realm(registry, wanted.realm)?;
    let shown = realm.to_string();
    let trouble = |reason: String| RegistryError::Token { realm: shown.clone(), reason };
    let ask = match auth {
        Some(RegistryAuth::IdentityToken(token)) => exchange(realm, wanted, token),
        other => question(realm, wanted, other),
    };
    let response = http.send(&ask).await.map_err(|e| match e {
        e if e.is_passing() => e,
        e => trouble(e.to_string()),
    })?;
    let status = response.status();
    let body = http.bytes(&ask.url, "its answer", LIMIT, response).await?;
    if matches!(status.as_u16(), 400 | 401 | 403) {
        return Err(RegistryError::Unauthorized { registry: registry.authority(), reason: said(&body) });
    }
    if !status.is_success() {
        let (what, reason) = ("a token".to_owned(), said(&body));
        let registry = ask.url.authority();
        return Err(RegistryError::Refused { registry, what, status: status.as_u16(), reason, after: None });
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|e| trouble(format!("it sends no token: {e}")))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| trouble("it sends no token".to_owned()))?;
    bearer(&token).ok_or_else(|| trouble("it sends a token that no header can hold".to_owned()))
}

/// Credentials that came by TLS do not leave without it.
fn realm(registry: &Url, text: &str) -> Result<Url, RegistryError> {
    let bad = |reason: &str| RegistryError::Token {
        realm: text.chars().take(200).collect(),
        reason: format!("{} names it, and {reason}", registry.authority()),
    };
    let realm = Url::parse(text).ok_or_else(|| bad("it is no address"))?;
    if registry.scheme == Scheme::Https && realm.scheme == Scheme::Http {
        return Err(bad("it would be asked over plain HTTP"));
    }
    Ok(realm)
}

fn question(realm: Url, wanted: &Wanted<'_>, auth: Option<&RegistryAuth>) -> Ask {
    let mut url = realm;
    let parameters = [("service", wanted.service), ("scope", wanted.scope)];
    for (name, value) in parameters.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        url = url.query(name, value);
    }
    let mut header = None;
    if let Some(RegistryAuth::Password { username, password }) = auth {
        url = url.query("account", username);
        header = basic(username, password);
    }
    let mut ask = Ask::new(Method::GET, url);
    ask.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    ask.headers.extend(header.map(|header| (AUTHORIZATION, header)));
    ask
}

/// A refresh token for a new one (OAuth 2, RFC 6749 section 6).
fn exchange(realm: Url, wanted: &Wanted<'_>, token: &str) -> Ask {
    let mut form = format!("grant_type=refresh_token&client_id=skep&refresh_token={}", percent(token));
    for (name, value) in [("service", wanted.service), ("scope", wanted.scope)] {
        if let Some(value) = value {
            form.push_str(&format!("&{name}={}", percent(value)));
        }
    }
    let mut ask = Ask::new(Method::POST, realm);
    ask.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    ask.body = Bytes::from(form);
    ask
}
