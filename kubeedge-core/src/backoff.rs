//! Pauses between attempts: exponential, capped, jittered, with the random numbers taken from outside.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// A growing, jittered pause between attempts.
///
/// ```
/// use std::time::Duration;
/// use kubeedge_core::backoff::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 7);
/// let first = backoff.next_pause();
/// assert!(first <= Duration::from_secs(1) && first >= Duration::from_millis(500));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
    random: SmallRng,
}

impl Backoff {
    /// Starts at `first`, doubles up to `cap`; each pause lies between half and the whole of that. The seed
    /// makes it repeatable.
    pub fn new(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { first, cap, next: first, random: SmallRng::seed_from_u64(seed) }
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let whole = self.next.min(self.cap);
        self.next = whole.saturating_mul(2).min(self.cap);
        whole.mul_f64(self.random.random_range(0.5..=1.0))
    }

    /// After a success: the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_cap_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8), 1);
        let pauses: Vec<_> = (0..6).map(|_| backoff.next_pause().as_secs_f64()).collect();
        for (pause, whole) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]) {
            assert!(*pause >= whole / 2.0 && *pause <= whole, "{pauses:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_secs(1));
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed);
            (0..5).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(3), pauses(3));
        assert_ne!(pauses(3), pauses(4));
    }
}
