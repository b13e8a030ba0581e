//! The server's proof in a WebSocket handshake.

/// `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key` (RFC 6455, 4.2.2); `None` if the key is not 16 bytes in
/// base64 (4.1).
pub fn accept(key: &[u8]) -> Option<String> {
    data_encoding::BASE64.decode(key).ok().filter(|bytes| bytes.len() == 16)?;
    let mut sha1 = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    Some(data_encoding::BASE64.encode(sha1.finish().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455, 1.3.
    #[test]
    fn the_example_of_the_rfc_is_accepted_and_what_is_no_key_is_not() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ==").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for key in [&b""[..], b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25j", b"not base64 at all!!!!!!!"] {
            assert_eq!(accept(key), None);
        }
    }
}
