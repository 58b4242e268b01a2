//! Which versions of the API are served.

use axum::http::StatusCode;

use super::answer::Refusal;

/// The newest version served: what is new in later ones is not covered.
pub const NEWEST: &str = "1.47";
/// The oldest version served, as Docker's own engines have it today.
pub const OLDEST: &str = "1.24";

/// The version that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(u16, u16);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl ApiVersion {
    /// Major and minor.
    pub(crate) const fn new(major: u16, minor: u16) -> Self {
        Self(major, minor)
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

const NEWEST_SERVED: ApiVersion = ApiVersion::new(1, 47);
const OLDEST_SERVED: ApiVersion = ApiVersion::new(1, 24);

/// Takes `/v1.47` off a path. A path without a version means the newest one.
///
/// Asking for the version itself is answered whatever version is asked in, as that is how some clients negotiate.
pub(crate) fn split(path: &str) -> Result<(ApiVersion, &str), Refusal> {
    let versioned = path.strip_prefix("/v").map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len())));
    let Some((version, rest)) = versioned.and_then(|(text, rest)| Some((ApiVersion::parse(text)?, rest))) else {
        return Ok((NEWEST_SERVED, path));
    };
    let ApiVersion(major, minor) = version;
    if version < OLDEST_SERVED {
        return Err(Refusal::text(
            StatusCode::BAD_REQUEST,
            format!(
                "client version {major}.{minor} is too old. Minimum supported API version is {OLDEST}, please upgrade your client to a newer version"
            ),
        ));
    }
    if version > NEWEST_SERVED && !matches!(rest, "/version" | "/_ping") {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("client version {major}.{minor} is too new. Maximum supported API version is {NEWEST}"),
        ));
    }
    Ok((version, if rest.is_empty() { "/" } else { rest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_taken_off() {
        assert_eq!(split("/v1.41/services").unwrap(), (ApiVersion::new(1, 41), "/services"));
        assert_eq!(split("/services").unwrap(), (NEWEST_SERVED, "/services"));
        assert_eq!(split("/version").unwrap(), (NEWEST_SERVED, "/version"));
        assert_eq!(split("/volumes").unwrap(), (NEWEST_SERVED, "/volumes"));
    }

    #[test]
    fn too_old_and_too_new_are_refused() {
        assert!(split("/v1.23/info").is_err());
        assert!(split("/v1.99/info").is_err());
        assert!(split("/v2.0/info").is_err());
        assert!(split("/v1.99/version").is_ok());
    }

    #[test]
    fn the_texts_and_the_numbers_agree() {
        assert_eq!(ApiVersion::parse(NEWEST), Some(NEWEST_SERVED));
        assert_eq!(ApiVersion::parse(OLDEST), Some(OLDEST_SERVED));
    }
}
