//! Log lines about peers: so few that nobody fills a disk with them, and shown so that no peer writes a line
//! of its own.

use std::{collections::HashMap, fmt, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Peers that are told apart; when there are more, those beyond share one.
const KEYS: usize = 1024;
/// Characters of a peer's text that are shown.
const SHOWN: usize = 200;

/// Lets one line about each peer through in a span of time, and counts the others.
///
/// ```
/// use std::time::Duration;
/// use kubeedge_common::log::Seldom;
///
/// let refusals = Seldom::every(Duration::from_secs(1));
/// assert_eq!(refusals.line("192.0.2.7"), Some(0));
/// assert_eq!(refusals.line("192.0.2.7"), None);
/// assert_eq!(refusals.line("192.0.2.8"), Some(0));
/// ```
#[derive(Debug)]
pub struct Seldom {
    span: Duration,
    lines: Mutex<HashMap<String, Line>>,
}

#[derive(Debug)]
struct Line {
    last: Instant,
    unsaid: u64,
}

impl Seldom {
    /// One line for each peer in this span.
    pub fn every(span: Duration) -> Self {
        Self { span, lines: Mutex::default() }
    }

    /// Whether a line about this peer may be written now: how many were not since the last one.
    pub fn line(&self, peer: &str) -> Option<u64> {
        let (now, mut lines) = (Instant::now(), self.lines.lock());
        if lines.len() >= KEYS && !lines.contains_key(peer) {
            lines.retain(|_, line| now.duration_since(line.last) < self.span || line.unsaid > 0);
        }
        // The empty name stands for all who find no place.
        let peer = if lines.len() < KEYS || lines.contains_key(peer) { peer } else { "" };
        match lines.get_mut(peer) {
            Some(line) if now.duration_since(line.last) < self.span => {
                line.unsaid += 1;
                None
            }
            Some(line) => Some(std::mem::replace(line, Line { last: now, unsaid: 0 }).unsaid),
            None => {
                lines.insert(peer.to_owned(), Line { last: now, unsaid: 0 });
                Some(0)
            }
        }
    }
}

impl Default for Seldom {
    /// One line a second.
    fn default() -> Self {
        Self::every(Duration::from_secs(1))
    }
}

/// A peer's text for a log: its first 200 characters, with those escaped that would end a line or steer a
/// terminal.
pub fn shown(text: &str) -> impl fmt::Display + '_ {
    Shown(text)
}

struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(SHOWN) {
            // As Rust's own debug form has it, but for quotes, which do no harm.
            if matches!(c, '"' | '\'' | '\\') {
                write!(f, "{c}")?
            } else {
                write!(f, "{}", c.escape_debug())?
            }
        }
        if self.0.chars().nth(SHOWN).is_some() { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_gets_one_line_a_second_and_what_was_not_said_is_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.line("a"), Some(0));
        for _ in 0..7 {
            assert_eq!(seldom.line("a"), None);
        }
        assert_eq!(seldom.line("b"), Some(0), "another peer has a line of its own");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(seldom.line("a"), Some(7));
        assert_eq!(seldom.line("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_peers_takes_no_more_memory_and_few_lines() {
        let seldom = Seldom::default();
        let said = (0..100_000).filter(|peer| seldom.line(&peer.to_string()).is_some()).count();
        assert!((KEYS..=KEYS + 1).contains(&said), "{said} lines");
        assert!(seldom.lines.lock().len() <= KEYS + 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(seldom.line("new"), Some(0), "places of those who have been quiet are free again");
    }

    #[test]
    fn a_peers_text_is_one_line_of_a_bounded_length() {
        assert_eq!(shown("default/pod/wéb \"1\"").to_string(), "default/pod/wéb \"1\"");
        assert_eq!(shown("a\r\nERROR forged\u{1b}[2J").to_string(), "a\\r\\nERROR forged\\u{1b}[2J");
        let long = shown(&"x".repeat(1 << 20)).to_string();
        assert!(long.len() < 260 && long.ends_with("… (1048576 bytes)"), "{long}");
    }
}
