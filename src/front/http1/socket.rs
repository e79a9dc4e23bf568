//! The client's socket as actix-http sees it.
//!
//! The parser gets only what this file has read before and passes on in one form, one request at a time: actix-http
//! applies what it read last (version, method, `Connection`) to the answers that it still owes, so pipelined requests
//! must not reach it together. What is no request is refused here, in JSON. This file also notices clients that leave
//! while their request waits, and closes connections so that the last reply arrives. Runs in the front's event loop.

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

/// Bytes of later requests that are kept while one is answered; what is beyond waits in the kernel.
const MAX_HELD: usize = 64 * 1024;
/// What the parser writes for `Expect: 100-continue` before a request is answered.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// An interim response that a client has to skip (RFC 9110 section 15.2).
const PROBE: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// A client's stream of bytes.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// True if the client is known to have reset the connection. Reading does not tell after the end of the stream.
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
    /// What the client has sent and this file has not read.
    incoming: BytesMut,
    /// What this file has made for the parser, which has not taken it yet.
    accepted: BytesMut,
    /// What this file has made for the client, which has not taken it yet: a refusal or a probe.
    outgoing: Bytes,
    input: Input,
    output: Output,
    /// The client awaits `100 Continue`, and nothing has been written since its head came.
    awaits_continue: bool,
}

/// The direction from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// The client has closed its sending side.
    Ended,
    /// The parser gets no more: what came is refused.
    Refused,
}

/// The direction to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// All that the parser wanted to write has been taken over by the system.
    AtRest,
    /// The last write took only a part, or nothing.
    Midway,
    /// This side has been closed. `lingers`: the client may be sending still.
    Closed { lingers: bool },
}

impl<S: ClientStream> ClientSocket<S> {
    /// Wraps an accepted socket.
    pub fn new(stream: S, peer: SocketAddr, connection: Rc<Connection>) -> Self {
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

    /// Hands the parser what it may have of the current request.
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

    /// Reads into the parser's buffer, and leaves there what may pass as it is: all of most requests.
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

    /// Moves to the parser's buffer what `incoming` has of the current request.
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

    /// The parser gets this request.
    fn begin(&mut self, head: &mut Head) {
        self.awaits_continue = head.awaits_continue;
        self.connection.open(head, self.boundary.next() != Next::Nothing);
    }

    /// Refuses what came. The parser is told that the stream has ended. Then it fails the body of an open request,
    /// whose handler replies; or it closes the connection, and the reply is written before that.
    fn refuse(&mut self, refusal: Refusal) {
        self.input = Input::Refused;
        if matches!(self.connection.phase(), Phase::Open(_)) {
            return self.connection.refuse_body(refusal.message);
        }
        self.connection.refuse_head();
        // It has no line in the log of requests, so the fault is logged (contract section 18).
        let ip = self.peer.ip();
        log::warn!(target: "azmlinfsrv.front", "Invalid request from ip={ip}: {}", refusal.message);
        self.outgoing = refusal.reply().into();
    }

    /// Reads on while the parser may not have more, to notice a client that leaves.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.wait_for_reading(cx);
        while self.input == Input::Open && self.incoming.len() < MAX_HELD {
            if ready!(self.poll_incoming(cx))? == 0 {
                self.input = Input::Ended;
                self.connection.half_close();
            }
        }
        if let Some(check) = self.connection.take_check() {
            self.check_client(cx, check);
        }
        Poll::Pending
    }

    /// Finds out whether a client is there that has closed its sending side and waits for a reply.
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

    /// Writes what this file has to say.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_write(cx, &self.outgoing);
            let written = ready!(self.connection.note_progress(polled))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more comes, then reads and drops what the client still sends.
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
            // A reset ends it as well.
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
        // A refusal waits until the parser has written what is before it.
        if this.connection.phase() != Phase::Refused {
            ready!(this.poll_outgoing(cx))?;
        }
        // The final reply is there already: nobody has to be told to continue (RFC 9110 section 10.1.1).
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
