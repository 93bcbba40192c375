//! Times, counted in buckets: any number of them in 8 KiB, each within a sixteenth of its value.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;

/// Buckets for each doubling.
const FINE: u64 = 16;
const BUCKETS: usize = 64 * FINE as usize;

/// A histogram of times in microseconds, for any number of writers.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    longest: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, count: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }
}

/// What there is to say of many times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// How many there were.
    pub(crate) count: u64,
    /// Half took no longer.
    pub(crate) p50_ms: f64,
    /// Nine in ten took no longer.
    pub(crate) p90_ms: f64,
    /// 99 in a hundred took no longer.
    pub(crate) p99_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Histogram {
    /// Counts a time.
    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(index(micros)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.longest.fetch_max(micros, Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn percentiles(&self) -> Percentiles {
        let longest = self.longest.load(Relaxed);
        let at = |share| millis(self.quantile(share).min(longest));
        Percentiles {
            count: self.count.load(Relaxed),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: millis(longest),
        }
    }

    /// The upper end of the bucket in which the time stands that this share does not exceed.
    fn quantile(&self, share: f64) -> u64 {
        let count = self.count.load(Relaxed);
        let wanted = ((count as f64) * share).ceil() as u64;
        let mut seen = 0;
        for (number, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= wanted && seen > 0 {
                return end(number);
            }
        }
        0
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// The bucket of a value: exact below 16, then 16 for each doubling.
fn index(value: u64) -> usize {
    if value < FINE {
        return value as usize;
    }
    let doublings = u64::from(value.ilog2()) - 3;
    let within = (value >> (doublings - 1)) - FINE;
    (doublings * FINE + within) as usize
}

/// The largest value of a bucket.
fn end(bucket: usize) -> u64 {
    let (doublings, within) = (bucket as u64 / FINE, bucket as u64 % FINE);
    match doublings.checked_sub(1) {
        None => within,
        Some(shift) => (((FINE + within + 1) << shift).saturating_sub(1)).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let histogram = Histogram::default();
        (1..=1000).for_each(|millis| histogram.record(Duration::from_millis(millis)));
        let told = histogram.percentiles();
        assert_eq!(told.count, 1000);
        for (value, exact) in [(told.p50_ms, 500.0), (told.p90_ms, 900.0), (told.p99_ms, 990.0)] {
            assert!(value >= exact && value <= exact * 17.0 / 16.0, "{value} for {exact}");
        }
        assert_eq!(told.max_ms, 1000.0);
    }

    #[test]
    fn every_value_stands_in_the_bucket_that_ends_above_it() {
        for value in (0..10_000).chain([u64::MAX / 3, 1 << 40, (1 << 40) + 1]) {
            let bucket = index(value);
            assert!(bucket < BUCKETS && end(bucket) >= value, "{value}");
            assert!(bucket == 0 || end(bucket - 1) < value, "{value}");
        }
    }

    #[test]
    fn nothing_counted_is_all_zeros() {
        assert_eq!(Histogram::default().percentiles(), Percentiles::default());
    }
}
