//! So many things a second, so many at once after a rest.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: `per_second` on average, `burst` at once. Keeps no timer; whoever uses it waits until
/// [`Rate::free_at`].
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    each: Duration,
    burst: u32,
    /// When a bucket that is spent now would be full again.
    full: Instant,
}

impl Rate {
    /// A full bucket; 0 a second means no limit.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let each = if per_second == 0 { Duration::ZERO } else { Duration::from_secs(1) / per_second };
        Self { each, burst, full: Instant::now() }
    }

    /// When the next one may go; a moment in the past means now.
    pub fn free_at(&self) -> Instant {
        self.free_at_share(1)
    }

    /// When the next one may go, where that is not now.
    pub fn rests_until(&self) -> Option<Instant> {
        Some(self.free_at()).filter(|free| *free > Instant::now())
    }

    /// The same as [`Rate::free_at`] for those that leave part of the burst to others: with a `share` of 2
    /// they use half of it.
    pub fn free_at_share(&self, share: u32) -> Instant {
        let rest = self.each * (self.burst / share.max(1)).saturating_sub(1);
        self.full.checked_sub(rest).unwrap_or(self.full)
    }

    /// Notes that one went.
    pub fn spend(&mut self) {
        self.full = self.full.max(Instant::now()) + self.each;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sixty_messages_go_at_once_and_then_thirty_a_second() {
        let (mut limit, start) = (Rate::new(30, 60), Instant::now());
        let mut times = Vec::new();
        for _ in 0..120 {
            tokio::time::sleep_until(limit.free_at()).await;
            limit.spend();
            times.push(start.elapsed().as_millis());
        }
        assert_eq!(times[59], 0);
        assert!((30..=40).contains(&times[60]), "{}", times[60]);
        assert!((1990..=2070).contains(&times[119]), "{}", times[119]);
    }

    #[tokio::test(start_paused = true)]
    async fn zero_messages_a_second_means_no_limit() {
        let (mut limit, start) = (Rate::new(0, 0), Instant::now());
        for _ in 0..1000 {
            tokio::time::sleep_until(limit.free_at()).await;
            limit.spend();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
