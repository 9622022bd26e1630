//! Mutual TLS of the mesh: TLS 1.3, our own certificate, the trust bundle, and the identities that a peer may have.
//!
//! The certificate is the secret `weft/identity`, which the client has from its own bootstrap: it never travels over
//! xDS. gRPC takes both from the certificate provider instance `default` of its bootstrap (gRFC A29).

use weft_model::{Protocol, SpiffeId};

use crate::convert::error::At as _;
use crate::convert::proto::{ads, any, cluster, core, exactly, from_any, matcher, required, tls};
use crate::convert::{DecodeError, Flavour, TRUST_BUNDLE};
use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use tls::tls_parameters::TlsProtocol;

/// The client's own certificate and key, a static secret of its bootstrap.
const IDENTITY: &str = "weft/identity";
/// The certificate provider instance of a gRPC bootstrap.
const GRPC_PROVIDER: &str = "default";
/// Key exchange, preferred first.
const CURVES: [&str; 3] = ["X25519MLKEM768", "X25519", "P-256"];
const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

/// Towards endpoints with these identities.
pub(super) fn upstream(
    identities: &[SpiffeId],
    protocol: Protocol,
    flavour: Flavour,
) -> core::TransportSocket {
    let common = match flavour {
        Flavour::Grpc => grpc(identities),
        Flavour::Weft | Flavour::Envoy => mesh(identities, alpn(protocol)),
    };
    socket(&tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        ..Default::default()
    })
}

pub(in crate::convert) fn socket<M: prost::Message + prost::Name>(
    context: &M,
) -> core::TransportSocket {
    core::TransportSocket {
        name: TLS_SOCKET.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(
            context,
        ))),
    }
}

/// What is spoken inside. Where the client decides (HTTP of either version), Envoy offers `h2` or `http/1.1` itself.
fn alpn(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Http2 | Protocol::Grpc => &["weft/h2"],
        Protocol::Tls | Protocol::Tcp => &["weft/tcp"],
        Protocol::Http | Protocol::Detect => &[],
    }
}

/// For both sides of a connection in Envoy's words. No identities: any that the roots vouch for.
pub(in crate::convert) fn mesh(identities: &[SpiffeId], alpn: &[&str]) -> tls::CommonTlsContext {
    let sans = identities.iter().map(|id| tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(exactly(&id.to_string())),
        ..Default::default()
    });
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ecdh_curves: CURVES.map(str::to_owned).to_vec(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![tls::SdsSecretConfig {
            name: IDENTITY.to_owned(),
            sds_config: None,
        }],
        alpn_protocols: alpn.iter().map(|&p| p.to_owned()).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(tls::CertificateValidationContext {
                    match_typed_subject_alt_names: sans.collect(),
                    ..Default::default()
                }),
                validation_context_sds_secret_config: Some(tls::SdsSecretConfig {
                    name: TRUST_BUNDLE.to_owned(),
                    sds_config: Some(ads()),
                }),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

/// gRPC reads `match_subject_alt_names` and refuses SDS and TLS parameters.
#[allow(deprecated)]
fn grpc(identities: &[SpiffeId]) -> tls::CommonTlsContext {
    let provider = || tls::CertificateProviderPluginInstance {
        instance_name: GRPC_PROVIDER.to_owned(),
        certificate_name: String::new(),
    };
    tls::CommonTlsContext {
        tls_certificate_provider_instance: Some(provider()),
        validation_context_type: Some(ValidationContextType::ValidationContext(
            tls::CertificateValidationContext {
                ca_certificate_provider_instance: Some(provider()),
                match_subject_alt_names: identities
                    .iter()
                    .map(|id| exactly(&id.to_string()))
                    .collect(),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

/// The identities of [`upstream`] for our proxy; none: no TLS.
pub(super) fn decode(encoded: &cluster::Cluster) -> Result<Vec<SpiffeId>, DecodeError> {
    let Some(socket) = encoded.transport_socket_matches.first() else {
        return Ok(Vec::new());
    };
    decode_socket(socket.transport_socket.as_ref())
        .at("transport_socket_matches[0].transport_socket")
}

fn decode_socket(socket: Option<&core::TransportSocket>) -> Result<Vec<SpiffeId>, DecodeError> {
    let config = socket.and_then(|s| s.config_type.as_ref());
    let Some(core::transport_socket::ConfigType::TypedConfig(config)) = config else {
        return Err(DecodeError::new("it is missing"));
    };
    let context: tls::UpstreamTlsContext = from_any(config).at("typed_config")?;
    let common = required(context.common_tls_context.as_ref(), "common_tls_context")?;
    let Some(ValidationContextType::CombinedValidationContext(combined)) =
        &common.validation_context_type
    else {
        return Err(DecodeError::new("expected combined_validation_context"));
    };
    let context = required(
        combined.default_validation_context.as_ref(),
        "default_validation_context",
    )?;
    let sans = context.match_typed_subject_alt_names.iter().enumerate();
    sans.map(|(i, san)| {
        decode_san(san)
            .at_index(i)
            .at("match_typed_subject_alt_names")
    })
    .collect()
}

fn decode_san(san: &tls::SubjectAltNameMatcher) -> Result<SpiffeId, DecodeError> {
    match san.matcher.as_ref().and_then(|m| m.match_pattern.as_ref()) {
        Some(matcher::string_matcher::MatchPattern::Exact(id)) => Ok(id.parse()?),
        _ => Err(DecodeError::new("only exact is supported")),
    }
}
