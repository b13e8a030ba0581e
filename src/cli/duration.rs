//! Durations as arguments.

use crate::command::CommandError;
use crate::config::parse_duration;

/// The seconds of a duration such as `7d` or `30m`, at least one.
pub(super) fn positive_secs(typed: &str) -> Result<u64, CommandError> {
    let secs = parse_duration(typed).map(|duration| duration.as_secs()).filter(|&secs| secs > 0);
    secs.ok_or_else(|| {
        let what = "is not a duration between 1 second and 100 years (examples: 7d, 12h, 30m)";
        CommandError::Usage(format!("`{typed}` {what}"))
    })
}
