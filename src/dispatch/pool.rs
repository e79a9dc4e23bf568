//! The queue and the connected workers together: which job goes where, and back.
//!
//! State and its moves; owned by the dispatcher, in the front's event loop. What one worker may have is `worker.rs`.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    rc::Rc,
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    queue::Queue,
    worker::{InFlight, Worker},
    Submission,
};

/// What the clones of a `Dispatcher` share.
pub(super) struct State {
    pub(super) queue: Queue<Submission>,
    pub(super) workers: BTreeMap<u64, Worker>,
    pub(super) next_worker: u64,
    pub(super) next_job: u64,
    pub(super) stopped: bool,
    /// Told when a worker gets a job while it has another.
    pub(super) prefetched: Rc<Notify>,
    /// How processes ended, until their worker's loss is handled.
    pub(super) exits: HashMap<u32, String>,
}

impl State {
    /// No workers, and a queue of this length.
    pub(super) fn new(max_queue: usize) -> Self {
        Self {
            queue: Queue::new(max_queue),
            workers: BTreeMap::new(),
            next_worker: 0,
            next_job: 0,
            stopped: false,
            prefetched: Rc::default(),
            exits: HashMap::new(),
        }
    }

    /// The worker that the supervisor calls so, if it is connected.
    pub(super) fn worker(&mut self, pid: u32) -> Option<&mut Worker> {
        self.workers.values_mut().find(|worker| worker.pid == pid)
    }

    /// Puts jobs that no worker started back at the head of the queue, in their order, and hands them out again.
    pub(super) fn requeue(&mut self, jobs: VecDeque<InFlight>) {
        for job in jobs.into_iter().rev() {
            if !job.submission.is_abandoned() {
                self.queue.push_front(job.id, job.submission);
            }
        }
        self.assign();
    }

    /// Asks every worker for jobs to take back, and hands them out again.
    pub(super) fn take_back(&mut self, from: impl Fn(&mut Worker, Instant) -> VecDeque<InFlight>) {
        let now = Instant::now();
        let mut jobs: Vec<InFlight> = self.workers.values_mut().flat_map(|worker| from(worker, now)).collect();
        if jobs.is_empty() {
            return;
        }
        // The order in which they were submitted, whichever worker had them.
        jobs.sort_by_key(|job| job.id);
        self.requeue(jobs.into());
    }

    /// Lines follow their reply at once. Should a request's task not come to that, its worker does not wait for it.
    pub(super) fn stop_awaiting_logs(&mut self) {
        let mut awaiting = self.workers.values_mut().filter(|worker| worker.awaits_log).peekable();
        if awaiting.peek().is_some() {
            awaiting.for_each(|worker| worker.awaits_log = false);
            self.assign();
        }
    }

    /// Hands out queued jobs for as long as a worker may take one.
    pub(super) fn assign(&mut self) {
        let now = Instant::now();
        while !self.queue.is_empty() {
            let Some(worker) = next_worker(&mut self.workers, now) else {
                return;
            };
            let Some((id, submission)) = self.queue.pop() else {
                return;
            };
            if submission.is_abandoned() {
                continue;
            }
            worker.take(id, submission, now);
            if worker.in_flight.len() > 1 {
                self.prefetched.notify_one();
            }
        }
    }
}

/// The worker that would start a job soonest: usually an idle one, else the least loaded whose window is open.
fn next_worker(workers: &mut BTreeMap<u64, Worker>, now: Instant) -> Option<&mut Worker> {
    workers.values_mut().filter(|worker| worker.accepts(now)).min_by_key(|worker| worker.distance())
}
