//! From a request to the worker that answers it, and back.
//!
//! This file makes no decisions; `core.rs` does. It makes events of what clients, workers and the
//! supervisor do, keeps what the core does not need (requests, bodies, who waits for an answer,
//! connections to workers), and performs the core's effects. `session.rs` reads from one worker.
//! `transport/` carries the frames.
//!
//! Only the front's event loop thread uses it: `Rc` and `RefCell` instead of locks. No borrow may
//! be held across an await.

mod core;
mod debugger;
mod event;
mod job;
pub mod limits;
mod prefetch;
mod session;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
pub mod transport;
mod worker;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    fmt, io,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{oneshot, watch, Notify, SetOnce};

use self::{
    core::Core,
    debugger::debugger_of,
    event::{Effect, Effects, Event, Outcome},
    job::{BodySize, JobId, WorkerId},
    limits::Limits,
    session::OpenStream,
    transport::FrameSender,
    worker::Newcomer,
};
pub use self::{
    core::Figures,
    session::{Part, Parts},
};
use crate::{
    fault_injection::{point, Point},
    ipc::{
        body::Body,
        claims::Claims,
        control::Supervisor,
        frame::{self, BodyAt, Hello, Job, Kind, ReplyHead},
    },
    panics::catch,
    telemetry::{
        metrics::process,
        record::{JobTimes, Worker},
    },
};

/// Logger of the dispatcher's own lines.
const LOG: &str = "azmlinfsrv.front";

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
struct Interest {
    job: JobId,
    dispatcher: Dispatcher,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.dispatcher.handle(Event::Abandoned(self.job));
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
    answer: oneshot::Receiver<Answered>,
    interest: Rc<Interest>,
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
        let Interest { job, dispatcher } = &*self.interest;
        dispatcher.handle(Event::GivenUp(*job));
    }

    /// Waits for the answer to a job that was given up; `None` if the job was cancelled.
    pub async fn answer_if_started(&mut self) -> Option<Answered> {
        (&mut self.answer).await.ok()
    }

    /// The job's number, for [`Dispatcher::is_waiting`].
    pub fn id(&self) -> u64 {
        self.interest.job.0
    }
}

/// Who gets a job's answer.
enum Client {
    /// The client has no answer yet. If the answer is a stream, the stream takes over the
    /// `Interest`.
    Waits(oneshot::Sender<Answered>, Weak<Interest>),
    /// A streamed answer has begun.
    Receives(OpenStream),
    /// The job has been answered while its worker still has it.
    Answered,
}

/// A request that has been submitted and is not over.
struct Request {
    job: Job,
    body: Body,
    client: Client,
    /// When it was queued, and when it was sent last.
    times: JobTimes,
    /// The worker that it was sent to last.
    worker: Option<Worker>,
}

/// A connected worker.
struct Peer {
    hello: Rc<Hello>,
    /// Number of the worker; see [`Worker::slot`].
    slot: u32,
    sender: FrameSender,
}

/// A reply that a worker has just sent. It goes with the event that reports it.
#[derive(Default)]
enum Reply {
    #[default]
    None,
    Whole {
        head: ReplyHead,
        body: Bytes,
    },
    Stream {
        head: ReplyHead,
    },
}

/// What the clones of a `Dispatcher` share.
struct State {
    core: Core<Option<Claims>>,
    effects: Effects,
    requests: HashMap<JobId, Request>,
    peers: BTreeMap<WorkerId, Peer>,
    next_job: u64,
    next_worker: u64,
}

/// Handle to the core and everything around it; clones share it.
#[derive(Clone)]
pub struct Dispatcher {
    state: Rc<RefCell<State>>,
    /// The script as the newest worker described it; `None` until one has connected.
    script: watch::Sender<Option<Rc<Hello>>>,
    /// When the core wants its next tick.
    wake_at: Rc<Cell<Option<Instant>>>,
    wake_earlier: Rc<Notify>,
    supervisor: Rc<Supervisor>,
    measures_workers: bool,
    /// Bytes of bodies that workers have sent since the last [`Dispatcher::take_received`].
    received: Rc<Cell<usize>>,
    /// The panic that has ended the dispatcher.
    panic: Rc<SetOnce<String>>,
}

impl Dispatcher {
    /// No workers, and an empty queue.
    pub fn new(limits: Limits, supervisor: Rc<Supervisor>) -> Self {
        let measures_workers = limits.max_worker_rss > 0;
        let state = State {
            core: Core::new(limits),
            effects: Effects::default(),
            requests: HashMap::new(),
            peers: BTreeMap::new(),
            next_job: 0,
            next_worker: 0,
        };
        Self {
            state: Rc::new(RefCell::new(state)),
            script: watch::Sender::new(None),
            wake_at: Rc::default(),
            wake_earlier: Rc::default(),
            supervisor,
            measures_workers,
            received: Rc::default(),
            panic: Rc::default(),
        }
    }

    /// Bytes of replies, whole and streamed, that workers have sent since the last call.
    pub fn take_received(&self) -> usize {
        self.received.take()
    }

    /// Workers that accept jobs now.
    pub fn ready_workers(&self) -> usize {
        self.state.borrow().core.ready_workers()
    }

    /// What queue and workers do at this moment.
    pub fn figures(&self) -> Figures {
        self.state.borrow().core.figures()
    }

    /// The connected workers.
    pub fn workers(&self) -> Vec<Worker> {
        let state = self.state.borrow();
        state.peers.values().map(|peer| Worker { pid: peer.hello.pid, slot: peer.slot }).collect()
    }

    /// Jobs that wait for a worker.
    #[cfg(test)]
    pub fn queued(&self) -> usize {
        self.state.borrow().core.queued()
    }

    /// True while the job with this number waits for a worker that can start it: [`Pending::give_up`] would cancel it.
    pub fn is_waiting(&self, id: u64) -> bool {
        self.state.borrow().core.is_waiting(JobId(id))
    }

    /// The script as the newest worker described it, if one has connected yet.
    pub fn script(&self) -> Option<Rc<Hello>> {
        self.script.borrow().clone()
    }

    /// Waits until a worker has told how its script wants to be called; `None` if the server stops before that.
    pub async fn script_known(&self) -> Option<Rc<Hello>> {
        let mut script = self.script.subscribe();
        let known = script.wait_for(|script| script.is_some() || self.state.borrow().core.is_stopped()).await.ok()?;
        known.clone()
    }

    /// Queues a request; a worker gets it as soon as one is free.
    pub fn submit(&self, mut job: Job, body: Body) -> Pending {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.borrow_mut();
        let id = JobId(state.next_job);
        state.next_job += 1;
        job.id = id.0;
        let size = match &body {
            #[cfg(target_os = "linux")]
            Body::Shared(extent) => BodySize { in_frame: 0, shared: extent.length() },
            Body::Own(bytes) => BodySize { in_frame: bytes.len(), shared: 0 },
        };
        let interest = Rc::new(Interest { job: id, dispatcher: self.clone() });
        let client = Client::Waits(sender, Rc::downgrade(&interest));
        let times = JobTimes { queued: Some(Instant::now()), ..JobTimes::default() };
        state.requests.insert(id, Request { job, body, client, times, worker: None });
        drop(state);
        self.handle(Event::Submitted { job: id, size });
        Pending { answer, interest }
    }

    /// Answers everything that waits or runs with [`Answer::Stopped`], now and from now on.
    pub fn stop(&self) {
        self.handle(Event::Stop);
        self.script.send_modify(|_| ());
    }

    /// Tells all workers to exit. The front does this last, because the supervisor would replace a
    /// worker that ends before the front does. TERM alone may not end a worker whose script handles
    /// that signal.
    pub fn release_workers(&self) {
        for peer in self.state.borrow().peers.values() {
            peer.sender.send(frame::encode_bare(Kind::Retire), Bytes::new());
        }
    }

    // ---- What the supervisor reports. Its `name` for a worker is the process id, or the number of
    // a thread.

    /// Sends no more jobs to this worker. The worker exits when it has answered the jobs that it
    /// has.
    pub fn retire(&self, name: u32) {
        self.handle(Event::Retire { name });
    }

    /// This worker's process has ended; `cause` says how.
    pub fn process_exited(&self, name: u32, cause: String) {
        self.handle(Event::Exited { name, cause });
    }

    /// This worker's process is stopped.
    pub fn process_stopped(&self, name: u32) {
        self.handle(Event::Stopped { name });
    }

    /// This worker's process continues after it was stopped.
    pub fn process_continued(&self, name: u32) {
        self.handle(Event::Continued { name });
    }

    // ---- Time

    /// Gives the core its ticks when it wants them, for as long as the dispatcher exists.
    pub async fn keep_time(self) {
        loop {
            match self.wake_at.get() {
                None => self.wake_earlier.notified().await,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {
                        point(Point::Clock);
                        self.wake_at.set(None);
                        self.handle(Event::Tick);
                    }
                    () = self.wake_earlier.notified() => {}
                },
            }
        }
    }

    /// To be called about ten times a second: deadlines are kept to that precision.
    pub fn watch(&self) {
        self.handle(Event::Tick);
        if !self.measures_workers {
            return;
        }
        let state = self.state.borrow();
        let pids: Vec<(WorkerId, u32)> = state.peers.iter().map(|(id, peer)| (*id, peer.hello.pid)).collect();
        drop(state);
        for (worker, pid) in pids {
            if let Some(bytes) = process::resident_bytes(pid) {
                self.handle(Event::Measured { worker, mib: bytes >> 20 });
            }
        }
    }

    // ---- Workers, for `session.rs`

    /// A worker has connected and said hello.
    fn join(&self, hello: Hello, sender: FrameSender, claims: Option<Claims>) -> WorkerId {
        let hello = Rc::new(hello);
        let newcomer = Newcomer {
            name: hello.worker,
            capacity: hello.capacity.into(),
            shares_interpreter: sender.is_thread(),
            claims,
        };
        let mut state = self.state.borrow_mut();
        let id = WorkerId(state.next_worker);
        state.next_worker += 1;
        let slot = state.free_slot();
        state.peers.insert(id, Peer { hello: hello.clone(), slot, sender });
        drop(state);
        self.handle(Event::Joined(id, newcomer));
        self.script.send_replace(Some(hello));
        id
    }

    /// The worker has said hello again, because its script needs other input from now on.
    fn renew(&self, worker: WorkerId, hello: Hello) {
        let hello = Rc::new(hello);
        if let Some(peer) = self.state.borrow_mut().peers.get_mut(&worker) {
            peer.hello = hello.clone();
        }
        self.script.send_replace(Some(hello));
    }

    /// The worker's connection has ended. `problem` says why, if the front has ended it.
    fn lose(&self, worker: WorkerId, problem: Option<String>) {
        self.state.borrow_mut().peers.remove(&worker);
        self.handle(Event::Lost { worker, problem });
    }

    /// The stream that a worker sends for this job, if its client still listens.
    fn stream_of(&self, job: JobId) -> Option<OpenStream> {
        match &self.state.borrow().requests.get(&job)?.client {
            Client::Receives(stream) => Some(stream.clone()),
            Client::Waits(..) | Client::Answered => None,
        }
    }

    // ---- Events and effects

    fn handle(&self, event: Event<Option<Claims>>) {
        self.handle_reply(event, Reply::None);
    }

    /// Gives the event to the core and performs the effects. `reply` is the worker's reply, if the
    /// event reports one.
    ///
    /// A panic may leave the core's state half changed, so the core gets no more events after it,
    /// and the front ends ([`Dispatcher::failure`]).
    fn handle_reply(&self, event: Event<Option<Claims>>, reply: Reply) {
        if self.has_panicked() {
            return;
        }
        if let Err(panic) = catch(|| self.handle_now(event, reply)) {
            // Only the first panic is reported: dropping what it left behind may cause another one.
            let _ = self.panic.set(format!("the dispatcher {panic}"));
        }
    }

    /// True if the dispatcher has panicked. Then it does nothing any more.
    pub fn has_panicked(&self) -> bool {
        self.panic.initialized()
    }

    /// Resolves when the dispatcher has panicked.
    pub async fn failure(&self) -> io::Error {
        io::Error::other(self.panic.wait().await.clone())
    }

    fn handle_now(&self, event: Event<Option<Claims>>, mut reply: Reply) {
        point(Point::Core);
        let mut state = self.state.borrow_mut();
        let mut effects = std::mem::take(&mut state.effects);
        let now = Instant::now();
        state.core.handle(event, now, &mut effects);
        // An answer that nobody takes may hold an `Interest`, which must be dropped after the borrow has ended.
        let mut undelivered = Vec::new();
        let mut looked = Vec::new();
        for effect in effects.drain() {
            match effect {
                Effect::Answer { job, outcome } => {
                    undelivered.extend(state.answer(job, outcome, std::mem::take(&mut reply), now));
                }
                Effect::LookForDebugger(worker) => {
                    let found = state.peers.get(&worker).and_then(|peer| debugger_of(peer.hello.pid));
                    looked.push(Event::LookedForDebugger { worker, found });
                }
                effect => state.perform(effect, now, &self.supervisor),
            }
        }
        if let Some(at) = effects.take_wake_at() {
            if self.wake_at.get().is_none_or(|planned| at < planned) {
                self.wake_at.set(Some(at));
                self.wake_earlier.notify_one();
            }
        }
        state.effects = effects;
        drop(state);
        drop(undelivered);
        looked.into_iter().for_each(|event| self.handle(event));
    }
}

impl State {
    /// The smallest number that no connected worker has.
    fn free_slot(&self) -> u32 {
        (0..).find(|slot| self.peers.values().all(|peer| peer.slot != *slot)).unwrap_or_default()
    }

    fn perform(&mut self, effect: Effect, now: Instant, supervisor: &Supervisor) {
        match effect {
            // `handle_reply` performs these two, because it has the reply and can handle another
            // event.
            Effect::Answer { .. } | Effect::LookForDebugger(_) => {}
            Effect::Send { worker, jobs } => self.send(worker, &jobs, now),
            Effect::Forget(job) => drop(self.requests.remove(&job)),
            Effect::Cancel { worker, job } => self.send_frame(worker, frame::encode_with_id(Kind::Cancel, job.0, 0)),
            Effect::Retire(worker) => self.send_frame(worker, frame::encode_bare(Kind::Retire)),
            Effect::Disconnect(worker) => {
                if let Some(peer) = self.peers.get(&worker) {
                    peer.sender.close();
                }
            }
            Effect::SayReady { name } => supervisor.say_ready(name),
            Effect::SayDisconnected { name } => supervisor.say_disconnected(name),
            Effect::AskToKill { name, reason } => supervisor.ask_to_kill(name, &reason),
            Effect::AskToRecycle { name, reason } => supervisor.ask_to_recycle(name, reason),
            Effect::Log(level, text) => log::log!(target: LOG, level, "{text}"),
        }
    }

    fn send_frame(&self, worker: WorkerId, frame: Bytes) {
        if let Some(peer) = self.peers.get(&worker) {
            peer.sender.send(frame, Bytes::new());
        }
    }

    fn send(&mut self, worker: WorkerId, jobs: &[JobId], now: Instant) {
        let Some(peer) = self.peers.get(&worker) else { return };
        for job in jobs {
            let Some(request) = self.requests.get_mut(job) else { continue };
            request.times.sent = Some(now);
            request.worker = Some(Worker { pid: peer.hello.pid, slot: peer.slot });
            match request.encode(&peer.hello) {
                Ok((head, body)) => peer.sender.enqueue(head, body),
                Err(error) => {
                    // Both ends count the jobs of a connection, so the front must not skip one.
                    // Close the connection; the worker connects again.
                    log::error!(target: LOG, "Cannot read the body of a request to send it to a worker: {error}");
                    return peer.sender.close();
                }
            }
        }
        peer.sender.flush();
    }

    /// Answers the job's client. Returns the answer if no client takes it.
    fn answer(&mut self, id: JobId, outcome: Outcome, reply: Reply, now: Instant) -> Option<Answered> {
        let request = self.requests.get_mut(&id)?;
        let times = request.times_until(&outcome, &reply, now);
        let worker = request.worker.filter(|_| !matches!(outcome, Outcome::QueueFull { .. } | Outcome::Stopped));
        let client = std::mem::replace(&mut request.client, Client::Answered);
        let interest = match &client {
            Client::Waits(_, interest) => interest.upgrade(),
            Client::Receives(_) | Client::Answered => None,
        };
        let answer = match (outcome, reply) {
            (Outcome::Replied, Reply::Whole { head, body }) => Answer::Whole { head, body },
            (Outcome::Streams, Reply::Stream { head }) => {
                let (stream, parts) = OpenStream::new(interest);
                request.client = Client::Receives(stream);
                Answer::Stream { head, parts }
            }
            (Outcome::Lost { cause, .. }, _) => Answer::Lost { cause },
            (Outcome::Overdue { message, .. }, _) => Answer::Overdue { message },
            (Outcome::QueueFull { waiting }, _) => Answer::QueueFull { waiting },
            // The core says `Replied` and `Streams` only about the reply that the event has brought.
            (Outcome::Stopped | Outcome::Replied | Outcome::Streams, _) => Answer::Stopped,
        };
        // The worker still has the job after a stream's head or an overdue answer.
        if !matches!(answer, Answer::Stream { .. } | Answer::Overdue { .. }) {
            self.requests.remove(&id);
        }
        let answered = Answered { answer, times, worker };
        match (client, answered) {
            (Client::Waits(sender, _), answered) => sender.send(answered).err(),
            (Client::Receives(stream), Answered { answer: Answer::Lost { cause }, worker, .. }) => {
                let pid = worker.map_or(0, |worker| worker.pid);
                log::error!(target: LOG, "Worker {pid} {cause} in the middle of a streamed reply");
                stream.break_off(cause);
                None
            }
            (Client::Receives(_) | Client::Answered, answered) => Some(answered),
        }
    }
}

impl Request {
    /// The times of a job that has this outcome now.
    fn times_until(&self, outcome: &Outcome, reply: &Reply, now: Instant) -> JobTimes {
        let milliseconds = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).ok();
        let mut times = JobTimes { ended: Some(now), ..self.times };
        match (outcome, reply) {
            (Outcome::Lost { started, .. } | Outcome::Overdue { started, .. }, _) => times.started = *started,
            (_, Reply::Whole { head, .. } | Reply::Stream { head }) => {
                // The clocks of the front and the worker may disagree about the length of a short time.
                let begun = milliseconds(head.busy_ms).and_then(|busy| now.checked_sub(busy));
                times.started = begun.max(times.sent);
                times.run = head.run_ms.and_then(milliseconds);
            }
            (_, Reply::None) => {}
        }
        if matches!(reply, Reply::Stream { .. }) {
            times.ended = None;
        }
        times
    }

    /// The frame of the job for this worker: head and body.
    fn encode(&self, hello: &Hello) -> io::Result<(Bytes, Bytes)> {
        let (at, body) = match &self.body {
            // Without the claim counter a worker could start a revoked job, whose shared body may
            // be freed already.
            #[cfg(target_os = "linux")]
            Body::Shared(extent) if hello.shares_bodies && hello.shares_claims => {
                (BodyAt::Shared(extent.place()), Bytes::new())
            }
            body => (BodyAt::Frame(body.length()), body.to_bytes()?),
        };
        let head = if hello.wants_request { self.job.encode_head(at) } else { self.job.encode_short_head(at) };
        Ok((head, body))
    }
}
