//! The connection between the front and one worker, whichever kind of worker it is: a process
//! (`socket.rs`) or a thread of this process (`thread.rs`).
//!
//! Runs in the front's event loop: [`accept`] waits for workers, a [`FrameSender`] sends to one,
//! [`FrameReceiver`] reads from it. `session.rs` interprets the frames.

#[cfg(unix)]
mod socket;
mod thread;

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::mpsc;

#[cfg(unix)]
use nix::errno::Errno;
#[cfg(unix)]
use tokio::io::Interest;

#[cfg(unix)]
use self::socket::{SocketReceiver, SocketSender};
use self::thread::{ThreadReceiver, ThreadSender};
use super::{session::serve_worker, Dispatcher, LOG};
use crate::{
    fault_injection::{point, Point},
    ipc::{
        claims::Claims,
        frame::{Frame, Hello},
        thread_channel::FrontEnd,
    },
    panics,
};
#[cfg(unix)]
use crate::{
    ipc::{body::Store, unix_socket},
    shortage::{Repeated, ACCEPT_PAUSE},
};

/// The source of new connections from workers.
pub enum Entrance {
    /// Worker processes send their connections through this socket. The front sends each the
    /// descriptors for claims and shared bodies.
    #[cfg(unix)]
    Socket(tokio::net::UnixDatagram, Store),
    /// Threads of this process.
    Threads(mpsc::UnboundedReceiver<FrontEnd>),
}

/// Accepts workers until the entrance is closed.
pub async fn accept(mut entrance: Entrance, dispatcher: Dispatcher) {
    while let Some(frames) = entrance.next().await {
        point(Point::AcceptWorker);
        panics::spawn(serve_worker(frames, dispatcher.clone()), |panic| {
            log::error!(target: LOG, "A worker's session {panic}. The worker connects again.");
        });
    }
}

impl Entrance {
    async fn next(&mut self) -> Option<FrameReceiver> {
        match self {
            #[cfg(unix)]
            Self::Socket(socket, bodies) => {
                let mut failures = Repeated::default();
                loop {
                    let stream =
                        socket.async_io(Interest::READABLE, || unix_socket::receive_descriptor(&*socket)).await;
                    // If the front has no free descriptor, it closes the connection, and the worker
                    // sends another one.
                    let stream = stream.and_then(|stream| stream.ok_or_else(|| Errno::EMFILE.into()));
                    match stream.and_then(|stream| SocketReceiver::new(stream.into(), bodies)) {
                        Ok(frames) => return Some(FrameReceiver::Socket(frames)),
                        Err(error) => {
                            failures.log("Cannot accept a worker, which will try again", &error);
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            }
            Self::Threads(arrivals) => arrivals.recv().await.map(|end| FrameReceiver::Thread(ThreadReceiver::new(end))),
        }
    }
}

/// The sending side; clones share it.
#[derive(Clone)]
pub(in crate::dispatch) enum FrameSender {
    #[cfg(unix)]
    Socket(Rc<SocketSender>),
    Thread(Rc<ThreadSender>),
}

impl FrameSender {
    /// True if the worker shares this process, and its interpreter, with others.
    pub(in crate::dispatch) fn is_thread(&self) -> bool {
        matches!(self, Self::Thread(_))
    }

    /// Sends one frame: its encoded head, and its body. Never blocks. If sending fails, the reading
    /// side reports the worker as lost.
    pub(in crate::dispatch) fn send(&self, head: Bytes, body: Bytes) {
        self.enqueue(head, body);
        self.flush();
    }

    /// Keeps the frame until [`FrameSender::flush`], so that one system call sends several frames.
    pub(in crate::dispatch) fn enqueue(&self, head: Bytes, body: Bytes) {
        match self {
            #[cfg(unix)]
            Self::Socket(sender) => sender.enqueue(head, body),
            Self::Thread(sender) => sender.enqueue(head, body),
        }
    }

    /// Sends enqueued frames for as long as the socket has room.
    pub(in crate::dispatch) fn flush(&self) {
        match self {
            #[cfg(unix)]
            Self::Socket(sender) => sender.flush(),
            Self::Thread(sender) => sender.flush(),
        }
    }

    /// Ends the reading task: the worker is known to be gone.
    pub(in crate::dispatch) fn close(&self) {
        match self {
            #[cfg(unix)]
            Self::Socket(sender) => sender.close(),
            Self::Thread(sender) => sender.close(),
        }
    }

    /// Sends what the socket had no room for, for as long as the worker is connected. Calls
    /// `progress` each time the worker has read some of it. Ends with an error when the worker is
    /// gone.
    #[cfg_attr(not(unix), allow(unused_variables))]
    pub(in crate::dispatch) async fn write_backlog(&self, progress: impl Fn()) -> Result<(), String> {
        match self {
            #[cfg(unix)]
            Self::Socket(sender) => sender.write_backlog(progress).await.map_err(|error| error.to_string()),
            Self::Thread(_) => std::future::pending().await,
        }
    }
}

/// The reading side.
pub(in crate::dispatch) enum FrameReceiver {
    #[cfg(unix)]
    Socket(SocketReceiver),
    Thread(ThreadReceiver),
}

impl FrameReceiver {
    pub(in crate::dispatch) fn sender(&self) -> FrameSender {
        match self {
            #[cfg(unix)]
            Self::Socket(frames) => FrameSender::Socket(frames.sender.clone()),
            Self::Thread(frames) => FrameSender::Thread(frames.sender.clone()),
        }
    }

    /// The counter that says who owns the jobs of this connection. Without it the worker gets one
    /// job at a time, which is slower but still correct.
    #[cfg_attr(not(unix), allow(unused_variables))]
    pub(in crate::dispatch) fn take_claims(&mut self, hello: &Hello) -> Option<Claims> {
        match self {
            #[cfg(unix)]
            Self::Socket(frames) => frames.take_claims(hello),
            Self::Thread(frames) => frames.claims.take(),
        }
    }

    /// The next frame; `None` when the worker is gone and everything it sent has been read.
    pub(in crate::dispatch) async fn next(&mut self) -> Result<Option<Frame>, String> {
        match self {
            #[cfg(unix)]
            Self::Socket(frames) => frames.next().await,
            Self::Thread(frames) => Ok(frames.next().await),
        }
    }
}
