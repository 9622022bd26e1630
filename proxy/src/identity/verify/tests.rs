//! Certificates good and bad, and what is said of each.
#![allow(clippy::unwrap_used)]

use rcgen::{ExtendedKeyUsagePurpose, SanType};

use super::*;
use crate::identity::testing::{Authority, DAY, uri};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn now() -> UnixTime {
    UnixTime::now()
}

fn judge(
    authority: &Authority,
    params: &rcgen::CertificateParams,
) -> Result<SpiffeId, VerifyError> {
    let (leaf, _) = authority.leaf(params);
    peer(&leaf, &[], &authority.roots(), now(), Usage::Client)
}

#[test]
fn a_good_certificate_is_its_owner() {
    let authority = Authority::new("root");
    let id = judge(&authority, &Authority::params(&[uri(WEB)], DAY)).unwrap();
    assert_eq!(id.to_string(), WEB);
}

#[test]
fn every_bad_one_has_its_own_reason() {
    let authority = Authority::new("root");
    let dns = SanType::DnsName("web.shop.svc".try_into().unwrap());
    let params = |names: &[SanType]| Authority::params(names, DAY);
    assert_eq!(
        judge(&authority, &Authority::params(&[uri(WEB)], -100..-10)),
        Err(VerifyError::Expired)
    );
    assert_eq!(
        judge(&authority, &Authority::params(&[uri(WEB)], 100..200)),
        Err(VerifyError::NotYetValid)
    );
    assert_eq!(
        judge(&authority, &params(&[])),
        Err(VerifyError::UriNames(0))
    );
    assert_eq!(
        judge(&authority, &params(&[dns])),
        Err(VerifyError::UriNames(0))
    );
    assert_eq!(
        judge(&authority, &params(&[uri(WEB), uri(WEB)])),
        Err(VerifyError::UriNames(2))
    );
    let https = params(&[uri("https://cluster.local/ns/shop/sa/web")]);
    assert!(matches!(
        judge(&authority, &https),
        Err(VerifyError::Identity(_))
    ));
    let mut server_only = params(&[uri(WEB)]);
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(matches!(
        judge(&authority, &server_only),
        Err(VerifyError::Invalid(_))
    ));

    let (leaf, _) = authority.leaf(&params(&[uri(WEB)]));
    for stranger in [Authority::new("other"), Authority::new("root")] {
        let verdict = peer(&leaf, &[], &stranger.roots(), now(), Usage::Client);
        assert_eq!(verdict, Err(VerifyError::UnknownIssuer));
    }
    let garbage = CertificateDer::from(b"garbage".as_slice());
    let verdict = peer(&garbage, &[], &authority.roots(), now(), Usage::Client);
    assert!(matches!(verdict, Err(VerifyError::Malformed(_))));
    let many = vec![leaf.clone(); LONGEST_CHAIN];
    let verdict = peer(&leaf, &many, &authority.roots(), now(), Usage::Client);
    assert!(matches!(verdict, Err(VerifyError::Invalid(_))));
}

#[test]
fn servers_can_be_judged_by_dns_name() {
    let authority = Authority::new("root");
    let dns = SanType::DnsName("istio-csr.cert-manager.svc".try_into().unwrap());
    let (leaf, _) = authority.leaf(&Authority::params(&[dns], DAY));
    let judge = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        server(&leaf, &[], &authority.roots(), now(), &name)
    };
    assert_eq!(judge("istio-csr.cert-manager.svc"), Ok(()));
    let error = judge("other.cert-manager.svc").unwrap_err().to_string();
    assert!(
        error.contains("istio-csr.cert-manager.svc") && error.contains("other"),
        "{error}"
    );
}

#[test]
fn validity_is_read_to_the_second() {
    let (leaf, _) = Authority::new("root").leaf(&Authority::params(&[uri(WEB)], 0..3600));
    let (from, to) = validity(&leaf).unwrap();
    assert_eq!(to.duration_since(from).unwrap(), Duration::from_secs(3600));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
        let leaf = CertificateDer::from(bytes);
        proptest::prop_assert!(spiffe_id(&leaf).is_err());
        proptest::prop_assert!(validity(&leaf).is_err());
        proptest::prop_assert!(peer(&leaf, &[], &RootCertStore::empty(), now(), Usage::Server).is_err());
    }
}
