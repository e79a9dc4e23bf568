//! Several jobs with one call: joins the inputs of the jobs that have arrived, calls `run()` once, and
//! splits its result into their replies.
//!
//! `scripting/batching.py` is the other half: it decides which requests can be joined, joins their
//! arguments and splits the result. This file gathers the jobs, and answers each as if it had been
//! alone. When one call cannot answer all of them, each job gets a call of its own
//! (`serial.rs`). Runs on the worker's thread.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pyo3::{
    exceptions::PyBaseException,
    intern,
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::{
    super::{
        batch_size::BatchSize,
        call::Returned,
        claimed_job::ClaimedJob,
        reply::{Outcome, Reply},
        sending,
        transport::{Arrived, Front, Received},
    },
    Executor, Serial,
};
use crate::{
    ipc::frame::{self, Kind, Origin},
    settings::Settings,
    telemetry::metrics,
};

/// How long the worker waits for the rest of a frame before it begins without that job.
const REST_OF_A_FRAME: Duration = Duration::from_millis(100);

/// `batching.Joint`: jobs whose arguments have been joined, by their place in the batch, the joint
/// arguments, and the rows of each.
#[derive(FromPyObject)]
struct Joint<'py> {
    places: Vec<usize>,
    arguments: Bound<'py, PyDict>,
    rows: Vec<usize>,
    /// The results are to be compared with those of calls for each job alone.
    is_checked: bool,
}

/// What a script says about its batches: `batching.Batches`.
pub(in crate::worker) struct Batches<'py> {
    object: Bound<'py, PyAny>,
    /// The function that a joint call calls.
    run: Bound<'py, PyAny>,
    /// Calls are joined although a request context of Flask belongs to one request.
    fits_flask: bool,
    size: BatchSize,
    wait: Duration,
}

impl<'py> Batches<'py> {
    /// `None` if each call of this `script.Script` answers one request.
    pub(in crate::worker) fn of(script: &Bound<'py, PyAny>, settings: &Settings) -> PyResult<Option<Self>> {
        let py = script.py();
        let object = script.call_method0(intern!(py, "batches"))?;
        if object.is_none() {
            return Ok(None);
        }
        let most: usize = object.getattr(intern!(py, "most"))?.extract()?;
        let wait = Duration::from_secs_f64(object.getattr(intern!(py, "wait"))?.extract()?);
        let size = if object.getattr(intern!(py, "adapts"))?.is_truthy()? {
            BatchSize::growing(most, settings.scoring_timeout)
        } else {
            BatchSize::fixed(most)
        };
        let run = object.getattr(intern!(py, "run"))?;
        let fits_flask = object.getattr(intern!(py, "fits_flask"))?.is_truthy()?;
        Ok(Some(Self { object, run, fits_flask, size, wait }))
    }

    /// How many jobs to claim together at first.
    pub(in crate::worker) fn first_size(&self) -> u16 {
        self.size.wanted().try_into().unwrap_or(u16::MAX)
    }

    /// The groups of jobs that one call each can answer, by their arguments.
    fn join(&self, py: Python<'py>, arguments: Vec<Option<Bound<'py, PyDict>>>) -> Vec<Joint<'py>> {
        let joined = self.object.call_method1(intern!(py, "join"), (arguments,));
        shown(py, joined.and_then(|joined| joined.extract())).unwrap_or_default()
    }

    /// The parts of a joint result; `None` if it cannot be split.
    fn split(&self, result: &Bound<'py, PyAny>, rows: &[usize]) -> Option<Vec<Bound<'py, PyAny>>> {
        let py = result.py();
        let rows = rows.to_vec();
        let parts = self.object.call_method1(intern!(py, "split"), (result, rows));
        shown(py, parts.and_then(|parts| parts.extract())).flatten()
    }

    /// False once the script has proven that its calls cannot be joined.
    fn are_possible(&self, py: Python<'py>) -> PyResult<bool> {
        self.object.getattr(intern!(py, "are_possible"))?.is_truthy()
    }
}

/// Runs one call after the other, each for one job or for several.
pub(in crate::worker) struct Batching<'a, 'py> {
    serial: Serial<'a, 'py>,
    batches: Batches<'py>,
    /// What has been received behind the last batch.
    received: Option<Received>,
}

/// What has become of a joint call.
enum Joined {
    /// Its jobs are answered.
    Answered,
    /// Its result cannot be split, and `batching.py` has said why.
    NotSplit,
    /// `run()` has raised this exception.
    Failed(Py<PyBaseException>),
}

/// A claimed job of a batch that has not been answered.
struct Member<'py> {
    claimed: ClaimedJob,
    /// The arguments, if they are exported with the result.
    collected: Option<Bound<'py, PyDict>>,
}

impl<'a, 'py> Batching<'a, 'py> {
    /// An executor without jobs.
    pub(in crate::worker) fn new(serial: Serial<'a, 'py>, batches: Batches<'py>) -> Self {
        Self { serial, batches, received: None }
    }

    /// The jobs that have arrived behind this one, up to the size of a batch, and those that arrive
    /// within the time for which a job may wait. None of them is claimed.
    fn gather(&mut self, py: Python<'py>, front: &mut dyn Front, first: Arrived) -> PyResult<Vec<Arrived>> {
        let mut gathered = vec![first];
        let begun = Instant::now();
        let connection = front.connections();
        while gathered.len() < self.batches.size.wanted() {
            let received = front.take(py)?;
            if front.connections() != connection || matches!(received, Received::FrontGone) {
                // The jobs of a lost connection have lost their clients.
                gathered.clear();
                self.received = Some(received);
                break;
            }
            match received {
                Received::Frame(arrived) if arrived.frame.kind == Kind::Job => gathered.push(arrived),
                Received::Nothing => {
                    let wait = if front.has_begun_frame() { REST_OF_A_FRAME } else { self.batches.wait };
                    let left = wait.saturating_sub(begun.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    front.wait_for_frames(py, left)?;
                }
                other => {
                    self.received = Some(other);
                    break;
                }
            }
        }
        Ok(gathered)
    }

    /// Answers several jobs with as few calls as possible.
    fn run_batch(&mut self, py: Python<'py>, front: &mut dyn Front, batch: Vec<ClaimedJob>) -> PyResult<()> {
        let began = Instant::now();
        let jobs = batch.len();
        let mut members = Vec::with_capacity(jobs);
        let mut arguments = Vec::with_capacity(jobs);
        for claimed in batch {
            if !self.batches.fits_flask && self.serial.caller.by_way_of_flask(py, &claimed.job) {
                shown(py, self.batches.object.call_method0(intern!(py, "note_flask")));
                arguments.push(None);
                members.push(Some(Member { claimed, collected: None }));
                continue;
            }
            match self.serial.caller.arguments(py, &claimed) {
                Ok(given) => {
                    let collected = self.serial.caller.collected(given.as_ref());
                    arguments.push(given);
                    members.push(Some(Member { claimed, collected }));
                }
                Err(reply) => {
                    let _about = self.serial.caller.about(py, &claimed.job);
                    sending::send_reply(py, &self.serial.caller, front, &claimed, *reply)?;
                }
            }
        }
        let mut calls = 0;
        for joint in self.batches.join(py, arguments) {
            restart_time(py, front, &mut calls);
            match self.run_joint(py, front, &mut members, &joint, &mut calls)? {
                Joined::Answered if !joint.is_checked && joint.places.len() == jobs => {
                    self.batches.size.record(jobs, joint.rows.iter().sum(), began.elapsed());
                }
                Joined::Answered | Joined::NotSplit => {}
                Joined::Failed(error) => {
                    let failed = self.run_each(py, front, joint.places.iter(), &mut members, &mut calls)?;
                    shown(py, self.batches.object.call_method1(intern!(py, "note_failure"), (error, failed)));
                }
            }
        }
        let rest: Vec<usize> = (0..members.len()).collect();
        self.run_each(py, front, rest.iter(), &mut members, &mut calls).map(drop)
    }

    /// Answers each of these jobs, if it is not answered yet, with a call of its own. Returns how many
    /// of the calls failed.
    fn run_each<'place>(
        &self,
        py: Python<'py>,
        front: &mut dyn Front,
        places: impl Iterator<Item = &'place usize>,
        members: &mut [Option<Member<'py>>],
        calls: &mut u32,
    ) -> PyResult<usize> {
        let mut failed = 0;
        for place in places {
            let Some(member) = members.get_mut(*place).and_then(Option::take) else { continue };
            restart_time(py, front, calls);
            count_call(1);
            let origin = self.serial.run(py, front, &member.claimed)?;
            failed += usize::from(matches!(origin, Origin::ScriptError | Origin::Timeout));
        }
        Ok(failed)
    }

    /// Answers the jobs of one joint call, unless it fails or its result cannot be split.
    fn run_joint(
        &self,
        py: Python<'py>,
        front: &mut dyn Front,
        members: &mut [Option<Member<'py>>],
        joint: &Joint<'py>,
        calls: &mut u32,
    ) -> PyResult<Joined> {
        let caller = &self.serial.caller;
        let first = joint.places.first().and_then(|place| members.get(*place)?.as_ref());
        let Some(first) = first else { return Ok(Joined::NotSplit) };
        // The log has one line for a line that a joint call writes, so it has the ids of one
        // request.
        let about = caller.about(py, &first.claimed.job);
        count_call(joint.places.len());
        let (returned, run_ms) = caller.run_together(py, &self.batches.run, &joint.arguments);
        let parts = match returned {
            Ok(result) => self.batches.split(&result, &joint.rows),
            Err(error) => return Ok(Joined::Failed(error.into_value(py))),
        };
        drop(about);
        let Some(parts) = parts else { return Ok(Joined::NotSplit) };
        for (place, part) in joint.places.iter().zip(parts) {
            let Some(member) = members.get_mut(*place).and_then(Option::take) else { continue };
            let _about = caller.about(py, &member.claimed.job);
            let (claimed, collected) = (&member.claimed, member.collected.as_ref());
            let returned = match part.cast_into::<PyBaseException>() {
                Ok(exception) => Err(PyErr::from_value(exception.into_any())),
                Err(error) => Ok(Returned::Result(error.into_inner())),
            };
            let mut reply = caller.conclude(py, claimed, collected, returned, run_ms);
            if joint.is_checked {
                restart_time(py, front, calls);
                reply = self.checked(py, claimed, &reply);
            }
            self.serial.send(py, front, claimed, reply)?;
        }
        Ok(Joined::Answered)
    }

    /// The reply of a call for this job alone, after a comparison with its part of a joint reply.
    fn checked(&self, py: Python<'py>, claimed: &ClaimedJob, joint: &Reply) -> Reply {
        count_call(1);
        let alone = self.serial.caller.answer(py, claimed);
        let body = |reply: &Reply| match &reply.outcome {
            Outcome::Whole(body) => Some(PyBytes::new(py, body).unbind()),
            Outcome::Stream { .. } | Outcome::AsyncStream => None,
        };
        let compared = (alone.status, body(&alone), joint.status, body(joint));
        shown(py, self.batches.object.call_method1(intern!(py, "compare"), compared));
        alone
    }

    /// Tells the front how many jobs it may send for the next batch, if that has changed.
    fn say_size(&mut self, py: Python<'py>, front: &mut dyn Front) -> PyResult<()> {
        if !self.batches.are_possible(py)? {
            self.batches.size = BatchSize::fixed(1);
        }
        let size = self.batches.first_size();
        front.say_hello_again_if(py, &mut |hello| std::mem::replace(&mut hello.batch, size) != size)
    }
}

/// The result. An error is shown on standard error: the jobs then get calls of their own.
fn shown<T>(py: Python<'_>, result: PyResult<T>) -> Option<T> {
    result.map_err(|error| error.write_unraisable(py, None)).ok()
}

/// Tells the front that another call begins for the jobs of this batch, because each call has the
/// whole time limit.
fn restart_time(py: Python<'_>, front: &mut dyn Front, calls: &mut u32) {
    if *calls > 0 {
        front.send(py, frame::encode_bare(Kind::CallsAgain), Bytes::new());
    }
    *calls += 1;
}

/// Counts a call of `run()` for so many requests in `/metrics`.
fn count_call(requests: usize) {
    if let Some(metrics) = metrics::shared() {
        metrics.batch_sizes.count(requests);
    }
}

impl<'py> Executor<'py> for Batching<'_, 'py> {
    fn receive(&mut self, py: Python<'py>, front: &mut dyn Front) -> PyResult<Received> {
        match self.received.take() {
            Some(received) => Ok(received),
            None => self.serial.receive(py, front),
        }
    }

    fn accept(&mut self, py: Python<'py>, front: &mut dyn Front, arrived: Arrived) -> PyResult<()> {
        let mut batch = Vec::new();
        for arrived in self.gather(py, front, arrived)? {
            batch.extend(ClaimedJob::claim(py, front, arrived)?);
        }
        if batch.len() > 1 {
            self.run_batch(py, front, batch)?;
            return self.say_size(py, front);
        }
        batch.pop().map_or(Ok(()), |claimed| self.execute(py, front, claimed))
    }

    fn execute(&mut self, py: Python<'py>, front: &mut dyn Front, claimed: ClaimedJob) -> PyResult<()> {
        count_call(1);
        self.serial.execute(py, front, claimed)
    }
}
