//! Lines of a container's log: CRI's format in, what users see out. Pure.

use std::str;

use k8s_openapi::jiff::Timestamp;

/// Which of a container's outputs is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// What is shown of a log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Show {
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Whether every line begins with its time.
    pub timestamps: bool,
    /// No more bytes than these.
    pub limit: Option<u64>,
    /// Which output.
    pub wanted: Wanted,
}

/// One entry: `<RFC 3339 time> <stdout|stderr> <F|P>[:…] <text>`.
struct Entry<'a> {
    time: &'a str,
    at: Timestamp,
    stream: &'a str,
    /// Whether the rest of the line is in a later entry.
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let mut word = || fields.next().and_then(|field| str::from_utf8(field).ok());
    let (time, stream, tags) = (word()?, word()?, word()?);
    let at = time.parse().ok()?;
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    let partial = tags.split(':').next() == Some("P");
    Some(Entry { time, at, stream, partial, text: fields.next().unwrap_or_default() })
}

/// A time with nine digits of fraction, so that columns line up.
fn nine_digits(time: &str) -> String {
    let zone = time.rfind(['Z', 'z', '+', '-']).filter(|at| time.find('T').is_some_and(|t| *at > t));
    let (clock, zone) = time.split_at(zone.unwrap_or(time.len()));
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    format!("{seconds}.{fraction}{zone}")
}

/// Turns entries into text.
#[derive(Debug)]
pub(super) struct Printer {
    show: Show,
    /// Whether the last entry that was shown left its line open.
    open: bool,
    left: u64,
}

impl Printer {
    pub(super) fn new(show: Show) -> Self {
        Self { show, open: false, left: show.limit.unwrap_or(u64::MAX) }
    }

    /// Whether no more may be shown.
    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Shows one entry, given without its newline. What is no entry is logged and left out.
    pub(super) fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = parse(line) else {
            if !line.is_empty() {
                tracing::debug!(bytes = line.len(), "a line of a log is not in CRI's format and is left out");
            }
            return;
        };
        let wanted = match self.show.wanted {
            Wanted::All => true,
            Wanted::Stdout => entry.stream == "stdout",
            Wanted::Stderr => entry.stream == "stderr",
        };
        if !wanted || self.show.since.is_some_and(|since| entry.at < since) {
            return;
        }
        if self.show.timestamps && !self.open {
            self.put(nine_digits(entry.time).as_bytes(), out);
            self.put(b" ", out);
        }
        self.put(entry.text, out);
        if !entry.partial {
            self.put(b"\n", out);
        }
        self.open = entry.partial;
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let taken = bytes.get(..room).unwrap_or(bytes);
        out.extend_from_slice(taken);
        self.left -= taken.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.5Z stdout F one\n\
        2026-01-01T00:00:02Z stderr P tw\n\
        2026-01-01T00:00:02.000000001+00:00 stderr F o\n\
        junk\n\
        2026-01-01T00:00:03.123456789Z stdout F \n\
        2026-01-01T00:00:04Z stdout F:tag f o ur\n";

    fn shown(show: Show) -> String {
        let (mut printer, mut out) = (Printer::new(show), Vec::new());
        LOG.lines().for_each(|line| printer.print(line.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parts_of_a_line_are_joined_and_empty_lines_kept() {
        assert_eq!(shown(Show::default()), "one\ntwo\n\nf o ur\n");
    }

    #[test]
    fn times_come_with_nine_digits_and_once_a_line() {
        let show = Show { timestamps: true, ..Show::default() };
        let expected = "2026-01-01T00:00:01.500000000Z one\n2026-01-01T00:00:02.000000000Z two\n\
            2026-01-01T00:00:03.123456789Z \n2026-01-01T00:00:04.000000000Z f o ur\n";
        assert_eq!(shown(show), expected);
        assert_eq!(nine_digits("2026-01-01T00:00:01+02:00"), "2026-01-01T00:00:01.000000000+02:00");
    }

    #[test]
    fn older_lines_other_outputs_and_more_bytes_than_asked_are_left_out() {
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        assert_eq!(shown(Show { since, ..Show::default() }), "\nf o ur\n");
        assert_eq!(shown(Show { wanted: Wanted::Stderr, ..Show::default() }), "two\n");
        assert_eq!(shown(Show { wanted: Wanted::Stdout, ..Show::default() }), "one\n\nf o ur\n");
        assert_eq!(shown(Show { limit: Some(6), ..Show::default() }), "one\ntw");
    }
}
