//! The messages of a gRPC call as they pass: a flag, the length in four bytes, then that many (gRPC over HTTP/2). A call
//! can end in its own words only where a message has ended.

/// Bytes in front of a message.
const PREFIX: u8 = 5;

/// How far the message under way has come.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    known: u8,
    left: u32,
}

impl Messages {
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.known < PREFIX {
                // the flag comes first, and is pushed out by the four that follow
                self.left = self.left << 8 | u32::from(byte);
                (self.known, bytes) = (self.known + 1, rest);
            } else {
                let taken = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u32::try_from(taken).unwrap_or(self.left);
                bytes = &bytes[taken..];
            }
            if self.known == PREFIX && self.left == 0 {
                self.known = 0;
            }
        }
    }

    /// Whether no message is under way.
    pub(crate) fn at_border(&self) -> bool {
        self.known == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_border_is_where_a_message_has_ended_however_the_bytes_are_cut() {
        let messages: [&[u8]; 5] = [b"", b"one", b"", &[9; 300], b"another"];
        let (mut all, mut borders) = (Vec::new(), vec![0]);
        for message in messages {
            all.push(1);
            all.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            all.extend_from_slice(message);
            borders.push(all.len());
        }
        for piece in 1..all.len() {
            let (mut followed, mut at) = (Messages::default(), 0);
            assert!(followed.at_border());
            for bytes in all.chunks(piece) {
                followed.feed(bytes);
                at += bytes.len();
                assert_eq!(followed.at_border(), borders.contains(&at), "{at} of {piece}");
            }
        }
    }
}
