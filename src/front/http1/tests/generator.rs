//! Generated connections: the bytes that clients send, and what has to become of each request.

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The handler got it, with this body.
    Served { method: String, body: Vec<u8> },
    /// The handler got it, and its body failed.
    BadBody,
    /// The socket refused it with this status.
    Refused(u16),
}

/// Numbers that look random and are the same each time (xorshift64*).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits") % limit
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

const EXTENSIONS: [&str; 6] = [";a", ";a=b", "; a = \"b;c\"", " ;a;b", "\t", ";\x7e=\u{fc}"];
const TRAILERS: [&str; 5] =
    ["X: y\r\n", "X:\r\n", "Content-Length: 7\r\n", "Transfer-Encoding: x\r\n", "a!b:\tc \u{fc}\r\n"];
const BAD_SIZES: [&str; 12] = [
    "x\r\n",
    "\r\n",
    "-1\r\n",
    "+1\r\n",
    "0x5\r\n",
    " 5\r\n",
    "5 5\r\n",
    "5\n",
    "5\r\r\n",
    "5;a\n",
    "5;\0\r\n",
    "fffffffffffffffff\r\n",
];
const BAD_TRAILERS: [&str; 8] = [
    "X\r\n\r\n",
    ": y\r\n\r\n",
    "X : y\r\n\r\n",
    " X: y\r\n\r\n",
    "X: y\r\n z\r\n\r\n",
    "X: y\n\r\n",
    "X: \0\r\n\r\n",
    "\n",
];
const BAD_FIELDS: [(&str, u16); 16] = [
    ("Content-Length: +5", 400),
    ("Content-Length: 5,5", 400),
    ("Content-Length: 5\r\nContent-Length: 5", 400),
    ("Content-Length : 5", 400),
    ("Content-Length: 5\r\n 6", 400),
    ("Content-Length: 5\nX: y", 400),
    ("Content-Length: 99999999999999999999", 400),
    ("Transfer-Encoding: gzip, chunked", 501),
    ("Transfer-Encoding: chunked, chunked", 400),
    ("Transfer-Encoding: identity", 400),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    ("Transfer-Encoding : chunked", 400),
    ("X: a\0b", 400),
    ("X: a\rb", 400),
    ("Host: b", 400),
];

/// A request, what comes of it, and whether another may follow.
fn request(dice: &mut Dice) -> (Vec<u8>, Outcome, bool) {
    let length = [0, 1, 5, 40, 3000][dice.below(5)];
    let body: Vec<u8> = (0..length).map(|_| b"abc\r\n0;:"[dice.below(8)]).collect();
    let is_1_0 = dice.one_in(8);
    let mut fields = vec!["Host: a".to_owned(); usize::from(!is_1_0 || dice.one_in(2))];
    fields.extend((0..dice.below(4)).map(|number| format!("X-{number}: {}", "v".repeat(dice.below(300)))));
    let mut persists = !is_1_0;
    if dice.one_in(6) {
        let wish = dice.pick(&["close", "keep-alive", "x, Close", "Upgrade"]);
        persists = wish == "keep-alive";
        fields.push(format!("Connection: {wish}"));
    }
    let target = dice.pick(&["/score", "/", "http://b:81/score?x", "/score?a#b", "*"]);
    let mut method = dice.pick(&["POST", "POST", "GET", "HEAD", "PUT", "OPTIONS"]);
    let (mut coded, mut is_bad) = (Vec::new(), false);
    match dice.below(3) {
        0 if !is_1_0 => {
            fields.push(dice.pick(&["Transfer-Encoding: chunked", "transfer-encoding:Chunked"]).to_owned());
            (coded, is_bad) = chunks(dice, &body);
        }
        1 if body.is_empty() && dice.one_in(3) => {
            method = "CONNECT";
            persists = false;
        }
        1 if body.is_empty() => {}
        _ => {
            fields.push(format!("Content-Length: {}{length}", dice.pick(&["", "0", "  000"])));
            coded.clone_from(&body);
        }
    }
    let mut outcome = match is_bad {
        true => Outcome::BadBody,
        false => Outcome::Served { method: method.to_owned(), body },
    };
    if dice.one_in(12) {
        let (field, status) = BAD_FIELDS[dice.below(BAD_FIELDS.len())];
        // Alone, because together with the fields above it would be another fault.
        fields = vec!["Host: a".to_owned(), field.to_owned()];
        let version = if is_1_0 && !field.starts_with("Transfer") { "1.0" } else { "1.1" };
        let head = format!("{method} /score HTTP/{version}\r\n{}\r\n\r\n", fields.join("\r\n"));
        return (head.into_bytes(), Outcome::Refused(status), false);
    }
    if method == "CONNECT" {
        outcome = Outcome::Served { method: "CONNECT".to_owned(), body: Vec::new() };
    }
    let blank = if dice.one_in(10) { "\r\n\r\n" } else { "" };
    let target = if method == "CONNECT" { "a:1" } else { target };
    let first = dice.below(fields.len() + 1);
    fields.rotate_left(first);
    let version = if is_1_0 { "1.0" } else { "1.1" };
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let mut sent = format!("{blank}{method} {target} HTTP/{version}\r\n{lines}\r\n").into_bytes();
    sent.extend_from_slice(&coded);
    (sent, outcome, persists && !is_bad)
}

/// `body` in chunks, some of them in an unusual form, and whether the coding is broken.
fn chunks(dice: &mut Dice, body: &[u8]) -> (Vec<u8>, bool) {
    let mut coded = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        if dice.one_in(40) {
            coded.extend_from_slice(dice.pick(&BAD_SIZES).as_bytes());
            return (coded, true);
        }
        let size = 1 + dice.below(rest.len());
        let digits = if dice.one_in(3) { format!("{size:X}") } else { format!("{size:x}") };
        let zeros = if dice.one_in(4) { "000" } else { "" };
        let extension = if dice.one_in(3) { dice.pick(&EXTENSIONS) } else { "" };
        coded.extend_from_slice(format!("{zeros}{digits}{extension}\r\n").as_bytes());
        coded.extend_from_slice(&rest[..size]);
        if dice.one_in(60) {
            coded.extend_from_slice(b"X\r\n");
            return (coded, true);
        }
        coded.extend_from_slice(b"\r\n");
        rest = &rest[size..];
    }
    coded.extend_from_slice(format!("{}{}\r\n", dice.pick(&["0", "000"]), dice.pick(&["", "", ";a=b"])).as_bytes());
    for _ in 0..[0, 0, 1, 3][dice.below(4)] {
        coded.extend_from_slice(dice.pick(&TRAILERS).as_bytes());
    }
    if dice.one_in(10) {
        coded.extend_from_slice(dice.pick(&BAD_TRAILERS).as_bytes());
        return (coded, true);
    }
    coded.extend_from_slice(b"\r\n");
    (coded, false)
}

/// Some requests on one connection, and the outcomes of those before the connection ends.
pub(super) fn connection(dice: &mut Dice) -> (Vec<u8>, Vec<Outcome>) {
    let (mut sent, mut expected, mut goes_on) = (Vec::new(), Vec::new(), true);
    for _ in 0..1 + dice.below(4) {
        let (bytes, outcome, persists) = request(dice);
        sent.extend_from_slice(&bytes);
        if goes_on {
            expected.push(outcome);
        }
        goes_on &= persists;
    }
    (sent, expected)
}

/// `sent` in one piece or in several, some of them a single byte.
pub(super) fn cut(dice: &mut Dice, sent: &[u8]) -> Vec<Vec<u8>> {
    let longest = match dice.below(10) {
        0 => 1,
        1..=4 => 1 + dice.below(50),
        5..=6 => sent.len(),
        _ => return vec![sent.to_vec()],
    };
    let mut pieces = Vec::new();
    let mut rest = sent;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + dice.below(longest)).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = behind;
    }
    pieces
}
