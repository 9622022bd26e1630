//! The whole flow against a certificate authority in this process: gRPC over TLS 1.3, as the control plane serves it.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use rcgen::{CertificateParams, CertificateSigningRequestParams};
use tokio::net::TcpListener;
use tonic::{Request, Response, async_trait};
use weft_xds::ca::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService,
    IstioCertificateServiceServer,
};

use super::*;
use crate::config::HostPort;
use crate::identity::crypto::provider;
use crate::identity::pem;
use crate::identity::testing::{self, CONTROL_PLANE, DAY, Span, uri};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// What the authority does with the next request; when the list is empty, it signs for a day.
enum Next {
    Sign(Span),
    SignAs(&'static str),
    Garbage,
    Refuse,
}

/// A control plane's certificate authority, on a loopback port.
struct Fake {
    signer: testing::Authority,
    next: Mutex<VecDeque<Next>>,
    tokens: Mutex<Vec<String>>,
}

/// The same as a gRPC service.
struct Service(Arc<Fake>);

#[async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, tonic::Status> {
        let token = request
            .metadata()
            .get("authorization")
            .unwrap()
            .to_str()
            .unwrap();
        self.0.tokens.lock().unwrap().push(token.to_owned());
        let csr = CertificateSigningRequestParams::from_pem(&request.get_ref().csr).unwrap();
        let asked = csr.params.subject_alt_names.clone();
        assert_eq!(asked, [uri(WEB)]);
        let params: CertificateParams = match self.0.next.lock().unwrap().pop_front() {
            None => testing::Authority::params(&asked, DAY),
            Some(Next::Sign(span)) => testing::Authority::params(&asked, span),
            Some(Next::SignAs(other)) => testing::Authority::params(&[uri(other)], DAY),
            Some(Next::Refuse) => {
                return Err(tonic::Status::permission_denied("not your namespace"));
            }
            Some(Next::Garbage) => {
                let cert_chain = vec!["-----BEGIN CERTIFICATE-----\ngarbage\n".into()];
                return Ok(Response::new(IstioCertificateResponse { cert_chain }));
            }
        };
        let leaf = self.0.signer.sign(&params, &csr.public_key);
        let cert_chain = vec![
            pem::encode(pem::CERTIFICATE, &leaf),
            self.0.signer.roots_pem(),
        ];
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

impl Fake {
    /// Serves until the test's runtime ends. `name` is the identity that it shows.
    async fn serve(signer: testing::Authority, name: &str) -> (Arc<Self>, HostPort) {
        let own = signer.issue(name, DAY);
        let fake = Arc::new(Self {
            signer,
            next: Mutex::default(),
            tokens: Mutex::default(),
        });
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                Arc::into_inner(own.key).unwrap(),
            )));
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = IstioCertificateServiceServer::new(Service(Arc::clone(&fake)));
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, service) = (acceptor.clone(), service.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = hyper_util::service::TowerToHyperService::new(service);
                    let io = hyper_util::rt::TokioIo::new(tls);
                    let http = hyper::server::conn::http2::Builder::new(
                        hyper_util::rt::TokioExecutor::new(),
                    );
                    http.serve_connection(io, service).await.ok();
                });
            }
        });
        let host = "127.0.0.1".into();
        (fake, HostPort { host, port })
    }

    fn then(&self, next: Next) {
        self.next.lock().unwrap().push_back(next);
    }
}

/// A pod's directory, with its token and bootstrap bundle, and settings that point at the authority.
fn settings(directory: &Path, address: &HostPort, bootstrap: &testing::Authority) -> Settings {
    std::fs::write(directory.join("token"), "token-1\n").unwrap();
    std::fs::write(directory.join("bootstrap.pem"), bootstrap.roots_pem()).unwrap();
    let mut settings = Settings::for_tests(directory, WEB);
    settings.authority.address = address.clone();
    settings
}

fn no_bundle() -> (
    watch::Sender<Option<Vec<CertificateDer<'static>>>>,
    Distributed,
) {
    watch::channel(None)
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_certificate_is_issued_kept_and_used_again_without_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, address) = Fake::serve(testing::Authority::new("root"), CONTROL_PLANE).await;
    let settings = settings(dir.path(), &address, &fake.signer);
    let status = Arc::new(Status::default());
    let (_bundle, distributed) = no_bundle();
    let first = within(start(settings.clone(), Arc::clone(&status), distributed)).await;
    let issued = first.current();
    assert_eq!(issued.id.to_string(), WEB);
    assert_eq!(
        (issued.generation, status.succeeded(), status.failed()),
        (0, 1, 0)
    );
    assert_eq!(*fake.tokens.lock().unwrap(), ["Bearer token-1"]);

    // A restart, with the control plane away.
    let nobody = Settings {
        authority: Settings::for_tests(dir.path(), WEB).authority,
        ..settings
    };
    let (_bundle, distributed) = no_bundle();
    let again = within(start(nobody, Arc::default(), distributed)).await;
    assert_eq!(again.current().key.cert, issued.key.cert);
}

#[tokio::test]
async fn renewal_comes_by_itself_with_a_fresh_key_and_token() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, address) = Fake::serve(testing::Authority::new("root"), CONTROL_PLANE).await;
    let mut settings = settings(dir.path(), &address, &fake.signer);
    settings.renew_after = Some(Duration::from_millis(100));
    let (_bundle, distributed) = no_bundle();
    let status = Arc::new(Status::default());
    let identity = within(start(settings, Arc::clone(&status), distributed)).await;
    std::fs::write(dir.path().join("token"), "token-2").unwrap();
    fake.then(Next::Refuse);
    let before = identity.current();
    let mut changes = identity.subscribe();
    within(changes.changed()).await.unwrap();
    let after = identity.current();
    assert_eq!(after.generation, before.generation + 1);
    assert_ne!(after.key.cert, before.key.cert);
    assert_ne!(after.key.key.public_key(), before.key.key.public_key());
    assert_eq!((status.succeeded(), status.failed()), (2, 1));
    let tokens = fake.tokens.lock().unwrap().clone();
    assert_eq!(
        tokens,
        ["Bearer token-1", "Bearer token-2", "Bearer token-2"]
    );
}

#[tokio::test]
async fn bad_answers_are_refused_and_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, address) = Fake::serve(testing::Authority::new("root"), CONTROL_PLANE).await;
    for next in [
        Next::Garbage,
        Next::Sign(-100..-10),
        Next::SignAs("spiffe://cluster.local/ns/shop/sa/cart"),
        Next::Refuse,
    ] {
        fake.then(next);
    }
    let status = Arc::new(Status::default());
    let (_bundle, distributed) = no_bundle();
    let settings = settings(dir.path(), &address, &fake.signer);
    let identity = within(start(settings, Arc::clone(&status), distributed)).await;
    assert_eq!(identity.current().id.to_string(), WEB);
    assert_eq!((status.succeeded(), status.failed()), (1, 4));
}

/// Asks once and returns the refusal as text.
async fn refusal(settings: Settings) -> String {
    let (_bundle, distributed) = no_bundle();
    let keeper = Keeper::new(settings, Arc::default(), distributed);
    within(keeper.request()).await.unwrap_err()
}

#[tokio::test]
async fn only_the_control_plane_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, address) = Fake::serve(testing::Authority::new("root"), WEB).await;
    let error = refusal(settings(dir.path(), &address, &fake.signer)).await;
    assert!(
        error.contains(WEB) && error.contains(CONTROL_PLANE),
        "{error}"
    );

    let (_fake, address) = Fake::serve(testing::Authority::new("evil"), CONTROL_PLANE).await;
    let error = refusal(settings(dir.path(), &address, &fake.signer)).await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert!(fake.tokens.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = testing::Authority::new("root");
    let address = Settings::for_tests(dir.path(), WEB).authority.address;
    let settings = settings(dir.path(), &address, &authority);
    let error = refusal(settings.clone()).await;
    assert!(
        error.contains("127.0.0.1:1") && error.contains("refused"),
        "{error}"
    );
    std::fs::write(dir.path().join("token"), " \n").unwrap();
    let error = refusal(settings.clone()).await;
    assert!(
        error.contains("token") && error.contains("it is empty"),
        "{error}"
    );
    std::fs::remove_file(dir.path().join("bootstrap.pem")).unwrap();
    let error = refusal(settings).await;
    assert!(error.contains("bootstrap.pem"), "{error}");
}

#[tokio::test]
async fn a_distributed_bundle_takes_effect_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, address) = Fake::serve(testing::Authority::new("root"), CONTROL_PLANE).await;
    let settings = settings(dir.path(), &address, &fake.signer);
    let status = Arc::new(Status::default());
    let (bundle, distributed) = no_bundle();
    let identity = within(start(settings.clone(), Arc::clone(&status), distributed)).await;
    let mut changes = identity.subscribe();
    let second = testing::Authority::new("second");
    bundle.send_replace(Some(vec![fake.signer.root.clone(), second.root.clone()]));
    within(changes.changed()).await.unwrap();
    let current = identity.current();
    assert_eq!(
        (current.roots.len(), current.generation, status.succeeded()),
        (2, 1, 1)
    );

    // What is no bundle changes nothing.
    bundle.send_replace(Some(vec![]));
    bundle.send_replace(Some(vec![CertificateDer::from(b"garbage".to_vec())]));

    // Without the root of our own certificate: asked for anew at once, and refused as long as nobody trusts the signer.
    bundle.send_replace(Some(vec![second.root.clone()]));
    within(changes.changed()).await.unwrap();
    assert_eq!(identity.current().roots.roots, second.roots().roots);
    within(async {
        while status.succeeded() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    let keeper = Keeper::new(settings, Arc::default(), no_bundle().1);
    assert_eq!(
        keeper.trust.peers().unwrap().store.roots,
        second.roots().roots
    );
    assert!(keeper.kept().is_none(), "peers would not accept it");
}
