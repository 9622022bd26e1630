//! The sidecar's program: reads the environment, starts everything, waits for the end.
//!
//! This thread runs the identity, discovery, DNS and the proxy's own ports; each worker has a thread of its own
//! ([`weft_proxy::worker`]). Exit status: 0 after a drain, 1 when something fails, 2 when the environment or the command line is
//! wrong, 101 after a panic.

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_proxy::access_log::AccessLog;
use weft_proxy::admin::{self, Running, State};
use weft_proxy::config::{Config, Process};
use weft_proxy::discovery;
use weft_proxy::dns::{self, Upstream};
use weft_proxy::drain::{Drain, Outcome};
use weft_proxy::fetch::{self, Fetch};
use weft_proxy::identity::{self, Identity, Settings};
use weft_proxy::listen::Sockets;
use weft_proxy::metrics::Metrics;
use weft_proxy::readiness::{Gate, Readiness};
use weft_proxy::serve;
use weft_proxy::telemetry::{self, LogLevel};
use weft_proxy::worker::Shared;

/// Measured idle with two workers, anonymous memory: 2.0 MiB so, 1.4 MiB with the system's allocator, 13.2 MiB with mimalloc as
/// it comes, because it asks for huge pages. Hence its feature `no_thp`, and [`without_huge_pages`] for machines that give
/// them unasked.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a panicking thread exits with, as Rust's own main thread does.
const PANICKED: i32 = 101;
/// How often idle metric series are looked for.
const SWEEP: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    without_huge_pages();
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        None => started(run),
        Some("fetch-identity") => match Fetch::parse(words) {
            Ok(fetch) => started(|runtime, config, _| Ok(runtime.block_on(fetch.run(&config))?)),
            Err(error) => usage(&error),
        },
        Some("--version" | "-V") => {
            println!("weft-proxy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some("--help" | "-h") => {
            println!("weft-proxy                runs the sidecar, configured by the environment");
            println!("{:<26}writes the identity to files", fetch::USAGE);
            ExitCode::SUCCESS
        }
        Some(other) => usage(&format!("{other:?} is not a command; see --help")),
    }
}

/// A sidecar's heap is smaller than a few huge pages, and there is one on every pod. An old kernel may refuse; that costs
/// memory, and nothing else.
fn without_huge_pages() {
    nix::sys::prctl::set_thp_disable(true).ok();
}

fn usage(error: &str) -> ExitCode {
    eprintln!("weft-proxy: {error}");
    ExitCode::from(2)
}

/// What both commands need: configuration, log, runtime.
fn started(command: impl FnOnce(&Runtime, Config, LogLevel) -> Result<(), Failure>) -> ExitCode {
    let config = match Config::read(&Process) {
        Ok(config) => config,
        Err(mistakes) => return usage(&mistakes.to_string()),
    };
    let begun = || {
        let log = telemetry::start(telemetry::filter(&config.log)?, config.log_format)?;
        end_with_the_first_panic();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        // Only to look up the control plane's name, now and then.
        builder
            .max_blocking_threads(2)
            .thread_keep_alive(Duration::from_secs(1));
        let runtime = builder.enable_all().build()?;
        command(&runtime, config, log)
    };
    match begun() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "weft-proxy ends");
            eprintln!("weft-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A proxy that has lost a thread or a task would serve some connections and not others; a restart serves all.
fn end_with_the_first_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(thread = thread.name().unwrap_or("unnamed"), %panic, %backtrace, "panic");
        std::process::exit(PANICKED);
    }));
}

fn run(runtime: &Runtime, config: Config, log: LogLevel) -> Result<(), Failure> {
    raise_descriptor_limit();
    // Boxed: the largest future of the program, and it exists once.
    runtime.block_on(Box::pin(serve(config, log)))
}

async fn serve(config: Config, log: LogLevel) -> Result<(), Failure> {
    // 1 What ends it, and what it says of itself, before anything can take time.
    let drain = Drain::new();
    drain_on_signals(&drain, config.drain)?;
    let readiness = Readiness::default();
    let gates = [
        readiness.gate("the workload's certificate"),
        readiness.gate("the listeners"),
        readiness.gate("the control plane's first answer"),
    ];
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let access_log = if config.access_log {
        AccessLog::stdout()?
    } else {
        AccessLog::disabled()
    };
    let state = Arc::new(State {
        config: config.clone(),
        readiness,
        drain: drain.clone(),
        log,
        identity_status: Arc::default(),
        dns: Arc::default(),
        access_log: access_log.clone(),
        running: OnceLock::new(),
    });
    admin::start(&state, registry)?;
    tokio::spawn(sweep(Arc::clone(&metrics)));

    // 2 Sockets, so that a port in use is an error now. 3 The identity, however long it takes, and everything after it.
    let dns = dns::Sockets::bind(config.ports.dns).await?;
    let sockets = (0..config.workers.get()).map(|_| Sockets::bind(config.ports));
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    tokio::select! {
        started = Box::pin(serve_with_identity(&state, sockets, dns, metrics, gates)) => started?,
        _ = drain.watch() => {}
    }

    // 4 The end.
    let began = Instant::now();
    match drain.finished().await {
        Outcome::Complete => tracing::info!(took = ?began.elapsed(), "drained"),
        Outcome::Forced(open) => tracing::warn!(
            open,
            "the drain's deadline has passed; what is open is cut off"
        ),
    }
    Ok(())
}

/// Gets the identity, starts discovery, DNS and workers. Returns when the drain begins.
async fn serve_with_identity(
    state: &Arc<State>,
    sockets: Vec<Sockets>,
    dns: dns::Sockets,
    metrics: Arc<Metrics>,
    [certificate, listeners, first_answer]: [Gate; 3],
) -> Result<(), Failure> {
    let config = &state.config;
    let (bundles, distributed) = watch::channel(None);
    let identity = identity::start(
        Settings::from(config),
        Arc::clone(&state.identity_status),
        distributed,
    )
    .await;
    certificate.open();

    let client = discovery::start(config, &identity);
    let running = Running {
        identity: identity.clone(),
        client: client.clone(),
    };
    state.running.get_or_init(|| running);

    let upstream = Upstream::new(resolvers(config));
    let counts = Arc::clone(&state.dns);
    dns::Server::new(&config.cluster_domain, client.clone(), upstream, counts).serve(dns);
    start_workers(state, sockets, client.clone(), identity, metrics)?;
    listeners.open();
    discovery::follow_roots(&client, bundles).await;
    first_answer.open();
    tracing::info!(workload = %config.workload(), "ready");
    state.drain.watch().await;
    Ok(())
}

fn start_workers(
    state: &State,
    sockets: Vec<Sockets>,
    client: weft_xds::client::Client,
    identity: Identity,
    metrics: Arc<Metrics>,
) -> Result<(), Failure> {
    let (drain, access_log) = (state.drain.clone(), state.access_log.clone());
    let shared = Shared::new(
        state.config.clone(),
        client,
        identity,
        drain,
        access_log,
        metrics,
    );
    for (index, sockets) in sockets.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                if let Err(error) = serve::run(shared, sockets) {
                    tracing::error!(%error, index, "a worker failed");
                    std::process::exit(1);
                }
            })?;
    }
    Ok(())
}

/// The configured resolvers, or those that the pod has.
fn resolvers(config: &Config) -> Vec<std::net::SocketAddr> {
    if !config.dns_upstream.is_empty() {
        return config.dns_upstream.clone();
    }
    let found = match std::fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => dns::upstream::nameservers(&text),
        Err(error) => {
            tracing::warn!(%error, "/etc/resolv.conf cannot be read");
            Vec::new()
        }
    };
    if found.is_empty() {
        tracing::warn!(
            "no upstream resolver: only names of the mesh can be resolved; set WEFT_DNS_UPSTREAM"
        );
    }
    found
}

/// The first SIGTERM or SIGINT starts the drain, the second ends it.
fn drain_on_signals(drain: &Drain, patience: Duration) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let drain = drain.clone();
    tokio::spawn(async move {
        let mut patience = patience;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!(open = drain.open(), ?patience, "draining");
            drain.start(Instant::now() + patience);
            patience = Duration::ZERO;
        }
    });
    Ok(())
}

async fn sweep(metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        metrics.sweep();
    }
}

/// Each connection through the proxy is two descriptors, and the soft limit is often 1024.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
}
