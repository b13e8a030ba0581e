//! Durations and sizes as people write them.

use std::time::Duration;

/// A whole number and a unit.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..at].parse().ok()?, &text[at..]))
}

/// Reads a duration such as `"20d"`: a whole number and ms, s, m, h or d.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (count, unit) = split_unit(text)?;
    let secs = match unit {
        "ms" => return Some(Duration::from_millis(count)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    // 100 years: beyond it sums of times could overflow
    count.checked_mul(secs).filter(|&secs| secs <= 36_525 * 86_400).map(Duration::from_secs)
}

/// Reads a size such as `"64KiB"`, in bytes.
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
