//! A root takes the place of another one, also one that somebody brings.

use rcgen::{BasicConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm};
use skep_model::RotationStage;

use super::*;

/// What the swarm stores once the new root issues.
fn issuing(mut authority: Authority) -> Authority {
    if let Some(rotation) = &mut authority.rotation {
        rotation.stage = RotationStage::Issuing;
    }
    authority
}

fn credentials(root: &RootCa, identity: &PeerIdentity, roots: &Roots) -> NodeCredentials {
    let keys = NodeKeys::generate().unwrap();
    let chain = root.sign_own(&keys, identity, Timestamp::now()).unwrap();
    NodeCredentials::new(keys, &chain, roots.clone()).unwrap()
}

#[test]
fn what_is_under_the_new_root_is_recognized_by_who_knows_the_old_one_alone() {
    let (old, new) = (root(), root());
    let begun = new.succeed(&old.authority(), Timestamp::now()).unwrap();
    assert_eq!(begun.trusted, [old.authority().certificate, new.authority().certificate]);
    // Until all are told of it, the old one issues.
    assert_eq!(RootCa::of(&begun).unwrap().certificate(), old.certificate());
    let issuer = RootCa::of(&issuing(begun)).unwrap();
    assert_eq!(issuer.certificate(), new.certificate());
    let manager = identity(Role::Manager);
    let shown = chain(&issuer, &manager);
    for roots in [roots(&[&old]), roots(&[&new]), roots(&[&old, &new])] {
        as_client(&roots, in_cluster(&manager), &shown, later(0)).unwrap();
        as_server(&roots, &shown, later(0)).unwrap();
    }
    for root in [&old, &new] {
        as_joiner(&JoinToken::new(root.certificate(), &new_secret()).unwrap(), &shown).unwrap();
    }
    // It is by what the old root says of the new one, and by nothing else that goes along.
    for chain in [&shown[..2], &[shown[0].clone(), shown[1].clone(), shown[3].clone()]] {
        as_server(&roots(&[&old]), chain, later(0)).unwrap_err();
    }
    as_server(&roots(&[&root()]), &shown, later(0)).unwrap_err();
}

#[test]
fn a_node_that_forgets_the_old_root_shows_nothing_of_it_any_more() {
    let (old, new) = (root(), root());
    let issuer = RootCa::of(&issuing(new.succeed(&old.authority(), Timestamp::now()).unwrap())).unwrap();
    let manager = identity(Role::Manager);
    let both = credentials(&issuer, &manager, &roots(&[&old, &new]));
    assert_eq!(both.issuer(), new.certificate());
    let only = both.trusting(roots(&[&new])).unwrap();
    assert_eq!(only.tls().roots, only.tls().issuer);
    let shown = certificates(&only.chain_pem()).unwrap();
    assert_eq!(shown.len(), 2);
    let error = text(as_joiner(&JoinToken::new(old.certificate(), &new_secret()).unwrap(), &shown));
    assert!(error.contains("root certificate was replaced since") && error.contains("copy the token anew"), "{error}");
    as_joiner(&JoinToken::new(new.certificate(), &new_secret()).unwrap(), &shown).unwrap();
    // Nobody gives up the root that its own certificate is under.
    let old_one = credentials(&old, &manager, &roots(&[&old]));
    assert_eq!(old_one.trusting(roots(&[&new])).unwrap_err(), CaError::Untrusted);
    assert_eq!(old_one.trusting(roots(&[&old, &new])).unwrap().issuer(), old.certificate());
}

#[test]
fn a_third_root_takes_the_place_of_the_second_and_none_comes_back() {
    let now = Timestamp::now();
    let (first, second, third) = (root(), root(), root());
    let begun = second.succeed(&first.authority(), now).unwrap();
    assert_eq!(second.succeed(&begun, now).unwrap(), begun, "asked for again");
    assert_eq!(first.succeed(&first.authority(), now).unwrap(), first.authority());
    // The second has issued nothing yet.
    let pems = |of: &[&RootCa]| of.iter().map(|root| root.certificate().to_pem()).collect::<Vec<_>>();
    assert_eq!(third.succeed(&begun, now).unwrap().trusted, pems(&[&first, &third]));
    let issued = issuing(begun);
    let superseded = third.succeed(&issued, now).unwrap();
    assert_eq!(superseded.trusted, pems(&[&first, &second, &third]));
    assert_eq!(superseded.certificate, first.authority().certificate, "join tokens name the first one still");
    for back in [&first, &second] {
        assert_eq!(back.succeed(&superseded, now).unwrap_err(), CaError::RootInUse);
    }
    assert_eq!(first.succeed(&issued, now).unwrap_err(), CaError::RootInUse);
}

/// A root as another program would make it.
fn made(algorithm: &'static SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let keys = KeyPair::generate_for(algorithm).unwrap();
    let mut given = params(Timestamp::now(), Duration::from_secs(3 * 365 * 86_400));
    given.distinguished_name.push(DnType::OrganizationName, "Example");
    given.distinguished_name.push(DnType::CommonName, "Example Swarm Root");
    given.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut given);
    (given.self_signed(&keys).unwrap().pem(), keys.serialize_pem())
}

#[test]
fn a_root_that_somebody_brings_issues_like_one_of_the_swarm() {
    let now = Timestamp::now();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let (certificate, key) = made(algorithm, |_| {});
        let given = RootCa::given(&certificate, &key, now).unwrap();
        let old = root();
        let issuer = RootCa::of(&issuing(given.succeed(&old.authority(), now).unwrap())).unwrap();
        let manager = identity(Role::Manager);
        for known in [&old, &given] {
            as_server(&roots(&[known]), &chain(&issuer, &manager), later(0)).unwrap();
        }
        // And another one can follow it.
        let next = RootCa::of(&issuing(root().succeed(&given.authority(), now).unwrap())).unwrap();
        as_server(&roots(&[&given]), &chain(&next, &manager), later(0)).unwrap();
    }
}

#[test]
fn a_root_that_cannot_be_used_is_refused_with_the_reason() {
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    let good = made(p256, |_| {});
    let other = made(p256, |_| {});
    let soon = made(p256, |params| params.not_after = rcgen::date_time_ymd(2027, 1, 1));
    let not_yet = made(p256, |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    let leaf = made(p256, |params| params.is_ca = IsCa::ExplicitNoCa);
    let narrow = made(p256, |params| {
        let only = rcgen::GeneralSubtree::DnsName("example.org".to_owned());
        params.name_constraints =
            Some(rcgen::NameConstraints { permitted_subtrees: vec![only], excluded_subtrees: Vec::new() });
    });
    let sec1 = good.1.replace("PRIVATE KEY", "EC PRIVATE KEY");
    let cases = [
        (good.0.clone(), other.1, "not that of the certificate"),
        (format!("{}{}", good.0, other.0), good.1.clone(), "there are 2"),
        (String::new(), good.1.clone(), "there are 0"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), good.1.clone(), "cannot be read"),
        (soon.0, soon.1, "expires too soon"),
        (not_yet.0, not_yet.1, "not valid yet"),
        (leaf.0, leaf.1, "CA:TRUE"),
        (narrow.0, narrow.1, "what it issues is not accepted"),
        (good.0.clone(), sec1, "openssl pkcs8 -topk8 -nocrypt"),
        (good.0.clone(), String::new(), "there is nothing"),
        (good.0.clone(), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(), "RSA of 2048"),
    ];
    for (certificate, key, reason) in cases {
        let refused = RootCa::given(&certificate, &key, Timestamp::now()).unwrap_err();
        assert!(matches!(refused, CaError::Root(_)), "{refused:?}");
        assert!(refused.to_string().contains(reason), "{refused} should say {reason:?}");
    }
}

#[test]
fn certificates_are_valid_for_as_long_as_is_asked() {
    let root = root().issuing_for(Duration::from_secs(2 * 3600));
    let held = credentials(&root, &identity(Role::Worker), &roots(&[&root]));
    assert_eq!(held.not_after().as_second() - held.issued().as_second(), 2 * 3600);
    assert_eq!(held.issued().as_second() - held.not_before().as_second(), 3600);
}
