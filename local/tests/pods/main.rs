//! Real pods on this machine, without a mesh: every promise of local mode that needs root, network namespaces and mounts.
//!
//! Has its own `main`, because this program is also the helper that runs inside containers and the detached
//! supervisor, exactly as `weft` is. Each case brings a small mesh up, looks, takes it down, and the machine must be as
//! before ([`machine`]). Run one case with `cargo test -p weft-local --test pods -- NAME`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod machine;
mod mesh;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|word| word == weft_local::HELPER_COMMAND)
    {
        return weft_local::helper_main(arguments.into_iter().skip(1));
    }
    let words: Vec<String> = arguments
        .iter()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    if words.len() == 4 && words[..3] == weft_local::SUPERVISE_ARGUMENTS {
        return supervise(&words[3]);
    }
    if words.iter().any(|word| word == "--list") {
        for (name, _) in cases::ALL {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    run(&words)
}

fn supervise(name: &str) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(weft_local::supervise(name, |line| println!("{line}"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> ExitCode {
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    if let Err(error) = weft_local::preflight(&weft_local::UpOptions::new(Vec::new())) {
        eprintln!("!! SKIPPED: all tests of pods. {error}");
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    let chosen = cases::ALL
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f)));
    for (name, case) in chosen {
        let started = Instant::now();
        let before = machine::Machine::look();
        let outcome = std::panic::catch_unwind(case);
        mesh::remove_all();
        let left = before.what_is_new();
        let passed = outcome.is_ok() && left.is_empty();
        if !left.is_empty() {
            eprintln!("{name} left behind:\n  {}", left.join("\n  "));
        }
        println!(
            "test {name} ... {} ({:.1} s)",
            if passed { "ok" } else { "FAILED" },
            started.elapsed().as_secs_f32()
        );
        if !passed {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
