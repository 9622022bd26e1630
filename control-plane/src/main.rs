//! `weft-control-plane`: reads its arguments, starts logging, and runs [`weft_control_plane::run`] until a signal.
//!
//! Exit codes: 0 stopped by a signal, 1 cannot start or go on, 2 wrong arguments.

use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::error;
use tracing_subscriber::EnvFilter;
use weft_control_plane::config::{Arguments, Config, LogFormat};
use weft_control_plane::run::run;

fn main() -> ExitCode {
    let config = match Config::check(&Arguments::parse()) {
        Ok(config) => config,
        Err(mistakes) => {
            for mistake in &mistakes.0 {
                eprintln!("weft-control-plane: {mistake}");
            }
            return ExitCode::from(2);
        }
    };
    start_logging(&config);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            error!(error = %e, "the runtime cannot start");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let shutdown = match shutdown_signal() {
            Ok(shutdown) => shutdown,
            Err(e) => {
                error!(error = %e, "signals cannot be handled");
                return ExitCode::FAILURE;
            }
        };
        match run(config, shutdown).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                error!("{e}");
                ExitCode::FAILURE
            }
        }
    });
    runtime.shutdown_background();
    result
}

/// Levels and format are checked already; logs go to standard error.
fn start_logging(config: &Config) {
    let filter = EnvFilter::new(&config.log);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// The first SIGTERM or SIGINT ends in good order, the second at once.
fn shutdown_signal() -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if attempt > 0 {
                std::process::exit(1);
            }
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}
