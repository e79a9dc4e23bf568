//! How the threads of a pool send their replies: one after the other, on the worker's one socket.
//!
//! A thread that waits for room in the socket does not have the GIL. So the lock is only waited for
//! without the GIL, and is free again before a thread takes the GIL.

use std::{
    os::unix::net::UnixStream,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use pyo3::PyResult;

use super::super::transport::{encoded, lock, send_parts};
use crate::ipc::frame::Hello;

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
        let _ = send_parts(&stream, &mut [head, body]);
    }

    /// Says the hello as it is when no other thread is sending, so that the last one said is the
    /// newest. It is for whichever front the worker is connected to. The caller must not have the GIL.
    pub(super) fn say_hello(&self, hello: &Mutex<Hello>) -> PyResult<()> {
        let target = self.lock();
        let Some(stream) = target.stream.upgrade() else { return Ok(()) };
        let frame = encoded(&lock(hello))?;
        let _ = send_parts(&stream, &mut [frame, Bytes::new()]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, sync::Arc};

    use bytes::BytesMut;

    use super::*;
    use crate::ipc::frame::{tests::hello, Decoder};

    fn with_batch(batch: u16) -> Hello {
        Hello { batch, ..hello() }
    }

    #[test]
    fn a_thread_that_waited_to_say_hello_says_the_newest() {
        let (worker, mut front) = UnixStream::pair().expect("sockets");
        let worker = Arc::new(worker);
        let (outlet, said) = (Outlet::default(), Mutex::new(with_batch(1)));
        outlet.connected(1, Arc::downgrade(&worker));
        std::thread::scope(|scope| {
            let is_sending = outlet.lock();
            let waits = scope.spawn(|| outlet.say_hello(&said));
            *lock(&said) = with_batch(2);
            drop(is_sending);
            waits.join().expect("no panic").expect("a frame");
        });
        drop(worker);
        let mut received = Vec::new();
        front.read_to_end(&mut received).expect("a frame");
        let decoder = Decoder { max_body_len: 1 << 20, trusted: true };
        let frame = decoder.decode(&mut BytesMut::from(&*received)).expect("a frame").expect("all of it");
        assert_eq!(Hello::decode(&frame).expect("a hello").batch, 2);
    }
}
