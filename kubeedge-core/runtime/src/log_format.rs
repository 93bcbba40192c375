//! A line of a container's log in CRI's format: `2026-01-31T12:00:00.000000001Z stdout F a line`.

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// The longest line; what is longer is written in parts, as containerd does.
pub(super) const MAX_LINE: usize = 16 * 1024;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// How a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// With the line's end.
    Full,
    /// Within a line: it goes on in the next record of this stream, or the program ended here.
    Partial,
}

/// The record of a line or part of one, with its own line's end.
pub(super) fn record(at: OffsetDateTime, stream: &str, tag: Tag, text: &[u8]) -> Vec<u8> {
    let tag = if tag == Tag::Full { "F" } else { "P" };
    let mut record = format!("{} {stream} {tag} ", at.format(TIME).unwrap_or_default()).into_bytes();
    record.extend_from_slice(text);
    record.push(b'\n');
    record
}
