//! The events that `dispatch/mod.rs` reports to the core, and the effects that the core asks it to
//! perform.
//!
//! Data only. Used in the front's event loop.

use std::time::Instant;

use log::Level;

use super::{
    job::{BodySize, JobId, WorkerId},
    worker::Newcomer,
};
use crate::ipc::control::Recycle;

/// An event that the core must handle.
#[derive(Debug)]
pub enum Event<C> {
    /// A client has sent a request. The id is one above that of the last job.
    Submitted { job: JobId, size: BodySize },
    /// Nobody waits for the job's answer any more.
    Abandoned(JobId),
    /// The client has left, or has waited for long enough. If a worker has started the job, or can
    /// start it now, the core still waits for the outcome, because the log needs it.
    GivenUp(JobId),
    /// The client has left. As [`Event::GivenUp`], and a worker that is concurrent cancels the call.
    ClientLeft(JobId),
    /// A worker has connected. Its id is one above that of the last worker.
    Joined(WorkerId, Newcomer<C>),
    /// A worker has answered a job, which kept it busy for this many milliseconds.
    Replied { worker: WorkerId, job: JobId, busy_ms: f64 },
    /// A worker has sent the head of a streamed reply.
    StreamStarted(WorkerId, JobId),
    /// The stream waits for its client to read, or for its script to go on.
    StreamAwaits { worker: WorkerId, job: JobId, client: bool },
    /// A worker has sent the end of a streamed reply.
    StreamEnded(WorkerId, JobId),
    /// A worker has skipped a job that the front had revoked.
    Skipped(WorkerId),
    /// A worker begins `run()` again for some of its started jobs, or still prepares a call. The time limit of all of
    /// them restarts; an async worker limits each call itself.
    CallsAgain(WorkerId),
    /// A worker wants at most this many jobs in a batch from now on.
    Resized { worker: WorkerId, batch: usize },
    /// A worker is about to exit: it will start none of the jobs that it has not started yet.
    Goodbye(WorkerId),
    /// A worker has read a part of a body that was too large for the socket's buffer.
    BodyRead(WorkerId),
    /// A worker's process uses this much memory.
    Measured { worker: WorkerId, mib: u64 },
    /// The result of [`Effect::LookForDebugger`]: the debugger that holds the worker, in words for
    /// the log.
    LookedForDebugger { worker: WorkerId, found: Option<String> },
    /// The connection to a worker has ended, and everything that it sent has been handled.
    Lost {
        worker: WorkerId,
        /// Why the front has ended the connection, as a clause; `None` if the worker has.
        problem: Option<String>,
    },
    /// The supervisor wants this worker to finish and exit.
    Retire { name: u32 },
    /// The supervisor says that this worker is stopped (SIGSTOP).
    Stopped { name: u32 },
    /// The supervisor says that this worker continues (SIGCONT).
    Continued { name: u32 },
    /// The supervisor says how this worker ended.
    Exited { name: u32, cause: String },
    /// Time has passed. Comes at the time of [`Effects::take_wake_at`], and ten times a second.
    Tick,
    /// The server stops at once.
    Stop,
}

/// An action that the caller of the core must perform.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Send these jobs to a worker, in this order.
    Send { worker: WorkerId, jobs: Vec<JobId> },
    /// Answer the job's client. The core has forgotten the job, or will do so when the worker has
    /// finished with it.
    Answer { job: JobId, outcome: Outcome },
    /// The job is over and no client waits for it: drop its request.
    Forget(JobId),
    /// Tell the worker that nobody waits for this job any more. It ends the stream, and, if it is
    /// concurrent, cancels the call.
    Cancel { worker: WorkerId, job: JobId },
    /// Tell the worker to finish and exit.
    Retire(WorkerId),
    /// Stop reading from the worker: its process is known to be gone.
    Disconnect(WorkerId),
    /// Tell the supervisor that this worker takes jobs.
    SayReady { name: u32 },
    /// Tell the supervisor that the front has ended the connection to this worker, which may still
    /// run a job that no deadline ends.
    SayDisconnected { name: u32 },
    /// See whether a debugger holds the worker, which has exceeded a limit. The next event is
    /// [`Event::LookedForDebugger`].
    LookForDebugger(WorkerId),
    /// Ask the supervisor to kill and replace this worker.
    AskToKill { name: u32, reason: String },
    /// Ask the supervisor to replace this worker.
    AskToRecycle { name: u32, reason: Recycle },
    /// Write a line to the log.
    Log(Level, String),
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The reply that the event brought.
    Replied,
    /// The streamed reply that the event has begun.
    Streams,
    /// The worker was lost while it had the job. For a stream: it is cut off.
    Lost { started: Option<Instant>, cause: String },
    /// `run()` did not return in time, and its worker is being killed.
    Overdue { started: Option<Instant>, message: String },
    /// The queue is full.
    QueueFull { waiting: usize },
    /// The server is stopping at once.
    Stopped,
}

/// The effects of one event, in the order in which they must be performed. Made once and used
/// again.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect>,
    wake_at: Option<Instant>,
}

impl Effects {
    /// Takes everything out, the oldest effect first.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Effect> {
        self.list.drain(..)
    }

    /// When a [`Event::Tick`] is due, if an event has asked for one since the last call.
    pub fn take_wake_at(&mut self) -> Option<Instant> {
        self.wake_at.take()
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Adds a job to the [`Effect::Send`] for the same worker, if there is one since the last other
    /// effect, so that one system call sends both jobs.
    pub(super) fn send(&mut self, worker: WorkerId, job: JobId) {
        for effect in self.list.iter_mut().rev() {
            match effect {
                Effect::Send { worker: other, jobs } if *other == worker => return jobs.push(job),
                Effect::Send { .. } => {}
                _ => break,
            }
        }
        self.push(Effect::Send { worker, jobs: vec![job] });
    }
}
