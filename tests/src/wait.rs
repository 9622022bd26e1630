//! Waiting for a condition, with a deadline. No test sleeps for luck.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Waits until `check` gives something, or fails with its last complaint.
pub fn until<T, E: Debug>(
    what: &str,
    deadline: Duration,
    mut check: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(complaint) if started.elapsed() > deadline => {
                panic!("{what}: not within {deadline:?}: {complaint:?}")
            }
            Err(_) => std::thread::sleep(EVERY),
        }
    }
}

/// Waits until `check` is true.
pub fn holds(what: &str, deadline: Duration, mut check: impl FnMut() -> bool) {
    until(what, deadline, || {
        if check() {
            Ok(())
        } else {
            Err("it does not hold")
        }
    });
}
