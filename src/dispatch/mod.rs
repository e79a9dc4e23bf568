//! From a request to the worker that answers it: the queue, the pool of connected workers, and who gets what next.
//!
//! Owned by the front's event loop thread: `Rc` and `RefCell`, no locks, and no borrow is ever held across an await.
//! `session.rs` talks with one worker; this file only decides.
//!
//! Invariants: a job is in exactly one place (the queue, or one worker's in-flight list). A worker answers strictly in
//! order and claims each job before it starts it (`claims.rs`), so jobs that it has not started can be taken back at any
//! time: when it dies, when its running job turns out to be slow, when it hangs.

mod debugger;
pub mod limits;
mod pool;
pub mod prefetch;
pub mod queue;
pub mod request_log;
mod session;
pub mod transport;
mod worker;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{oneshot, watch, Notify};

pub use self::session::{Part, Parts};
use self::{
    limits::Rules,
    pool::State,
    queue::Full,
    request_log::{Line, RequestLog},
    transport::Link,
    worker::Worker,
};
use crate::{
    body::Body,
    claims::Claims,
    control::{Recycle, Supervisor},
    frame::{Hello, Job, ReplyHead},
};

/// A job that so many workers in a row did not survive to start is not given to another: its body may be more than there
/// is memory for.
const MAX_LOSSES: u32 = 3;
/// Bytes of shared memory that every worker reads in a second, however little of the processor it gets.
#[cfg(target_os = "linux")]
const SLOW_READER: f64 = (64 << 20) as f64;
/// How often it is looked whether lines have been logged, at the end.
const LOG_CHECK: Duration = Duration::from_millis(5);

/// What becomes of a submitted job.
#[derive(Debug)]
pub enum Answer {
    /// A complete reply.
    Whole {
        /// Status, headers, timing.
        head: ReplyHead,
        /// The body.
        body: Bytes,
        /// For the lines about the request.
        log: RequestLog,
    },
    /// A streamed reply: parts follow as the script yields them.
    Stream {
        /// Status, headers, timing.
        head: ReplyHead,
        /// The parts; an `Err` is the reason why the stream broke off, and its last item.
        parts: Parts,
        /// For the lines about the request.
        log: RequestLog,
    },
    /// The worker was lost while it ran the job.
    Lost {
        /// Process id of the worker.
        pid: u32,
        /// What happened, as the supervisor saw it: `was killed by signal 9 (SIGKILL)`.
        cause: String,
    },
    /// `run()` did not return in time; its worker is being killed.
    Overdue {
        /// Process id of the worker.
        pid: u32,
        /// The message for the client.
        message: String,
    },
    /// The server is stopping at once.
    Stopped,
}

/// A request on its way to a worker.
#[derive(Debug)]
struct Submission {
    job: Job,
    body: Body,
    /// Gone once a streamed reply has begun.
    reply: Option<oneshot::Sender<Answer>>,
    /// Workers that were lost when it was the next job that they would have started.
    losses: u32,
    /// Times that it was taken back from a worker which did not come to start it.
    delays: u32,
    /// A worker that has it may run it, but if the worker gives it back it is not given to another.
    given_up: bool,
}

impl Submission {
    /// What a worker may take to read the body before it starts the job, from shared memory: on the socket it shows how
    /// it gets on. Four times more after each time that this was not enough, or a slow machine would never serve it.
    fn reading_time(&self) -> Duration {
        match &self.body {
            #[cfg(target_os = "linux")]
            Body::Shared(extent) => {
                Duration::from_secs_f64(extent.length() as f64 / SLOW_READER) * 4_u32.saturating_pow(self.delays.min(8))
            }
            Body::Own(_) => Duration::ZERO,
        }
    }

    /// True if nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool {
        self.given_up || self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn answer(self, answer: Answer) {
        if let Some(reply) = self.reply {
            // A client that left meanwhile has dropped the receiver; then nobody wants the answer.
            let _ = reply.send(answer);
        }
    }
}

/// Handle to the pool and its queue; clones share it.
#[derive(Clone)]
pub struct Dispatcher {
    state: Rc<RefCell<State>>,
    /// The script as the newest worker described it; `None` until one has connected.
    script: watch::Sender<Option<Rc<Hello>>>,
    /// Workers that accept jobs.
    ready: watch::Sender<usize>,
    exits_changed: Rc<Notify>,
    rules: Rc<Rules>,
    supervisor: Rc<Supervisor>,
    max_body_len: u64,
    /// Bytes of bodies that workers have sent since the last [`Dispatcher::take_received`].
    received: Rc<Cell<usize>>,
}

/// A submitted job. Dropping it before the answer came takes the job out of the queue, or abandons it at its worker.
pub struct Pending {
    id: u64,
    dispatcher: Dispatcher,
    answer: oneshot::Receiver<Answer>,
    answered: bool,
}

impl Pending {
    /// Waits for the outcome.
    pub async fn answer(&mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.answered = true;
        // The sender is only ever dropped unanswered if the pool itself goes away.
        answer.unwrap_or(Answer::Stopped)
    }

    /// True until the answer has come.
    pub fn is_open(&self) -> bool {
        !self.answered
    }

    /// Cancels the job unless a worker has it; if that worker gives it back, it is cancelled then.
    pub fn give_up(&mut self) {
        self.dispatcher.give_up(self.id);
    }

    /// Waits for the outcome of a job that was given up; `None` if it was cancelled.
    pub async fn answer_if_started(&mut self) -> Option<Answer> {
        let answer = (&mut self.answer).await;
        self.answered = true;
        answer.ok()
    }

    /// The job's number, for [`Dispatcher::is_queued`].
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered {
            self.dispatcher.abandon(self.id);
        }
    }
}

impl Dispatcher {
    /// An empty pool. Replies may be as long as frames allow.
    pub fn new(rules: Rules, supervisor: Rc<Supervisor>) -> Self {
        Self {
            state: Rc::new(RefCell::new(State::new(rules.max_queue))),
            script: watch::Sender::new(None),
            ready: watch::Sender::new(0),
            exits_changed: Rc::default(),
            rules: Rc::new(rules),
            supervisor,
            max_body_len: crate::frame::MAX_BODY_LEN,
            received: Rc::default(),
        }
    }

    /// Bytes of replies, whole and streamed, that workers have sent since the last call.
    pub fn take_received(&self) -> usize {
        self.received.take()
    }

    fn note_received(&self, bytes: usize) {
        self.received.set(self.received.get().saturating_add(bytes));
    }

    /// Workers that accept jobs now.
    pub fn ready_workers(&self) -> usize {
        *self.ready.borrow()
    }

    /// True while the job with this number waits for a worker.
    pub fn is_queued(&self, id: u64) -> bool {
        self.state.borrow().queue.contains(id)
    }

    /// Jobs that wait for a worker.
    pub fn queued(&self) -> usize {
        self.state.borrow().queue.len()
    }

    /// The script as the newest worker described it, if one has connected yet.
    pub fn script(&self) -> Option<Rc<Hello>> {
        self.script.borrow().clone()
    }

    /// Waits until a worker has told how its script wants to be called; `None` if the server stops before that.
    pub async fn script_known(&self) -> Option<Rc<Hello>> {
        let mut script = self.script.subscribe();
        let known = script.wait_for(|script| script.is_some() || self.state.borrow().stopped).await.ok()?;
        known.clone()
    }

    /// Queues a request and hands it to a worker as soon as one is free.
    pub fn submit(&self, mut job: Job, body: Body) -> Result<Pending, Full> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.state.borrow_mut();
        let id = state.next_job;
        state.next_job += 1;
        job.id = id;
        let submission = Submission { job, body, reply: Some(reply), losses: 0, delays: 0, given_up: false };
        if state.stopped {
            submission.answer(Answer::Stopped);
        } else {
            state.queue.push_back(id, submission)?;
            state.assign();
        }
        drop(state);
        Ok(Pending { id, dispatcher: self.clone(), answer, answered: false })
    }

    fn give_up(&self, id: u64) {
        let state = &mut *self.state.borrow_mut();
        let mut sent = state.workers.values_mut().flat_map(|worker| worker.in_flight.iter_mut());
        match sent.find(|job| job.id == id) {
            Some(job) => job.submission.given_up = true,
            // Dropping it tells who waits for the answer.
            None => drop(state.queue.remove(id)),
        }
    }

    fn abandon(&self, id: u64) {
        let mut state = self.state.borrow_mut();
        // If a worker has it already, its reply finds the receiver gone. Only a stream would go on for nobody, and it
        // ends by itself when its parts find no receiver (`session.rs`).
        drop(state.queue.remove(id));
    }

    /// Answers everything that waits or runs with [`Answer::Stopped`], now and from now on.
    pub fn stop(&self) {
        let mut state = self.state.borrow_mut();
        state.stopped = true;
        let mut open = state.queue.drain();
        for worker in state.workers.values_mut() {
            // Before the others: what has been answered must not run.
            open.extend(worker.take_back_unstarted().into_iter().map(|job| job.submission));
            open.extend(worker.in_flight.drain(..).map(|job| job.submission));
        }
        drop(state);
        for submission in open {
            submission.answer(Answer::Stopped);
        }
        self.script.send_modify(|_| ());
    }

    /// Takes a worker into the pool; it gets its first job at once if one waits.
    fn join(&self, hello: Hello, link: Link, claims: Option<Claims>) -> u64 {
        let hello = Rc::new(hello);
        let mut state = self.state.borrow_mut();
        let worker_id = state.next_worker;
        state.next_worker += 1;
        let worker = Worker::new(hello.clone(), link, claims, self.rules.requests_of_next(worker_id));
        let pid = worker.pid;
        state.workers.insert(worker_id, worker);
        state.assign();
        drop(state);
        self.supervisor.say_ready(pid);
        self.script.send_replace(Some(hello));
        self.publish_ready();
        worker_id
    }

    /// The worker's script wants to be called in another way from now on.
    fn renew(&self, worker_id: u64, hello: Hello) {
        let hello = Rc::new(hello);
        if let Some(worker) = self.state.borrow_mut().workers.get_mut(&worker_id) {
            worker.hello = hello.clone();
        }
        self.script.send_replace(Some(hello));
    }

    fn publish_ready(&self) {
        let ready = self.state.borrow().workers.values().filter(|worker| worker.is_ready()).count();
        self.ready.send_if_modified(|current| std::mem::replace(current, ready) != ready);
    }

    /// Sends no more jobs to the worker with this process id and lets it exit when it has answered what it has.
    /// False if no such worker is connected.
    pub fn retire(&self, pid: u32) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(worker) = state.worker(pid) else { return false };
        worker.retiring = true;
        worker.link.send(crate::frame::encode_bare(crate::frame::Kind::Retire), Bytes::new());
        drop(state);
        self.publish_ready();
        true
    }

    /// Notes how a process ended. If its worker is still connected (a child of the script may hold its socket open),
    /// the worker is gone all the same.
    pub fn process_exited(&self, pid: u32, cause: String) {
        let mut state = self.state.borrow_mut();
        let link = state.worker(pid).map(|worker| worker.link.clone());
        // Workers that die before they connect leave an entry that nobody fetches; a few are kept, not all.
        if state.exits.len() >= 64 {
            state.exits.clear();
        }
        state.exits.insert(pid, cause);
        drop(state);
        self.exits_changed.notify_waiters();
        if let Some(link) = link {
            link.close();
        }
    }

    /// The worker's process is stopped: what it has not started goes to others, and it gets nothing until it goes on.
    /// One that is not connected is unknown here; the supervisor says it again when that worker is ready.
    pub fn process_stopped(&self, pid: u32, now: Instant) {
        let mut state = self.state.borrow_mut();
        let Some(worker) = state.worker(pid) else { return };
        worker.stopped_since = Some(now);
        let unstarted = worker.take_back_all();
        state.requeue(unstarted);
        drop(state);
        self.publish_ready();
    }

    /// The worker's process goes on after it was stopped.
    pub fn process_continued(&self, pid: u32) {
        let mut state = self.state.borrow_mut();
        let Some(worker) = state.worker(pid) else { return };
        worker.stopped_since = None;
        state.assign();
        drop(state);
        self.publish_ready();
    }

    /// How the process ended, waiting up to `patience` for the supervisor's word.
    async fn exit_cause(&self, pid: u32, patience: Duration) -> Option<String> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let changed = self.exits_changed.notified();
            if let Some(cause) = self.state.borrow_mut().exits.remove(&pid) {
                return Some(cause);
            }
            tokio::time::timeout_at(deadline, changed).await.ok()?;
        }
    }

    /// Takes out who waits for the worker's running job, while the job stays its running one: its stream has begun.
    fn begin_stream(&self, worker_id: u64, job_id: u64) -> Option<oneshot::Sender<Answer>> {
        let mut state = self.state.borrow_mut();
        let worker = state.workers.get_mut(&worker_id)?;
        let running = worker.in_flight.front_mut()?;
        if running.id != job_id {
            return None;
        }
        let reply = running.submission.reply.take();
        worker.streaming = true;
        worker.awaits_log = worker.hello.logs_requests;
        worker.head_since = Instant::now();
        reply
    }

    /// The job that a reply of this worker ends: its oldest one, or `None` for a reply to something else.
    fn finish(&self, worker_id: u64, job_id: u64, busy_ms: f64) -> Option<Submission> {
        let mut state = self.state.borrow_mut();
        let worker = state.workers.get_mut(&worker_id)?;
        if worker.in_flight.front()?.id != job_id {
            return None;
        }
        let done = worker.in_flight.pop_front()?;
        worker.window.record(busy_ms);
        worker.head_since = Instant::now();
        if !worker.streaming {
            worker.awaits_log = worker.hello.logs_requests;
        }
        worker.streaming = false;
        worker.unresponsive_since = None;
        worker.served += 1;
        if worker.serves_at_most > 0 && worker.served >= worker.serves_at_most && !worker.recycling {
            worker.recycling = true;
            self.supervisor.ask_to_recycle(worker.pid, Recycle::Served(worker.served));
        }
        state.assign();
        Some(done.submission)
    }

    /// Sends the lines about a request to the worker that served it, or writes them here if it is gone.
    fn log_at_worker(&self, worker_id: u64, pid: u32, lines: Vec<Line>) {
        let mut state = self.state.borrow_mut();
        match state.workers.get_mut(&worker_id) {
            Some(worker) => worker.log(lines),
            None => request_log::write_all(&lines, pid),
        }
        state.assign();
    }

    /// Waits until the workers have logged all lines that were sent to them, for so long at most; writes the others here.
    pub async fn finish_logs(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while !self.state.borrow_mut().workers.values_mut().all(Worker::has_logged_all) && Instant::now() < deadline {
            tokio::time::sleep(LOG_CHECK).await;
        }
        for worker in self.state.borrow_mut().workers.values_mut() {
            // Jobs it has none: `stop` has answered them.
            drop(worker.take_back_all());
        }
    }

    /// Lets the workers go. The front's last deed, as the supervisor replaces a worker that ends before the front does;
    /// TERM alone may not end them, if the script has a handler for it.
    pub fn release_workers(&self) {
        for worker in self.state.borrow().workers.values() {
            worker.link.send(crate::frame::encode_bare(crate::frame::Kind::Retire), Bytes::new());
        }
    }

    /// The worker's stream waits for its client (`true`), or goes on: either way the script is not stuck.
    fn stream_is_held_up(&self, worker_id: u64, held_up: bool) {
        if let Some(worker) = self.state.borrow_mut().workers.get_mut(&worker_id) {
            worker.held_up = held_up;
            worker.head_since = Instant::now();
        }
    }

    /// The worker has come to a job that had been taken back from it: it works again.
    fn skipped(&self, worker_id: u64) {
        let mut state = self.state.borrow_mut();
        if let Some(worker) = state.workers.get_mut(&worker_id) {
            if worker.unresponsive_since.take().is_some() {
                log::info!(target: "azmlinfsrv.front", "Worker {} responds again", worker.pid);
            }
            worker.head_since = Instant::now();
        }
        state.assign();
        drop(state);
        self.publish_ready();
    }

    /// Takes jobs back that wait behind slow ones, for as long as the pool exists.
    pub async fn rebalance(self) {
        let prefetched = self.state.borrow().prefetched.clone();
        loop {
            prefetched.notified().await;
            while self.state.borrow().workers.values().any(|worker| worker.in_flight.len() > 1) {
                tokio::time::sleep(worker::PREFETCH_BEHIND).await;
                self.state.borrow_mut().take_back(Worker::take_back_waiting);
            }
        }
    }

    /// Gives the jobs of workers that hang to others; answers for those whose job is overdue and has them killed; has
    /// workers replaced that have grown too large.
    pub fn watch(&self, now: Instant) {
        let mut overdue = Vec::new();
        self.state.borrow_mut().take_back(Worker::take_back_from_hung);
        self.state.borrow_mut().stop_awaiting_logs();
        for worker in self.state.borrow_mut().workers.values_mut() {
            if let Some((reply, message)) = worker.take_overdue(now, &self.rules) {
                let fault = worker.fault();
                self.supervisor.ask_to_kill(worker.pid, &format!("{fault} ({})", message.trim_end_matches('.')));
                overdue.push((reply, Answer::Overdue { pid: worker.hello.pid, message }));
            }
            worker.recycle_if_large(&self.rules, &self.supervisor);
        }
        for (reply, answer) in overdue {
            // Without a receiver the client has left, or its stream is under way and is cut when the worker dies.
            if let Some(reply) = reply {
                let _ = reply.send(answer);
            }
        }
        self.publish_ready();
    }

    /// The worker will not start anything it has not answered (`Goodbye`): its jobs go to others.
    fn give_back(&self, worker_id: u64) {
        let mut state = self.state.borrow_mut();
        if let Some(worker) = state.workers.get_mut(&worker_id) {
            if !(worker.retiring || worker.recycling) {
                // Its end may take long, as that of the script does. Its successor starts now.
                self.supervisor.ask_to_recycle(worker.pid, Recycle::Leaving);
            }
            worker.retiring = true;
            let jobs = std::mem::take(&mut worker.in_flight);
            state.requeue(jobs);
        }
        drop(state);
        self.publish_ready();
    }

    /// The worker is gone. Returns the jobs it had started, usually one at most, and one that has been the end of too many
    /// workers; the others are queued again.
    fn leave(&self, worker_id: u64) -> Vec<Submission> {
        let mut state = self.state.borrow_mut();
        let Some(mut worker) = state.workers.remove(&worker_id) else { return Vec::new() };
        let mut unstarted = worker.take_back_all();
        if worker.in_flight.is_empty() {
            if let Some(next) = unstarted.front_mut() {
                next.submission.losses += 1;
                if next.submission.losses >= MAX_LOSSES {
                    worker.in_flight.extend(unstarted.pop_front());
                }
            }
        }
        state.requeue(unstarted);
        drop(state);
        self.publish_ready();
        // More than one if it could not send its replies any more.
        worker.in_flight.into_iter().map(|job| job.submission).collect()
    }
}
