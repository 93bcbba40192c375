//! Kubernetes quantities (`500m`, `64Mi`, `2`, `1e3`) as numbers.
//!
//! ```
//! use kubeedge_common::quantity::{milli, units};
//!
//! assert_eq!((milli("500m"), units("64Mi")), (500, 64 << 20));
//! ```

/// A quantity in thousandths, rounded up; 0 for text that is no quantity and for what is less than nothing, [`u64::MAX`]
/// for what is too large.
pub fn milli(text: &str) -> u64 {
    let text = text.trim();
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let Ok(number) = number.parse::<f64>() else { return 0 };
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => {
            let power = exponent.strip_prefix(['e', 'E']).and_then(|digits| digits.parse::<i32>().ok());
            power.map_or(0.0, |power| 10f64.powi(power))
        }
    };
    // Casting saturates, so a senseless quantity becomes the largest, not a small one.
    (number * factor * 1000.0).ceil().max(0.0) as u64
}

/// A quantity in whole units, rounded up: bytes of memory, seconds.
pub fn units(text: &str) -> u64 {
    milli(text).div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_all_forms_become_numbers() {
        for (text, expected) in [
            ("500m", 500),
            ("2", 2000),
            ("0.1", 100),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            ("nonsense", 0),
            ("", 0),
            ("-5", 0),
            ("9e30", u64::MAX),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
        assert_eq!(units("1Gi"), 1 << 30);
        assert_eq!(units("1500m"), 2);
    }
}
