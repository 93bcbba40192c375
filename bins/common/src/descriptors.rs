//! The limit of open files, which bounds connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors a program needs beside its connections: logs, stores, listeners, the runtime's own.
const BESIDE: u64 = 100;

/// The process may not open as many connections as it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{connections} connections need {needed} open files, and this process may have {limit}: raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of containers)"
)]
pub struct TooFewDescriptors {
    /// Connections wanted.
    pub connections: u64,
    /// Descriptors that takes.
    pub needed: u64,
    /// Descriptors there may be.
    pub limit: u64,
}

/// Raises the soft limit of open files to the hard one. What the limit is then; `u64::MAX` for none.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, the soft limit holds.
    let raised =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok();
    let now = if raised { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

/// Whether a limit is enough for so many connections.
pub fn enough_descriptors(limit: u64, connections: u64) -> Result<(), TooFewDescriptors> {
    let needed = connections.saturating_add(BESIDE);
    if needed <= limit { Ok(()) } else { Err(TooFewDescriptors { connections, needed, limit }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_too_low_for_the_connections_is_told_with_both_numbers() {
        assert_eq!(enough_descriptors(20_000, 19_900), Ok(()));
        let error = enough_descriptors(20_000, 50_000).unwrap_err().to_string();
        assert!(
            error.contains("50000 connections need 50100") && error.contains("may have 20000"),
            "{error}"
        );
    }

    #[test]
    fn the_soft_limit_is_the_hard_one_afterwards() {
        let limit = raise_descriptors();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), limit);
    }
}
