//! Registries: who asks, and what is answered.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use skep_model::{ImageRef, RegistryAuth};

use super::signed;
use crate::backend::image::Distribution;
use crate::error::Error;
use crate::types::go_json;
use crate::types::registry as wire;

/// With padding and without: clients do both.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads `X-Registry-Auth`: JSON in base64. Nothing in it is nobody.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument), without the text: it may be a secret.
pub fn auth_from_header(header: &str) -> Result<Option<RegistryAuth>, Error> {
    if header.trim().is_empty() {
        return Ok(None);
    }
    let bad = || Error::invalid("invalid X-Registry-Auth header: expected an AuthConfig as JSON in base64url");
    let standard = || STANDARD.decode(header.trim());
    let json = URL_SAFE.decode(header.trim()).or_else(|_| standard()).map_err(|_| bad())?;
    let config: wire::AuthConfig = go_json::from_slice(&json).map_err(|_| bad())?;
    auth(&config)
}

/// Reads credentials. `None` when there are none.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument).
pub fn auth(config: &wire::AuthConfig) -> Result<Option<RegistryAuth>, Error> {
    if !config.registrytoken.is_empty() {
        return Ok(Some(RegistryAuth::RegistryToken(config.registrytoken.clone())));
    }
    if !config.identitytoken.is_empty() {
        return Ok(Some(RegistryAuth::IdentityToken(config.identitytoken.clone())));
    }
    let (mut username, mut password) = (config.username.clone(), config.password.clone());
    if username.is_empty() && !config.auth.is_empty() {
        let bad = || Error::invalid("the credentials' auth is not username:password in base64");
        let pair = STANDARD.decode(&config.auth).map_err(|_| bad())?;
        let pair = String::from_utf8(pair).map_err(|_| bad())?;
        let (name, word) = pair.split_once(':').ok_or_else(bad)?;
        (username, password) = (name.to_owned(), word.trim_end_matches('\0').to_owned());
    }
    Ok((!username.is_empty()).then_some(RegistryAuth::Password { username, password }))
}

/// The registry that `docker login` means: Docker's own when none is named.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) when no reference could name it.
pub fn registry(address: &str) -> Result<String, Error> {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    if host.is_empty() || host == "docker.io" || host.ends_with(".docker.io") {
        return Ok("docker.io".to_owned());
    }
    let name = if host.contains(['.', ':']) || host == "localhost" { host.to_owned() } else { format!("{host}:443") };
    match format!("{name}/x").parse::<ImageRef>() {
        Ok(reference) if reference.domain() == name => Ok(name),
        _ => Err(Error::invalid(format!("{address:?} is no registry's address"))),
    }
}

/// Writes what a reference means.
#[must_use]
pub fn distribution(found: &Distribution) -> wire::DistributionInspect {
    let platform = |(os, architecture, variant): &(String, String, String)| wire::Platform {
        architecture: architecture.clone(),
        os: os.clone(),
        variant: variant.clone(),
    };
    wire::DistributionInspect {
        descriptor: wire::Descriptor {
            media_type: found.media_type.clone(),
            digest: found.digest.clone(),
            size: signed(found.size),
        },
        platforms: found.platforms.iter().map(platform).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Option<RegistryAuth> {
        Some(RegistryAuth::Password { username: "ann".into(), password: "a:b?>".into() })
    }

    #[test]
    fn credentials_come_in_many_dresses() {
        let json = r#"{"username":"ann","password":"a:b?>","serveraddress":"x"}"#;
        for encoded in
            [URL_SAFE.encode(json), URL_SAFE.encode(json).trim_end_matches('=').to_owned(), STANDARD.encode(json)]
        {
            assert_eq!(auth_from_header(&encoded).unwrap(), ann(), "{encoded}");
        }
        let pair = wire::AuthConfig { auth: STANDARD.encode("ann:a:b?>"), ..Default::default() };
        assert_eq!(auth(&pair).unwrap(), ann());
        assert_eq!(auth_from_header("e30=").unwrap(), None);
        assert_eq!(auth_from_header("").unwrap(), None);
        let token = URL_SAFE.encode(r#"{"IdentityToken":"t"}"#);
        assert_eq!(auth_from_header(&token).unwrap(), Some(RegistryAuth::IdentityToken("t".into())));
        for bad in ["%", "aGVsbG8", "bnVsbA"] {
            let said = auth_from_header(bad);
            assert!(said.as_ref().map_or_else(|e| !e.message.contains(bad), Option::is_none), "{said:?}");
        }
    }

    #[test]
    fn registries_are_named_as_images_name_them() {
        for (address, name) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("reg.example:5000", "reg.example:5000"),
            ("https://reg.example/v2/", "reg.example"),
            ("localhost", "localhost"),
            ("evildocker.io", "evildocker.io"),
        ] {
            assert_eq!(registry(address).unwrap(), name, "{address}");
        }
        assert!(registry("http://a b").is_err());
    }
}
