//! Probes over the life of a container: startup first, then readiness and liveness side by side.
//!
//! [`super::probe`] makes the attempts and judges them; this decides when, and reports. Run by [`super::lifecycle`] while the
//! container runs.

use std::time::Duration;

use tokio::time::sleep;

use super::PodContext;
use super::probe::{Streak, Target, Verdict, attempt, seconds};

/// Runs the startup probe, then readiness and liveness. Returns only when the container must be restarted, with the reason.
pub(crate) async fn watch_probes(pod: &PodContext, target: &Target) -> String {
    let container = &target.container;
    if let Some(probe) = &container.startup_probe {
        sleep(delay(probe.initial_delay_seconds)).await;
        let mut streak = Streak::new(probe);
        let mut quick = Duration::from_millis(50);
        loop {
            let outcome = attempt(probe, target).await;
            pod.report
                .container(&container.name, |c| c.probe_failure = outcome.clone().err());
            // The first second is not held against it, and looked at often: most programs are up within that.
            let early = quick < Duration::from_secs(1);
            match (outcome, early) {
                (Err(_), true) => {}
                (outcome, _) => match streak.count(outcome.is_ok()) {
                    Verdict::Passed => break,
                    Verdict::Failed => {
                        return format!(
                            "startup probe failed: {}",
                            outcome.err().unwrap_or_default()
                        );
                    }
                    Verdict::Open => {}
                },
            }
            let period = seconds(probe.period_seconds, 10);
            sleep(if early { quick } else { period }).await;
            quick *= 2;
        }
        pod.report.container(&container.name, |c| {
            c.started = true;
            c.ready = container.readiness_probe.is_none();
        });
    }
    tokio::select! {
        () = readiness(pod, target) => String::new(),
        reason = liveness(pod, target) => reason,
    }
}

async fn readiness(pod: &PodContext, target: &Target) {
    let Some(probe) = &target.container.readiness_probe else {
        return std::future::pending().await;
    };
    sleep(delay(probe.initial_delay_seconds)).await;
    let mut streak = Streak::new(probe);
    let mut quick = Duration::from_millis(50);
    loop {
        let outcome = attempt(probe, target).await;
        let verdict = streak.count(outcome.is_ok());
        pod.report.container(&target.container.name, |c| {
            c.probe_failure = outcome.err();
            match verdict {
                Verdict::Passed => c.ready = true,
                Verdict::Failed => c.ready = false,
                Verdict::Open => {}
            }
        });
        // Until first ready, look more often than once a period: nobody waits ten seconds for a pod that took one.
        let period = seconds(probe.period_seconds, 10);
        let was_ready = verdict == Verdict::Passed || quick >= period;
        sleep(if was_ready { period } else { quick.min(period) }).await;
        quick = if verdict == Verdict::Passed {
            period
        } else {
            quick.saturating_mul(2)
        };
    }
}

async fn liveness(pod: &PodContext, target: &Target) -> String {
    let Some(probe) = &target.container.liveness_probe else {
        return std::future::pending().await;
    };
    sleep(delay(probe.initial_delay_seconds)).await;
    let mut streak = Streak::new(probe);
    loop {
        sleep(seconds(probe.period_seconds, 10)).await;
        let outcome = attempt(probe, target).await;
        if streak.count(outcome.is_ok()) == Verdict::Failed {
            let reason = outcome.err().unwrap_or_default();
            tracing::info!(pod = %pod.name(), container = %target.container.name, %reason, "liveness probe failed");
            return format!("liveness probe failed: {reason}");
        }
    }
}

/// A probe's initial delay; none unless given.
fn delay(field: Option<i32>) -> Duration {
    Duration::from_secs(field.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}
