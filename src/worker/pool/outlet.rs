//! How the threads of a pool send their replies: one after the other, on the worker's one socket.
//!
//! A thread that waits for room in the socket does not have the GIL. So the lock is only waited for
//! without the GIL, and is free again before a thread takes the GIL.

use std::{
    os::unix::net::UnixStream,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;

use super::super::transport::send_parts;

/// The worker's end of its connection to the front, for sending.
#[derive(Default)]
pub(super) struct Outlet {
    /// A mutex, because the parts of two frames must not mix. A thread holds it for as long as the
    /// front has no room.
    target: Mutex<Target>,
}

#[derive(Default)]
struct Target {
    connection: u64,
    /// Weak, because a lost connection must be closed before the worker connects again.
    stream: Weak<UnixStream>,
}

impl Outlet {
    fn lock(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker has connected to a front.
    pub(super) fn connected(&self, connection: u64, stream: Weak<UnixStream>) {
        *self.lock() = Target { connection, stream };
    }

    /// Sends a frame, waiting for as long as the front has no room for it. The caller must not have
    /// the GIL. A frame of another connection is dropped, because the front that waited for it has
    /// gone. If sending fails, the front has gone too, which the main thread notices.
    pub(super) fn send(&self, connection: u64, head: Bytes, body: Bytes) {
        let target = self.lock();
        let Some(stream) = target.stream.upgrade().filter(|_| target.connection == connection) else { return };
        let _ = send_parts(&stream, &mut [head, body], true);
    }
}
