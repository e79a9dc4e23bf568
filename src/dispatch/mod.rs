//! From a request to the worker that answers it, and back.
//!
//! This file makes no decisions; `core.rs` does. It makes events of what clients, workers and the
//! supervisor do. `perform.rs` keeps what the core does not need (requests, bodies, who waits for an
//! answer, connections to workers), and performs the core's effects. `pending.rs` is what a client
//! waits for, `session.rs` reads from one worker, and `transport/` carries the frames.
//!
//! Only the front's event loop thread uses it: `Rc` and `RefCell` instead of locks. No borrow may
//! be held across an await.

mod core;
mod debugger;
mod event;
mod job;
pub mod limits;
mod pending;
mod perform;
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
    collections::BTreeMap,
    io,
    ops::Deref,
    rc::Rc,
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::{oneshot, watch, Notify, SetOnce};

use self::{
    core::Core,
    debugger::debugger_of,
    event::{Effect, Effects, Event},
    job::{BodySize, JobId, JobMap, WorkerId},
    limits::Limits,
    pending::Interest,
    perform::{Client, Peer, Reply, Request, State},
    session::OpenStream,
    transport::FrameSender,
    worker::Newcomer,
};
pub use self::{
    core::Figures,
    pending::{Answer, Answered, Pending},
    session::{Part, Parts},
};
use crate::{
    fault_injection::{point, Point},
    ipc::{
        body::Body,
        claims::Claims,
        control::Supervisor,
        frame::{self, Hello, Job, Kind},
    },
    panics::catch,
    telemetry::{
        metrics::process,
        record::{JobTimes, Worker},
    },
};

/// Logger of the dispatcher's own lines.
const LOG: &str = "azmlinfsrv.front";

/// Handle to the core and everything around it; clones share it. One pointer, because each request
/// has a clone.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Rc<Shared>,
}

/// What the clones of a [`Dispatcher`] share.
pub struct Shared {
    state: RefCell<State>,
    /// The script as the newest worker described it; `None` until one has connected.
    script: watch::Sender<Option<Rc<Hello>>>,
    /// When the core wants its next tick.
    wake_at: Cell<Option<Instant>>,
    wake_earlier: Notify,
    supervisor: Rc<Supervisor>,
    measures_workers: bool,
    /// Bytes of bodies that workers have sent since the last [`Dispatcher::take_received`].
    received: Cell<usize>,
    /// The panic that has ended the dispatcher.
    panic: SetOnce<String>,
}

impl Deref for Dispatcher {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Dispatcher {
    /// No workers, and an empty queue.
    pub fn new(limits: Limits, supervisor: Rc<Supervisor>) -> Self {
        let measures_workers = limits.max_worker_rss > 0;
        let state = State {
            core: Core::new(limits),
            effects: Effects::default(),
            requests: JobMap::default(),
            peers: BTreeMap::new(),
            next_job: 0,
            next_worker: 0,
        };
        let shared = Shared {
            state: RefCell::new(state),
            script: watch::Sender::new(None),
            wake_at: Cell::default(),
            wake_earlier: Notify::default(),
            supervisor,
            measures_workers,
            received: Cell::default(),
            panic: SetOnce::default(),
        };
        Self { shared: Rc::new(shared) }
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
    fn is_waiting(&self, id: u64) -> bool {
        self.state.borrow().core.is_waiting(JobId(id))
    }

    /// True while [`Pending::leave`] would cancel the job with this number.
    pub fn is_cancellable(&self, id: u64) -> bool {
        self.state.borrow().core.is_cancellable(JobId(id))
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
        let interest = Rc::new(Interest { job: id, dispatcher: self.clone(), is_over: Cell::new(false) });
        let client = Client::Waits(sender, Rc::downgrade(&interest));
        let now = Instant::now();
        let times = JobTimes { queued: Some(now), ..JobTimes::default() };
        state.requests.insert(id, Request { job, body, client, times, worker: None });
        drop(state);
        self.handle_reply(Event::Submitted { job: id, size }, Reply::None, now);
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
            batch: hello.batch.into(),
            cancels: hello.cancels,
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

    /// The worker has said hello again, because its script needs other input from now on, or its
    /// batches have another size.
    fn renew(&self, worker: WorkerId, hello: Hello) {
        self.handle(Event::Resized { worker, batch: hello.batch.into() });
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
        self.handle_reply(event, Reply::None, Instant::now());
    }

    /// Gives the event to the core and performs the effects. `reply` is the worker's reply, if the
    /// event reports one.
    ///
    /// A panic may leave the core's state half changed, so the core gets no more events after it,
    /// and the front ends ([`Dispatcher::failure`]).
    fn handle_reply(&self, event: Event<Option<Claims>>, reply: Reply, now: Instant) {
        if self.has_panicked() {
            return;
        }
        if let Err(panic) = catch(|| self.handle_now(event, reply, now)) {
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

    fn handle_now(&self, event: Event<Option<Claims>>, mut reply: Reply, now: Instant) {
        point(Point::Core);
        let mut state = self.state.borrow_mut();
        let mut effects = std::mem::take(&mut state.effects);
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
