//! What one exchange is to be: both ends make it out of its number, so that neither has to tell the other.

/// Sizes at which something changes: nothing, one byte, what is read at once, windows, what is read whole first.
const SIZES: [usize; 12] = [0, 1, 2, 20, 1000, 4096, 16_383, 16_385, 65_535, 65_536, 65_537, 200_000];
const STATUSES: [u16; 8] = [200, 200, 200, 200, 204, 304, 404, 500];

/// SplitMix64: numbers that follow from a seed, and are the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

/// A body, as it is cut and with pauses in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub length: usize,
    /// How long each piece is, and whether the sender rests behind it.
    pub pieces: Vec<(usize, bool)>,
}

/// How an answer in HTTP/1.1 says where it ends; in HTTP/2, whether it says its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    Close,
}

/// When a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    AtTheEnd,
    /// Before it has read the request's body, which it reads to its end all the same.
    Early,
    /// And then it closes or resets.
    EarlyAndLeaves,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    BeforeHead,
    /// Behind so much of the body.
    After(usize),
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub id: u64,
    pub upstream: usize,
    pub method: &'static str,
    pub up: Option<Body>,
    /// The length is said in the head.
    pub up_declared: bool,
    pub up_trailers: bool,
    /// After how much of its body the client goes away.
    pub leaves_up: Option<usize>,
    /// After how much of the answer's.
    pub leaves_down: Option<usize>,
    pub interims: usize,
    pub answers: Answers,
    pub status: u16,
    pub down: Body,
    pub framing: Framing,
    pub down_trailers: bool,
    /// The end comes in a frame of its own.
    pub ends_apart: bool,
    /// Where in its answer the server breaks off.
    pub cut: Option<Cut>,
}

fn body(dice: &mut Dice) -> Body {
    let length = match dice.below(4) {
        0 => SIZES[dice.below(SIZES.len())],
        1 => dice.below(100_000),
        _ => dice.below(3_000),
    };
    let most = [1, 7, 100, 5_000, 16_384, 70_000][dice.below(6)].max(length / 60);
    let (mut left, mut pieces) = (length, Vec::new());
    while left > 0 {
        let piece = left.min(1 + dice.below(most));
        pieces.push((piece, dice.one_in(12)));
        left -= piece;
    }
    Body { length, pieces }
}

impl Plan {
    pub fn new(seed: u64, id: u64) -> Self {
        let mut dice = Dice::new(seed ^ id.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let method = ["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"][dice.below(7)];
        let has_body = matches!(method, "POST" | "PUT") || dice.one_in(10);
        let up = has_body.then(|| body(&mut dice));
        let down = body(&mut dice);
        let fault = dice.below(12);
        let up_length = up.as_ref().map_or(0, |up| up.length);
        let part = |dice: &mut Dice, length: usize| (length > 0).then(|| dice.below(length));
        let leaves_up = (fault == 0).then(|| part(&mut dice, up_length)).flatten();
        let status = STATUSES[dice.below(STATUSES.len())];
        let bodiless = method == "HEAD" || matches!(status, 204 | 304);
        let down_length = if bodiless { 0 } else { down.length };
        let leaves_down = (fault == 1).then(|| part(&mut dice, down_length)).flatten();
        let cut = (fault == 2 || fault == 3).then(|| part(&mut dice, down_length).map_or(Cut::BeforeHead, Cut::After));
        let answers = match dice.below(8) {
            0 if has_body => Answers::Early,
            1 if has_body && dice.one_in(3) => Answers::EarlyAndLeaves,
            _ => Answers::AtTheEnd,
        };
        Self {
            id,
            upstream: dice.below(4),
            method,
            up,
            up_declared: dice.one_in(2),
            up_trailers: dice.one_in(4),
            leaves_up,
            leaves_down,
            interims: if dice.one_in(6) { 1 + dice.below(3) } else { 0 },
            answers,
            status,
            down,
            framing: [Framing::Length, Framing::Chunked, Framing::Close][dice.below(3)],
            down_trailers: dice.one_in(4),
            ends_apart: dice.one_in(2),
            cut,
        }
    }

    pub fn has_no_answer_body(&self) -> bool {
        self.method == "HEAD" || matches!(self.status, 204 | 304)
    }

    /// Neither end does anything that the other one may have to suffer from.
    pub fn is_sound(&self) -> bool {
        let leaves = self.leaves_up.is_some() || self.leaves_down.is_some();
        // a server in HTTP/1.1 that closes with some of the request unread resets what it has sent
        let unread = self.answers != Answers::AtTheEnd && self.framing == Framing::Close && self.upstream != 2;
        !leaves && self.cut.is_none() && self.answers != Answers::EarlyAndLeaves && !unread
    }

    pub fn cut_after(&self) -> Option<usize> {
        if let Some(Cut::After(length)) = self.cut { Some(length) } else { None }
    }

    pub fn path(&self) -> String {
        format!("/{}/{}", self.upstream, self.id)
    }
}

/// A part of the bytes of a body: those of no other exchange, and of no other place in it.
pub fn bytes(id: u64, start: usize, length: usize) -> Vec<u8> {
    let salt = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (start..start + length).map(|at| salt[at % 8] ^ u8::try_from(at % 251).unwrap()).collect()
}

/// Follows a body as it arrives.
#[derive(Debug, Default)]
pub struct Arrived {
    pub length: usize,
    pub wrong: bool,
}

impl Arrived {
    pub fn take(&mut self, id: u64, data: &[u8]) {
        self.wrong |= bytes(id, self.length, data.len()) != data;
        self.length += data.len();
    }

    pub fn is(&self, length: usize) -> bool {
        !self.wrong && self.length == length
    }
}
