//! Cases that an implementation cannot be asked: counted and printed, so that "ok" does not say more than was
//! seen.

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// How many cases this process has skipped.
static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Notes that the case of this test thread is not asked, and why. Printed past what the test harness
/// captures.
pub(crate) fn skip(why: &str) {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let case = thread::current();
    let case = case.name().unwrap_or("a case");
    // A test without an error stream passes nevertheless.
    let _ = writeln!(io::stderr(), "skipped {case}: {why} ({count} skipped so far)");
}

/// How many cases were skipped in this process so far.
pub fn skipped() -> usize {
    SKIPPED.load(Ordering::Relaxed)
}
