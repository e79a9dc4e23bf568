//! Several jobs with one call: joins the inputs of the jobs that have arrived, calls `run()` once, and
//! splits its result into their replies.
//!
//! `scripting/batching.py` is the other half: it decides which requests can be joined, joins their
//! arguments and splits the result. This file gathers the jobs, and answers each as if it had been
//! alone. `batches.rs` talks to that half. When one call cannot answer all of them, each job gets a call of its own
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
        about::About,
        batch_size::BatchSize,
        call::{Caller, Returned},
        claimed_job::ClaimedJob,
        current_request::CurrentRequest,
        reply::{Outcome, Reply},
        sending,
        transport::{Arrived, Front, Received},
    },
    batches::{shown, Batches, Joint},
    Executor, Serial,
};
use crate::{
    ipc::frame::{self, Kind, Origin},
    telemetry::metrics,
};

/// How long the worker waits for the rest of a frame before it begins without that job.
const REST_OF_A_FRAME: Duration = Duration::from_millis(100);

/// How much of the time limit of a batch's jobs the front may have counted when the next input is read, or the next call
/// begins. If it has counted more, the worker tells it to restart the limit.
const SHORT: Duration = Duration::from_millis(50);

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
    /// Its time says nothing about the size: some of its jobs got calls of their own, because its result was checked, or
    /// all of them will, because it cannot be split (`batching.py` has said why).
    NotMeasured,
    /// `run()` has raised this exception.
    Failed(Py<PyBaseException>),
}

/// A claimed job of a batch that has not been answered.
struct Member<'py> {
    claimed: ClaimedJob,
    /// The arguments, if they are exported with the result.
    collected: Option<Bound<'py, PyDict>>,
    /// What the script sees of the request, from its arguments to its reply.
    request: Option<Py<CurrentRequest>>,
}

impl<'py> Member<'py> {
    /// The worker works on this job until the result is dropped or set aside.
    fn about<'a>(&mut self, py: Python<'py>, caller: &'a Caller<'_, 'py>) -> About<'a, 'py> {
        caller.about_again(py, &self.claimed.job, self.request.take())
    }
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
        let mut limit = TimeLimit { counted_since: began };
        let jobs = batch.len();
        let caller = &self.serial.caller;
        let mut members = Vec::with_capacity(jobs);
        let mut arguments = Vec::with_capacity(jobs);
        // The limits are for calls. Reading and joining the inputs of several requests is no part of a call.
        for claimed in batch {
            limit.restart(py, front);
            let about = caller.about(py, &claimed.job);
            if !self.batches.fits_flask && caller.by_way_of_flask(py, &claimed.job) {
                shown(py, self.batches.object.call_method0(intern!(py, "note_flask")));
                arguments.push(None);
                members.push(Some(Member { claimed, collected: None, request: about.set_aside() }));
                continue;
            }
            match caller.arguments(py, &claimed) {
                Ok(given) => {
                    let collected = caller.collected(given.as_ref());
                    arguments.push(given.and_then(|given| self.batches.convert(py, given)));
                    members.push(Some(Member { claimed, collected, request: about.set_aside() }));
                }
                Err(reply) => sending::send_reply(py, caller, front, &claimed, *reply).map(drop)?,
            }
        }
        let mut joined = 0;
        let mut rows = 0;
        let mut is_measured = true;
        limit.restart(py, front);
        let joints = self.batches.join(py, arguments);
        for joint in joints {
            // An earlier call of this batch may have proven that calls cannot be joined.
            if !self.batches.are_possible(py)? {
                is_measured = false;
                break;
            }
            limit.restart(py, front);
            match self.run_joint(py, front, &mut members, &joint, &mut limit)? {
                Joined::Answered => {
                    joined += joint.places.len();
                    rows += joint.rows.iter().sum::<usize>();
                }
                Joined::NotMeasured => is_measured = false,
                Joined::Failed(error) => {
                    is_measured = false;
                    let failed = self.run_each(py, front, joint.places.iter().copied(), &mut members, &mut limit)?;
                    shown(py, self.batches.object.call_method1(intern!(py, "note_failure"), (error, failed)));
                }
            }
        }
        let all = 0..members.len();
        self.run_each(py, front, all, &mut members, &mut limit)?;
        if is_measured {
            // A job with a call of its own counts as one row.
            self.batches.size.record(jobs, joined, rows + jobs - joined, began.elapsed());
        }
        Ok(())
    }

    /// Answers each of these jobs, if it is not answered yet, with a call of its own. Returns how many
    /// of the calls failed.
    fn run_each(
        &self,
        py: Python<'py>,
        front: &mut dyn Front,
        places: impl Iterator<Item = usize>,
        members: &mut [Option<Member<'py>>],
        limit: &mut TimeLimit,
    ) -> PyResult<usize> {
        let mut failed = 0;
        for place in places {
            let Some(mut member) = members.get_mut(place).and_then(Option::take) else { continue };
            limit.restart(py, front);
            let _about = member.about(py, &self.serial.caller);
            count_call(1);
            let reply = self.serial.caller.answer(py, &member.claimed);
            failed += usize::from(matches!(reply.origin, Origin::ScriptError | Origin::Timeout));
            self.serial.send(py, front, &member.claimed, reply)?;
        }
        Ok(failed)
    }

    /// Answers the jobs of one joint call, unless it fails, its result cannot be split, or a comparison proves that its
    /// parts are not the answers.
    fn run_joint(
        &self,
        py: Python<'py>,
        front: &mut dyn Front,
        members: &mut [Option<Member<'py>>],
        joint: &Joint<'py>,
        limit: &mut TimeLimit,
    ) -> PyResult<Joined> {
        let caller = &self.serial.caller;
        let first = joint.places.first().and_then(|place| members.get_mut(*place)?.as_mut());
        let Some(first) = first else { return Ok(Joined::NotMeasured) };
        // The log has one line for a line that a joint call writes, so it has the ids of one
        // request.
        let about = first.about(py, caller);
        count_call(joint.places.len());
        let (returned, run_ms) = caller.run_together(py, &self.batches.run, &joint.arguments);
        let split = match returned {
            Ok(result) => self.batches.split(joint, &result),
            Err(error) => {
                first.request = about.set_aside();
                return Ok(Joined::Failed(error.into_value(py)));
            }
        };
        first.request = about.set_aside();
        let Some((parts, checked)) = split else { return Ok(Joined::NotMeasured) };
        if !checked.is_empty() {
            self.check(py, front, members, (joint, parts, &checked, run_ms), limit)?;
            return Ok(Joined::NotMeasured);
        }
        for (place, part) in joint.places.iter().zip(parts) {
            let Some(mut member) = members.get_mut(*place).and_then(Option::take) else { continue };
            let _about = member.about(py, caller);
            let reply = self.part_reply(py, &member, part, run_ms);
            self.serial.send(py, front, &member.claimed, reply)?;
        }
        Ok(Joined::Answered)
    }

    /// The reply with this part of a joint result.
    fn part_reply(&self, py: Python<'py>, member: &Member<'py>, part: Bound<'py, PyAny>, run_ms: f64) -> Reply {
        let returned = match part.cast_into::<PyBaseException>() {
            Ok(exception) => Err(PyErr::from_value(exception.into_any())),
            Err(error) => Ok(Returned::Result(error.into_inner())),
        };
        self.serial.caller.conclude(py, &member.claimed, member.collected.as_ref(), returned, run_ms)
    }

    /// Answers the checked jobs of a joint call with calls of their own, and compares the answers with their parts of
    /// the joint result. The other jobs get their parts, unless a comparison has proven that calls cannot be joined.
    fn check(
        &self,
        py: Python<'py>,
        front: &mut dyn Front,
        members: &mut [Option<Member<'py>>],
        (joint, parts, checked, run_ms): (&Joint<'py>, Vec<Bound<'py, PyAny>>, &[usize], f64),
        limit: &mut TimeLimit,
    ) -> PyResult<()> {
        let caller = &self.serial.caller;
        // All parts are rendered before the next call, because run() may use the memory of its result again.
        let mut to_compare = Vec::new();
        let mut unchecked = Vec::new();
        for (index, (place, part)) in joint.places.iter().zip(parts).enumerate() {
            let Some(member) = members.get_mut(*place).and_then(Option::as_mut) else { continue };
            let about = member.about(py, caller);
            if checked.contains(&index) {
                to_compare.push((*place, caller.rendered(py, &member.claimed, &part).ok()));
            } else {
                unchecked.push((*place, self.part_reply(py, member, part, run_ms)));
            }
            member.request = about.set_aside();
        }
        let mut are_same = true;
        for (place, part) in to_compare {
            let Some(mut member) = members.get_mut(place).and_then(Option::take) else { continue };
            limit.restart(py, front);
            let _about = member.about(py, caller);
            count_call(1);
            let alone = caller.answer(py, &member.claimed);
            are_same &= self.is_same(py, &alone, part.as_ref());
            self.serial.send(py, front, &member.claimed, alone)?;
        }
        if are_same {
            shown(py, self.batches.object.call_method1(intern!(py, "note_agreed"), (&joint.object,)));
        }
        if !self.batches.are_possible(py)? {
            return Ok(());
        }
        for (place, reply) in unchecked {
            let Some(mut member) = members.get_mut(place).and_then(Option::take) else { continue };
            let _about = member.about(py, caller);
            self.serial.send(py, front, &member.claimed, reply)?;
        }
        Ok(())
    }

    /// Whether the reply of a call for a job alone is the same as its part of a joint reply, which is `None` if it could
    /// not be rendered. A call that was interrupted has no answer to compare with.
    fn is_same(&self, py: Python<'py>, alone: &Reply, joint: Option<&Reply>) -> bool {
        if alone.origin == Origin::Timeout {
            return false;
        }
        let body = |reply: &Reply| match &reply.outcome {
            Outcome::Whole(body) => Some(PyBytes::new(py, body).unbind()),
            Outcome::Stream { .. } | Outcome::AsyncStream => None,
        };
        let joint = joint.map_or((500, None), |joint| (joint.status, body(joint)));
        let compared = (alone.status, body(alone), joint.0, joint.1);
        let same = self.batches.object.call_method1(intern!(py, "compare"), compared);
        shown(py, same.and_then(|same| same.is_truthy())).unwrap_or(false)
    }

    /// Tells the front how many jobs it may send for the next batch, if that has changed.
    fn say_size(&mut self, py: Python<'py>, front: &mut dyn Front) -> PyResult<()> {
        if !self.batches.are_possible(py)? {
            self.batches.size = BatchSize::fixed(1);
        }
        let size = self.batches.wanted_size();
        front.say_hello_again_if(py, &mut |hello| std::mem::replace(&mut hello.batch, size) != size)
    }
}

/// The time limit of a batch's jobs, which the front counts from their claims on.
struct TimeLimit {
    counted_since: Instant,
}

impl TimeLimit {
    /// Tells the front to restart the limit, unless it has hardly begun. Called before each call, which has the whole
    /// limit, and before each step of its preparation.
    fn restart(&mut self, py: Python<'_>, front: &mut dyn Front) {
        if self.counted_since.elapsed() > SHORT {
            front.send(py, frame::encode_bare(Kind::CallsAgain), Bytes::new());
            self.counted_since = Instant::now();
        }
    }
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
