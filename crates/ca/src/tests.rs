//! Certificates from the first to the last step, and such as nobody should accept.

use std::time::Duration;

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, PKCS_ED25519, SanType};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};
use skep_model::{Authority, ClusterId, NodeId, Role, Timestamp};

use crate::issue::params;
use crate::roots::certificates;
use crate::{
    CaError, Expected, JoinToken, ManagerVerifier, NodeCredentials, NodeKeys, PeerIdentity, RootCa, RootCertificate,
    Roots, SigningRequest, TokenVerifier, manager_name, new_secret,
};

mod succession;

const DAY: i64 = 86_400;

fn root() -> RootCa {
    RootCa::generate(Timestamp::now()).unwrap()
}

fn roots(of: &[&RootCa]) -> Roots {
    Roots::new(of.iter().map(|root| root.certificate().clone()).collect()).unwrap()
}

fn identity(role: Role) -> PeerIdentity {
    PeerIdentity { cluster: ClusterId::random(), node: NodeId::random(), role }
}

fn later(seconds: i64) -> UnixTime {
    let at = Timestamp::now().as_second() + seconds;
    UnixTime::since_unix_epoch(Duration::from_secs(at.try_into().unwrap()))
}

/// A chain for a new key.
fn chain(root: &RootCa, identity: &PeerIdentity) -> Vec<CertificateDer<'static>> {
    certificates(&root.sign_own(&NodeKeys::generate().unwrap(), identity, Timestamp::now()).unwrap()).unwrap()
}

/// What a client that trusts `roots` says of a server with this chain.
fn as_client(roots: &Roots, expected: Expected, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
    let verifier = ManagerVerifier::new(roots, expected).unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &manager_name(), &[], now).map(drop)
}

fn as_server(roots: &Roots, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
    roots.client_verifier().unwrap().verify_client_cert(&chain[0], &chain[1..], now).map(drop)
}

fn as_joiner(token: &JoinToken, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
    let verifier = TokenVerifier::new(token.clone());
    verifier.verify_server_cert(&chain[0], &chain[1..], &manager_name(), &[], later(0)).map(drop)
}

fn in_cluster(of: &PeerIdentity) -> Expected {
    Expected { cluster: of.cluster.clone(), node: None }
}

/// What people are told.
fn text(error: Result<(), Error>) -> String {
    match error.unwrap_err() {
        Error::InvalidCertificate(CertificateError::Other(own)) => own.to_string(),
        other => other.to_string(),
    }
}

#[test]
fn a_request_becomes_a_certificate_that_says_what_the_manager_said() {
    let root = root();
    let keys = NodeKeys::generate().unwrap();
    let request = SigningRequest::from_der(&keys.request().unwrap()).unwrap();
    assert_eq!(request.digest(), keys.digest());
    let identity = identity(Role::Manager);
    let chain = root.sign(&request, &identity, Timestamp::now()).unwrap();
    let credentials = NodeCredentials::new(keys, &chain, roots(&[&root])).unwrap();
    assert_eq!(*credentials.identity(), identity);
    assert_eq!(credentials.chain_pem(), chain);
    let now = Timestamp::now().as_second();
    assert!((now - credentials.not_before().as_second() - 3600).abs() < 60, "an hour back");
    assert!((credentials.not_after().as_second() - now - 90 * DAY).abs() < 60, "ninety days ahead");
    credentials.certified_key().unwrap();
    let chain = certificates(&chain).unwrap();
    assert_eq!(chain.len(), 2, "the root goes along, for those who join");
    as_client(credentials.roots(), in_cluster(&identity), &chain, later(0)).unwrap();
    as_server(credentials.roots(), &chain, later(0)).unwrap();
}

#[test]
fn the_root_is_what_it_should_be_and_survives_the_store() {
    let root = root();
    let authority: Authority = root.authority();
    assert_eq!(authority.trusted, std::slice::from_ref(&authority.certificate));
    let again = RootCa::of(&authority).unwrap();
    assert_eq!(again.certificate(), root.certificate());
    let identity = identity(Role::Worker);
    as_server(&roots(&[&root]), &chain(&again, &identity), later(0)).unwrap();
    let parsed = crate::roots::parse(root.certificate().der()).unwrap();
    assert_eq!(parsed.subject().to_string(), "CN=skep-ca");
    let years = (parsed.validity().not_after.timestamp() - Timestamp::now().as_second()) / (365 * DAY);
    assert_eq!(years, 20);
    // A key of another root does not pass.
    let mixed = Authority { key: crate::tests::root().authority().key, ..authority.clone() };
    assert_eq!(RootCa::of(&mixed).unwrap_err(), CaError::OtherKey);
    let shown = format!("{root:?} {again:?} {authority:?} {:?}", NodeKeys::from_pem(&authority.key.0));
    assert!(!shown.contains(&authority.key.0[40..70]), "{shown}");
}

#[test]
fn certificates_of_other_roots_are_refused_by_everybody() {
    let (own, other) = (root(), root());
    let identity = identity(Role::Manager);
    let forged = chain(&other, &identity);
    let untrusted = "not issued by a root certificate that this node trusts";
    assert!(text(as_client(&roots(&[&own]), in_cluster(&identity), &forged, later(0))).contains(untrusted));
    as_server(&roots(&[&own]), &forged, later(0)).unwrap_err();
    let pem: String = forged.iter().map(|one| crate::roots::to_pem(one)).collect();
    let keys = NodeKeys::generate().unwrap();
    let request = SigningRequest::from_der(&keys.request().unwrap()).unwrap();
    assert_eq!(NodeCredentials::new(keys.clone(), &pem, roots(&[&own])).unwrap_err(), CaError::OtherKey);
    let pem = other.sign(&request, &identity, Timestamp::now()).unwrap();
    assert_eq!(NodeCredentials::new(keys.clone(), &pem, roots(&[&own])).unwrap_err(), CaError::Untrusted);
    // While a root is replaced both are trusted, whichever has signed.
    NodeCredentials::new(keys, &pem, roots(&[&own, &other])).unwrap();
    for root in [&own, &other] {
        let chain = chain(root, &identity);
        as_client(&roots(&[&own, &other]), in_cluster(&identity), &chain, later(0)).unwrap();
        as_server(&roots(&[&own, &other]), &chain, later(0)).unwrap();
    }
}

#[test]
fn certificates_are_valid_in_their_time_alone() {
    let root = root();
    let identity = identity(Role::Manager);
    let (chain, roots) = (chain(&root, &identity), roots(&[&root]));
    for (seconds, valid) in
        [(-2 * 3600, false), (-3000, true), (0, true), (89 * DAY, true), (91 * DAY, false), (10_000 * DAY, false)]
    {
        let seen = as_client(&roots, in_cluster(&identity), &chain, later(seconds));
        assert_eq!(seen.is_ok(), valid, "{seconds}: {seen:?}");
        assert_eq!(as_server(&roots, &chain, later(seconds)).is_ok(), valid, "{seconds}");
    }
    // An expired one still says who the node is: it is for the caller to say what is wrong.
    let keys = NodeKeys::generate().unwrap();
    let issued = Timestamp::from_second(Timestamp::now().as_second() - 91 * DAY).unwrap();
    let pem = root.sign_own(&keys, &identity, issued).unwrap();
    let expired = NodeCredentials::new(keys, &pem, roots).unwrap();
    assert!(expired.not_after() < Timestamp::now());
}

#[test]
fn only_the_expected_manager_of_the_expected_swarm_is_one() {
    let root = root();
    let roots = roots(&[&root]);
    let (manager, worker) = (identity(Role::Manager), identity(Role::Worker));
    let error = text(as_client(&roots, in_cluster(&worker), &chain(&root, &worker), later(0)));
    assert!(error.contains("not a manager"), "{error}");
    as_server(&roots, &chain(&root, &worker), later(0)).unwrap();
    let of_manager = chain(&root, &manager);
    let error = text(as_client(&roots, in_cluster(&worker), &of_manager, later(0)));
    assert!(error.contains("another swarm"), "{error}");
    let exactly = |node: &NodeId| Expected { node: Some(node.clone()), ..in_cluster(&manager) };
    as_client(&roots, exactly(&manager.node), &of_manager, later(0)).unwrap();
    let error = text(as_client(&roots, exactly(&worker.node), &of_manager, later(0)));
    assert!(error.contains(worker.node.as_str()) && error.contains(manager.node.as_str()), "{error}");
}

#[test]
fn a_node_cannot_sign_for_others() {
    let root = root();
    let keys = NodeKeys::generate().unwrap();
    let worker = identity(Role::Worker);
    let own = certificates(&root.sign_own(&keys, &worker, Timestamp::now()).unwrap()).unwrap();
    // It signs itself a manager's certificate with the key of its own, and sends its own along as the issuer's.
    let issuer = rcgen::Issuer::from_ca_cert_der(&own[0], keys.pair()).unwrap();
    let mut forged = params(Timestamp::now(), Duration::from_secs(3600));
    forged.distinguished_name.push(DnType::OrganizationName, worker.cluster.as_str());
    forged.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    forged.distinguished_name.push(DnType::CommonName, worker.node.as_str());
    forged.subject_alt_names = vec![SanType::DnsName("swarm-manager".try_into().unwrap())];
    let forged = forged.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let chain = [vec![forged.der().clone()], own].concat();
    as_client(&roots(&[&root]), in_cluster(&worker), &chain, later(0)).unwrap_err();
    as_server(&roots(&[&root]), &chain, later(0)).unwrap_err();
    let token = JoinToken::new(root.certificate(), &new_secret()).unwrap();
    as_joiner(&token, &chain).unwrap_err();
}

#[test]
fn who_joins_accepts_a_manager_under_the_root_of_the_token_alone() {
    let (own, other) = (root(), root());
    let token = JoinToken::new(own.certificate(), &new_secret()).unwrap();
    as_joiner(&token, &chain(&own, &identity(Role::Manager))).unwrap();
    let error = text(as_joiner(&token, &chain(&own, &identity(Role::Worker))));
    assert!(error.contains("not a manager"), "{error}");
    let foreign = chain(&other, &identity(Role::Manager));
    let error = text(as_joiner(&token, &foreign));
    assert!(error.contains("the join token is for"), "{error}");
    // The right root beside a chain of another one proves nothing; nor does the root by itself.
    let beside = [foreign, vec![own.certificate().der().clone()]].concat();
    as_joiner(&token, &beside).unwrap_err();
    as_joiner(&token, &[own.certificate().der().clone(), own.certificate().der().clone()]).unwrap_err();
    // Without the root there is nothing to recognize.
    as_joiner(&token, &chain(&own, &identity(Role::Manager))[..1]).unwrap_err();
}

#[test]
fn of_a_request_only_the_key_counts() {
    let keys = NodeKeys::generate().unwrap();
    let mut greedy = CertificateParams::new(vec!["swarm-manager".to_owned()]).unwrap();
    greedy.distinguished_name.push(DnType::CommonName, "somebody-else");
    greedy.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    greedy.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let der = greedy.serialize_request(keys.pair()).unwrap().der().to_vec();
    let request = SigningRequest::from_der(&der).unwrap();
    assert_eq!(request, SigningRequest::from_der(&keys.request().unwrap()).unwrap());
    let root = root();
    let worker = identity(Role::Worker);
    let pem = root.sign(&request, &worker, Timestamp::now()).unwrap();
    let chain = certificates(&pem).unwrap();
    assert_eq!(PeerIdentity::of(&chain[0]).unwrap(), worker);
    assert!(!crate::roots::parse(&chain[0]).unwrap().is_ca());
    as_client(&roots(&[&root]), in_cluster(&worker), &chain, later(0)).unwrap_err();
}

#[test]
fn requests_that_do_not_prove_the_key_are_refused() {
    let mut der = NodeKeys::generate().unwrap().request().unwrap();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(matches!(SigningRequest::from_der(&der), Err(CaError::Request(_))));
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let der = CertificateParams::default().serialize_request(&other).unwrap().der().to_vec();
    let error = SigningRequest::from_der(&der).unwrap_err().to_string();
    assert!(error.contains("P-256"), "{error}");
    let mut der = NodeKeys::generate().unwrap().request().unwrap();
    der.push(0);
    assert!(SigningRequest::from_der(&der).is_err(), "something follows it");
    assert!(NodeKeys::from_pem(&other.serialize_pem()).unwrap_err().to_string().contains("P-256"));
}

#[test]
fn subjects_that_name_no_member_are_refused() {
    let root = root();
    let issuer = KeyPair::generate().unwrap();
    let (cluster, node) = (ClusterId::random(), NodeId::random());
    let subject = |parts: &[(DnType, &str)]| {
        let mut params = params(Timestamp::now(), Duration::from_secs(3600));
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        PeerIdentity::of(params.self_signed(&issuer).unwrap().der())
    };
    let (o, ou, cn) = (DnType::OrganizationName, DnType::OrganizationalUnitName, DnType::CommonName);
    let (cluster, node) = (cluster.as_str(), node.as_str());
    let good = [(o.clone(), cluster), (ou.clone(), "swarm-worker"), (cn.clone(), node)];
    assert_eq!(subject(&good).unwrap().role, Role::Worker);
    let bad = [
        vec![(ou.clone(), "swarm-worker"), (cn.clone(), node)],
        vec![(o.clone(), cluster), (cn.clone(), node)],
        vec![(o.clone(), cluster), (ou.clone(), "swarm-worker")],
        vec![(o.clone(), cluster), (ou.clone(), "swarm-ca"), (cn.clone(), node)],
        vec![(o.clone(), cluster), (ou.clone(), "Swarm-Manager"), (cn.clone(), node)],
        vec![(o.clone(), "../etc"), (ou.clone(), "swarm-worker"), (cn.clone(), node)],
        vec![(o, cluster), (ou, "swarm-worker"), (cn, "a node")],
    ];
    for parts in bad {
        assert!(matches!(subject(&parts), Err(CaError::Subject(_))), "{parts:?}");
    }
    assert!(matches!(PeerIdentity::of(root.certificate().der()), Err(CaError::Subject(_))), "a root is no node");
}

#[test]
fn texts_with_several_keys_and_roots_are_read_whole() {
    let root = root();
    let identity = identity(Role::Worker);
    let (old, new) = (NodeKeys::generate().unwrap(), NodeKeys::generate().unwrap());
    let pem = root.sign_own(&old, &identity, Timestamp::now()).unwrap();
    let both = NodeKeys::all_from_pem(&(new.to_pem() + &old.to_pem())).unwrap();
    let found = NodeCredentials::with_one_of(both, &pem, &roots(&[&root])).unwrap();
    assert_eq!(found.keys().digest(), old.digest());
    let none = NodeCredentials::with_one_of(vec![new], &pem, &roots(&[&root])).unwrap_err();
    assert_eq!(none, CaError::OtherKey);
    let other = crate::tests::root();
    let text = roots(&[&root, &other]).to_pem();
    assert_eq!(Roots::from_pem(&text).unwrap(), roots(&[&root, &other]));
    assert_eq!(Roots::from_pem("").unwrap_err(), CaError::NoRoots);
    assert!(RootCertificate::from_pem(&text).is_err(), "one is expected");
    assert_eq!(RootCertificate::from_pem(&root.certificate().to_pem()).unwrap(), *root.certificate());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        drop(SigningRequest::from_der(&bytes));
        drop(PeerIdentity::of(&CertificateDer::from(bytes.clone())));
        let text = String::from_utf8_lossy(&bytes);
        drop(RootCertificate::from_pem(&text));
        drop(NodeKeys::all_from_pem(&text));
        let framed = crate::roots::to_pem(&bytes);
        drop(RootCertificate::from_pem(&framed));
        drop(Roots::from_pem(&framed));
        drop(NodeKeys::from_pem(&framed.replace("CERTIFICATE", "PRIVATE KEY")));
    }

    #[test]
    fn damage_to_good_ones_makes_no_parser_panic(at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
        static GOOD: std::sync::LazyLock<(Vec<u8>, Vec<u8>, RootCa)> = std::sync::LazyLock::new(|| {
            let root = root();
            let chain = chain(&root, &identity(Role::Manager));
            (NodeKeys::generate().unwrap().request().unwrap(), chain[0].to_vec(), root)
        });
        let (request, certificate, root) = &*GOOD;
        for good in [request, certificate] {
            let mut bytes = good.clone();
            let at = at.index(bytes.len());
            let changed = bytes[at] != to;
            bytes[at] = to;
            // What a signature covers cannot be changed; in a request there are bits that it does not cover, and they change nothing.
            if let Ok(read) = SigningRequest::from_der(&bytes) {
                prop_assert_eq!(read.digest(), SigningRequest::from_der(good).unwrap().digest());
            }
            if changed {
                let chain = [CertificateDer::from(bytes.clone()), root.certificate().der().clone()];
                prop_assert!(as_server(&roots(&[root]), &chain, later(0)).is_err());
            }
            drop(PeerIdentity::of(&CertificateDer::from(bytes.clone())));
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(SigningRequest::from_der(&bytes).is_err());
            prop_assert!(PeerIdentity::of(&CertificateDer::from(bytes)).is_err());
        }
    }
}
