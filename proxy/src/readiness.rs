//! Is the proxy ready for traffic, and if not, what is it waiting for?
//!
//! Whoever has something to finish first holds a named [`Gate`]; the health port asks [`Readiness::check`]. Listeners, the
//! identity and the first answer of the control plane each have one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is still awaited; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<Vec<&'static str>>>,
}

/// Something that has to happen first. It has happened with [`Gate::open`]; a gate that is only dropped stays shut, because
/// whoever held it has failed.
#[derive(Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Adds something to wait for, named as a person would: `the workload's certificate`.
    #[must_use = "a gate that is not opened keeps the proxy from ever being ready"]
    pub fn gate(&self, name: &'static str) -> Gate {
        self.lock().push(name);
        let readiness = self.clone();
        Gate { name, readiness }
    }

    /// `Err` with what is awaited, in the order it was added.
    pub fn check(&self) -> Result<(), String> {
        let waiting = self.lock();
        if waiting.is_empty() {
            Ok(())
        } else {
            Err(format!("waiting for {}", waiting.join(", ")))
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// It has happened.
    pub fn open(self) {
        let mut waiting = self.readiness.lock();
        if let Some(at) = waiting.iter().position(|n| *n == self.name) {
            waiting.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_gate_is_open() {
        let readiness = Readiness::default();
        let (a, b, c) = (
            readiness.gate("a"),
            readiness.gate("b"),
            readiness.gate("b"),
        );
        assert_eq!(readiness.check(), Err("waiting for a, b, b".into()));
        a.open();
        b.open();
        assert_eq!(readiness.check(), Err("waiting for b".into()));
        drop(c);
        assert_eq!(
            readiness.check(),
            Err("waiting for b".into()),
            "dropped is not opened"
        );
        readiness.gate("b").open();
    }
}
