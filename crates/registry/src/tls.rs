//! Whom to trust: the system's certificate authorities, and those that the operator has put beside for one registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::RegistryError;
use crate::url::Url;

/// Certificate authorities.
#[derive(Debug)]
pub(crate) struct Authorities {
    directories: Vec<PathBuf>,
    system: OnceLock<RootCertStore>,
}

impl Authorities {
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories, system: OnceLock::new() }
    }

    /// For a server that must prove who it is. The operator's files are read anew each time: no restart is needed for another one.
    pub(crate) fn strict(&self, server: &Url) -> Result<Arc<ClientConfig>, RegistryError> {
        let mut roots = self.system.get_or_init(system).clone();
        for directory in &self.directories {
            for name in [server.host.clone(), format!("{}:{}", server.host, server.port)] {
                add(&mut roots, &directory.join(name))?;
            }
        }
        let config = builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// For a server of which the operator has said that it need not prove who it is.
pub(crate) fn lenient() -> Arc<ClientConfig> {
    // The operator has asked for it, for this registry, by name.
    let config = builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    Arc::new(config)
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(skep_ca::provider())
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for TLS 1.2 and 1.3")
}

fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!("reading the system's certificate authorities: {error}");
    }
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!(
            ignored,
            "the system has no certificate authorities: install ca-certificates to use public registries"
        );
    }
    roots
}

/// Adds all `*.crt` of a directory; nothing when there is none.
fn add(roots: &mut RootCertStore, directory: &Path) -> Result<(), RegistryError> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for path in
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "crt"))
    {
        let bad = |reason: String| RegistryError::Certificates { path: path.clone(), reason };
        let text = fs::read(&path).map_err(|e| bad(e.to_string()))?;
        let all = pem::parse_many(&text).map_err(|e| bad(e.to_string()))?;
        let certificates = all.into_iter().filter(|block| block.tag() == "CERTIFICATE");
        let mut count = 0;
        for block in certificates {
            roots.add(CertificateDer::from(block.into_contents())).map_err(|e| bad(e.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(bad("there is no certificate in it".to_owned()));
        }
    }
    Ok(())
}

/// Takes everybody for whom they say they are.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        skep_ca::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// Somebody who is reg.example by the word of an authority, and that authority in PEM.
    fn registry() -> (TlsAcceptor, String) {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = root.self_signed(&root_key).unwrap().pem();
        let own = CertificateParams::new(vec!["reg.example".into()]).unwrap();
        let own = own.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        let config = ServerConfig::builder_with_provider(skep_ca::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        (TlsAcceptor::from(Arc::new(config)), pem)
    }

    async fn greet(acceptor: &TlsAcceptor, config: Arc<ClientConfig>, name: &'static str) -> Result<(), String> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from(name).unwrap();
        let (greeted, _) = tokio::join!(TlsConnector::from(config).connect(name, ours), acceptor.accept(theirs));
        greeted.map(drop).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn an_authority_of_the_operators_is_trusted_for_its_registry_alone() {
        let (acceptor, pem) = registry();
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("reg.example:5000");
        fs::create_dir(&place).unwrap();
        let authorities = Authorities::new(vec![dir.path().join("absent"), dir.path().to_owned()]);
        let strict = |text: &str| authorities.strict(&Url::parse(text).unwrap());
        let before = strict("https://reg.example:5000").unwrap();
        assert!(greet(&acceptor, before, "reg.example").await.unwrap_err().contains("UnknownIssuer"));
        fs::write(place.join("ca.crt"), pem).unwrap();
        greet(&acceptor, strict("https://reg.example:5000").unwrap(), "reg.example").await.unwrap();
        let other = strict("https://reg.example").unwrap();
        assert!(greet(&acceptor, other, "reg.example").await.is_err(), "another port is another registry");
        let name = strict("https://reg.example:5000").unwrap();
        assert!(greet(&acceptor, name, "other.example").await.is_err(), "it is somebody else");
        greet(&acceptor, lenient(), "other.example").await.unwrap();
        fs::write(place.join("ca.crt"), "nothing").unwrap();
        assert!(strict("https://reg.example:5000").unwrap_err().to_string().contains("ca.crt"));
    }
}
