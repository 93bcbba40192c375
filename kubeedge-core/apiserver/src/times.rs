//! Moments and spans as Kubernetes writes them.

use time::{Duration, OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339};

/// A moment so many seconds after this one; what no calendar holds is its last or first day.
pub(crate) fn later(moment: OffsetDateTime, seconds: i64) -> String {
    let end = if seconds < 0 { OffsetDateTime::UNIX_EPOCH } else { PrimitiveDateTime::MAX.assume_utc() };
    let moment = moment.checked_add(Duration::seconds(seconds)).unwrap_or(end);
    moment.replace_nanosecond(0).ok().and_then(|m| m.format(&Rfc3339).ok()).unwrap_or_default()
}

/// A moment that Kubernetes wrote.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// How long ago a moment was, as tables show it.
pub(crate) fn since(moment: &str, now: OffsetDateTime) -> String {
    parse(moment).map_or_else(|| "<unknown>".to_owned(), |moment| human(now - moment))
}

/// A span as Kubernetes shows it: two units while they are small.
pub(crate) fn human(span: Duration) -> String {
    let seconds = span.whole_seconds().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubernetes_writes_them() {
        for (seconds, expected) in [
            (5, "5s"),
            (119, "119s"),
            (130, "2m10s"),
            (600, "10m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
            (864_000, "10d"),
        ] {
            assert_eq!(human(Duration::seconds(seconds)), expected);
        }
    }
}
