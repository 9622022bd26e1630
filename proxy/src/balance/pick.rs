//! The pick itself: which of several endpoints, by the balancer's rule. Pure but for the random numbers it is given.

use weft_model::Balancer;

/// What a pick knows of the endpoints, by their place in the list.
pub trait Candidates {
    /// How many there are.
    fn count(&self) -> usize;
    /// Share of traffic, 1 or more.
    fn weight(&self, at: usize) -> u32;
    /// May it get this request at all (not ejected, not tried before)?
    fn usable(&self, at: usize) -> bool;
    /// Lower is better; the meaning is the balancer's.
    fn load(&self, at: usize) -> f64;
}

/// Picks one that is usable. `turn` counts the picks of [`Balancer::RoundRobin`]. `None`: none is usable.
pub fn pick(
    balancer: Balancer,
    candidates: &impl Candidates,
    equal_weights: bool,
    turn: &mut usize,
    mut random: impl FnMut() -> u64,
) -> Option<usize> {
    let n = candidates.count();
    match n {
        0 => return None,
        1 => return candidates.usable(0).then_some(0),
        _ => {}
    }
    match balancer {
        Balancer::PeakEwma | Balancer::LeastRequest => {
            let draw = Draw::new(candidates, equal_weights);
            let first = draw.one(random());
            let second = draw.other(first, &mut random);
            match (candidates.usable(first), candidates.usable(second)) {
                (true, true) if candidates.load(second) < candidates.load(first) => Some(second),
                (true, _) => Some(first),
                (false, true) => Some(second),
                (false, false) => least_loaded(candidates),
            }
        }
        Balancer::Random => {
            let first = Draw::new(candidates, equal_weights).one(random());
            usable_from(candidates, first)
        }
        // Turns cannot show unequal weights; a weighted draw does so on average.
        Balancer::RoundRobin if !equal_weights => {
            let first = Draw::new(candidates, equal_weights).one(random());
            usable_from(candidates, first)
        }
        Balancer::RoundRobin => {
            *turn = turn.wrapping_add(1);
            usable_from(candidates, *turn % n)
        }
    }
}

/// The first usable one at or after `start`, around the end.
fn usable_from(candidates: &impl Candidates, start: usize) -> Option<usize> {
    let n = candidates.count();
    (start..start + n)
        .map(|i| i % n)
        .find(|i| candidates.usable(*i))
}

/// Both draws were unusable: look at all.
fn least_loaded(candidates: &impl Candidates) -> Option<usize> {
    let usable = (0..candidates.count()).filter(|i| candidates.usable(*i));
    usable.min_by(|a, b| candidates.load(*a).total_cmp(&candidates.load(*b)))
}

/// Draws by weight.
struct Draw<'a, C> {
    candidates: &'a C,
    /// Sum of the weights; `None`: all are equal.
    total: Option<u64>,
}

impl<'a, C: Candidates> Draw<'a, C> {
    fn new(candidates: &'a C, equal: bool) -> Self {
        let weights = || (0..candidates.count()).map(|i| u64::from(candidates.weight(i)));
        let total = (!equal).then(|| weights().sum());
        Self { candidates, total }
    }

    fn one(&self, random: u64) -> usize {
        let n = self.candidates.count();
        let Some(total) = self.total else {
            return (random % n as u64) as usize;
        };
        let mut at = random.checked_rem(total).unwrap_or_default();
        let found = (0..n).position(|i| {
            let weight = u64::from(self.candidates.weight(i));
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        });
        found.unwrap_or(n - 1)
    }

    /// One that is not `first`; by weight too, unless a heavy one keeps coming up.
    fn other(&self, first: usize, random: &mut impl FnMut() -> u64) -> usize {
        let n = self.candidates.count();
        if self.total.is_some() {
            for _ in 0..4 {
                let drawn = self.one(random());
                if drawn != first {
                    return drawn;
                }
            }
        }
        (first + 1 + (random() % (n as u64 - 1)) as usize) % n
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Fake {
        weight: u32,
        usable: bool,
        load: f64,
    }

    impl Candidates for &[Fake] {
        fn count(&self) -> usize {
            self.len()
        }
        fn weight(&self, at: usize) -> u32 {
            self[at].weight
        }
        fn usable(&self, at: usize) -> bool {
            self[at].usable
        }
        fn load(&self, at: usize) -> f64 {
            self[at].load
        }
    }

    fn fakes(loads: &[f64]) -> Vec<Fake> {
        let fake = |load: &f64| Fake {
            weight: 1,
            usable: true,
            load: *load,
        };
        loads.iter().map(fake).collect()
    }

    /// How often each of them is picked in 10,000 draws.
    fn distribution(balancer: Balancer, candidates: &[Fake]) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let equal = candidates.iter().all(|c| c.weight == candidates[0].weight);
        let (mut turn, mut counts) = (0, vec![0; candidates.len()]);
        for _ in 0..10_000 {
            if let Some(at) = pick(balancer, &candidates, equal, &mut turn, || rng.u64(..)) {
                counts[at] += 1;
            }
        }
        counts
    }

    #[test]
    fn the_worst_of_three_is_never_the_better_of_two() {
        let counts = distribution(Balancer::PeakEwma, &fakes(&[1.0, 2.0, 3.0]));
        assert_eq!(counts[2], 0);
        assert!(counts[0] > 6_000, "{counts:?}");
    }

    #[test]
    fn turns_are_even() {
        assert_eq!(
            distribution(Balancer::RoundRobin, &fakes(&[0.0; 4])),
            [2_500; 4]
        );
    }

    #[test]
    fn draws_follow_weights() {
        let mut candidates = fakes(&[0.0; 2]);
        candidates[0].weight = 9;
        for balancer in [Balancer::Random, Balancer::RoundRobin] {
            let counts = distribution(balancer, &candidates);
            assert!(
                (8_800..9_200).contains(&counts[0]),
                "{balancer:?} {counts:?}"
            );
        }
    }

    #[test]
    fn only_usable_ones_are_picked() {
        for balancer in [
            Balancer::PeakEwma,
            Balancer::LeastRequest,
            Balancer::RoundRobin,
            Balancer::Random,
        ] {
            let mut candidates = fakes(&[0.0; 5]);
            for candidate in &mut candidates[..4] {
                candidate.usable = false;
            }
            assert_eq!(distribution(balancer, &candidates), [0, 0, 0, 0, 10_000]);
            candidates[4].usable = false;
            assert_eq!(distribution(balancer, &candidates), [0; 5]);
            assert_eq!(distribution(balancer, &candidates[..0]), [0; 0]);
        }
    }
}
