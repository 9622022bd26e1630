//! Configuration, in two steps: [`Arguments`] as they were written, then [`Config`], checked.
//!
//! Every mistake is reported at once, each with the flag's name, what is wrong and what would be right. Arguments come
//! from the command line or from `WEFT_CP_*` variables.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use weft_model::{Hostname, Namespace, SpiffeId, TrustDomain};

use crate::ca::CaFiles;
use crate::ca::root::RootFiles;
use crate::token::Expected;

/// Weft's control plane: Kubernetes objects in, configuration for proxies (xDS) and certificates out.
#[derive(Debug, Clone, Parser)]
#[command(name = "weft-control-plane", version)]
pub struct Arguments {
    /// Manifests: a file, or a directory with everything below it. May be given several times; `,` separates in the variable.
    #[arg(
        long,
        env = "WEFT_CP_SOURCE",
        value_name = "PATH",
        value_delimiter = ','
    )]
    pub source: Vec<PathBuf>,
    /// A directory of objects that the local runner writes; they replace those of --source.
    #[arg(long, env = "WEFT_CP_WRITE_BACK", value_name = "DIR")]
    pub write_back: Option<PathBuf>,
    /// Where the control plane keeps its own root certificate.
    #[arg(long, env = "WEFT_CP_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where proxies connect: discovery and certificates, over TLS.
    #[arg(
        long,
        env = "WEFT_CP_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:15012"
    )]
    pub listen: String,
    /// Where operators look: health, metrics, status, over plain HTTP.
    #[arg(
        long,
        env = "WEFT_CP_ADMIN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:15014"
    )]
    pub admin: String,
    /// The trust domain of every identity.
    #[arg(
        long,
        env = "WEFT_CP_TRUST_DOMAIN",
        value_name = "NAME",
        default_value = "cluster.local"
    )]
    pub trust_domain: String,
    /// The DNS domain of the cluster.
    #[arg(
        long,
        env = "WEFT_CP_CLUSTER_DOMAIN",
        value_name = "NAME",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,
    /// The namespace that the control plane itself runs in; part of its identity and names.
    #[arg(
        long,
        env = "WEFT_CP_NAMESPACE",
        value_name = "NAME",
        default_value = "weft-system"
    )]
    pub namespace: String,
    /// A signing certificate instead of an own root (tls.crt): PEM, the certificate first, then its chain.
    #[arg(long, env = "WEFT_CP_CA_CERT", value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// The signing certificate's private key (tls.key), PEM.
    #[arg(long, env = "WEFT_CP_CA_KEY", value_name = "FILE")]
    pub ca_key: Option<PathBuf>,
    /// Certificates above the signing certificate, up to its root (ca.crt), PEM.
    #[arg(long, env = "WEFT_CP_CA_CHAIN", value_name = "FILE")]
    pub ca_chain: Option<PathBuf>,
    /// More roots that the mesh trusts, PEM.
    #[arg(long, env = "WEFT_CP_EXTRA_ROOTS", value_name = "FILE")]
    pub extra_roots: Option<PathBuf>,
    /// The public keys of the service-account token issuer: a JSON Web Key Set.
    #[arg(long, env = "WEFT_CP_JWKS", value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// What tokens must name as their issuer.
    #[arg(long, env = "WEFT_CP_TOKEN_ISSUER", value_name = "ISSUER")]
    pub token_issuer: Option<String>,
    /// The audience that tokens must be for.
    #[arg(
        long,
        env = "WEFT_CP_TOKEN_AUDIENCE",
        value_name = "AUDIENCE",
        default_value = "weft-ca"
    )]
    pub token_audience: String,
    /// The longest lifetime of a workload's certificate.
    #[arg(
        long,
        env = "WEFT_CP_CERTIFICATE_TTL",
        value_name = "DURATION",
        default_value = "24h"
    )]
    pub certificate_ttl: String,
    /// One more name under which proxies reach the control plane; may be given several times.
    #[arg(
        long,
        env = "WEFT_CP_DNS_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub dns_name: Vec<String>,
    /// How long connections get to end in good order.
    #[arg(
        long,
        env = "WEFT_CP_DRAIN",
        value_name = "DURATION",
        default_value = "5s"
    )]
    pub drain: String,
    /// What to log: a level, or directives such as warn,weft_control_plane=debug.
    #[arg(
        long,
        env = "WEFT_CP_LOG",
        value_name = "FILTER",
        default_value = "warn,weft_control_plane=info"
    )]
    pub log: String,
    /// How log lines look: text or json.
    #[arg(
        long,
        env = "WEFT_CP_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Where the signing certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaSource {
    /// A root of our own below the state directory, made on first start.
    Own {
        /// Its files.
        root: RootFiles,
        /// More roots to trust.
        extra_roots: Option<PathBuf>,
    },
    /// Given files.
    Given(CaFiles),
}

/// Everything that the control plane is told from outside, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Manifests; at least one.
    pub source: Vec<PathBuf>,
    /// The local runner's objects.
    pub write_back: Option<PathBuf>,
    /// The TLS port.
    pub listen: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
    /// Of every identity.
    pub trust_domain: TrustDomain,
    /// Of the cluster's DNS names.
    pub cluster_domain: Hostname,
    /// The control plane's own identity.
    pub identity: SpiffeId,
    /// The DNS names in its certificate.
    pub dns_names: Vec<String>,
    /// The signing certificate.
    pub ca: CaSource,
    /// The token issuer's keys.
    pub jwks: PathBuf,
    /// What tokens must say.
    pub expected: Expected,
    /// The longest lifetime of a certificate, 1 minute to 1 year.
    pub certificate_ttl: Duration,
    /// From the signal to the end, at most.
    pub drain: Duration,
    /// Filter directives.
    pub log: String,
    /// Text or JSON.
    pub log_format: LogFormat,
}

/// Mistakes in the arguments, one a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// Collects mistakes while values are read.
#[derive(Default)]
struct Reader(Vec<String>);

impl Reader {
    fn mistake<T>(&mut self, flag: &str, what: impl fmt::Display) -> Option<T> {
        self.0.push(format!("{flag}: {what}"));
        None
    }

    fn required<T>(&mut self, flag: &str, value: Option<T>, what: &str) -> Option<T> {
        value.or_else(|| self.mistake(flag, format_args!("is missing; give {what}")))
    }

    fn parse<T: FromStr<Err: fmt::Display>>(&mut self, flag: &str, text: &str) -> Option<T> {
        text.parse().map_or_else(|e| self.mistake(flag, e), Some)
    }

    fn address(&mut self, flag: &str, text: &str) -> Option<SocketAddr> {
        let wrong =
            format!("{text:?} is not an address with a port, e.g. 0.0.0.0:15012 or [::]:15012");
        text.parse()
            .map_or_else(|_| self.mistake(flag, wrong), Some)
    }

    fn duration(
        &mut self,
        flag: &str,
        text: &str,
        allowed: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        match weft_model::duration::parse(text) {
            Ok(d) if allowed.contains(&d) => Some(d),
            Ok(_) => {
                let (low, high) = (
                    weft_model::duration::format(*allowed.start()),
                    weft_model::duration::format(*allowed.end()),
                );
                self.mistake(
                    flag,
                    format_args!("{text:?} is not between {low} and {high}"),
                )
            }
            Err(e) => self.mistake(flag, e),
        }
    }
}

impl Config {
    /// Checks the arguments; all mistakes at once.
    pub fn check(args: &Arguments) -> Result<Self, Mistakes> {
        let mut read = Reader::default();
        if args.source.is_empty() {
            read.mistake::<()>("--source", "is missing; give a manifest file or directory");
        }
        let listen = read.address("--listen", &args.listen);
        let admin = read.address("--admin", &args.admin);
        let trust_domain = read.parse::<TrustDomain>("--trust-domain", &args.trust_domain);
        let cluster_domain = read.parse::<Hostname>("--cluster-domain", &args.cluster_domain);
        let namespace = read.parse::<Namespace>("--namespace", &args.namespace);
        for name in &args.dns_name {
            read.parse::<Hostname>("--dns-name", name);
        }
        let ca = ca_source(args, &mut read);
        let jwks = read.required("--jwks", args.jwks.clone(), "the token issuer's key set");
        let issuer = read.required(
            "--token-issuer",
            args.token_issuer.clone(),
            "the \"iss\" claim of its tokens",
        );
        let ttl = Duration::from_secs(60)..=Duration::from_secs(365 * 86_400);
        let certificate_ttl = read.duration("--certificate-ttl", &args.certificate_ttl, ttl);
        let drain = read.duration(
            "--drain",
            &args.drain,
            Duration::ZERO..=Duration::from_secs(600),
        );
        if let Err(e) = EnvFilter::try_new(&args.log) {
            read.mistake::<()>("--log", format_args!("{:?} is not a filter: {e}", args.log));
        }
        let log_format = match args.log_format.as_str() {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            other => read.mistake(
                "--log-format",
                format_args!("{other:?} is not text or json"),
            ),
        };
        let checked = || {
            let (trust_domain, namespace, cluster_domain) =
                (trust_domain?, namespace?, cluster_domain?);
            Some(Self {
                source: args.source.clone(),
                write_back: args.write_back.clone(),
                listen: listen?,
                admin: admin?,
                dns_names: dns_names(&namespace, &cluster_domain, &args.dns_name),
                identity: SpiffeId {
                    trust_domain: trust_domain.clone(),
                    namespace,
                    service_account: "weft-control-plane".parse().ok()?,
                },
                trust_domain,
                cluster_domain,
                ca: ca?,
                jwks: jwks?,
                expected: Expected {
                    issuer: issuer?,
                    audience: args.token_audience.clone(),
                },
                certificate_ttl: certificate_ttl?,
                drain: drain?,
                log: args.log.clone(),
                log_format: log_format?,
            })
        };
        match checked() {
            Some(config) if read.0.is_empty() => Ok(config),
            _ => Err(Mistakes(read.0)),
        }
    }
}

fn ca_source(args: &Arguments, read: &mut Reader) -> Option<CaSource> {
    match (&args.ca_cert, &args.ca_key) {
        (Some(certificate), Some(key)) => Some(CaSource::Given(CaFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            chain: args.ca_chain.clone(),
            extra_roots: args.extra_roots.clone(),
        })),
        (Some(_), None) => {
            read.mistake("--ca-key", "is missing; give the private key of --ca-cert")
        }
        (None, Some(_)) => {
            read.mistake("--ca-cert", "is missing; give the certificate of --ca-key")
        }
        (None, None) => {
            if args.ca_chain.is_some() {
                read.mistake::<()>(
                    "--ca-chain",
                    "belongs to --ca-cert and --ca-key, which are missing",
                );
            }
            let state_dir = read.required(
                "--state-dir",
                args.state_dir.as_ref(),
                "a directory for the root certificate",
            )?;
            Some(CaSource::Own {
                root: RootFiles::below(state_dir),
                extra_roots: args.extra_roots.clone(),
            })
        }
    }
}

/// The names of the service at each length that resolvers accept, then the given ones.
fn dns_names(namespace: &Namespace, cluster_domain: &Hostname, given: &[String]) -> Vec<String> {
    let service = "weft-control-plane";
    let mut names = vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.{cluster_domain}"),
        format!("{service}.{namespace}"),
    ];
    for name in given {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn arguments(more: &[&str]) -> Arguments {
        let base = [
            "weft-control-plane",
            "--source",
            "k8s",
            "--state-dir",
            "/s",
            "--jwks",
            "/j",
            "--token-issuer",
            "i",
        ];
        Arguments::try_parse_from(base.iter().chain(more)).unwrap()
    }

    #[test]
    fn defaults_are_the_contract() {
        let config = Config::check(&arguments(&[])).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:15012");
        assert_eq!(config.admin.to_string(), "0.0.0.0:15014");
        assert_eq!(
            config.identity.to_string(),
            "spiffe://cluster.local/ns/weft-system/sa/weft-control-plane"
        );
        assert!(
            config
                .dns_names
                .contains(&"weft-control-plane.weft-system.svc.cluster.local".to_owned())
        );
        assert_eq!(config.expected.audience, "weft-ca");
        assert_eq!(config.certificate_ttl, Duration::from_secs(86_400));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let args = Arguments::try_parse_from([
            "weft-control-plane",
            "--listen=here",
            "--trust-domain=Not_One",
            "--ca-cert=/c",
            "--certificate-ttl=1s",
            "--drain=soon",
            "--log=weft=loud",
            "--log-format=xml",
            "--dns-name=a b",
        ])
        .unwrap();
        let text = Config::check(&args).unwrap_err().to_string();
        for flag in [
            "--source: is missing",
            "--listen: \"here\" is not an address with a port",
            "--trust-domain: \"Not_One\" is not a valid trust domain",
            "--ca-key: is missing; give the private key of --ca-cert",
            "--jwks: is missing",
            "--token-issuer: is missing",
            "--certificate-ttl: \"1s\" is not between 1m and",
            "--drain: ",
            "--log: ",
            "--log-format: \"xml\" is not text or json",
            "--dns-name: ",
        ] {
            assert!(text.contains(flag), "{flag} in\n{text}");
        }
    }

    #[test]
    fn a_chain_needs_its_certificate() {
        let text = Config::check(&arguments(&["--ca-chain=/c"]))
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            "--ca-chain: belongs to --ca-cert and --ca-key, which are missing"
        );
    }
}
