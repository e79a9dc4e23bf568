//! One job at a time: calls `run()`, sends the reply, and, if it is a stream, all of its parts.
//!
//! `run()` is called on the worker's thread, which is the interpreter's main thread in a worker
//! process, so that it may use signals and event loops as always.

use bytes::Bytes;
use pyo3::prelude::*;

#[cfg(unix)]
use super::{super::retirement::Retirement, Cooperative};
use super::{
    super::{
        call::Caller,
        claimed_job::ClaimedJob,
        reply::Reply,
        sending::{self, Sent},
        transport::{Front, Received},
    },
    Executor,
};

/// Runs one job after the other.
pub(in crate::worker) struct Serial<'a, 'py> {
    pub(super) caller: Caller<'a, 'py>,
    /// The script's greenlets and asyncio tasks, which run while the worker waits for the front;
    /// `None` in a worker thread, because they belong to the main thread.
    #[cfg(unix)]
    scheduled: Option<(Cooperative, Retirement)>,
}

impl<'a, 'py> Serial<'a, 'py> {
    /// The executor of a worker thread.
    pub(in crate::worker) fn in_thread(caller: Caller<'a, 'py>) -> Self {
        Self {
            caller,
            #[cfg(unix)]
            scheduled: None,
        }
    }

    /// The executor of a worker process.
    #[cfg(unix)]
    pub(in crate::worker) fn in_process(
        caller: Caller<'a, 'py>,
        cooperative: Cooperative,
        retirement: Retirement,
    ) -> Self {
        Self { caller, scheduled: Some((cooperative, retirement)) }
    }

    /// Sends a reply, and, if it is a stream, all of its parts.
    pub(super) fn send(
        &self,
        py: Python<'py>,
        front: &mut dyn Front,
        claimed: &ClaimedJob,
        reply: Reply,
    ) -> PyResult<()> {
        if let Sent::Head { first, rest } = sending::send_reply(py, &self.caller, front, claimed, reply)? {
            self.stream(py, front, claimed.job.id, first, rest.bind(py))?;
        }
        Ok(())
    }

    /// Sends the parts of a stream until it ends, fails, or its client has left.
    fn stream(
        &self,
        py: Python<'py>,
        front: &mut dyn Front,
        id: u64,
        first: Option<Bytes>,
        rest: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let mut part = Ok(first);
        loop {
            match part {
                Ok(Some(bytes)) => sending::send_part(py, front, id, bytes),
                Ok(None) => {
                    sending::send_end(py, front, id);
                    break;
                }
                Err(error) => {
                    sending::send_failure(py, &self.caller, front, id, error);
                    break;
                }
            }
            if front.was_cancelled(py, id)? {
                sending::send_end(py, front, id);
                break;
            }
            part = self.caller.next_part(rest);
        }
        self.caller.close_stream(py, rest);
        Ok(())
    }
}

impl<'py> Executor<'py> for Serial<'_, 'py> {
    fn receive(&mut self, py: Python<'py>, front: &mut dyn Front) -> PyResult<Received> {
        #[cfg(unix)]
        if let Some((cooperative, retirement)) = &self.scheduled {
            if cooperative.may_be_used(py)? {
                match front.take(py)? {
                    Received::Nothing => {}
                    received => return Ok(received),
                }
                match cooperative.wait(py, front.descriptor()) {
                    Ok(true) => return front.take_after_wait(py),
                    Ok(false) => {}
                    // Continue with the native wait, so that a scheduler that always fails does not
                    // make this a busy loop.
                    Err(error) => retirement.take_note_of(py, error),
                }
            }
        }
        front.receive(py)
    }

    fn execute(&mut self, py: Python<'py>, front: &mut dyn Front, claimed: ClaimedJob) -> PyResult<()> {
        let _about = self.caller.about(py, &claimed.job);
        let reply = self.caller.answer(py, &claimed);
        self.send(py, front, &claimed, reply)
    }
}
