//! The gRPC channel to the control plane: TLS 1.3, its identity checked, ours shown when we have one.
//!
//! [`super::request`] asks for certificates over it before there is an identity, [`crate::discovery`] subscribes with one. Each
//! connection takes the credentials and roots of its moment, so a renewal never needs a reconnect and a reconnect never uses
//! what is old.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::{ResolverBuilder, TokioResolver};
use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName as TlsName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::crypto::{algorithms, provider};
use super::verify::{self, Usage, VerifyError};
use crate::config::{HostPort, ServerName};

/// Dialling and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A control plane that is gone without a word is noticed after the two together.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// What a connection needs that may change from one to the next.
pub struct Moment {
    /// Whom to trust.
    pub roots: Arc<RootCertStore>,
    /// Our certificate, if there is one yet.
    pub key: Option<Arc<CertifiedKey>>,
}

/// A channel that connects when it is first used and whenever the connection is lost.
pub fn open(
    address: HostPort,
    expected: ServerName,
    moment: impl Fn() -> io::Result<Moment> + Send + Sync + 'static,
) -> Channel {
    let connector = Connector(Arc::new(Target {
        address,
        expected,
        moment: Box::new(moment),
    }));
    // `http`, because tonic's own TLS is not used: the connector returns a TLS stream.
    Endpoint::from_static("http://control-plane.weft")
        .user_agent(concat!("weft-proxy/", env!("CARGO_PKG_VERSION")))
        .unwrap_or_else(|_| Endpoint::from_static("http://control-plane.weft"))
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

struct Target {
    address: HostPort,
    expected: ServerName,
    moment: Box<dyn Fn() -> io::Result<Moment> + Send + Sync>,
}

/// What tonic calls to get a connection.
#[derive(Clone)]
struct Connector(Arc<Target>);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let target = Arc::clone(&self.0);
        Box::pin(async move { connect(&target).await.map(TokioIo::new) })
    }
}

async fn connect(target: &Target) -> io::Result<TlsStream<TcpStream>> {
    let HostPort { host, port } = &target.address;
    let failed = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", target.address));
    let addresses = resolve(host).await.map_err(failed)?;
    let addresses: Vec<SocketAddr> = addresses
        .into_iter()
        .map(|ip| SocketAddr::new(ip, *port))
        .collect();
    let tcp = TcpStream::connect(addresses.as_slice())
        .await
        .map_err(failed)?;
    tcp.set_nodelay(true)?;
    let config = tls(&target.expected, (target.moment)()?)?;
    // The SNI: for a SPIFFE server the name we dialled, which it does not look at; for a DNS server the name we expect.
    let sni = match &target.expected {
        ServerName::Spiffe(_) => host,
        ServerName::Dns(name) => name,
    };
    let sni = TlsName::try_from(sni.clone()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(sni, tcp);
    stream.await.map_err(failed)
}

/// The control plane's addresses now, by the pod's own resolv.conf, search list included. Asked anew for each connection: the
/// service may have moved while we were not connected.
async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let resolver = TokioResolver::builder_tokio().and_then(ResolverBuilder::build);
    let resolver = resolver.map_err(io::Error::other)?;
    let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
    Ok(found.iter().collect())
}

fn tls(expected: &ServerName, moment: Moment) -> io::Result<ClientConfig> {
    let expected = match expected {
        ServerName::Spiffe(id) => Expected::Spiffe(id.to_string()),
        ServerName::Dns(name) => {
            Expected::Dns(TlsName::try_from(name.clone()).map_err(io::Error::other)?)
        }
    };
    let verifier = Verifier {
        roots: moment.roots,
        expected,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match moment.key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(Always(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // One connection for hours: a ticket would be old by the next.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Shows the same certificate to whoever asks.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
enum Expected {
    Spiffe(String),
    Dns(TlsName<'static>),
}

/// Accepts the control plane and nobody else.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    expected: Expected,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &TlsName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.expected {
            Expected::Spiffe(expected) => {
                let found =
                    verify::peer(leaf, intermediates, &self.roots, now, Usage::Server)?.to_string();
                if found != *expected {
                    let expected = expected.clone();
                    return Err(VerifyError::WrongIdentity { found, expected }.into());
                }
            }
            Expected::Dns(name) => verify::server(leaf, intermediates, &self.roots, now, name)?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
