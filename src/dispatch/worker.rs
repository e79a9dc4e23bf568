//! One connected worker as the front sees it: what it has, how fast it is, whether it may get more.
//!
//! State and its small decisions; owned by the dispatcher, in the front's event loop.

use std::{collections::VecDeque, rc::Rc, time::Instant};

use tokio::sync::oneshot;

use super::{
    link::Link,
    rules::{resident_mib, Rules},
    window::Window,
    Answer, Submission,
};
use crate::{control::Supervisor, frame::Hello};

/// A job that a worker has.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: u64,
    pub(super) submission: Submission,
}

/// One connected worker.
pub(super) struct Worker {
    /// How the supervisor calls it: its process id, or its number if it is a thread.
    pub(super) pid: u32,
    pub(super) hello: Rc<Hello>,
    pub(super) link: Link,
    pub(super) window: Window,
    pub(super) in_flight: VecDeque<InFlight>,
    /// No new jobs: it is being replaced or it said goodbye.
    pub(super) retiring: bool,
    /// When the job at the head of `in_flight` can have started, or its stream last went on.
    pub(super) head_since: Instant,
    /// The job at the head of `in_flight` has begun to stream its reply.
    pub(super) streaming: bool,
    /// Jobs answered.
    pub(super) served: u64,
    /// Jobs after which it is replaced; zero means never.
    pub(super) serves_at_most: u64,
    /// The supervisor has been asked to replace it.
    pub(super) recycling: bool,
    /// The supervisor has been asked to kill it.
    pub(super) doomed: bool,
}

impl Worker {
    /// If the running job takes too long: who waits for it, and what to tell them. The worker gets nothing more.
    pub(super) fn take_overdue(
        &mut self,
        now: Instant,
        rules: &Rules,
    ) -> Option<(Option<oneshot::Sender<Answer>>, String)> {
        if self.doomed {
            return None;
        }
        let running = self.in_flight.front_mut()?;
        let message = rules.overdue(now.duration_since(self.head_since), self.streaming)?;
        self.retiring = true;
        self.doomed = true;
        Some((running.submission.reply.take(), message))
    }

    pub(super) fn recycle_if_large(&mut self, rules: &Rules, supervisor: &Supervisor) {
        if rules.max_worker_rss == 0 || self.recycling {
            return;
        }
        let Some(mib) = resident_mib(self.hello.pid).filter(|mib| *mib > rules.max_worker_rss) else { return };
        self.recycling = true;
        supervisor.ask_to_recycle(self.pid, &format!("uses {mib} MiB (--max_worker_rss {})", rules.max_worker_rss));
    }

    pub(super) fn accepts(&self) -> bool {
        if self.retiring {
            return false;
        }
        // A worker that still has bytes of earlier jobs to read gains nothing from more of them.
        self.in_flight.is_empty() || (self.in_flight.len() < self.window.size() && self.link.is_flushed())
    }

    /// How far away the start of a job is that it would be given now; only good for comparing.
    pub(super) fn distance(&self) -> usize {
        // Threads take turns in one interpreter: while one of them works through jobs that are over sooner than another
        // wakes up, that other would only get in its way.
        let runs_anyway = self.link.is_local() && !self.in_flight.is_empty() && self.window.is_fully_open();
        if runs_anyway {
            0
        } else {
            1 + self.in_flight.len()
        }
    }

    pub(super) fn take(&mut self, id: u64, submission: Submission) {
        let head = if self.hello.wants_request {
            submission.job.encode_head(submission.body.len())
        } else {
            submission.job.encode_short_head(submission.body.len())
        };
        if self.in_flight.is_empty() {
            self.head_since = Instant::now();
        }
        self.link.send(head, submission.body.clone());
        self.in_flight.push_back(InFlight { id, submission });
    }
}
