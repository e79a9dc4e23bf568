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

use self::generator::{connection, cut, Dice, Outcome};
use super::{phase::Phase, socket::ClientStream, After, ClientSocket, Connection};
use crate::telemetry::recorder::Recorder;

mod generator;

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
