//! weft-init: redirects a pod's traffic to its sidecar.
//!
//! Reads the command line, calls [`weft_init`], prints. Exit status: 0 done, 1 failed, 2 wrong usage.

use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;
use weft_init::apply::{self, Applied};
use weft_init::config::{Config, Flags};
use weft_init::verify;
use weft_init::{Family, INBOUND_SOURCE_V6};

/// Redirects a pod's traffic to its sidecar, by rules in the pod's network namespace
#[derive(Parser)]
#[command(name = "weft-init", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    /// Put the rules in force; doing it again changes nothing
    Apply {
        /// Print the rules, and change nothing
        #[arg(long, env = "WEFT_INIT_DRY_RUN", value_parser = clap::builder::FalseyValueParser::new())]
        dry_run: bool,
    },
    /// Prove by dialling that the rules work
    Verify,
    /// Remove all rules of Weft, and nothing else
    Clean,
    /// Dial an address and print what it says; `verify` runs this as the sidecar's user
    #[command(hide = true)]
    Dial(Dial),
}

#[derive(Args)]
struct Dial {
    /// Address and port
    target: SocketAddr,
    /// Source address
    #[arg(long)]
    from: Option<IpAddr>,
    /// Source port
    #[arg(long, default_value_t = 0)]
    from_port: u16,
    /// UDP instead of TCP
    #[arg(long)]
    udp: bool,
    /// Only connect, do not wait for an answer
    #[arg(long)]
    no_answer: bool,
    /// How long to wait, in milliseconds
    #[arg(long, default_value_t = 2000)]
    timeout_ms: u64,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    if let Command::Dial(dial) = &line.command {
        return run_dial(dial);
    }
    let config = match Config::check(&line.flags) {
        Ok(config) => config,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("weft-init: {mistake}");
            }
            return ExitCode::from(2);
        }
    };
    let done = match line.command {
        Command::Apply { dry_run: true } => {
            print_plan(&config);
            Ok(true)
        }
        Command::Apply { dry_run: false } => apply::apply(&config).map(|applied| {
            print_applied(&config, &applied);
            true
        }),
        Command::Verify => verify::verify(&config).map(|report| {
            for check in &report.checks {
                say(format_args!("{check}"));
            }
            report.passed()
        }),
        Command::Clean => apply::clean().map(|cleaned| {
            match cleaned.as_slice() {
                [] => say(format_args!("weft-init: there were no rules of Weft")),
                some => say(format_args!(
                    "weft-init: removed the rules of back end {}",
                    list(some)
                )),
            }
            true
        }),
        Command::Dial(_) => Ok(true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft-init: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A reader that has gone away, `| head` for one, is no failure.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn list(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}

fn print_plan(config: &Config) {
    let (backend, ruleset) = apply::plan(config);
    if ruleset.ipv6 {
        say(format_args!(
            "# ip -6 addr add {INBOUND_SOURCE_V6}/128 dev lo preferred_lft 0\n"
        ));
    }
    for (program, text) in backend.render(&ruleset) {
        say(format_args!("# {program}\n{text}"));
    }
}

fn print_applied(config: &Config, applied: &Applied) {
    for warning in &applied.warnings {
        eprintln!("weft-init: warning: {warning}");
    }
    let dns = if config.capture_dns {
        format!(", DNS to {}", config.dns_port)
    } else {
        String::new()
    };
    say(format_args!(
        "weft-init: rules in force by back end {}, {}: outbound to {}, inbound to {}{dns}",
        applied.backend,
        list(applied.ruleset.families()),
        config.outbound_port,
        config.inbound_port
    ));
}

fn run_dial(dial: &Dial) -> ExitCode {
    let any = Family::of(dial.target.ip()).any();
    let from = SocketAddr::new(dial.from.unwrap_or(any), dial.from_port);
    let within = Duration::from_millis(dial.timeout_ms);
    let dialled = if dial.no_answer {
        verify::dial::connect(dial.target, from, within).map(|_| String::new())
    } else {
        verify::dial::dial(dial.target, from, dial.udp, within)
    };
    match dialled {
        Ok(told) => {
            say(format_args!("{told}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
