//! Memory and CPU time of a process, as Linux tells them.

use std::{fs, time::Duration};

use serde::Serialize;

/// What a process uses at a moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    /// Resident memory in kB.
    pub(crate) resident_kb: u64,
    /// Of this, not from files: heap and stacks, in kB.
    pub(crate) anonymous_kb: u64,
    /// CPU seconds since its start, its own and the kernel's for it.
    pub(crate) cpu_seconds: f64,
}

/// What a process uses now; `None` when it is not there.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Usage {
        resident_kb: field("VmRSS:")?,
        anonymous_kb: field("RssAnon:").unwrap_or_default(),
        cpu_seconds: cpu(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?.as_secs_f64(),
    })
}

/// The CPU time in `/proc/…/stat`: fields 14 and 15, in ticks. The second field is in brackets and may hold
/// anything.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_secs_f64(ticks as f64 / second as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_one_that_is_not_there_is_told() {
        let ours = usage(std::process::id()).unwrap();
        assert!(ours.resident_kb > 0 && ours.anonymous_kb > 0 && ours.cpu_seconds >= 0.0);
        assert!(usage(u32::MAX).is_none());
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 50 0 0";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu(stat).unwrap().as_secs_f64(), 150.0 / ticks);
    }
}
