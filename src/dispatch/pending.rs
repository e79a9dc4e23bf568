//! A submitted job as its client's side sees it: what it waits for, and what it gets.
//!
//! Dropping everything that waits for a job abandons the job. Used in the front's event loop.

use std::{cell::Cell, fmt, rc::Rc};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{event::Event, job::JobId, session::Parts, Dispatcher};
use crate::{
    ipc::frame::ReplyHead,
    telemetry::record::{JobTimes, Worker},
};

/// What has become of a submitted job, and when.
#[derive(Debug)]
pub struct Answered {
    /// What has become of it.
    pub answer: Answer,
    /// When the job passed from one stage to the next. The end of a stream is still to come.
    pub times: JobTimes,
    /// The worker that had the job, unless the front has refused the job or the server stops.
    pub worker: Option<Worker>,
}

/// What has become of a submitted job.
#[derive(Debug)]
pub enum Answer {
    /// A complete reply of a worker.
    Whole {
        /// Status, headers, timing.
        head: ReplyHead,
        /// The body.
        body: Bytes,
    },
    /// A streamed reply: parts follow as the script yields them.
    Stream {
        /// Status, headers, timing.
        head: ReplyHead,
        /// The parts.
        parts: Parts,
    },
    /// The worker was lost while it ran the job.
    Lost {
        /// What happened, as the supervisor saw it: `was killed by signal 9 (SIGKILL)`.
        cause: String,
    },
    /// `run()` did not return in time; its worker is being killed.
    Overdue {
        /// The message for the client.
        message: String,
    },
    /// `--max_queue` jobs wait already.
    QueueFull {
        /// Jobs in the queue.
        waiting: usize,
    },
    /// The server is stopping at once.
    Stopped,
}

/// Somebody waits for a job's answer, or receives it as a stream. The job is abandoned when the last holder drops it.
pub(super) struct Interest {
    pub(super) job: JobId,
    pub(super) dispatcher: Dispatcher,
    /// The core has forgotten the job, so it need not hear that nobody waits. This is so for nearly
    /// all requests, because the answer comes first.
    pub(super) is_over: Cell<bool>,
}

impl Drop for Interest {
    fn drop(&mut self) {
        if !self.is_over.get() {
            self.dispatcher.handle(Event::Abandoned(self.job));
        }
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Interest({:?})", self.job)
    }
}

/// A submitted job. Dropping it before the answer came abandons the job.
#[derive(Debug)]
pub struct Pending {
    pub(super) answer: oneshot::Receiver<Answered>,
    pub(super) interest: Rc<Interest>,
}

impl Pending {
    /// Waits for the answer.
    pub async fn answer(&mut self) -> Answered {
        // The sender is dropped without an answer only when the dispatcher itself is dropped.
        let stopped = || Answered { answer: Answer::Stopped, times: JobTimes::default(), worker: None };
        self.answer_if_started().await.unwrap_or_else(stopped)
    }

    /// True until the answer has come.
    pub fn is_open(&self) -> bool {
        !self.answer.is_terminated()
    }

    /// True while no worker can have started the job.
    pub fn is_waiting(&self) -> bool {
        self.interest.dispatcher.is_waiting(self.id())
    }

    /// Cancels the job, unless a worker has started it or can start it now. If that worker gives
    /// the job back, the core cancels it then.
    pub fn give_up(&self) {
        let Interest { job, dispatcher, .. } = &*self.interest;
        dispatcher.handle(Event::GivenUp(*job));
    }

    /// As [`Pending::give_up`], because the client has left. A worker that is concurrent cancels the
    /// call, and its answer then says so.
    pub fn leave(&self) {
        let Interest { job, dispatcher, .. } = &*self.interest;
        dispatcher.handle(Event::ClientLeft(*job));
    }

    /// Waits for the answer to a job that was given up; `None` if the job was cancelled.
    pub async fn answer_if_started(&mut self) -> Option<Answered> {
        (&mut self.answer).await.ok()
    }

    /// The job's number, for [`Dispatcher::is_cancellable`].
    pub fn id(&self) -> u64 {
        self.interest.job.0
    }
}
