//! The present moment as Kubernetes has it.

use kubeedge_core::clock::Clock;

/// The present moment, to the second.
pub fn moment(clock: &Clock) -> time::OffsetDateTime {
    let moment = time::OffsetDateTime::from_unix_timestamp(clock.now().0 / 1000);
    moment.unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// The present moment as Kubernetes writes it.
pub fn stamp(clock: &Clock) -> String {
    moment(clock).format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
