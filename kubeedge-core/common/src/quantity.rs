//! Kubernetes quantities (`500m`, `64Mi`, `2`, `1e3`) as numbers, by the rules of `resource.Quantity`.
//!
//! ```
//! use kubeedge_common::quantity::{milli, units};
//!
//! assert_eq!((milli("500m"), units("64Mi")), (500, 64 << 20));
//! ```

/// A quantity in thousandths, rounded up; 0 for text that is no quantity and for what is less than nothing,
/// [`u64::MAX`] for what is too large. Nothing is lost on the way, however long the number.
pub fn milli(text: &str) -> u64 {
    let text = text.trim();
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..)),
        Some(b'+') => (false, text.get(1..)),
        _ => (false, Some(text)),
    };
    let Some((mut number, suffix)) = text.and_then(Decimal::split) else { return 0 };
    let Some(factor) = Factor::of(suffix).filter(|_| !negative) else { return 0 };
    (0..factor.kibi).for_each(|_| number.times_1024());
    number.point = number.point.saturating_add(factor.power).saturating_add(3);
    number.rounded_up()
}

/// A quantity in whole units, rounded up: bytes of memory, seconds.
pub fn units(text: &str) -> u64 {
    milli(text).div_ceil(1000)
}

/// What a suffix multiplies by: a power of 10 and one of 1024.
struct Factor {
    power: i64,
    kibi: u32,
}

impl Factor {
    fn of(suffix: &str) -> Option<Self> {
        let decimal = |power| Some(Self { power, kibi: 0 });
        let binary = |kibi| Some(Self { power: 0, kibi });
        match suffix {
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "" => decimal(0),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            "Ki" => binary(1),
            "Mi" => binary(2),
            "Gi" => binary(3),
            "Ti" => binary(4),
            "Pi" => binary(5),
            "Ei" => binary(6),
            exponent => decimal(exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?.into()),
        }
    }
}

/// A number as its decimal digits: `0.d₁d₂d₃…` times 10 to the power of `point`.
struct Decimal {
    digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    /// Takes the number at the beginning of a text; the rest is its suffix.
    fn split(text: &str) -> Option<(Self, &str)> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return None;
        }
        let digits = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
        Some((Self { digits, point: i64::try_from(whole.len()).ok()? }, suffix))
    }

    fn times_1024(&mut self) {
        let mut carry = 0_u32;
        for digit in self.digits.iter_mut().rev() {
            carry += u32::from(*digit) * 1024;
            *digit = u8::try_from(carry % 10).unwrap_or_default();
            carry /= 10;
        }
        // The carry of one digit by 1024 is less than 1024.
        let front = [1000, 100, 10, 1].map(|place| u8::try_from(carry / place % 10).unwrap_or_default());
        self.digits.splice(0..0, front);
        self.point += 4;
    }

    fn rounded_up(&self) -> u64 {
        let mut whole = 0_u128;
        for (place, digit) in (0_i64..).zip(&self.digits) {
            if place < self.point {
                whole = whole.saturating_mul(10).saturating_add(u128::from(*digit));
            } else if *digit != 0 {
                return u64::try_from(whole.saturating_add(1)).unwrap_or(u64::MAX);
            }
        }
        // Zeros behind the last digit; beyond 40 of them nothing but 0 is small enough.
        let written = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        let zeros = self.point.saturating_sub(written).clamp(0, 40);
        (0..zeros).for_each(|_| whole = whole.saturating_mul(10));
        u64::try_from(whole).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_of_all_forms_become_numbers() {
        for (text, expected) in [
            ("500m", 500),
            ("2", 2000),
            ("0.1", 100),
            (".5", 500),
            ("5.", 5000),
            ("+1", 1000),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("0.5Ki", 512_000),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1e-3", 1),
            ("5e+1", 50_000),
            ("1P", 1_000_000_000_000_000_000),
            ("nonsense", 0),
            ("", 0),
            (".", 0),
            ("m", 0),
            ("-5", 0),
            ("-0.1Ki", 0),
            ("1.1.1", 0),
            ("1+1", 0),
            ("1K", 0),
            ("0.1mi", 0),
            ("1i", 0),
            ("3e-", 0),
            ("9e30", u64::MAX),
            ("0e999999999", 0),
            ("1E", u64::MAX),
            ("16Ei", u64::MAX),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
        assert_eq!(units("1Gi"), 1 << 30);
        assert_eq!(units("1500m"), 2);
    }

    /// Kubernetes: `MilliValue` and `Value` round up, and a quantity finer than a nano-unit counts as the
    /// next one.
    #[test]
    fn less_than_a_thousandth_is_rounded_up() {
        for (text, expected) in [
            ("0.1n", 1),
            ("1n", 1),
            ("1u", 1),
            ("1.0000000001", 1001),
            ("1e-10", 1),
            ("0.0n", 0),
            ("1000u", 1),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
    }

    #[test]
    fn thousandths_beyond_the_precision_of_a_float_are_exact() {
        for (text, expected) in [
            ("9007199254740993m", 9_007_199_254_740_993),
            ("9007199254740.993", 9_007_199_254_740_993),
            ("18446744073709551615m", u64::MAX),
            ("18446744073709551614m", u64::MAX - 1),
            ("18446744073709551.6141", u64::MAX),
            ("8.000000000000000001Pi", 9_007_199_254_740_992_002),
            ("100000000000000000000000000000000000000000001e-42", 100_001),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn binary_suffixes_multiply_exactly(number: u32, thousandths in 0_u32..1000, kibi in 0_u32..3) {
            let suffix = ["", "Ki", "Mi"][kibi as usize];
            let exact = (u128::from(number) * 1000 + u128::from(thousandths)) << (10 * kibi);
            prop_assert_eq!(u128::from(milli(&format!("{number}.{thousandths:03}{suffix}"))), exact);
        }
    }
}
