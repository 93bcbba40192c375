//! Telling of those who are turned away, without letting them fill the disk by knocking.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// No two lines are nearer to each other.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets one line a second through.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<(Option<Instant>, u64)>);

impl Refusals {
    /// Whether this refusal is to be told; then how many were not since the last that was.
    pub(crate) fn tell(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let (last, unsaid) = &mut *state;
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            *unsaid += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_many_refusals_one_a_second_is_told_with_the_number_of_the_others() {
        let refusals = Refusals::default();
        assert_eq!(refusals.tell(), Some(0));
        assert_eq!((refusals.tell(), refusals.tell()), (None, None));
        tokio::time::advance(PAUSE).await;
        assert_eq!((refusals.tell(), refusals.tell()), (Some(2), None));
    }
}
