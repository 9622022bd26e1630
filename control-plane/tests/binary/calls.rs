//! A pod's side of the TLS port: `CreateCertificate` and a raw delta stream over connections of our own making.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use weft_xds::TypeUrl;
use weft_xds::ca::{IstioCertificateRequest, IstioCertificateServiceClient};
use weft_xds::wire::{DELTA_PATH, DeltaRequest, DeltaResponse, Node};

use crate::harness::ControlPlane;

const PATIENCE: Duration = Duration::from_secs(10);

/// A key with its certificate.
pub(crate) struct Credentials {
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
    /// The last element of the answer.
    pub(crate) roots_pem: String,
}

/// A key with a signing request.
pub(crate) struct Asked {
    key: KeyPair,
    csr: String,
}

impl Credentials {
    /// Asks for no name: the token says it all.
    pub(crate) fn request() -> Asked {
        Self::request_with(Vec::new())
    }

    /// Asks for a URI.
    pub(crate) fn request_for(uri: &str) -> Asked {
        Self::request_with(vec![SanType::URI(uri.try_into().unwrap())])
    }

    fn request_with(names: Vec<SanType>) -> Asked {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        Asked { key, csr }
    }

    /// The right name, vouched for by nobody whom the mesh trusts.
    pub(crate) fn of_another_root() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(crate::IDENTITY.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &root).unwrap();
        Self {
            key,
            chain: vec![certificate.der().clone()],
            roots_pem: root.pem(),
        }
    }

    /// The one URI of the leaf.
    pub(crate) fn identity(&self) -> String {
        let (_, leaf) = x509_parser::parse_x509_certificate(&self.chain[0]).unwrap();
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        let [x509_parser::extensions::GeneralName::URI(uri)] = san.value.general_names[..] else {
            panic!("not one URI: {:?}", san.value)
        };
        uri.to_owned()
    }
}

/// `CreateCertificate` with that token; an empty one is not sent.
pub(crate) async fn create_certificate(
    plane: &ControlPlane,
    token: &str,
    asked: &Asked,
) -> Result<Credentials, Status> {
    let (channel, _) = channel(plane, None).await;
    let mut request = Request::new(IstioCertificateRequest {
        csr: asked.csr.clone(),
        validity_duration: 600,
        metadata: None,
    });
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let answer = IstioCertificateServiceClient::new(channel)
        .create_certificate(request)
        .await?;
    let mut chain = answer.into_inner().cert_chain;
    let roots_pem = chain.pop().unwrap();
    let chain = chain
        .iter()
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .collect();
    let key = KeyPair::try_from(asked.key.serialize_der()).unwrap();
    Ok(Credentials {
        key,
        chain,
        roots_pem,
    })
}

/// A channel that trusts what `/roots` says, and the group of its last handshake.
async fn channel(
    plane: &ControlPlane,
    credentials: Option<&Credentials>,
) -> (Channel, Arc<Mutex<String>>) {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(plane.get("/roots").await.1.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(weft_control_plane::serve::tls::provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(c) => {
            let key = PrivatePkcs8KeyDer::from(c.key.serialize_der());
            builder
                .with_client_auth_cert(c.chain.clone(), key.into())
                .unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let group = Arc::new(Mutex::new(String::new()));
    let (address, seen) = (plane.listen.clone(), Arc::clone(&group));
    let connect = tower::service_fn(move |_: http::Uri| {
        let (connector, address, seen) = (connector.clone(), address.clone(), Arc::clone(&seen));
        async move {
            let tcp = TcpStream::connect(&address).await?;
            let name = ServerName::try_from("weft-control-plane.weft-system.svc").unwrap();
            let tls = connector.connect(name, tcp).await?;
            let group = tls
                .get_ref()
                .1
                .negotiated_key_exchange_group()
                .map(|g| format!("{:?}", g.name()));
            *seen.lock().unwrap() = group.unwrap_or_default();
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        }
    });
    let channel =
        Endpoint::from_static("http://control-plane").connect_with_connector_lazy(connect);
    (channel, group)
}

/// A delta stream of the pod `web-0`.
pub(crate) struct Delta {
    requests: mpsc::Sender<DeltaRequest>,
    responses: Streaming<DeltaResponse>,
    /// The key exchange group of its connection.
    pub(crate) group: String,
}

impl Delta {
    pub(crate) async fn open(
        plane: &ControlPlane,
        credentials: Option<&Credentials>,
    ) -> Result<Self, Status> {
        let (channel, group) = channel(plane, credentials).await;
        let mut grpc: Grpc<Channel> = Grpc::new(channel);
        grpc.ready()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let (requests, receiver) = mpsc::channel(16);
        let node = Node {
            id: "web-0.shop".into(),
            user_agent_name: "weft-proxy".into(),
        };
        let hello = DeltaRequest {
            node: Some(node),
            type_url: TypeUrl::Secret.as_str().into(),
            ..DeltaRequest::default()
        };
        requests.send(hello).await.unwrap();
        let path = http::uri::PathAndQuery::from_static(DELTA_PATH);
        let codec = ProstCodec::<DeltaRequest, DeltaResponse>::default();
        let answer = grpc
            .streaming(Request::new(ReceiverStream::new(receiver)), path, codec)
            .await?;
        let group = group.lock().unwrap().clone();
        Ok(Self {
            requests,
            responses: answer.into_inner(),
            group,
        })
    }

    pub(crate) async fn subscribe(&self, kind: TypeUrl, names: &[&str]) {
        self.send(DeltaRequest {
            type_url: kind.as_str().into(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            ..DeltaRequest::default()
        })
        .await;
    }

    pub(crate) async fn acknowledge(&self, response: &DeltaResponse) {
        self.send(DeltaRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaRequest::default()
        })
        .await;
    }

    /// The next response of endpoints; others are acknowledged. An ended stream is `UNAVAILABLE`.
    pub(crate) async fn next(&mut self) -> Result<DeltaResponse, Status> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.responses.message()).await;
            let Some(response) = message.expect("a response in time")? else {
                return Err(Status::unavailable("the stream ended without a status"));
            };
            if response.type_url == TypeUrl::Endpoints.as_str() {
                return Ok(response);
            }
            self.acknowledge(&response).await;
        }
    }

    async fn send(&self, request: DeltaRequest) {
        self.requests.send(request).await.unwrap();
    }
}
