//! Detects passwords that are long but easy to guess: sequences, repeats, keyboard rows, strings of common words.
//! Each such piece is rated in bits of guessing work, and the cheapest way to split a password counts.

use std::collections::HashSet;
use std::sync::LazyLock;

use zeroize::Zeroizing;

/// A password of which two thirds are such pieces must need at least this many bits.
const BITS_MIN: f32 = 40.0;
const WORD_BITS: f32 = 10.0;
const COMMON_BITS: f32 = 12.0;
/// Longest block that is checked for repetition, characters.
const BLOCK_CHARS_MAX: usize = 16;
const WORD_CHARS_MAX: usize = 32;
/// Minimum lengths of sequences and keyboard rows, characters.
const SEQUENCE_CHARS_MIN: usize = 3;
const ROW_CHARS_MIN: usize = 4;

/// Passwords that attackers try first, lower case, eight characters and more. From the list that Django ships
/// (`common-passwords.txt.gz`, by Royce Williams, BSD licence).
static COMMON: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// Common building blocks of passwords, and well-known phrases from articles about passwords.
static WORDS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("common_words.txt").split_whitespace().collect());

/// Keyboard walks.
const ROWS: [&str; 12] = [
    "1234567890",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "asdfghjkl;'",
    "zxcvbnm,./",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "zaq1xsw2cde3vfr4bgt5nhy6mju7",
    "!@#$%^&*()_+",
];

/// Whether a lower-case password is easy to guess.
pub(crate) fn is_guessable(lower: &str) -> bool {
    let chars: Zeroizing<Vec<char>> = Zeroizing::new(lower.chars().collect());
    let plain: Zeroizing<Vec<char>> = Zeroizing::new(chars.iter().map(|c| unmasked(*c)).collect());
    let cost = cheapest(&chars, &plain, true);
    cost.bits < BITS_MIN && cost.known * 3 >= chars.len() * 2 && !chars.is_empty()
}

/// The letter that a digit or symbol replaces, as in `p4$$w0rd`.
fn unmasked(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        c => c,
    }
}

#[derive(Clone, Copy)]
struct Cost {
    bits: f32,
    /// Characters covered by guessable pieces.
    known: usize,
}

/// The cheapest composition of the text from such pieces and single characters.
fn cheapest(chars: &[char], plain: &[char], with_repeats: bool) -> Cost {
    let mut best = vec![Cost { bits: f32::INFINITY, known: 0 }; chars.len() + 1];
    best[0] = Cost { bits: 0.0, known: 0 };
    let mut offer = |from: usize, to: usize, bits: f32, known: usize| {
        let (bits, known) = (best[from].bits + bits, best[from].known + known);
        if bits < best[to].bits {
            best[to] = Cost { bits, known };
        }
    };
    for at in 0..chars.len() {
        let is_join = matches!(chars[at], ' ' | '-' | '_' | '.');
        offer(at, at + 1, single(chars[at]), usize::from(is_join));
        let run = sequence(&chars[at..]);
        if run >= SEQUENCE_CHARS_MIN {
            offer(at, at + run, 5.0 + log2(run), run);
        }
        let run = row(&chars[at..]);
        if run >= ROW_CHARS_MIN {
            offer(at, at + run, 7.0 + log2(run), run);
        }
        if is_year(&chars[at..]) {
            offer(at, at + 4, 6.0, 4);
        }
        words(&chars[at..], &plain[at..], |length, bits| offer(at, at + length, bits, length));
        if with_repeats {
            repeats(&chars[at..], &plain[at..], |length, bits| offer(at, at + length, bits, length));
        }
    }
    best[chars.len()]
}

fn single(c: char) -> f32 {
    match c {
        '0'..='9' => 3.3,
        ' ' | '-' | '_' | '.' => 2.0,
        'a'..='z' => 4.7,
        _ => 6.0,
    }
}

#[allow(clippy::cast_precision_loss, reason = "256 characters at most")]
fn log2(count: usize) -> f32 {
    (count.max(1) as f32).log2()
}

/// Length of the ascending or descending sequence at the start; 9 is followed by 0, z by a.
fn sequence(chars: &[char]) -> usize {
    let step = |from: char, to: char| match (from, to) {
        ('9', '0') | ('z', 'a') => 1,
        ('0', '9') | ('a', 'z') => -1,
        (from, to) if from.is_alphanumeric() && to.is_alphanumeric() => {
            i64::from(u32::from(to)) - i64::from(u32::from(from))
        }
        _ => 0,
    };
    let mut pairs = chars.windows(2).map(|pair| step(pair[0], pair[1]));
    let Some(first @ (1 | -1)) = pairs.next() else { return 1 };
    2 + pairs.take_while(|next| *next == first).count()
}

/// Length of the keyboard row at the start, in either direction.
fn row(chars: &[char]) -> usize {
    let along = |row: &str| {
        let keys: Vec<char> = row.chars().collect();
        let walk = |forward: bool| {
            let Some(start) = keys.iter().position(|key| Some(key) == chars.first()) else { return 0 };
            let next = |step: usize| if forward { start.checked_add(step) } else { start.checked_sub(step) };
            (0..chars.len()).take_while(|&step| next(step).and_then(|at| keys.get(at)) == Some(&chars[step])).count()
        };
        walk(true).max(walk(false))
    };
    ROWS.iter().map(|row| along(row)).max().unwrap_or(0)
}

fn is_year(chars: &[char]) -> bool {
    matches!(chars, ['1', '9', a, b, ..] | ['2', '0', a, b, ..] if a.is_ascii_digit() && b.is_ascii_digit())
}

/// Common passwords and words at the start, literally or with substituted characters.
fn words(chars: &[char], plain: &[char], mut found: impl FnMut(usize, f32)) {
    let mut typed = Zeroizing::new(String::with_capacity(4 * WORD_CHARS_MAX));
    let mut meant = Zeroizing::new(String::with_capacity(4 * WORD_CHARS_MAX));
    for (at, (c, p)) in chars.iter().zip(plain).enumerate().take(WORD_CHARS_MAX) {
        typed.push(*c);
        meant.push(*p);
        for (word, more) in [(typed.as_str(), 0.0), (meant.as_str(), 1.0)] {
            if COMMON.contains(word) {
                found(at + 1, COMMON_BITS + more);
            }
            if WORDS.contains(word) {
                found(at + 1, WORD_BITS + more);
            }
        }
    }
}

/// A block at the start that repeats immediately, with its cost.
fn repeats(chars: &[char], plain: &[char], mut found: impl FnMut(usize, f32)) {
    for length in 1..=BLOCK_CHARS_MAX.min(chars.len() / 2) {
        let block = &chars[..length];
        let times = chars.chunks_exact(length).take_while(|again| *again == block).count();
        if times >= 2 && length * times >= SEQUENCE_CHARS_MIN {
            let once = cheapest(block, &plain[..length], false).bits;
            found(length * times, once + log2(times) + 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_guessable_passwords_are_detected() {
        for password in [
            "123456789012345",
            "987654321098765",
            "abcdefghijklmnop",
            "zyxwvutsrqponmlk",
            "123123123123123",
            "aaaaaaaaaaaaaaa",
            "xyxyxyxyxyxyxyxy",
            "qwertyuiop123456",
            "poiuytrewqlkjhgf",
            "qwertzuiopasdfgh",
            "1qaz2wsx3edc4rfv",
            "1q2w3e4r5t6y7u8i",
            "!@#$%^&*()_+!@#$",
            "letmeinletmeinletmein",
            "letmein-letmein-letmein",
            "administrator123",
            "administrator2024",
            "correcthorsebatterystaple",
            "passwordpassword",
            "p4ssw0rdp4ssw0rd",
            "welcome2welcome1",
            "iloveyou12345678",
            "password12345678password",
            "admin admin admin",
            "111222333444555",
            "december2025december",
        ] {
            assert!(is_guessable(password), "{password}");
        }
    }

    #[test]
    fn phrases_and_random_passwords_are_not() {
        for password in [
            "correct horse battery staple",
            "staple of a new kind",
            "correct horse battery",
            "a walrus in my garden",
            "rain falls on blue roofs",
            "velvet-anchor-tulip-comet",
            "7 green kites over leeds",
            "gehtderhundheutespazieren",
            "my dog ate 3 homeworks",
            "k7tq9zpm",
            "vx3hm9qb2kr7wd5n",
            "b2yq7cvh1mlw9stz",
            "passw0rd and more",
            "password and a good deal more",
            "пароль от старого дома",
            "水曜日の朝に猫が鳴いた",
            "\u{1f600}\u{1f601}\u{1f603}\u{1f604}\u{1f605}\u{1f606}",
        ] {
            assert!(!is_guessable(password), "{password}");
        }
    }

    /// Random passwords of fifteen letters, and of eight letters and digits, from a fixed seed.
    #[test]
    fn no_random_password_is_rejected() {
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut next = |of: &[u8]| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(of[usize::try_from(state >> 33).unwrap() % of.len()])
        };
        for _ in 0..500 {
            let letters: String = (0..15).map(|_| next(b"abcdefghijklmnopqrstuvwxyz")).collect();
            let mixed: String = (0..8).map(|_| next(b"abcdefghijklmnopqrstuvwxyz0123456789")).collect();
            assert!(!is_guessable(&letters) && !is_guessable(&mixed), "{letters} {mixed}");
        }
    }

    /// A password that is hard to split must not block a thread.
    #[test]
    fn the_longest_passwords_are_checked_too() {
        for text in ["a".repeat(256), "ab".repeat(128), "1q2w3e4r".repeat(32), "letmein".repeat(36)] {
            assert!(is_guessable(&text), "{text}");
        }
        assert!(!is_guessable(&"the quick brown fox went home ".repeat(2)));
        assert!(!is_guessable(""));
    }

    #[test]
    fn the_lists_are_in_lower_case() {
        assert!(COMMON.len() >= 3000);
        assert!(WORDS.len() >= 200);
        assert!(COMMON.iter().all(|word| word.len() >= 8 && *word == word.to_lowercase()));
        assert!(WORDS.iter().all(|word| word.len() >= 3 && *word == word.to_lowercase()));
    }
}
