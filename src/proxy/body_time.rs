//! How long a client may take to send a body that is read whole.

use std::time::Duration;

/// Time for a whole form to arrive.
pub(crate) const FORM_TIME: Duration = Duration::from_secs(30);
/// Minimum rate after that time, in bytes per second.
const RATE: u64 = 256;

/// The time limit for a body of which `received` bytes have arrived: [`FORM_TIME`], and a second more for each [`RATE`]
/// bytes.
pub(crate) fn body_time(received: usize) -> Duration {
    FORM_TIME + Duration::from_millis(received as u64 * 1000 / RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_a_kibibyte_a_second_is_read_and_one_that_drips_is_given_up() {
        let comes = |rate: usize, length: usize| {
            (0..length.div_ceil(rate)).all(|second| body_time(second * rate).as_secs() >= second as u64)
        };
        assert!(comes(1024, 45 << 10));
        assert!(comes(256, 64 << 10));
        assert!(!comes(10, 64 << 10));
        assert!(!comes(1, 1000));
    }
}
