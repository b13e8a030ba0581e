//! Where WebSocket frames begin and end in a byte stream (RFC 6455, 5.2), and the Close frames that
//! we put between them. Payloads are never looked at.

/// Follows one direction of a WebSocket.
#[derive(Debug, Default, Clone)]
pub(crate) struct FrameTracker {
    head: [u8; 14],
    head_len: usize,
    payload_left: u64,
    closed: bool,
}

impl FrameTracker {
    /// Takes the next bytes of the stream; how many that were: all.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> usize {
        self.advance(bytes, false)
    }

    /// Takes bytes up to the end of the frame that is under way; how many those were.
    pub(crate) fn feed_frame(&mut self, bytes: &[u8]) -> usize {
        self.advance(bytes, true)
    }

    fn advance(&mut self, bytes: &[u8], one: bool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.payload_left > 0 {
                let taken = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.payload_left -= taken as u64;
                at += taken;
            } else {
                self.head[self.head_len] = bytes[at];
                self.head_len += 1;
                at += 1;
                if self.head_len >= 2 && self.head_len == head_len(self.head[1]) {
                    self.begin_payload();
                }
            }
            if one && self.at_border() {
                break;
            }
        }
        at
    }

    /// Whether a frame may be put in here.
    pub(crate) fn at_border(&self) -> bool {
        self.head_len == 0 && self.payload_left == 0
    }

    /// Whether a Close frame has passed.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    fn begin_payload(&mut self) {
        self.closed |= self.head[0] & 0x0f == 8;
        self.payload_left = match self.head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        };
        self.head_len = 0;
    }
}

fn head_len(second: u8) -> usize {
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + extended + mask
}

/// Why the gateway closes a live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// 1001: the gateway stops.
    GoingAway,
    /// 1001: idle for too long.
    Idle,
    /// 4401: the session has expired.
    Expired,
    /// 4403: the session was revoked, or may not use the route any more.
    Revoked,
    /// 1013: whether the session is valid cannot be known now.
    Unavailable,
}

impl Closing {
    /// The WebSocket close code.
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::GoingAway | Self::Idle => 1001,
            Self::Expired => 4401,
            Self::Revoked => 4403,
            Self::Unavailable => 1013,
        }
    }

    /// What the access line says.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::GoingAway => "going away",
            Self::Idle => "idle timeout",
            Self::Expired => "session expired",
            Self::Revoked => "session revoked",
            Self::Unavailable => "account store away",
        }
    }

    /// A Close frame as a server sends it.
    pub(crate) fn server_frame(self) -> Vec<u8> {
        let payload = self.payload();
        let mut frame = vec![0x88, u8::try_from(payload.len()).unwrap_or(0)];
        frame.extend_from_slice(&payload);
        frame
    }

    /// A Close frame as a client sends it. The mask is zero: masking guards against proxies that
    /// read frames as HTTP, and this payload holds nothing a client chose.
    pub(crate) fn client_frame(self) -> Vec<u8> {
        let payload = self.payload();
        let mut frame = vec![0x88, 0x80 | u8::try_from(payload.len()).unwrap_or(0), 0, 0, 0, 0];
        frame.extend_from_slice(&payload);
        frame
    }

    fn payload(self) -> Vec<u8> {
        [&self.code().to_be_bytes(), self.reason().as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Vec<u8>> {
        let mut medium = vec![0x82, 126, 1, 0];
        medium.extend([7; 256]);
        let mut long = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0];
        long.extend(vec![7; 65536]);
        vec![vec![0x81, 0], vec![0x81, 0x83, 1, 2, 3, 4, 9, 9, 9], medium, long, Closing::Expired.client_frame()]
    }

    #[test]
    fn borders_are_found_however_the_stream_is_cut() {
        let whole: Vec<u8> = frames().concat();
        let mut borders = vec![0];
        for frame in frames() {
            borders.push(borders.last().unwrap() + frame.len());
        }
        let mut tracker = FrameTracker::default();
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(tracker.at_border(), borders.contains(&at), "{at}");
            assert!(!tracker.closed() || at > borders[4]);
            tracker.feed(&[*byte]);
        }
        assert!(tracker.at_border());
        assert!(tracker.closed());
        let mut at_once = FrameTracker::default();
        at_once.feed(&whole);
        assert!(at_once.at_border());
        assert!(at_once.closed());
    }

    #[test]
    fn one_frame_can_be_taken_to_its_end() {
        let whole: Vec<u8> = frames().concat();
        for cut in 1..frames()[2].len() {
            let start = 2 + 9;
            let mut tracker = FrameTracker::default();
            tracker.feed(&whole[..start + cut]);
            assert_eq!(tracker.feed_frame(&whole[start + cut..]), frames()[2].len() - cut);
            assert!(tracker.at_border());
            assert!(!tracker.closed());
        }
    }

    #[test]
    fn close_frames_carry_code_and_reason() {
        assert_eq!(Closing::Revoked.server_frame(), [&[0x88, 17, 0x11, 0x33][..], b"session revoked"].concat());
        assert_eq!(Closing::GoingAway.client_frame(), [&[0x88, 0x8c, 0, 0, 0, 0, 3, 0xe9][..], b"going away"].concat());
    }
}
