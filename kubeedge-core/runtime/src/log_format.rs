//! The format of a container's log, as the Container Runtime Interface has it: what every runtime writes to
//! [`ContainerSpec::log_path`](kubeedge_core::runtime::ContainerSpec::log_path), and `kubectl logs` reads.
//! One record a line: time, stream, whether the line ends here, and the text.
//!
//! ```text
//! 2026-01-31T12:00:00.000000001Z stdout F a line
//! 2026-01-31T12:00:00.000000002Z stderr P the beginning of a line whose end was not said
//! ```
//!
//! [`Lines`] cuts what one stream of a program says into such records:
//!
//! ```
//! use std::time::{Duration, UNIX_EPOCH};
//!
//! use kubeedge_runtime::log_format::{LogStream, Lines};
//!
//! let at = UNIX_EPOCH + Duration::from_secs(1);
//! let (mut lines, mut log) = (Lines::new(LogStream::Stdout), Vec::new());
//! lines.write(at, b"a line\nand a", &mut log);
//! lines.write(at, b"nother", &mut log);
//! lines.end(at, &mut log);
//! assert_eq!(
//!     String::from_utf8(log).unwrap(),
//!     "1970-01-01T00:00:01.000000000Z stdout F a line\n\
//!      1970-01-01T00:00:01.000000000Z stdout P and another\n"
//! );
//! ```

use std::time::SystemTime;

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// The longest text of a record in bytes; a line that is longer is written in parts, as containerd does.
pub const MAX_LINE: usize = 16 * 1024;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// Which output of a program a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// What it says.
    Stdout,
    /// What it complains of.
    Stderr,
}

/// How a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTag {
    /// With the line's end.
    Full,
    /// Within a line: it goes on in the next record of this stream, or the program ended here.
    Partial,
}

/// Appends the record of a line or part of one, which holds no line's end and at most [`MAX_LINE`] bytes.
pub fn record(at: SystemTime, stream: LogStream, tag: LogTag, text: &[u8], out: &mut Vec<u8>) {
    let stream = match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    let tag = if tag == LogTag::Full { "F" } else { "P" };
    // Every time of a clock between the years 0 and 9999 can be written so.
    let at = OffsetDateTime::from(at).format(TIME).unwrap_or_default();
    out.extend_from_slice(format!("{at} {stream} {tag} ").as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Cuts what one stream says into records. It holds at most [`MAX_LINE`] bytes of a line that has not ended.
#[derive(Clone, Debug)]
pub struct Lines {
    stream: LogStream,
    open: Vec<u8>,
}

impl Lines {
    /// Nothing was said yet.
    pub fn new(stream: LogStream) -> Self {
        Self { stream, open: Vec::new() }
    }

    /// Takes what was said at this time and appends the records that are complete: of lines that have ended,
    /// and of parts of lines that are too long for one record.
    pub fn write(&mut self, at: SystemTime, said: &[u8], out: &mut Vec<u8>) {
        for part in said.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            while let Some((fits, over)) = text.split_at_checked(MAX_LINE - self.open.len()) {
                if over.is_empty() {
                    break;
                }
                self.open.extend_from_slice(fits);
                self.flush(at, LogTag::Partial, out);
                text = over;
            }
            self.open.extend_from_slice(text);
            if ends {
                self.flush(at, LogTag::Full, out);
            }
        }
    }

    /// Appends what was begun, if anything was: the stream has ended.
    pub fn end(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        if !self.open.is_empty() {
            self.flush(at, LogTag::Partial, out);
        }
    }

    fn flush(&mut self, at: SystemTime, tag: LogTag, out: &mut Vec<u8>) {
        record(at, self.stream, tag, &self.open, out);
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// Stream, tag and text of the records, with the input cut into pieces of this size.
    fn records(said: &[u8], piece: usize) -> Vec<String> {
        let (mut lines, mut log) = (Lines::new(LogStream::Stderr), Vec::new());
        said.chunks(piece).for_each(|said| lines.write(UNIX_EPOCH, said, &mut log));
        lines.end(UNIX_EPOCH, &mut log);
        let text = String::from_utf8(log).unwrap();
        let record = |line: &str| line.strip_prefix("1970-01-01T00:00:00.000000000Z ").unwrap().to_owned();
        text.lines().map(record).collect()
    }

    #[test]
    fn lines_carry_stream_and_tag() {
        for piece in [1, 4, 100] {
            assert_eq!(records(b"one\n\ntwo", piece), ["stderr F one", "stderr F ", "stderr P two"]);
        }
        assert!(records(b"", 1).is_empty());
    }

    #[test]
    fn a_line_too_long_is_written_in_parts() {
        for (length, parts) in [(MAX_LINE - 1, 1), (MAX_LINE, 1), (MAX_LINE + 5, 2), (3 * MAX_LINE + 1, 4)] {
            let mut said = vec![b'x'; length];
            said.push(b'\n');
            for piece in [999, 10 * MAX_LINE] {
                let records = records(&said, piece);
                assert_eq!(records.len(), parts, "{length} in pieces of {piece}");
                let (last, before) = records.split_last().unwrap();
                assert!(last.starts_with("stderr F x"));
                let whole = "stderr P ".len() + MAX_LINE;
                assert!(before.iter().all(|part| part.starts_with("stderr P x") && part.len() == whole));
            }
        }
    }
}
