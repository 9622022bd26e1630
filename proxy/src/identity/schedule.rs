//! When to ask for the next certificate. Pure: the clock and the random numbers come from [`super::renewal`].

use std::time::{Duration, SystemTime};

/// The first wait after a failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait after a failure.
const BACKOFF_LAST: Duration = Duration::from_secs(30);

/// When a certificate is due for renewal: `after` its issue, or at two thirds of its lifetime give or take a twentieth, so
/// that pods that started together do not ask together. `random` is from 0 to 1.
pub fn due(
    not_before: SystemTime,
    not_after: SystemTime,
    after: Option<Duration>,
    random: f64,
) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    match after {
        // Never later than without the setting.
        Some(after) => not_before + after.min(lifetime.mul_f64(2.0 / 3.0)),
        None => not_before + lifetime.mul_f64(2.0 / 3.0 + (random - 0.5) / 10.0),
    }
}

/// How long to wait after this many failures in a row (1 or more): doubling from 100 ms to 30 s, of which a random half.
pub fn backoff(failures: u32, random: f64) -> Duration {
    let full = BACKOFF_FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(BACKOFF_LAST);
    full.mul_f64(0.5 + random / 2.0)
}

/// How loud a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// There is time.
    Warn,
    /// Less than a sixth of the lifetime is left: somebody has to look.
    Error,
    /// Expired: peers refuse it.
    Expired,
}

/// How loud to be about a failure at this time.
pub fn alarm(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Alarm {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    match not_after.duration_since(now) {
        Err(_) => Alarm::Expired,
        Ok(left) if left < lifetime / 6 => Alarm::Error,
        Ok(_) => Alarm::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn renewal_is_at_two_thirds_with_jitter() {
        let begin = SystemTime::UNIX_EPOCH;
        let at = |random| due(begin, begin + 24 * HOUR, None, random).duration_since(begin);
        for (random, hours) in [(0.0, 14.8), (0.5, 16.0), (1.0, 17.2)] {
            let diff = at(random).map(|d| (d.as_secs_f64() / 3600.0 - hours).abs());
            assert!(diff.is_ok_and(|d| d < 0.01), "{random}");
        }
        let fixed = |after| due(begin, begin + 24 * HOUR, Some(after), 0.9);
        assert_eq!(
            fixed(Duration::from_secs(10)),
            begin + Duration::from_secs(10)
        );
        assert_eq!(fixed(20 * HOUR), begin + 16 * HOUR);
        // Nonsense in a certificate does not panic.
        assert_eq!(due(begin + HOUR, begin, None, 0.0), begin + HOUR);
    }

    #[test]
    fn backoff_doubles_up_to_thirty_seconds() {
        let full: Vec<u128> = (1..=11).map(|n| backoff(n, 1.0).as_millis()).collect();
        assert_eq!(
            full,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000
            ]
        );
        assert_eq!(backoff(1, 0.0).as_millis(), 50);
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_LAST);
    }

    #[test]
    fn the_alarm_grows() {
        let begin = SystemTime::UNIX_EPOCH;
        let at = |hours| alarm(begin, begin + 24 * HOUR, begin + hours * HOUR);
        assert_eq!(
            [at(16), at(19), at(21), at(25)],
            [Alarm::Warn, Alarm::Warn, Alarm::Error, Alarm::Expired]
        );
    }
}
