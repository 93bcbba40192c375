//! Seeds that found something once, and what it was.

/// The seed, and what was wrong before it was mended.
pub(crate) const FOUND: &[(u64, &str)] = &[];
