//! A suite: one mesh, many cases.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::mesh::Mesh;

/// A case: its name and what it does with the mesh.
pub type Case = (&'static str, fn(&Mesh));

/// Brings `manifests` up, runs the cases one after the other, and takes the mesh down.
pub fn run(name: &str, manifests: &[&str], cases: &[Case]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        let none = cases
            .iter()
            .map(|(name, _)| Trial::test(*name, || Ok(())))
            .collect();
        return libtest_mimic::run(&arguments, none).exit_code();
    }
    let mesh = match catch_unwind(|| Mesh::up(name, manifests)) {
        Ok(mesh) => Arc::new(mesh),
        Err(_) => return failed_to_start(&arguments, cases),
    };
    let trials = cases.iter().map(|&(name, case)| {
        let mesh = mesh.clone();
        Trial::test(name, move || {
            catch_unwind(AssertUnwindSafe(|| case(&mesh)))
                .map_err(|panic| Failed::from(text(panic.as_ref())))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if conclusion.has_failed() {
        mesh.dump();
    }
    drop(mesh);
    conclusion.exit_code()
}

/// Every case counts as failed when its mesh did not come up.
fn failed_to_start(arguments: &Arguments, cases: &[Case]) -> ExitCode {
    let trials = cases
        .iter()
        .map(|(name, _)| Trial::test(*name, || Err(Failed::from("the mesh did not come up"))));
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "the case panicked".into())
}
