//! The authority from its files to a leaf that rustls and OpenSSL accept.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use weft_model::SpiffeId;

use super::chain::ChainError;
use super::load::{CaFiles, load};
use super::request::{self, RequestError};
use super::root::{RootFiles, ensure};
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn identity() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn now() -> SystemTime {
    crate::clock::from_unix_seconds(crate::clock::unix_seconds(SystemTime::now())) // X.509 has whole seconds
}

fn made(directory: &Path) -> CaFiles {
    let files = RootFiles::below(directory);
    ensure(&files, &"cluster.local".parse().unwrap(), now()).unwrap();
    CaFiles {
        certificate: files.certificate,
        key: files.key,
        chain: None,
        extra_roots: None,
    }
}

/// A CA certificate for tests, below another or alone, adjusted.
fn ca(
    name: &str,
    above: Option<&CertifiedIssuer<'_, KeyPair>>,
    adjust: impl Fn(&mut CertificateParams),
) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = above.is_some();
    params.not_before = OffsetDateTime::from(now() - DAY);
    params.not_after = OffsetDateTime::from(now() + 30 * DAY);
    adjust(&mut params);
    let key = KeyPair::generate().unwrap();
    match above {
        Some(issuer) => CertifiedIssuer::signed_by(params, key, issuer).unwrap(),
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
    }
}

/// `tls.crt`, `tls.key` and `ca.crt` as cert-manager lays them out.
fn lay_out(
    directory: &Path,
    certificates: &[String],
    key: &KeyPair,
    chain: Option<&str>,
) -> CaFiles {
    let file = |name: &str, content: &str| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        path
    };
    CaFiles {
        certificate: file("tls.crt", &certificates.concat()),
        key: file("tls.key", &key.serialize_pem()),
        chain: chain.map(|c| file("ca.crt", c)),
        extra_roots: None,
    }
}

/// As a peer would: rustls with the bundle.
fn verifies(authority: &Authority, issued: &Issued, at: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    verifier
        .verify_client_cert(&issued.chain[0], &issued.chain[1..], at)
        .is_ok()
}

#[test]
fn a_root_is_made_once_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let files = made(directory.path());
    let first = load(&files, now()).unwrap();
    let again = load(&made(directory.path()), now()).unwrap();
    assert_eq!(first.bundle_pem(), again.bundle_pem());
    let mode = fs::metadata(&files.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(first.not_after() > now() + 3649 * DAY);
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    made(directory.path());
    assert_eq!(
        fs::metadata(&files.key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        fs::read_dir(directory.path().join("ca")).unwrap().count(),
        2,
        "no temporary file stays"
    );
}

#[test]
fn half_a_root_is_completed_or_reported() {
    let directory = tempfile::tempdir().unwrap();
    let files = made(directory.path());
    fs::remove_file(&files.certificate).unwrap();
    load(&made(directory.path()), now()).unwrap(); // the key stays, a new certificate is made for it
    fs::remove_file(&files.key).unwrap();
    let error = ensure(
        &RootFiles::below(directory.path()),
        &"cluster.local".parse().unwrap(),
        now(),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("root-key.pem is missing beside"),
        "{error}"
    );
}

#[test]
fn leaves_are_spiffe_svids() {
    let directory = tempfile::tempdir().unwrap();
    let authority = load(&made(directory.path()), now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let issued = authority.issue(&key, &identity(), &[], DAY, now()).unwrap();
    assert!(verifies(&authority, &issued, now()));
    assert!(
        verifies(&authority, &issued, now() - Duration::from_secs(299)),
        "a slow clock"
    );
    assert!(
        !verifies(&authority, &issued, now() + DAY + Duration::from_secs(2)),
        "past its end"
    );

    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical && leaf.subject().iter().count() == 0);
    assert_eq!(san.value.general_names.len(), 1);
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !leaf.is_ca());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth);
    let again = authority.issue(&key, &identity(), &[], DAY, now()).unwrap();
    let (_, again) = x509_parser::parse_x509_certificate(&again.chain[0]).unwrap();
    assert_ne!(
        leaf.raw_serial(),
        again.raw_serial(),
        "a renewal with the same key has a new serial number"
    );
}

#[test]
fn no_leaf_outlives_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let root = ca("root", None, |p| {
        p.not_after = OffsetDateTime::from(now() + Duration::from_secs(3600));
    });
    let middle = ca("middle", Some(&root), |_| {});
    let files = lay_out(
        directory.path(),
        &[middle.pem()],
        middle.key(),
        Some(&root.pem()),
    );
    let authority = load(&files, now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let issued = authority.issue(&key, &identity(), &[], DAY, now()).unwrap();
    assert_eq!(issued.not_after, now() + Duration::from_secs(3600));
    let later = now() + Duration::from_secs(3600);
    assert!(matches!(
        authority.issue(&key, &identity(), &[], DAY, later),
        Err(IssueError::Expired { .. })
    ));
}

#[test]
fn an_intermediate_brings_its_chain() {
    let directory = tempfile::tempdir().unwrap();
    let root = ca("root", None, |_| {});
    let upper = ca("upper", Some(&root), |_| {});
    let lower = ca("lower", Some(&upper), |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let stranger = ca("stranger", None, |_| {});
    let layouts = [
        (vec![lower.pem(), upper.pem()], Some(root.pem())),
        (vec![lower.pem(), upper.pem(), root.pem()], None),
        (
            vec![lower.pem()],
            Some(stranger.pem() + &root.pem() + &upper.pem()),
        ),
    ];
    for (certificates, chain) in layouts {
        let mut files = lay_out(
            directory.path(),
            &certificates,
            lower.key(),
            chain.as_deref(),
        );
        let old_root = directory.path().join("extra.pem");
        fs::write(&old_root, stranger.pem() + &root.pem()).unwrap();
        files.extra_roots = Some(old_root);
        let authority = load(&files, now()).unwrap();
        assert_eq!(
            authority.roots(),
            [root.der().clone(), stranger.der().clone()]
        );
        assert_eq!(
            authority.bundle_pem().matches("BEGIN CERTIFICATE").count(),
            2
        );
        let issued = authority
            .issue(&KeyPair::generate().unwrap(), &identity(), &[], DAY, now())
            .unwrap();
        assert_eq!(
            issued.chain[1..],
            [lower.der().clone(), upper.der().clone()]
        );
        assert!(verifies(&authority, &issued, now()));
    }
}

#[test]
fn what_cannot_be_an_authority_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let root = ca("root", None, |_| {});
    let other = ca("other", None, |_| {});
    let cases: [(&str, CertifiedIssuer<'_, KeyPair>, Option<String>); 6] = [
        ("is missing", ca("x", Some(&root), |_| {}), None),
        (
            "is missing",
            ca("x", Some(&root), |_| {}),
            Some(other.pem()),
        ),
        (
            "not a CA certificate",
            ca("x", Some(&root), |p| p.is_ca = IsCa::ExplicitNoCa),
            Some(root.pem()),
        ),
        (
            "not a CA certificate",
            ca("x", Some(&root), |p| {
                p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            }),
            Some(root.pem()),
        ),
        (
            "expired at",
            ca("x", Some(&root), |p| {
                p.not_after = OffsetDateTime::from(now() - Duration::from_secs(1));
            }),
            Some(root.pem()),
        ),
        (
            "is not valid before",
            ca("x", Some(&root), |p| {
                p.not_before = OffsetDateTime::from(now() + DAY);
            }),
            Some(root.pem()),
        ),
    ];
    for (expected, signer, chain) in cases {
        let files = lay_out(
            directory.path(),
            &[signer.pem()],
            signer.key(),
            chain.as_deref(),
        );
        let error = load(&files, now()).err().unwrap().to_string();
        assert!(
            error.contains(expected) && error.contains("tls.crt"),
            "{expected}: {error}"
        );
    }

    let short = ca("short", None, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let below = ca("below", Some(&short), |_| {});
    let error = chain::build(below.der(), std::slice::from_ref(short.der()), now()).unwrap_err();
    assert!(
        matches!(
            error,
            ChainError::PathLength {
                allowed: 0,
                below: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn unreadable_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let root = ca("root", None, |_| {});
    let files = lay_out(
        directory.path(),
        &[root.pem()],
        &KeyPair::generate().unwrap(),
        None,
    );
    let text = |files: &CaFiles| load(files, now()).err().unwrap().to_string();
    assert!(text(&files).contains("tls.key: is not the private key of the first certificate in"));
    fs::write(&files.key, "nothing").unwrap();
    assert!(text(&files).contains("tls.key: holds no usable private key"));
    fs::write(&files.certificate, "nothing").unwrap();
    assert!(text(&files).contains("tls.crt: holds no certificate"));
    fs::write(
        &files.certificate,
        pem::encode(&pem::Pem::new("CERTIFICATE", vec![1, 2, 3])),
    )
    .unwrap();
    assert!(text(&files).contains("tls.crt: certificate 1 is malformed"));
    fs::remove_file(&files.certificate).unwrap();
    assert!(text(&files).contains("tls.crt: cannot be read"));
}

#[test]
fn expired_extra_roots_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = made(directory.path());
    let old = ca("old", None, |p| {
        p.not_after = OffsetDateTime::from(now() - Duration::from_secs(1));
    });
    let extra = directory.path().join("extra.pem");
    fs::write(&extra, old.pem()).unwrap();
    files.extra_roots = Some(extra.clone());
    assert_eq!(load(&files, now()).unwrap().roots().len(), 1);
    let root = ca("root", None, |_| {});
    fs::write(&extra, ca("middle", Some(&root), |_| {}).pem()).unwrap();
    assert!(
        load(&files, now())
            .err()
            .unwrap()
            .to_string()
            .contains("extra.pem")
    );
}

fn csr(key: &KeyPair, adjust: impl Fn(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    adjust(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn requests_are_checked() {
    let key = KeyPair::generate().unwrap();
    let own = |p: &mut CertificateParams| {
        p.subject_alt_names = vec![SanType::URI(identity().to_string().try_into().unwrap())];
    };
    request::parse(&csr(&key, own))
        .unwrap()
        .check_identity(&identity())
        .unwrap();
    request::parse(&csr(&key, |_| {}))
        .unwrap()
        .check_identity(&identity())
        .unwrap();
    for kind in [
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        request::parse(&csr(&KeyPair::generate_for(kind).unwrap(), own)).unwrap();
    }
    let other = |name: SanType| {
        let pem = csr(&key, |p| p.subject_alt_names = vec![name.clone()]);
        request::parse(&pem).unwrap().check_identity(&identity())
    };
    for name in [
        SanType::URI("spiffe://cluster.local/ns/shop/sa/cart".try_into().unwrap()),
        SanType::DnsName("web.shop.svc".try_into().unwrap()),
        SanType::DnsName(identity().to_string().try_into().unwrap()),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
    ] {
        assert!(matches!(other(name), Err(RequestError::OtherName { .. })));
    }
}

#[test]
fn bad_requests_are_refused() {
    let key = KeyPair::generate().unwrap();
    let parse = |pem: &str| request::parse(pem).unwrap_err();
    assert_eq!(parse(&"x".repeat(16_385)), RequestError::TooLong(16_385));
    assert!(matches!(parse("hello"), RequestError::NotPem(_)));
    let garbage = pem::encode(&pem::Pem::new(
        "CERTIFICATE REQUEST",
        vec![0x30, 3, 1, 2, 3],
    ));
    assert!(matches!(parse(&garbage), RequestError::Malformed(_)));
    assert_eq!(
        parse(&csr(&key, |p| p.is_ca =
            IsCa::Ca(BasicConstraints::Unconstrained))),
        RequestError::AsksForCa
    );
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    assert!(matches!(
        parse(&csr(&p521, |_| {})),
        RequestError::KeyKind(_)
    ));
    let mut altered = pem::parse(csr(&key, |_| {})).unwrap().into_contents();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let altered = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", altered));
    assert_eq!(parse(&altered), RequestError::BadSignature);
}

#[test]
fn openssl_accepts_the_chain() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED openssl_accepts_the_chain: no openssl on this machine");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = ca("root", None, |_| {});
    let middle = ca("middle", Some(&root), |_| {});
    let files = lay_out(
        directory.path(),
        &[middle.pem()],
        middle.key(),
        Some(&root.pem()),
    );
    let authority = load(&files, now()).unwrap();
    let dns = ["weft-control-plane.weft-system.svc".to_owned()];
    let issued = authority
        .issue(&KeyPair::generate().unwrap(), &identity(), &dns, DAY, now())
        .unwrap();
    let file = |name: &str, content: String| {
        fs::write(directory.path().join(name), content).unwrap();
        directory.path().join(name)
    };
    let leaf = file("leaf.pem", certificate_pem(&issued.chain[0]));
    let roots = file("roots.pem", authority.bundle_pem().to_owned());
    let middles = file(
        "middles.pem",
        issued.chain[1..].iter().map(certificate_pem).collect(),
    );
    for purpose in ["sslserver", "sslclient"] {
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(&roots)
            .arg("-untrusted")
            .arg(&middles)
            .arg(&leaf)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{purpose}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
