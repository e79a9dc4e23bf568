//! The connection between the front and one worker, whichever kind of worker it is: a process (`socket.rs`) or a thread of
//! the same process (`local.rs`).
//!
//! Runs in the front's event loop: [`accept`] waits for workers, a [`Link`] sends to one, [`Frames`] reads from it. What
//! the frames mean is `remote.rs`.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::net::UnixListener;

use super::{
    remote::serve_worker,
    socket::{SocketFrames, SocketLink},
    Dispatcher,
};
use crate::frame::Frame;

/// Where workers come from.
pub enum Entrance {
    /// Processes connect to this socket.
    Socket(UnixListener),
}

/// Takes workers into the pool for ever.
pub async fn accept(mut entrance: Entrance, dispatcher: Dispatcher) {
    loop {
        let frames = match &mut entrance {
            Entrance::Socket(listener) => match listener.accept().await {
                Ok((stream, _)) => Frames::Socket(SocketFrames::new(stream, dispatcher.max_body_len)),
                Err(error) => {
                    log::error!(target: "azmlinfsrv.front", "Cannot accept a worker: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        tokio::task::spawn_local(serve_worker(frames, dispatcher.clone()));
    }
}

/// The sending side; clones share it.
#[derive(Clone)]
pub(super) enum Link {
    /// To a process.
    Socket(Rc<SocketLink>),
}

impl Link {
    /// True if nothing that was sent waits on this side.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            Self::Socket(link) => link.is_flushed(),
        }
    }

    /// Sends the parts of one frame in order. Never blocks; errors show at the reading side, as the loss of the worker.
    pub(super) fn send(&self, head: Bytes, body: Bytes) {
        match self {
            Self::Socket(link) => link.send(head, body),
        }
    }

    /// Ends the reading task: the worker is known to be gone.
    pub(super) fn close(&self) {
        match self {
            Self::Socket(link) => link.close(),
        }
    }

    /// Sends what [`Link::send`] could not; runs beside the reading task for as long as the worker is connected.
    pub(super) async fn flush(&self) -> Result<(), String> {
        match self {
            Self::Socket(link) => link.flush_outbox().await.map_err(|error| error.to_string()),
        }
    }
}

/// The reading side.
pub(super) enum Frames {
    Socket(SocketFrames),
}

impl Frames {
    pub(super) fn link(&self) -> Link {
        match self {
            Self::Socket(frames) => Link::Socket(frames.link.clone()),
        }
    }

    /// The next frame; `None` when the worker is gone and everything it sent has been read.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, String> {
        match self {
            Self::Socket(frames) => frames.next().await,
        }
    }
}
