//! Generated requests against a model: what [`ClientSocket`] passes on is what was sent, and the
//! parser agrees with it.
//!
//! actix-http's own codec reads what the socket passes on. It must never find a fault of its own,
//! and it must find the same requests with the same bodies that the generator meant.
//! `FUZZ_CASES=100000` makes the run longer.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_codec::Decoder as _;
use actix_http::{
    h1::{Codec, Message, MessageType},
    ServiceConfig,
};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{phase::Phase, socket::ClientStream, After, ClientSocket, Connection};
use crate::telemetry::recorder::Recorder;

/// A client that sends one of `pieces` for each read, and then closes its sending side.
#[derive(Default)]
struct Client {
    pieces: VecDeque<Vec<u8>>,
    pauses: bool,
    received: Vec<u8>,
    closed: bool,
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.pauses) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(piece) = self.pieces.front_mut() else { return Poll::Ready(Ok(())) };
        let length = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..length]);
        piece.drain(..length);
        if piece.is_empty() {
            self.pieces.pop_front();
            self.pauses = !self.pieces.is_empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.received.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        Poll::Ready(Ok(()))
    }
}

impl ClientStream for Client {
    fn is_reset(&self) -> bool {
        false
    }
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The handler got it, with this body.
    Served { method: String, body: Vec<u8> },
    /// The handler got it, and its body failed.
    BadBody,
    /// The socket refused it with this status.
    Refused(u16),
}

/// Plays the parser and a handler that reads every body.
fn serve(pieces: Vec<Vec<u8>>, room: usize) -> Vec<Outcome> {
    let connection = Connection::new(false);
    let client = Client { pieces: pieces.into(), ..Client::default() };
    let mut socket = ClientSocket::new(
        client,
        SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        connection.clone(),
        Recorder::new(Vec::new()),
    );
    let mut cx = Context::from_waker(Waker::noop());
    let mut codec = Codec::new(ServiceConfig::default());
    let (mut unread, mut space) = (BytesMut::new(), vec![0; room]);
    let mut outcomes = Vec::new();
    let mut open: Option<(String, Vec<u8>)> = None;
    loop {
        let mut buf = ReadBuf::new(&mut space);
        let ended = match Pin::new(&mut socket).poll_read(&mut cx, &mut buf) {
            Poll::Pending => false,
            Poll::Ready(read) => {
                read.expect("no error of the stream");
                buf.filled().is_empty()
            }
        };
        unread.extend_from_slice(buf.filled());
        while let Some(message) = codec.decode(&mut unread).expect("the parser agrees") {
            let is_over = match message {
                Message::Item(request) => {
                    assert!(open.is_none(), "a request before the last one was answered");
                    open = Some((request.method().to_string(), Vec::new()));
                    matches!(codec.message_type(), MessageType::None | MessageType::Stream)
                }
                Message::Chunk(Some(part)) => {
                    open.as_mut().expect("a request").1.extend_from_slice(&part);
                    false
                }
                Message::Chunk(None) => true,
            };
            if is_over {
                let (method, body) = open.take().expect("a request");
                outcomes.push(Outcome::Served { method, body });
                answer(&connection, &mut socket, &mut cx);
            }
        }
        if ended || matches!(connection.phase(), Phase::Closing { .. }) {
            assert!(unread.is_empty(), "bytes that belong to no request: {unread:?}");
            break;
        }
    }
    if open.is_some() {
        assert!(connection.take_body_fault().is_some(), "a body ended early");
        outcomes.push(Outcome::BadBody);
    }
    while Pin::new(&mut socket).poll_shutdown(&mut cx).is_pending() {}
    let client = socket.stream_mut();
    assert!(client.closed, "the client sees the end of the stream");
    if let Some(status) = client.received.get(9..12) {
        outcomes.push(Outcome::Refused(std::str::from_utf8(status).expect("digits").parse().expect("a number")));
    }
    outcomes
}

fn answer(connection: &Rc<Connection>, socket: &mut ClientSocket<Client>, cx: &mut Context<'_>) {
    let request = connection.begin_request();
    connection.note_body_read();
    let after = connection.begin_reply();
    drop(request);
    assert_eq!(connection.phase(), Phase::Answered(after));
    assert!(Pin::new(socket).poll_flush(cx).is_ready());
    assert_eq!(matches!(connection.phase(), Phase::Closing { .. }), after == After::Close);
}

/// Numbers that look random and are the same each time (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
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
fn connection(dice: &mut Dice) -> (Vec<u8>, Vec<Outcome>) {
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
fn cut(dice: &mut Dice, sent: &[u8]) -> Vec<Vec<u8>> {
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

#[test]
fn every_request_ends_where_it_was_meant_to() {
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(3000_u64);
    let mut kinds = [0_u64; 3];
    // Needed by the clock of actix-http's codec.
    let runtime = actix_web::rt::System::new();
    for case in 0..cases {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (case + 1));
        let (sent, expected) = connection(&mut dice);
        let room = [64, 1024, 8192][dice.below(3)];
        let found = runtime.block_on(async { serve(cut(&mut dice, &sent), room) });
        assert_eq!(found, expected, "case {case}, {:?}", String::from_utf8_lossy(&sent));
        for outcome in expected {
            kinds[match outcome {
                Outcome::Served { .. } => 0,
                Outcome::BadBody => 1,
                Outcome::Refused(_) => 2,
            }] += 1;
        }
    }
    assert!(kinds.iter().all(|count| *count > cases / 100), "the cases reach everything: {kinds:?}");
}

#[test]
fn a_connection_ends_before_its_next_request_only_if_there_is_none() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for comes in [true, false] {
        let connection = Connection::new(false);
        let client = Client { pieces: [head.to_vec()].into(), ..Client::default() };
        let mut socket = ClientSocket::new(
            client,
            SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            connection.clone(),
            Recorder::new(Vec::new()),
        );
        let mut cx = Context::from_waker(Waker::noop());
        let mut space = [0; 1024];
        let mut buf = ReadBuf::new(&mut space);
        assert!(Pin::new(&mut socket).poll_read(&mut cx, &mut buf).is_ready());
        connection.end();
        answer_keeping(&connection, &mut socket, &mut cx);
        assert_eq!(connection.phase(), Phase::IdleOverdue);
        socket.stream_mut().pieces.extend(comes.then(|| head.to_vec()));
        socket.stream_mut().pauses = !comes;
        let mut buf = ReadBuf::new(&mut space);
        assert!(Pin::new(&mut socket).poll_read(&mut cx, &mut buf).is_ready());
        assert_eq!(buf.filled(), if comes { &head[..] } else { b"" });
    }
}

/// The reply was begun before the server had to finish, so it promised that the connection goes on.
fn answer_keeping(connection: &Rc<Connection>, socket: &mut ClientSocket<Client>, cx: &mut Context<'_>) {
    drop(connection.begin_request());
    assert_eq!(connection.phase(), Phase::Answered(After::Next));
    assert!(Pin::new(socket).poll_flush(cx).is_ready());
}
