//! The conformance kits: what every implementation of a seam must do, as tests to run over one's own.
//!
//! Each kit is a module of async functions, one per case, and a macro that makes a `#[tokio::test]` of each,
//! over what a future makes anew for each: `kit!(async { … })`. A case that has nothing to try on an
//! implementation says so on a line of its own ([`skipped`]): `cargo test -- --show-output` shows them.
//!
//! Beside them stand what kits share: `certificates` for both ends of a link, and `executor`, which finds
//! what blocks a runtime.

#[cfg(feature = "pki")]
pub mod certificates;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod executor;
pub mod mapper;
pub mod runtime;
pub mod skips;
pub mod store;
pub mod transport;

/// Says that a case, or a part of one, is not tried, and why. The line begins with `SKIPPED` and the test's
/// name, so that skips can be counted.
#[expect(clippy::print_stdout, reason = "a kit speaks in a test's output")]
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    println!("SKIPPED {}: {why}", thread.name().unwrap_or("a case"));
}
