//! One client connection: the socket under actix-http's parser, and what the rest of the front must know about it.
//!
//! Owns noticing that a client has left while its request waits, handing the parser one request at a time
//! (`request_boundary.rs`), ending idle connections when the server drains, and swapping the parser's bare error replies for JSON
//! (`protocol_error.rs`). Parsing stays actix-http's.
//! Runs in the front's event loop; a connection's state is shared by its socket wrapper and its requests through `Rc`.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{ready, Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};

use super::{parse_error, request_boundary::Framing};

/// Bytes kept of what a client sent before its request is understood, to name the fault if it never is.
const KEPT_HEAD: usize = 72 * 1024;

/// Bytes of later requests that are kept while one is answered; what is beyond waits in the kernel.
const MAX_HELD: usize = 64 * 1024;

/// What the parser writes for `Expect: 100-continue` before a request is answered.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The end of a head, for a request whose head does not say that it has no body.
const NO_BODY: &[u8] = b"Content-Length: 0\r\n\r\n";

/// A refused client may go on sending for so long before its connection is cut.
const LINGER: Duration = Duration::from_secs(2);

/// What is known about a connection.
#[derive(Default)]
pub struct Connection {
    /// Requests whose reply has not been handed to the parser yet.
    open_requests: Cell<u32>,
    /// A request head went to the parser whose request has not been answered yet; the next one has to wait.
    unanswered: Cell<bool>,
    /// What came after that request waits for its answer.
    withheld: Cell<bool>,
    /// The parser has all of the current request.
    complete: Cell<bool>,
    /// Since when the rest of a body is awaited whose request has been answered already.
    unwanted_since: Cell<Option<Instant>>,
    /// The client closed its sending side.
    client_left: Cell<bool>,
    left: Notify,
    /// The server was finishing already when it was accepted, or before its request had come.
    late: Cell<bool>,
    /// No further request is wanted: the next read at rest reports the end of the stream.
    ending: Cell<bool>,
    /// The reply of the open request is the last one; what the client still sends is dropped.
    last_request: Cell<bool>,
    /// The last reply announced the end of the connection; nothing may follow it.
    closing: Cell<bool>,
    /// Nothing of the last reply has been written yet.
    reply_due: Cell<bool>,
    /// The last reply's body ends like a head does, so the end of what is written says nothing.
    ambiguous_end: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    /// Since when a request head is being waited for; `None` while a request is open or the connection is idle.
    head_since: Cell<Option<Instant>>,
    /// The head did not come in time: the next read answers 408 and reports the end of the stream.
    expired: Cell<bool>,
    /// Since when what a refused client still sends is read and dropped.
    lingering_since: Cell<Option<Instant>>,
    /// Since when the client has not taken any bytes that wait for it.
    stalled_since: Cell<Option<Instant>>,
    /// Bytes read since the last request began.
    seen: RefCell<Vec<u8>>,
}

impl Connection {
    /// A connection that was just accepted: its first request head is due.
    pub fn new(late: bool) -> Rc<Self> {
        let connection = Self::default();
        connection.head_since.set(Some(Instant::now()));
        connection.late.set(late);
        Rc::new(connection)
    }

    /// Looks for a client that takes too long. A late request head is answered 408 by the connection itself; true means
    /// that the client does not read, and the connection has to be cut.
    pub fn has_stalled(&self, now: Instant, patience: Duration) -> bool {
        let over = |since: Option<Instant>| since.is_some_and(|since| now.duration_since(since) > patience);
        if over(self.head_since.get()) && !self.expired.replace(true) {
            self.wake_reader();
        }
        let lingers = [self.lingering_since.get(), self.unwanted_since.get()]
            .into_iter()
            .any(|since| since.is_some_and(|since| now.duration_since(since) > LINGER));
        lingers || over(self.stalled_since.get())
    }

    /// The client has closed its sending side.
    fn leave(&self) {
        self.client_left.set(true);
        self.left.notify_waiters();
    }

    fn wait_for_reading(&self, cx: &Context<'_>) {
        let mut reader = self.reader.borrow_mut();
        if !reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
    }

    fn wake_reader(&self) {
        if let Some(reader) = self.reader.borrow_mut().take() {
            reader.wake();
        }
    }

    /// Counts a request for as long as the guard lives.
    pub fn begin_request(self: &Rc<Self>) -> OpenRequest {
        self.open_requests.set(self.open_requests.get() + 1);
        self.head_since.set(None);
        let mut seen = self.seen.borrow_mut();
        if seen.capacity() > 4096 {
            *seen = Vec::new();
        }
        seen.clear();
        OpenRequest(self.clone())
    }

    /// True if the server was finishing already before its request had come: it gets the truth about health, and no
    /// scoring.
    pub fn is_late(&self) -> bool {
        self.late.get()
    }

    /// True once the client has closed its sending side.
    pub fn has_left(&self) -> bool {
        self.client_left.get()
    }

    /// Resolves when the client has closed its sending side. A client that only half-closed may still read a reply.
    pub async fn client_left(&self) {
        while !self.client_left.get() {
            self.left.notified().await;
        }
    }

    /// Ends the connection as soon as no request is open: at once if it is idle, else after the reply. One that owes its
    /// first request, or has sent a part of one, is late: the client could not know, and has to hear why.
    pub fn end(&self) {
        if self.head_since.get().is_some() {
            self.late.set(true);
        } else {
            self.ending.set(true);
            self.wake_reader();
        }
    }

    /// Closes the connection after the reply to the open request, but not before the client could read it: unlike
    /// [`Connection::end`] this leaves reading to the parser, which drops the rest of a body that nobody wants.
    pub fn close_after_reply(&self) {
        self.last_request.set(true);
    }

    /// The same for a request that is refused: what the client still sends is dropped for a moment only.
    pub fn refuse(&self) {
        self.close_after_reply();
        self.lingering_since.set(Some(Instant::now()));
    }

    /// True if the reply being made must announce the end of the connection.
    pub fn is_ending(&self) -> bool {
        self.ending.get() || self.last_request.get()
    }

    /// True while the client has not taken everything that was written.
    pub fn has_unread(&self) -> bool {
        self.stalled_since.get().is_some()
    }

    /// Notes what the parser is about to write.
    pub fn note_reply(&self, closing: bool, body: &[u8]) {
        self.closing.set(closing);
        self.reply_due.set(true);
        self.ambiguous_end.set(body.ends_with(b"\r\n\r\n"));
    }

    /// Keeps the time since when a client has not taken what is written.
    fn note_progress(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending if self.stalled_since.get().is_none() => self.stalled_since.set(Some(Instant::now())),
            Poll::Pending => {}
            Poll::Ready(_) => self.stalled_since.set(None),
        }
        polled
    }

    fn remember(&self, bytes: &[u8]) {
        if self.open_requests.get() > 0 {
            return;
        }
        if self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
        let mut seen = self.seen.borrow_mut();
        let room = KEPT_HEAD.saturating_sub(seen.len()).min(bytes.len());
        seen.extend_from_slice(&bytes[..room]);
    }
}

/// A request that is being answered.
pub struct OpenRequest(Rc<Connection>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.open_requests.set(connection.open_requests.get() - 1);
        connection.unanswered.set(false);
        if !connection.complete.get() {
            connection.unwanted_since.set(Some(Instant::now()));
        }
        if connection.withheld.take() {
            connection.wake_reader();
        }
    }
}

/// The socket as actix-http sees it.
pub struct ClientSocket {
    stream: TcpStream,
    connection: Rc<Connection>,
    framing: Framing,
    /// What the client has sent beyond the request that the parser has.
    held: BytesMut,
    /// Bytes accepted from the parser but not written yet: only ever a rewritten error reply and what precedes it.
    rewritten: Bytes,
    /// A request was refused while more of it may be on its way.
    refused: bool,
    /// The last write took only a part: what comes next continues it and is not the start of a reply.
    mid_write: bool,
}

impl ClientSocket {
    /// Wraps an accepted socket.
    pub fn new(stream: TcpStream, connection: Rc<Connection>) -> Self {
        Self {
            stream,
            connection,
            framing: Framing::default(),
            held: BytesMut::new(),
            rewritten: Bytes::new(),
            refused: false,
            mid_write: false,
        }
    }

    /// The state shared with the requests of this connection.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Reads from the socket what belongs to the current request.
    fn poll_fresh(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_pending() {
            self.connection.wait_for_reading(cx);
        }
        ready!(polled)?;
        let read = buf.filled().len() - before;
        if read == 0 {
            self.connection.leave();
            return Poll::Ready(Ok(()));
        }
        let used = self.note_bytes(&buf.filled()[before..]);
        if used < read {
            self.held.extend_from_slice(&buf.filled()[before + used..]);
            buf.set_filled(before + used);
        }
        self.add_length(buf);
        Poll::Ready(Ok(()))
    }

    /// Tells the parser that a request has no body, where it would insist on a length. `buf` ends where the request does.
    /// In the odd case that its last line comes in two reads, or fills the buffer, it is refused after all.
    fn add_length(&self, buf: &mut ReadBuf<'_>) {
        if self.framing.lacks_length() && buf.filled().ends_with(b"\r\n") && buf.remaining() >= NO_BODY.len() {
            buf.set_filled(buf.filled().len() - b"\r\n".len());
            buf.put_slice(NO_BODY);
        }
    }

    /// Reads on while the parser may not have more, to notice a client that leaves.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0u8; 4096];
        while self.held.len() < MAX_HELD {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.connection.leave();
                    if self.held.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    break;
                }
                Poll::Ready(Ok(())) => self.held.extend_from_slice(buffer.filled()),
            }
        }
        self.connection.withheld.set(!self.held.is_empty());
        self.connection.wait_for_reading(cx);
        Poll::Pending
    }

    /// Takes note of bytes for the parser; returns how many of them it may have.
    fn note_bytes(&mut self, bytes: &[u8]) -> usize {
        let connection = &self.connection;
        let head_was_open = self.framing.is_in_head();
        let used = self.framing.advance(bytes);
        if head_was_open {
            connection.remember(&bytes[..used]);
            connection.unanswered.set(!self.framing.is_in_head());
        }
        if self.framing.is_complete() {
            connection.complete.set(true);
            connection.unwanted_since.set(None);
        }
        used
    }

    /// True if the client is about to be told to send a body, and at once that the connection ends without it: then the
    /// final reply comes alone, and the body need not be sent (RFC 9110 section 10.1.1).
    fn asks_in_vain(&self, out: &[u8]) -> bool {
        let begins = self.connection.reply_due.take();
        begins && self.connection.closing.get() && out.len() > CONTINUE.len() && out.starts_with(CONTINUE)
    }

    /// The reply to what is no request. It has no line in the log of requests, so the fault is logged (contract section 18).
    fn refusal(&self, status: u16) -> Vec<u8> {
        let (status, message) = parse_error::explain(status, &self.connection.seen.borrow());
        let ip = self.stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |peer| peer.ip().to_string());
        log::warn!(target: "azmlinfsrv.front", "Invalid request from ip={ip}: {message}");
        parse_error::reply(status, &message)
    }

    /// What to write instead of `out`, if it ends in a bare error of the parser.
    fn rewrite(&self, out: &[u8]) -> Option<Bytes> {
        if self.mid_write || self.connection.ambiguous_end.get() {
            return None;
        }
        let bare = parse_error::find(out)?;
        let mut whole = out[..bare.at].to_vec();
        if !self.connection.closing.get() {
            whole.extend_from_slice(&self.refusal(bare.status));
        }
        Some(whole.into())
    }

    /// Says that nothing more comes, then reads what a refused client still sends: closing with unread bytes would reset the connection, and the client
    /// would not see why it was refused. Ends with the client's end, or when the front's watch cuts the connection.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.lingering_since.get().is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.connection.lingering_since.set(Some(Instant::now()));
        }
        let mut scratch = [0u8; 16 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_rewritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rewritten.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_write(cx, &self.rewritten);
            let written = ready!(self.connection.note_progress(polled))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rewritten.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = self.connection.clone();
        if connection.open_requests.get() == 0 {
            if connection.expired.get() && connection.head_since.take().is_some() {
                self.rewritten = self.refusal(408).into();
                return Poll::Ready(Ok(()));
            }
            // One that was refused in the middle of its body lingers, as at any other time.
            if connection.ending.get() && connection.lingering_since.get().is_none() {
                return Poll::Ready(Ok(()));
            }
        }
        let this = self.get_mut();
        if this.framing.is_complete() && connection.unanswered.get() {
            return this.poll_hold(cx);
        }
        if this.framing.is_complete() {
            this.framing.start_next();
            connection.complete.set(false);
        }
        if !this.held.is_empty() {
            let mut held = std::mem::take(&mut this.held);
            let used = this.note_bytes(&held[..held.len().min(buf.remaining())]);
            buf.put_slice(&held.split_to(used));
            this.held = held;
            this.add_length(buf);
            return Poll::Ready(Ok(()));
        }
        this.poll_fresh(cx, buf)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_rewritten(cx))?;
        if self.refused {
            ready!(self.poll_linger(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        if self.asks_in_vain(buf) {
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        if let Some(whole) = self.rewrite(buf) {
            self.rewritten = whole;
            self.refused = true;
            // All of `buf` has been taken over, but its last byte is only reported as written after lingering: the
            // parser drops the connection as soon as it has nothing more to write.
            return match self.poll_rewritten(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(buf.len() - 1)),
            };
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        let written = ready!(self.connection.note_progress(polled))?;
        self.mid_write = written < buf.len();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rewritten(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rewritten(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
