//! The client's socket as actix-http sees it.
//!
//! The parser gets only what this file has read before and passes on in one form, one request at a
//! time: actix-http applies what it read last (version, method, `Connection`) to the answers that
//! it still owes, so pipelined requests must not reach it together. This file refuses what is not a
//! request with a JSON reply. This file also notices clients that leave while their request waits,
//! and closes connections in a way that lets the last reply arrive. Runs in the front's event loop.
//!
//! One file of more than 400 lines, because reading, refusing and closing change the same state.

use std::{
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{ready, Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    connection::{Check, Connection},
    head::Head,
    parse_error::Refusal,
    phase::Phase,
    request_boundary::{Next, RequestBoundary},
};
use crate::{
    fault_injection::{point, Point},
    telemetry::{
        record::{Outcome, RequestRecord},
        recorder::{Recorder, Recording},
    },
};

/// How many bytes of later requests are read while one is answered. The rest waits in the kernel.
const MAX_HELD: usize = 64 * 1024;
/// What the parser writes for `Expect: 100-continue` before a request is answered.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// An interim response that a client has to skip (RFC 9110 section 15.2).
const PROBE: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// A client's stream of bytes.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// True if the client is known to have reset the connection. Reading cannot tell this after the
    /// end of the stream.
    fn is_reset(&self) -> bool;
}

impl ClientStream for TcpStream {
    fn is_reset(&self) -> bool {
        !matches!(self.take_error(), Ok(None))
    }
}

/// The socket as actix-http sees it.
pub struct ClientSocket<S> {
    stream: S,
    peer: SocketAddr,
    connection: Rc<Connection>,
    boundary: RequestBoundary,
    /// Bytes that the client has sent and `boundary` has not read.
    incoming: BytesMut,
    /// Bytes in the accepted form that the parser has not taken yet.
    accepted: BytesMut,
    /// A refusal or a probe that the client's socket has not taken yet.
    outgoing: Bytes,
    input: Input,
    output: Output,
    recorder: Rc<Recorder>,
    /// The record of what was refused, until the refusal has been written.
    refused: Option<Recording>,
    /// The client awaits `100 Continue`, and nothing has been written since its head came.
    awaits_continue: bool,
}

/// The state of the direction from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// The client has closed its sending side.
    Ended,
    /// The parser gets nothing more, because what the client sent is refused.
    Refused,
}

/// The state of the direction to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// The system has taken everything that the parser wanted to write.
    AtRest,
    /// The last write took only a part, or nothing.
    Midway,
    /// This side has been closed. `lingers`: the client may still be sending.
    Closed { lingers: bool },
}

impl<S: ClientStream> ClientSocket<S> {
    /// Wraps an accepted socket.
    pub fn new(stream: S, peer: SocketAddr, connection: Rc<Connection>, recorder: Rc<Recorder>) -> Self {
        Self {
            stream,
            peer,
            connection,
            boundary: RequestBoundary::default(),
            incoming: BytesMut::new(),
            accepted: BytesMut::new(),
            outgoing: Bytes::new(),
            input: Input::Open,
            output: Output::AtRest,
            recorder,
            refused: None,
            awaits_continue: false,
        }
    }

    /// The state shared with the requests of this connection.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    #[cfg(test)]
    pub(super) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    // ---- From the client

    /// Gives the parser the bytes of the current request that have been accepted.
    fn poll_pass(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.boundary.next() == Next::Nothing && !matches!(self.connection.phase(), Phase::Open(_)) {
            self.boundary.start_next();
        }
        loop {
            if let Err(refusal) = self.pass_incoming(buf) {
                self.refuse(refusal);
                return Poll::Ready(Ok(()));
            }
            if buf.filled().len() > before || self.input != Input::Open {
                return Poll::Ready(Ok(()));
            }
            let polled = match self.boundary.next() {
                Next::ChunkLine => self.poll_incoming(cx),
                Next::Head if !self.incoming.is_empty() => self.poll_incoming(cx),
                _ => self.poll_direct(cx, buf),
            };
            if polled.is_pending() {
                if self.connection.phase() == Phase::IdleOverdue {
                    self.input = Input::Ended;
                    return Poll::Ready(Ok(()));
                }
                self.connection.wait_for_reading(cx);
            }
            if ready!(polled)? == 0 {
                self.input = Input::Ended;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads into the parser's buffer, and leaves there what the parser may get unchanged. That is
    /// all of most requests.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let fresh = &buf.filled()[before..];
        let read = fresh.len();
        let mut passed = 0;
        if self.boundary.next() == Next::Head && read > 0 {
            match self.boundary.read_head(fresh) {
                Ok(Some(mut head)) => {
                    self.begin(&mut head);
                    match head.rewritten {
                        None => passed = head.length,
                        Some(rewritten) => {
                            self.accepted.extend_from_slice(&rewritten);
                            self.incoming.extend_from_slice(&fresh[head.length..]);
                            buf.set_filled(before);
                            return Poll::Ready(Ok(read));
                        }
                    }
                }
                Ok(None) => self.connection.begin_head(),
                Err(refusal) => {
                    buf.set_filled(before);
                    self.refuse(refusal);
                    return Poll::Ready(Ok(read));
                }
            }
        }
        if let Next::Data(left) = self.boundary.next() {
            let data = at_most(left, read - passed);
            self.boundary.pass_data(data as u64);
            passed += data;
        }
        if passed < read {
            self.incoming.extend_from_slice(&buf.filled()[before + passed..]);
            buf.set_filled(before + passed);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads more into `incoming`. Zero bytes are the end of the stream.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [const { MaybeUninit::<u8>::uninit() }; 4096];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        self.incoming.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Moves the bytes of the current request from `incoming` to the parser's buffer.
    fn pass_incoming(&mut self, buf: &mut ReadBuf<'_>) -> Result<(), Refusal> {
        loop {
            let length = self.accepted.len().min(buf.remaining());
            buf.put_slice(&self.accepted[..length]);
            self.accepted.advance(length);
            if !self.accepted.is_empty() || self.incoming.is_empty() {
                return Ok(());
            }
            match self.boundary.next() {
                Next::Head => {
                    let Some(mut head) = self.boundary.read_head(&self.incoming)? else {
                        self.connection.begin_head();
                        return Ok(());
                    };
                    let sent = self.incoming.split_to(head.length);
                    self.begin(&mut head);
                    self.accepted.extend_from_slice(head.rewritten.as_deref().unwrap_or(&sent));
                }
                Next::Data(left) => {
                    let length = at_most(left, self.incoming.len().min(buf.remaining()));
                    if length == 0 {
                        return Ok(());
                    }
                    buf.put_slice(&self.incoming[..length]);
                    self.incoming.advance(length);
                    self.boundary.pass_data(length as u64);
                }
                Next::ChunkLine => {
                    let length = self.boundary.read_chunk_line(&self.incoming, &mut self.accepted)?;
                    self.incoming.advance(length);
                }
                Next::Nothing => return Ok(()),
            }
            if self.incoming.is_empty() {
                // An idle connection must not keep the memory.
                self.incoming = BytesMut::new();
            }
        }
    }

    /// Notes that the parser gets this request.
    fn begin(&mut self, head: &mut Head) {
        self.awaits_continue = head.awaits_continue;
        self.connection.open(head, self.boundary.next() != Next::Nothing);
    }

    /// Refuses what the client sent, and tells the parser that the stream has ended. If a request
    /// is open, the parser then reports an error in its body, and the request's handler replies.
    /// Otherwise the parser closes the connection, and this file writes the reply before that.
    fn refuse(&mut self, refusal: Refusal) {
        self.input = Input::Refused;
        if matches!(self.connection.phase(), Phase::Open(_)) {
            return self.connection.refuse_body(refusal.message);
        }
        self.connection.refuse_head();
        // No request line in the log shows this fault, so log it here (contract section 18).
        let ip = self.peer.ip();
        log::warn!(target: "azmlinfsrv.front", "Invalid request from ip={ip}: {}", refusal.message);
        let body = refusal.body();
        let mut recording = self.recorder.begin(RequestRecord::begin(None, Some(self.peer)));
        recording.outcome = Outcome::Refused(refusal.kind);
        recording.status = Some(refusal.status);
        recording.reply_length = Some(body.len() as u64);
        self.outgoing = refusal.reply(&body).into();
        recording.error = Some(refusal.message);
        recording.answer();
        self.refused = Some(recording);
    }

    /// Continues to read while the parser must not get more, to notice a client that leaves.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.wait_for_reading(cx);
        while self.input == Input::Open && self.incoming.len() < MAX_HELD {
            if ready!(self.poll_incoming(cx))? == 0 {
                self.input = Input::Ended;
                self.connection.half_close();
            }
            point(Point::Connection);
        }
        if let Some(check) = self.connection.take_check() {
            self.check_client(cx, check);
        }
        Poll::Pending
    }

    /// Finds out whether a client that has closed its sending side is still there to read the
    /// reply.
    fn check_client(&mut self, cx: &mut Context<'_>, check: Check) {
        if check == Check::Probe && self.output == Output::AtRest && self.outgoing.is_empty() {
            self.outgoing = Bytes::from_static(PROBE);
        }
        let written = self.poll_outgoing(cx);
        if self.stream.is_reset() || matches!(written, Poll::Ready(Err(_))) {
            self.outgoing = Bytes::new();
            self.connection.lose_client();
        }
    }

    // ---- To the client

    /// Writes the refusal or probe in `outgoing`.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_write(cx, &self.outgoing);
            let written = ready!(self.connection.note_progress(polled))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        if let Some(recording) = self.refused.take() {
            recording.complete();
        }
        Poll::Ready(Ok(()))
    }

    /// Closes the sending side, then reads and drops what the client still sends.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.output, Output::Closed { .. }) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.connection.close();
            let lingers = self.input == Input::Refused
                || !self.incoming.is_empty()
                || !matches!(self.boundary.next(), Next::Nothing | Next::Head);
            self.output = Output::Closed { lingers };
            self.incoming = BytesMut::new();
        }
        loop {
            let polled = self.poll_incoming(cx);
            if polled.is_pending() && self.output == (Output::Closed { lingers: false }) {
                return Poll::Ready(Ok(()));
            }
            // A reset by the client ends the wait as well.
            if !matches!(ready!(polled), Ok(1..)) {
                return Poll::Ready(Ok(()));
            }
            self.incoming.clear();
            self.output = Output::Closed { lingers: true };
        }
    }
}

/// `left`, but no more than `available`.
fn at_most(left: u64, available: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(available)
}

impl<S: ClientStream> AsyncRead for ClientSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.connection.phase() {
            Phase::HeadOverdue => {
                this.refuse(Refusal::late_head());
                Poll::Ready(Ok(()))
            }
            Phase::Refused => Poll::Ready(Ok(())),
            Phase::Closing { .. } => this.poll_linger(cx),
            _ if this.input == Input::Refused => Poll::Ready(Ok(())),
            Phase::Answered(_) => this.poll_wait(cx),
            Phase::Open(_) if this.boundary.next() == Next::Nothing && this.accepted.is_empty() => this.poll_wait(cx),
            Phase::Open(_) | Phase::Head { .. } | Phase::Idle { .. } | Phase::IdleOverdue => this.poll_pass(cx, buf),
        }
    }
}

impl<S: ClientStream> AsyncWrite for ClientSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A refusal must wait until the parser has written the earlier replies.
        if this.connection.phase() != Phase::Refused {
            ready!(this.poll_outgoing(cx))?;
        }
        // The final reply follows in the same buffer, so drop the `100 Continue` (RFC 9110 section
        // 10.1.1).
        if std::mem::take(&mut this.awaits_continue) && buf.len() > CONTINUE.len() && buf.starts_with(CONTINUE) {
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        this.output = Output::Midway;
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        let written = ready!(this.connection.note_progress(polled))?;
        if written == buf.len() {
            this.output = Output::AtRest;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        if this.connection.take_forgotten() {
            cx.waker().wake_by_ref();
        }
        let was_answered = matches!(this.connection.phase(), Phase::Answered(_));
        if this.connection.note_flushed() || (was_answered && (!this.incoming.is_empty() || this.input == Input::Ended))
        {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_outgoing(cx))?;
        this.poll_linger(cx)
    }
}
