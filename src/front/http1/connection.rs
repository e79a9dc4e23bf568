//! The state of one client connection, shared by its socket ([`super::ClientSocket`]) and its
//! requests through `Rc`.
//!
//! Owns the connection's phase, and whether the client is still there. `phase.rs` has the time
//! limits. Runs in the front's event loop.

mod open_request;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

pub use self::open_request::OpenRequest;
use super::{
    head::Head,
    phase::{After, BodyUse, Patience, Phase, Request, Verdict},
    waiter::Waiter,
};
use crate::telemetry::recorder::Recording;

/// How often the socket checks for a reset while the request of a client that has closed its
/// sending side is queued.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The first check comes earlier, because within one machine the answer to a probe comes at once.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// How often the socket sends such a client a probe.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Tells if the server still takes requests on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Serving,
    /// The server is shutting down: the reply to the open request is the last one.
    Ending,
    /// The server was shutting down already when it accepted the connection, or before the request
    /// head had arrived. The server answers the request, because the client could not know, but
    /// does not score it.
    Late,
}

/// Tells if the client is still connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Present,
    /// It has closed its sending side. It may still read, or be gone. The server can tell only
    /// after it has written something.
    HalfClosed,
    Gone,
}

/// What the socket should do about a client that has closed its sending side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Send an interim response. If the client is gone, its system answers with a reset.
    Probe,
    /// Check whether a reset has arrived.
    Look,
}

/// The state of a connection.
pub struct Connection {
    phase: Cell<Phase>,
    standing: Cell<Standing>,
    client: Cell<Client>,
    /// Wakes the request that awaits [`Connection::client_changed`]. There is at most one, because a
    /// connection answers one request at a time.
    awaits_client: Waiter,
    check: Cell<Option<Check>>,
    /// Since when the client has not read any of the bytes that wait for it.
    stalled_since: Cell<Option<Instant>>,
    /// Wakes the task that reads from the connection.
    reader: Waiter,
    /// The request's handler waits for the parser to continue; see [`Connection::parser_continues`].
    awaits_parser: Cell<bool>,
    /// The fault in the body of the open request, if one was found.
    body_fault: RefCell<Option<String>>,
    /// The target of the open request as sent, if it is not just path and query.
    target: RefCell<Option<String>>,
    /// The record of the request whose reply is being written. If the connection is dropped first, the client has not got
    /// the whole reply.
    record: RefCell<Option<Recording>>,
}

impl Connection {
    /// A connection that was just accepted: its first request head is due. `late` is true if the
    /// server is shutting down already.
    pub fn new(late: bool) -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Head { since: Instant::now() }),
            standing: Cell::new(if late { Standing::Late } else { Standing::Serving }),
            client: Cell::new(Client::Present),
            awaits_client: Waiter::default(),
            check: Cell::new(None),
            stalled_since: Cell::new(None),
            reader: Waiter::default(),
            awaits_parser: Cell::new(false),
            body_fault: RefCell::default(),
            target: RefCell::default(),
            record: RefCell::default(),
        })
    }

    /// Checks whether the client takes too long. The connection itself ends idle times and refuses
    /// late heads. True means that the caller must abort the connection.
    pub fn must_be_cut(&self, now: Instant, patience: &Patience) -> bool {
        let stalled = |since| now.saturating_duration_since(since) > patience.client;
        if self.stalled_since.get().is_some_and(stalled) {
            return true;
        }
        match self.phase.get().judge(now, patience) {
            Verdict::Fine => false,
            Verdict::Cut => true,
            Verdict::Act(phase) => {
                self.phase.set(phase);
                self.wake_reader();
                false
            }
        }
    }

    // ---- For the socket

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Notes that a part of a head has arrived.
    pub(super) fn begin_head(&self) {
        if matches!(self.phase.get(), Phase::Idle { .. } | Phase::IdleOverdue) {
            self.phase.set(Phase::Head { since: Instant::now() });
        }
    }

    /// Notes that the parser gets a request.
    pub(super) fn open(&self, head: &mut Head, has_body: bool) {
        self.phase.set(Phase::Open(Request {
            is_http_1_1: head.is_http_1_1,
            body: if has_body { BodyUse::Unread } else { BodyUse::Done },
            after: if head.persists { After::Next } else { After::Close },
        }));
        if head.target.is_some() || self.target.borrow().is_some() {
            *self.target.borrow_mut() = head.target.take();
        }
    }

    /// Notes that the socket has refused what the client sent.
    pub(super) fn refuse_head(&self) {
        self.phase.set(Phase::Refused);
    }

    /// Notes why the body of the open request is refused. The request's handler makes the reply.
    pub(super) fn refuse_body(&self, fault: String) {
        *self.body_fault.borrow_mut() = Some(fault);
        self.close_after_reply();
    }

    /// Notes that the parser has written everything. True if the socket must continue to read
    /// without being asked.
    pub(super) fn note_flushed(&self) -> bool {
        let Phase::Answered(after) = self.phase.get() else { return false };
        if let Some(recording) = self.record.take() {
            recording.complete();
        }
        let since = Instant::now();
        self.phase.set(match after {
            After::Close => Phase::Closing { since },
            After::Next if self.standing.get() != Standing::Serving => Phase::IdleOverdue,
            After::Next => Phase::Idle { since },
        });
        self.phase.get() == Phase::IdleOverdue
    }

    /// Notes that this side writes nothing more.
    pub(super) fn close(&self) {
        if !matches!(self.phase.get(), Phase::Closing { .. }) {
            self.phase.set(Phase::Closing { since: Instant::now() });
        }
    }

    /// The client has closed its sending side.
    pub(super) fn half_close(&self) {
        self.set_client(Client::HalfClosed);
    }

    /// The client has reset the connection.
    pub(super) fn lose_client(&self) {
        self.set_client(Client::Gone);
    }

    fn set_client(&self, client: Client) {
        self.client.set(client);
        self.awaits_client.wake();
    }

    /// Resolves when the state of the client is not `known` any more. Every request waits for this,
    /// so it takes no more than a waker, which stays for the next request.
    async fn client_changed(&self, known: Client) {
        poll_fn(|cx| {
            if self.client.get() != known {
                return Poll::Ready(());
            }
            self.awaits_client.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// What the socket should do about a client that has closed its sending side. Each check is
    /// returned once.
    pub(super) fn take_check(&self) -> Option<Check> {
        self.check.take()
    }

    /// Notes since when the client has not read the bytes that were written.
    pub(super) fn note_progress(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending if self.stalled_since.get().is_none() => self.stalled_since.set(Some(Instant::now())),
            Poll::Pending => {}
            Poll::Ready(_) => self.stalled_since.set(None),
        }
        polled
    }

    pub(super) fn wait_for_reading(&self, cx: &Context<'_>) {
        self.reader.wait(cx);
    }

    fn wake_reader(&self) {
        self.reader.wake();
    }

    // ---- For requests and their replies

    /// Opens the request that the parser has just got. It counts as open for as long as the
    /// returned guard lives.
    pub fn begin_request(self: &Rc<Self>) -> OpenRequest {
        OpenRequest(self.clone())
    }

    /// True if the server was shutting down before the connection's request had arrived. Such a
    /// request gets a true answer about health, and is not scored.
    pub fn is_late(&self) -> bool {
        self.standing.get() == Standing::Late
    }

    /// Lets the parser continue, which calls a request's handler before it passes on the body that it
    /// has read together with the head. Resolves when the parser calls the handler again, which it
    /// does at once. To wait for the body itself would wake the task once more: a tenth of what the
    /// front does for a small request.
    pub async fn parser_continues(&self) {
        let mut is_first = self.has_body();
        poll_fn(|_| {
            self.awaits_parser.set(is_first);
            match std::mem::take(&mut is_first) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// True if the parser has come to its end without having called the handler that waits for it.
    /// Then the task must be woken.
    pub(super) fn take_forgotten(&self) -> bool {
        self.awaits_parser.take()
    }

    /// True if the open request has a body that nobody has read.
    fn has_body(&self) -> bool {
        matches!(self.phase.get(), Phase::Open(request) if request.body == BodyUse::Unread)
    }

    /// The fault in the body of the open request, if the body ended because of a fault.
    pub fn take_body_fault(&self) -> Option<String> {
        self.body_fault.take()
    }

    /// The target of the open request as sent, if it is not just path and query.
    pub fn target(&self) -> Option<String> {
        self.target.borrow().clone()
    }

    /// Notes that the open request's body has been read completely. Otherwise the connection is
    /// closed after the reply, because the unread rest of the body would be in the way of the next
    /// request.
    pub fn note_body_read(&self) {
        if let Phase::Open(request) = self.phase.get() {
            self.phase.set(Phase::Open(Request { body: BodyUse::Done, ..request }));
        }
    }

    /// Resolves when the client has left. A client that has only closed its sending side still gets
    /// its reply. While its request `is_cancellable`, the socket probes whether the client is still
    /// there.
    pub async fn client_left(&self, is_cancellable: impl Fn() -> bool) {
        let (mut probed, mut pause) = (None::<Instant>, FIRST_LOOK);
        loop {
            match self.client.get() {
                Client::Gone => return,
                Client::HalfClosed if !self.can_be_probed() => return,
                Client::Present => self.client_changed(Client::Present).await,
                Client::HalfClosed => {
                    if is_cancellable() {
                        let due = probed.is_none_or(|at| at.elapsed() >= PROBE_EVERY);
                        if due {
                            probed = Some(Instant::now());
                            pause = FIRST_LOOK;
                        }
                        self.check.set(Some(if due { Check::Probe } else { Check::Look }));
                        self.wake_reader();
                    }
                    // The socket may notice at once that the client is gone, before the pause has
                    // passed.
                    let _ = tokio::time::timeout(pause, self.client_changed(Client::HalfClosed)).await;
                    pause = LOOK_EVERY;
                }
            }
        }
    }

    /// False for HTTP/1.0, which has no interim responses to probe with. A client of HTTP/1.0 that
    /// has closed its sending side counts as gone, because proxies that speak HTTP/1.0 close it
    /// when their own client has left.
    fn can_be_probed(&self) -> bool {
        matches!(self.phase.get(), Phase::Open(request) if request.is_http_1_1)
    }

    /// Ends the connection as soon as no request is open: at once if it is idle, else after the
    /// reply. A connection whose first request has not arrived, or has arrived in part, becomes
    /// late: its client could not know, so the request is answered.
    pub fn end(&self) {
        match self.phase.get() {
            Phase::Head { .. } | Phase::HeadOverdue => self.standing.set(Standing::Late),
            phase => {
                if self.standing.get() == Standing::Serving {
                    self.standing.set(Standing::Ending);
                }
                if matches!(phase, Phase::Idle { .. }) {
                    self.phase.set(Phase::IdleOverdue);
                    self.wake_reader();
                }
            }
        }
    }

    /// Closes the connection after the reply to the open request, in a way that lets the client
    /// read the reply.
    pub fn close_after_reply(&self) {
        if let Phase::Open(request) = self.phase.get() {
            self.phase.set(Phase::Open(Request { after: After::Close, ..request }));
        }
    }

    /// Decides what follows the reply that is being made now. The reply must announce it.
    pub fn begin_reply(&self) -> After {
        let Phase::Open(request) = self.phase.get() else {
            // The first attempt to make the reply failed, and this is another.
            self.phase.set(Phase::Answered(After::Close));
            return After::Close;
        };
        if self.standing.get() != Standing::Serving || request.body == BodyUse::Unread {
            self.close_after_reply();
            return After::Close;
        }
        request.after
    }

    /// Finishes the record when the reply has been written completely, or when it is known that it will not be.
    pub fn record_reply(&self, recording: Recording) {
        self.record.replace(Some(recording));
    }

    /// True while the client has not taken everything that was written.
    fn has_unread(&self) -> bool {
        self.stalled_since.get().is_some()
    }
}
