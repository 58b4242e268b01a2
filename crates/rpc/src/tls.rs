//! What the TLS library is told: TLS 1.3 alone, HTTP/2 inside, and never a resumed session, which would keep the identity of an earlier
//! connection without looking at it again.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use skep_ca::{CaError, Expected, JoinToken, ManagerVerifier, NodeCredentials, TokenVerifier, provider};
use skep_model::NodeId;

/// HTTP/2, in the words of ALPN (RFC 7540).
const ALPN: &[u8] = b"h2";

/// For who answers.
pub(crate) fn server(credentials: &NodeCredentials) -> Result<ServerConfig, CaError> {
    let own = Arc::new(SingleCertAndKey::from(credentials.certified_key()?));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| CaError::Key(e.to_string()))?
        .with_client_cert_verifier(credentials.roots().client_verifier()?)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// For a member that calls a manager of its swarm: a certain one if `node` says so.
pub(crate) fn member(credentials: &NodeCredentials, node: Option<NodeId>) -> Result<ClientConfig, CaError> {
    let expected = Expected { cluster: credentials.identity().cluster.clone(), node };
    let verifier = ManagerVerifier::new(credentials.roots(), expected)?;
    let own = Arc::new(SingleCertAndKey::from(credentials.certified_key()?));
    client(Arc::new(verifier), |config| config.with_client_cert_resolver(own))
}

/// For a machine that has nothing but a join token.
pub(crate) fn joining(token: &JoinToken) -> Result<ClientConfig, CaError> {
    client(Arc::new(TokenVerifier::new(token.clone())), Verified::with_no_client_auth)
}

type Verified = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client(
    verifier: Arc<dyn ServerCertVerifier>,
    own: impl FnOnce(Verified) -> ClientConfig,
) -> Result<ClientConfig, CaError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| CaError::Key(e.to_string()))?
        // The library calls every check but that of public certificates dangerous: ours asks for more, the role and the swarm.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = own(config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
