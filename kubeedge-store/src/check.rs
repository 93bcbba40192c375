//! What every store checks alike, so that all refuse the same batches with the same words.

use kubeedge_core::{
    failure::Failure,
    store::{Batch, Change, Expect, MAX_VALUE, StoreError, StoreKind},
};

pub(crate) const READING: &str = "reading a value";
pub(crate) const SCANNING: &str = "scanning a table";
pub(crate) const COMMITTING: &str = "committing a batch";

pub(crate) fn closed(doing: &'static str) -> StoreError {
    Failure::new(StoreKind::Closed, doing)
}

/// Refuses a batch with a value no store needs to take, before anything of it is copied or queued.
pub(crate) fn sizes(batch: &Batch) -> Result<(), StoreError> {
    let too_large = batch.0.iter().find_map(|change| match change {
        Change::Put { key, value, .. } if value.len() > MAX_VALUE => Some((key, value.len())),
        _ => None,
    });
    match too_large {
        None => Ok(()),
        Some((key, len)) => Err(Failure::new(StoreKind::TooLarge, COMMITTING)
            .on(key.to_string())
            .because(format!("{len} bytes, the limit is {MAX_VALUE}"))),
    }
}

/// Whether a change's condition holds, given the version before the batch.
pub(crate) fn holds(change: &Change, found: Option<u64>) -> Result<(), StoreError> {
    let why = match (change.expect(), found) {
        (Expect::Any, _) | (Expect::Absent, None) => return Ok(()),
        (Expect::Version(wanted), Some(found)) if wanted == found => return Ok(()),
        (Expect::Absent, Some(found)) => format!("expected absent, found version {found}"),
        (Expect::Version(wanted), Some(found)) => format!("expected version {wanted}, found {found}"),
        (Expect::Version(wanted), None) => format!("expected version {wanted}, found nothing"),
    };
    Err(Failure::new(StoreKind::Conflict, COMMITTING).on(change.key().to_string()).because(why))
}
