//! The recorded sessions of a Go edge with Go's cloudcore, as the tests of both sides read them.

use serde::Deserialize;
use serde_json::Value;

pub(crate) const SESSIONS: [&str; 3] =
    [include_str!("session-1.jsonl"), include_str!("session-2.jsonl"), include_str!("session-3.jsonl")];

/// A recorded message: source, group, operation and resource are its route.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Recorded {
    pub(crate) link: String,
    pub(crate) up: bool,
    pub(crate) id: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) version: Option<String>,
    pub(crate) route: [String; 4],
    pub(crate) content: Value,
}

impl Recorded {
    pub(crate) fn all(session: &str) -> Vec<Self> {
        session.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn kind(&self) -> &str {
        self.route[3].split('/').nth(1).unwrap_or_default()
    }
}
