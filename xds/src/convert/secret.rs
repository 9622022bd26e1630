//! SDS: the trust bundle, and never a key.

use super::error::At as _;
use super::proto::{core, required, tls};
use super::{DecodeError, Flavour, TRUST_BUNDLE, TrustBundle};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The same for every client.
pub(super) fn encode(bundle: &TrustBundle, _: Flavour) -> tls::Secret {
    tls::Secret {
        name: TRUST_BUNDLE.to_owned(),
        r#type: Some(tls::secret::Type::ValidationContext(
            tls::CertificateValidationContext {
                trusted_ca: Some(core::DataSource {
                    specifier: Some(core::data_source::Specifier::InlineString(
                        bundle.pem.clone(),
                    )),
                    ..Default::default()
                }),
                ..Default::default()
            },
        )),
    }
}

pub(super) fn decode(secret: &tls::Secret) -> Result<TrustBundle, DecodeError> {
    let Some(tls::secret::Type::ValidationContext(context)) = &secret.r#type else {
        return Err(DecodeError::new(
            "only a validation context is expected here",
        ));
    };
    let source = required(context.trusted_ca.as_ref(), "validation_context.trusted_ca")?;
    match &source.specifier {
        Some(core::data_source::Specifier::InlineString(pem)) if pem.contains(BEGIN) => {
            Ok(TrustBundle { pem: pem.clone() })
        }
        _ => Err(DecodeError::new("it holds no PEM certificate"))
            .at("validation_context.trusted_ca.inline_string"),
    }
}
