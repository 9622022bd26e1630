//! How an endpoint is picked: our own balancer first where it is meant, then what others know.
//!
//! Clients take the first policy of the list that they support (gRFC A52). Ours is a `TypedStruct`, which Envoy and
//! gRPC skip without a complaint.

use prost::Name;
use weft_model::Balancer;

use crate::convert::proto::{balancers, cluster, core, extension, from_any, google, uint32};
use crate::convert::{DecodeError, Flavour};

/// The type of our balancer's (empty) configuration.
const PEAK_EWMA: &str = "type.googleapis.com/weft.balancers.v1alpha1.PeakEwma";
/// Envoy's default, said aloud because the model means it.
const CHOICES: u32 = 2;

/// `xds.type.v3.TypedStruct`.
#[derive(Clone, PartialEq, prost::Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<google::Struct>,
}

impl Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";

    fn type_url() -> String {
        "type.googleapis.com/xds.type.v3.TypedStruct".into()
    }
}

pub(super) fn encode(balancer: Balancer, flavour: Flavour) -> cluster::LoadBalancingPolicy {
    let own = match (flavour, balancer) {
        // gRPC in C++ knows neither least request nor random.
        (Flavour::Grpc, _) => None,
        (_, Balancer::RoundRobin) => Some(round_robin()),
        (_, Balancer::Random) => Some(extension(
            "envoy.load_balancing_policies.random",
            &balancers::random::v3::Random::default(),
        )),
        (_, Balancer::LeastRequest | Balancer::PeakEwma) => Some(extension(
            "envoy.load_balancing_policies.least_request",
            &balancers::least_request::v3::LeastRequest {
                choice_count: uint32(CHOICES),
                ..Default::default()
            },
        )),
    };
    let first = (balancer == Balancer::PeakEwma).then(|| {
        let config = TypedStruct {
            type_url: PEAK_EWMA.to_owned(),
            value: Some(google::Struct::default()),
        };
        extension("weft.balancers.peak_ewma", &config)
    });
    let last = extension(
        "envoy.load_balancing_policies.wrr_locality",
        &balancers::wrr_locality::v3::WrrLocality {
            endpoint_picking_policy: Some(list([round_robin()])),
        },
    );
    list(first.into_iter().chain(own).chain([last]))
}

fn round_robin() -> core::TypedExtensionConfig {
    extension(
        "envoy.load_balancing_policies.round_robin",
        &balancers::round_robin::v3::RoundRobin::default(),
    )
}

fn list(
    policies: impl IntoIterator<Item = core::TypedExtensionConfig>,
) -> cluster::LoadBalancingPolicy {
    let policies = policies
        .into_iter()
        .map(|policy| cluster::load_balancing_policy::Policy {
            typed_extension_config: Some(policy),
        });
    cluster::LoadBalancingPolicy {
        policies: policies.collect(),
    }
}

/// The first one that the model knows.
pub(super) fn decode(
    policy: Option<&cluster::LoadBalancingPolicy>,
) -> Result<Balancer, DecodeError> {
    let configs = policy.iter().flat_map(|p| &p.policies);
    configs
        .filter_map(|p| p.typed_extension_config.as_ref()?.typed_config.as_ref())
        .find_map(known)
        .ok_or_else(|| DecodeError::new("none of the policies is supported"))
}

fn known(config: &google::Any) -> Option<Balancer> {
    let url = config.type_url.as_str();
    if url == balancers::least_request::v3::LeastRequest::type_url() {
        Some(Balancer::LeastRequest)
    } else if url == balancers::round_robin::v3::RoundRobin::type_url()
        || url == balancers::wrr_locality::v3::WrrLocality::type_url()
    {
        Some(Balancer::RoundRobin)
    } else if url == balancers::random::v3::Random::type_url() {
        Some(Balancer::Random)
    } else {
        let typed: TypedStruct = from_any(config).ok()?;
        (typed.type_url == PEAK_EWMA).then_some(Balancer::PeakEwma)
    }
}
