//! A worker's interface to the front, for both kinds of connection: a socket (`socket.rs`) or,
//! within one process, a queue (`thread.rs`).
//!
//! Used on the thread that calls the script. Every wait gives up the GIL.

#[cfg(unix)]
mod entrance;
mod gil_offers;
#[cfg(unix)]
mod large_body;
#[cfg(unix)]
mod socket;
mod thread;
#[cfg(unix)]
mod writing;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pyo3::{prelude::*, types::PyBytes};

#[cfg(unix)]
pub(super) use self::gil_offers::GilOffers;
#[cfg(unix)]
pub(super) use self::socket::SocketFront;
pub(super) use self::thread::ThreadFront;
#[cfg(unix)]
pub(super) use self::writing::send_parts;
use crate::ipc::frame::{self, Frame, Hello, Kind};

/// A frame, with the Python object of its body if the body was received into one.
pub(super) struct Arrived {
    pub(super) frame: Frame,
    pub(super) object: Option<Py<PyBytes>>,
}

impl From<Frame> for Arrived {
    fn from(frame: Frame) -> Self {
        Self { frame, object: None }
    }
}

/// What has come from the front.
pub(super) enum Received {
    /// A frame.
    Frame(Arrived),
    /// No frame. After a wait: the process may have been asked to finish.
    Nothing,
    /// The front has gone, and no other front will follow.
    FrontGone,
}

/// A connection to the front, over which the worker has sent its hello.
pub(super) trait Front {
    /// Waits for the next frame in a system call.
    fn receive(&mut self, py: Python<'_>) -> PyResult<Received>;

    /// Takes the next frame if it has arrived. Does not wait.
    fn take(&mut self, py: Python<'_>) -> PyResult<Received>;

    /// Takes the next frame if it has arrived, after a wait for [`Front::descriptor`]. If nothing
    /// has arrived, signal handlers run, and the worker sees if its supervisor has died.
    #[cfg(unix)]
    fn take_after_wait(&mut self, py: Python<'_>) -> PyResult<Received>;

    /// The descriptor that becomes readable when frames arrive. It changes when the worker connects
    /// again, so it must be asked for before each wait, when [`Front::take`] has returned
    /// [`Received::Nothing`].
    #[cfg(unix)]
    fn descriptor(&self) -> Option<std::os::fd::RawFd>;

    /// True if the client of this job has left. Does not wait.
    fn was_cancelled(&mut self, py: Python<'_>, id: u64) -> PyResult<bool>;

    /// Sends the parts of one frame, waiting for as long as the front has no room for it.
    fn send(&self, py: Python<'_>, head: Bytes, body: Bytes);

    /// Waits until [`Front::take`] may have more to return, but no longer than this.
    fn wait_for_frames(&self, py: Python<'_>, at_most: Duration) -> PyResult<()>;

    /// True if a part of a frame has arrived, so that its rest is on its way.
    fn has_begun_frame(&self) -> bool;

    /// How many times the worker has connected. Jobs of an earlier connection have lost their
    /// clients.
    fn connections(&self) -> u64;

    /// The hello, with which the worker describes itself and its script to this front and to every
    /// later one. A mutex, because the threads of `--worker_threads` change it too.
    fn hello(&self) -> &Mutex<Hello>;

    /// Changes the hello, and says it again. `change` returns false if nothing has changed. The lock
    /// is free again before anything is sent, because sending gives up the GIL, and whoever gets it
    /// may want the lock.
    fn say_hello_again_if(&self, py: Python<'_>, change: &mut dyn FnMut(&mut Hello) -> bool) -> PyResult<()> {
        let is_changed = change(&mut lock(self.hello()));
        if is_changed {
            self.say_hello(py)?;
        }
        Ok(())
    }

    /// Says the hello as it is now.
    fn say_hello(&self, py: Python<'_>) -> PyResult<()> {
        let hello = encoded(&lock(self.hello()))?;
        self.send(py, hello, Bytes::new());
        Ok(())
    }

    /// The worker must call this once for every job before it starts the job. False if the front
    /// has revoked it.
    fn claim_next(&mut self) -> bool;

    /// Tells the front that this worker starts no more jobs. The front requeues the jobs that have
    /// not been started.
    fn say_goodbye(&self, py: Python<'_>) {
        self.send(py, frame::encode_bare(Kind::Goodbye), Bytes::new());
    }
}

/// A panic cannot leave the hello half changed, so a poisoned lock is safe to use.
pub(super) fn lock(hello: &Mutex<Hello>) -> MutexGuard<'_, Hello> {
    hello.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The whole frame of a hello.
pub(super) fn encoded(hello: &Hello) -> PyResult<Bytes> {
    let failed = |error: serde_json::Error| pyo3::exceptions::PyValueError::new_err(error.to_string());
    Ok(hello.encode().map_err(failed)?.freeze())
}
