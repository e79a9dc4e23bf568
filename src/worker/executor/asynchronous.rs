//! The jobs of an async script, together: their calls are tasks of one event loop on the worker's
//! main thread.
//!
//! `scripting/async_calls.py` is the other half: it owns the loop, the tasks and their time limits,
//! and reports what has become of each call. This file makes the arguments, and sends a reply for
//! each report. The loop runs while the worker waits for the front, and stops when a frame has
//! arrived or something is to be reported.

use std::collections::HashMap;

use bytes::Bytes;
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::{
    super::{
        call::{Caller, Returned},
        claimed_job::ClaimedJob,
        current_request::CurrentRequest,
        reply::{self, Outcome, Reply},
        retirement::Retirement,
        sending::{self, Sent},
        transport::{Front, Received},
    },
    Executor, Notice,
};
use crate::{
    ipc::frame::{self, Kind, Origin},
    worker::job_of,
};

/// `async_calls.Report`: the number of the call, what it is about, its value, and the seconds that
/// the call took.
type Report<'py> = (u64, String, Bound<'py, PyAny>, f64);

/// A job whose call runs.
struct Running<'py> {
    claimed: ClaimedJob,
    /// The arguments, if they are exported with the result.
    collected: Option<Bound<'py, PyDict>>,
    /// The request as the script sees it.
    request: Option<Py<CurrentRequest>>,
}

/// Runs the calls of an async script.
pub(in crate::worker) struct Asynchronous<'a, 'py> {
    caller: Caller<'a, 'py>,
    /// `async_calls.Calls`.
    calls: Bound<'py, PyAny>,
    retirement: Retirement,
    /// The jobs that run, by the number of their call. A call's number is never used again, unlike
    /// the id of a job, which another front may use too.
    running: HashMap<u64, Running<'py>>,
    next_number: u64,
    /// The connection of the jobs that run; see [`Front::connections`].
    connection: u64,
}

impl<'a, 'py> Asynchronous<'a, 'py> {
    /// An executor without jobs.
    pub(in crate::worker) fn new(py: Python<'py>, caller: Caller<'a, 'py>, retirement: Retirement) -> PyResult<Self> {
        let calls = caller.script().object.call_method0(intern!(py, "calls"))?;
        Ok(Self { caller, calls, retirement, running: HashMap::new(), next_number: 0, connection: 1 })
    }

    /// Passes on what has been received, and cancels the calls of a front that is gone, because
    /// their clients are gone too.
    fn received(&mut self, py: Python<'py>, front: &dyn Front, received: Received) -> PyResult<Received> {
        let is_lost = matches!(received, Received::FrontGone) || front.connections() != self.connection;
        if is_lost && !self.running.is_empty() {
            self.running.clear();
            self.calls.call_method0(intern!(py, "abandon"))?;
        }
        self.connection = front.connections();
        Ok(received)
    }

    /// Lets the loop run for a while. Returns what is to be reported.
    fn run_loop(&self, py: Python<'py>, descriptor: i32) -> PyResult<Vec<Report<'py>>> {
        match self.calls.call_method1(intern!(py, "run"), (descriptor, self.connection)) {
            Ok(reports) => reports.extract(),
            // A task of the script has raised an exception that ends the process.
            Err(error) => {
                self.retirement.take_note_of(py, error);
                Ok(Vec::new())
            }
        }
    }

    /// Sends what a report says. A report about a call that is not known any more is dropped, except
    /// `again`, which is about no call in particular.
    fn send(&mut self, py: Python<'py>, front: &mut dyn Front, report: Report<'py>) -> PyResult<()> {
        let (number, what, value, seconds) = report;
        if what == "again" {
            front.send(py, frame::encode_bare(Kind::CallsAgain), Bytes::new());
            return Ok(());
        }
        let Some(mut running) = self.running.remove(&number) else { return Ok(()) };
        let about = self.caller.about_again(py, &running.claimed.job, running.request.take());
        let (claimed, run_ms) = (&running.claimed, seconds * 1e3);
        let conclude = |returned| self.caller.conclude(py, claimed, running.collected.as_ref(), returned, run_ms);
        let reply = match what.as_str() {
            "returned" => conclude(Ok(Returned::Result(value))),
            "answered" => conclude(Ok(Returned::Answer(value))),
            "raised" => conclude(Err(PyErr::from_value(value))),
            "overdue" => Reply { run_ms: Some(run_ms), ..reply::timeout_reply(&value.extract::<String>()?) },
            "left" => reply::cancelled_reply(),
            "streams" => match conclude(Ok(Returned::Answer(value))) {
                answer if answer.origin == Origin::Response => Reply { outcome: Outcome::AsyncStream, ..answer },
                // The answer cannot be sent.
                failure => failure,
            },
            "part" => {
                let part = Bytes::copy_from_slice(value.cast::<PyBytes>()?.as_bytes());
                sending::send_part(py, front, claimed.job.id, part);
                running.request = about.set_aside();
                self.running.insert(number, running);
                return Ok(());
            }
            "ended" if value.is_none() => {
                sending::send_end(py, front, claimed.job.id);
                return Ok(());
            }
            "ended" => {
                let error = PyErr::from_value(value);
                sending::send_failure(py, &self.caller, front, claimed.job.id, error);
                return Ok(());
            }
            other => return Err(PyValueError::new_err(format!("unknown report {other:?} of a call"))),
        };
        match sending::send_reply(py, &self.caller, front, claimed, reply)? {
            Sent::AsyncHead => {
                running.request = about.set_aside();
                self.running.insert(number, running);
            }
            // The front does not take the head of the stream, so nobody waits for the parts.
            _ if what == "streams" => drop(self.calls.call_method1(intern!(py, "cancel"), (number,))?),
            Sent::Whole | Sent::Head { .. } => {}
        }
        Ok(())
    }
}

impl<'py> Executor<'py> for Asynchronous<'_, 'py> {
    fn receive(&mut self, py: Python<'py>, front: &mut dyn Front) -> PyResult<Received> {
        let taken = front.take(py)?;
        match self.received(py, front, taken)? {
            Received::Nothing => {}
            received => return Ok(received),
        }
        let Some(descriptor) = front.descriptor() else { return Ok(Received::Nothing) };
        let reports = self.run_loop(py, descriptor)?;
        if !reports.is_empty() {
            for report in reports {
                self.send(py, front, report)?;
            }
            return Ok(Received::Nothing);
        }
        let taken = front.take_after_wait(py)?;
        self.received(py, front, taken)
    }

    fn execute(&mut self, py: Python<'py>, front: &mut dyn Front, claimed: ClaimedJob) -> PyResult<()> {
        // The call's task gets a copy of the context that this sets.
        let about = self.caller.about(py, &claimed.job);
        let arguments = match self.caller.arguments(py, &claimed) {
            Ok(arguments) => arguments,
            Err(reply) => return sending::send_reply(py, &self.caller, front, &claimed, *reply).map(drop),
        };
        let number = self.next_number;
        self.next_number += 1;
        let collected = self.caller.collected(arguments.as_ref());
        let request = self.caller.by_way_of_flask(py, &claimed.job).then(|| self.caller.whole_request(py, &claimed));
        self.caller.start_time();
        if let Err(error) = self.calls.call_method1(intern!(py, "start"), (number, arguments, request)) {
            let reply = self.caller.internal_error(py, &claimed.job, error);
            return sending::send_reply(py, &self.caller, front, &claimed, reply).map(drop);
        }
        let request = about.set_aside();
        self.running.insert(number, Running { claimed, collected, request });
        Ok(())
    }

    fn note(&mut self, py: Python<'py>, id: u64, notice: Notice) -> PyResult<()> {
        let found = self.running.iter().find(|(_, running)| running.claimed.job.id == id);
        let Some((number, _)) = found else { return Ok(()) };
        match notice {
            Notice::Cancel => self.calls.call_method1(intern!(py, "cancel"), (*number,)),
            Notice::Hold => self.calls.call_method1(intern!(py, "hold"), (*number, true)),
            Notice::Resume => self.calls.call_method1(intern!(py, "hold"), (*number, false)),
        }
        .map(drop)
    }

    /// Jobs that arrive meanwhile are not claimed, so the front gives them to others.
    fn finish(&mut self, py: Python<'py>, front: &mut dyn Front) -> PyResult<()> {
        while !self.running.is_empty() {
            match self.receive(py, front)? {
                Received::Frame(arrived) if arrived.frame.kind != Kind::Job => {
                    if let Some(notice) = Notice::of(arrived.frame.kind) {
                        self.note(py, job_of(&arrived.frame)?, notice)?;
                    }
                }
                Received::Frame(_) | Received::Nothing => {}
                Received::FrontGone => return Ok(()),
            }
        }
        Ok(())
    }
}
