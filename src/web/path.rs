//! The normal form of a path (RFC 3986, 6.2.2), and the parts that no path may contain. Paths in other forms are
//! expanded by [`super::readings`] into every interpretation a backend may have; paths are never repaired.

use std::borrow::Cow;

/// A path with only one interpretation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormalPath<'a> {
    raw: &'a str,
    encoded: bool,
}

/// Why a path is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguous {
    /// It does not start with `/`.
    NotAbsolute,
    /// An empty segment (`//`).
    EmptySegment,
    /// A `.` or `..` segment.
    DotSegment,
    /// A byte that is not allowed in a path, or that backends interpret differently (`\`, `;`).
    Byte,
    /// A `%` that is not followed by two hex digits.
    BadEscape,
    /// An escape that hides a letter, a digit, a delimiter, a control character or another escape.
    HiddenByte,
    /// An escape with lower-case hex digits.
    SmallLetters,
    /// Escapes that are not UTF-8, or a character that [`folds_to_delimiter`].
    BadText,
}

impl<'a> NormalPath<'a> {
    /// Checks the path of a request target (without its query).
    pub fn parse(raw: &'a [u8]) -> Result<Self, Ambiguous> {
        if raw.first() != Some(&b'/') {
            return Err(Ambiguous::NotAbsolute);
        }
        let encoded = check_bytes(raw)?;
        let raw = std::str::from_utf8(raw).map_err(|_| Ambiguous::Byte)?;
        check_segments(raw)?;
        Ok(Self { raw, encoded })
    }

    /// A path that [`Self::parse`] has accepted before.
    pub(super) fn again(raw: &'a str) -> Self {
        Self { raw, encoded: raw.contains('%') }
    }

    /// The bytes, as received and as forwarded.
    pub fn as_str(&self) -> &'a str {
        self.raw
    }

    /// The path with its escapes decoded, for matching. Nothing that [`Self::parse`] accepts becomes a delimiter here.
    pub fn decoded(&self) -> Cow<'a, [u8]> {
        if self.encoded {
            percent_encoding::percent_decode_str(self.raw).into()
        } else {
            Cow::Borrowed(self.raw.as_bytes())
        }
    }
}

/// Checks every byte and escape; returns whether there was an escape.
fn check_bytes(raw: &[u8]) -> Result<bool, Ambiguous> {
    let mut encoded = false;
    let mut at = 0;
    while at < raw.len() {
        match raw[at] {
            b'%' => {
                let byte = escape(raw, at).ok_or(Ambiguous::BadEscape)?;
                let nested = byte == b'%' && escape_digits(raw, at + 3);
                if nested || hides_meaning(byte) {
                    return Err(Ambiguous::HiddenByte);
                }
                if !is_canonical(raw, at) {
                    return Err(Ambiguous::SmallLetters);
                }
                encoded = true;
                at += 3 * if byte.is_ascii() { 1 } else { character(raw, at)? };
            }
            b'\\' | b';' | b'#' | b'?' | 0..=0x20 | 0x7f..=0xff => return Err(Ambiguous::Byte),
            _ => at += 1,
        }
    }
    Ok(encoded)
}

/// The byte that an escape encodes: `%` and two hex digits at this position.
pub(super) fn escape(raw: &[u8], at: usize) -> Option<u8> {
    let digit = |offset: usize| raw.get(at + offset).and_then(|&b| char::from(b).to_digit(16));
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

fn escape_digits(raw: &[u8], at: usize) -> bool {
    raw.get(at..at + 2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
}

/// Whether an escape is the canonical encoding of its byte: upper-case hex digits, and a byte that requires escaping
/// (RFC 3986, 6.2.2).
pub(super) fn is_canonical(raw: &[u8], at: usize) -> bool {
    let capitals = raw.get(at + 1..at + 3).is_some_and(|two| !two.iter().any(u8::is_ascii_lowercase));
    capitals && escape(raw, at).is_some_and(|byte| !is_unreserved(byte))
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Escapes that some backends decode before they split segments, and escapes of bytes that need none, which would allow
/// many spellings of one path.
fn hides_meaning(byte: u8) -> bool {
    is_unreserved(byte) || byte.is_ascii_control() || b"/\\;#?".contains(&byte)
}

/// The number of consecutive escapes that encode the character starting here.
fn character(raw: &[u8], at: usize) -> Result<usize, Ambiguous> {
    let mut bytes = [0; 4];
    let length = match escape(raw, at) {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => return Err(Ambiguous::BadText),
    };
    for (place, byte) in bytes[..length].iter_mut().enumerate() {
        let start = at + 3 * place;
        *byte = escape(raw, start).filter(|_| raw[start] == b'%').ok_or(Ambiguous::BadText)?;
        if !is_canonical(raw, start) {
            return Err(Ambiguous::SmallLetters);
        }
    }
    let text = std::str::from_utf8(&bytes[..length]).map_err(|_| Ambiguous::BadText)?;
    if text.chars().any(|c| c.is_control() || folds_to_delimiter(c)) { Err(Ambiguous::BadText) } else { Ok(length) }
}

/// Characters that Unicode compatibility normalization (NFKC) turns into a slash, a backslash or a dot segment: a
/// backend that normalizes a path before it splits segments gets different ones.
pub(super) fn folds_to_delimiter(c: char) -> bool {
    matches!(
        c,
        '\u{2024}'
            | '\u{2025}'
            | '\u{2100}'
            | '\u{2101}'
            | '\u{2105}'
            | '\u{2106}'
            | '\u{fe30}'
            | '\u{fe52}'
            | '\u{fe68}'
            | '\u{ff0e}'
            | '\u{ff0f}'
            | '\u{ff3c}'
    )
}

/// The start of an overlong encoding: a lenient decoder reads C0 AE as `.` (RFC 3629, section 10; CVE-2008-2938,
/// CVE-2000-0884). C0 and C1 occur only in overlong encodings.
pub(super) fn is_overlong(byte: u8, next: Option<u8>) -> bool {
    let next_below = |limit: u8| next.is_some_and(|next| (0x80..limit).contains(&next));
    match byte {
        0xc0 | 0xc1 => true,
        0xe0 => next_below(0xa0),
        0xf0 => next_below(0x90),
        0xf8 => next_below(0x88),
        0xfc => next_below(0x84),
        _ => false,
    }
}

fn check_segments(raw: &str) -> Result<(), Ambiguous> {
    let mut segments = raw[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(Ambiguous::EmptySegment);
        }
        if segment == "." || segment == ".." {
            return Err(Ambiguous::DotSegment);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_escaped_paths_pass_unchanged() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/...",
            "/.hidden",
            "/a..b",
            "/caf%C3%A9",
            "/%E0%A4%A8%F0%9F%98%80",
            "/%EF%BC%9F%E2%80%A6",
            "/a%20b",
            "/100%25",
            "/%25zz",
            "/a+b",
            "/@scope/x",
            "/a:b",
            "/%5Bslug%5D",
            "/a,b=c&d",
            "/(x)",
            "/a'b",
            "/a!*$",
            "/[x]",
            "/{x}|",
        ] {
            assert_eq!(NormalPath::parse(path.as_bytes()).map(|p| p.as_str()), Ok(path));
        }
    }

    #[test]
    fn what_reads_two_ways_is_refused() {
        use Ambiguous::{BadEscape, BadText, Byte, DotSegment, EmptySegment, HiddenByte, NotAbsolute, SmallLetters};
        for (path, why) in [
            ("", NotAbsolute),
            ("admin", NotAbsolute),
            ("*", NotAbsolute),
            ("//", EmptySegment),
            ("//app", EmptySegment),
            ("/a//b", EmptySegment),
            ("/.", DotSegment),
            ("/./app", DotSegment),
            ("/public/../app", DotSegment),
            ("/a/..", DotSegment),
            ("/public/..;/app", Byte),
            ("/a;x", Byte),
            ("/a\\b", Byte),
            ("/a\0b", Byte),
            ("/a b", Byte),
            ("/a\x7f", Byte),
            ("/café", Byte),
            ("/a#b", Byte),
            ("/%", BadEscape),
            ("/%4", BadEscape),
            ("/%zz", BadEscape),
            ("/%u0041", BadEscape),
            ("/%2e%2e/app", HiddenByte),
            ("/%2E", HiddenByte),
            ("/a%2fb", HiddenByte),
            ("/a%5Cb", HiddenByte),
            ("/a%00", HiddenByte),
            ("/a%0d%0ab", HiddenByte),
            ("/a%7f", HiddenByte),
            ("/%61dmin", HiddenByte),
            ("/a%3bx", HiddenByte),
            ("/a%3fx", HiddenByte),
            ("/a%23x", HiddenByte),
            ("/a%252e", HiddenByte),
            ("/a%252fb", HiddenByte),
            ("/%7Euser", HiddenByte),
            ("/%C0%AE%C0%AE/x", BadText),
            ("/%C1%9C", BadText),
            ("/%E0%80%AF", BadText),
            ("/%F0%80%80%AF", BadText),
            ("/%F8%80%80%80%AF", BadText),
            ("/%FC%80%80%80%80%AF", BadText),
            ("/M%FCnchen", BadText),
            ("/caf%C3%a9", SmallLetters),
            ("/%E0%A4%a8", SmallLetters),
            ("/%C3", BadText),
            ("/%C3xA9", BadText),
            ("/%A9", BadText),
            ("/%ED%A0%80", BadText),
            ("/%C2%85", BadText),
            ("/%EF%BC%8F", BadText),
            ("/caf%c3%a9", SmallLetters),
        ] {
            assert_eq!(NormalPath::parse(path.as_bytes()).err(), Some(why), "{path}");
        }
    }

    /// The list comes from Unicode's own data.
    #[test]
    fn characters_that_fold_to_a_delimiter_or_a_dot_segment_are_known() {
        use unicode_normalization::UnicodeNormalization;
        for c in (0x80..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let folded: String = std::iter::once(c).nfkc().collect();
            let delimits = folded.contains(['/', '\\']) || folded == "." || folded == "..";
            assert_eq!(folds_to_delimiter(c), delimits, "{c:?} becomes {folded:?}");
        }
    }

    #[test]
    fn decoding_makes_no_delimiters() {
        let path = NormalPath::parse(b"/%40x/caf%C3%A9").unwrap();
        assert_eq!(path.decoded(), "/@x/café".as_bytes());
    }
}
