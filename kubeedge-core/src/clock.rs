//! The time of day, from outside: whatever notes when something happened is given a [`Clock`], so that it
//! runs in a simulation as it does in the world.

use std::{fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// The wall clock now; 0 for a clock before 1970.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Tells the time of day. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Millis + Send + Sync>);

impl Clock {
    /// The clock of this machine.
    pub fn wall() -> Self {
        Self(Arc::new(Millis::now))
    }

    /// A clock of the caller's making.
    pub fn of(now: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// A clock that starts at `from` now and goes with tokio's time, which tests pause and advance. To be
    /// called within a tokio runtime.
    pub fn simulated(from: Millis) -> Self {
        let start = Instant::now();
        Self(Arc::new(move || {
            let passed = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
            Millis(from.0.saturating_add(passed))
        }))
    }

    /// The time now.
    pub fn now(&self) -> Millis {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::wall()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_goes_with_paused_time() {
        let clock = Clock::simulated(Millis(1000));
        assert_eq!(clock.now(), Millis(1000));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(clock.clone().now(), Millis(601_000));
    }
}
