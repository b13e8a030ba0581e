//! Durations and sizes in human-readable form.

use std::time::Duration;

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..at].parse().ok()?, &text[at..]))
}

/// Parses a duration such as `"20d"`: a whole number and ms, s, m, h or d.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (count, unit) = split_unit(text)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // 100 years: beyond that, sums of times could overflow
    count.checked_mul(millis).filter(|&millis| millis <= 36_525 * 86_400_000).map(Duration::from_millis)
}

/// Parses a size such as `"64KiB"`, in bytes.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (count, unit) = split_unit(text)?;
    let factor = match unit {
        "B" => 1,
        "" if count == 0 => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    count.checked_mul(factor)
}
