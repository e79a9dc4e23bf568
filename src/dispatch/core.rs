//! The decisions of the dispatcher: which job goes to which worker, which jobs the front takes back
//! from a worker, and which client gets which answer.
//!
//! A pure state machine: [`Core::handle`] takes an event and the time, and appends the effects that
//! the caller must perform. It knows no socket, clock, task or file, so that `simulation.rs` can
//! run it through millions of histories in virtual time. `dispatch/mod.rs` makes events of what
//! clients, workers and the supervisor do, and performs the effects. Used in the front's event
//! loop.
//!
//! One file of more than 400 lines, because every rule reads and changes the same jobs, queue and
//! workers, and the order of the rules matters. What concerns one job or one worker alone is in
//! `job.rs` and `worker.rs`.
//!
//! Invariants:
//! - A job is in exactly one stage (`job.rs`), and at most one worker has it.
//! - A worker claims a job before it starts it (`ipc/claims.rs`). The front can revoke an unclaimed
//!   job at any time. So a job never runs twice, and a revoked or answered job never starts.
//! - A job has exactly one outcome: one [`Effect::Answer`] or, when its client left first, one
//!   [`Effect::Forget`].
//! - After every event, no job waits while a worker would take it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use log::Level;

use super::{
    event::{Effect, Effects, Event, Outcome},
    job::{Awaits, BodySize, Client, Job, JobId, JobMap, Stage, WorkerId},
    limits::Limits,
    worker::{ClaimCounter, Condition, Newcomer, Pulse, Worker, PREFETCH_BEHIND, UNRESPONSIVE_AFTER},
};
use crate::ipc::control::Recycle;

/// When this many workers in a row have died just before they started the same job, the front
/// answers the job and does not requeue it, because its body may need more memory than there is.
const MAX_LOSSES: u32 = 3;
/// How long the client of a job whose worker was lost waits for the supervisor to say what happened
/// to the worker.
const EXIT_CAUSE_PATIENCE: Duration = Duration::from_millis(500);
/// How many exit causes the core keeps for connections whose end it has not noticed yet. A worker
/// that dies before it connects leaves a cause that nobody takes, so the core drops the oldest
/// ones.
const MAX_EXITS: usize = 64;

/// Why a worker has to be killed.
struct Overdue {
    /// The fault of the worker and the limit, for the log.
    reason: String,
    /// The jobs that have exceeded their limit, each with the message for its client.
    jobs: Vec<(JobId, String)>,
}

/// Tells if the server takes jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The core has answered every job that waited or ran, and answers each new job at once.
    Stopped,
}

/// Rules that the simulation breaks on purpose, one at a time, to show that its checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub(super) enum Rule {
    RevokeBeforeRequeue,
    RevokeBeforeStop,
    RemoveAbandoned,
    OldestFirst,
    AssignAfterEveryEvent,
    AnswerOverdue,
    BoundTheQueue,
    BoundTheWindow,
    RequeueFromLost,
    AnswerForLost,
    AnswerOnce,
    TakeBackFromStopped,
    TakeBackFromUnresponsive,
    TakeBackBehindSlow,
    CancelStreams,
    CancelCalls,
    GiveUpAfterLosses,
    SpareTheDebugged,
    RestartTheLimit,
}

#[cfg(test)]
impl Rule {
    pub(super) const ALL: [Self; 19] = [
        Self::RevokeBeforeRequeue,
        Self::RevokeBeforeStop,
        Self::RemoveAbandoned,
        Self::OldestFirst,
        Self::AssignAfterEveryEvent,
        Self::AnswerOverdue,
        Self::BoundTheQueue,
        Self::BoundTheWindow,
        Self::RequeueFromLost,
        Self::AnswerForLost,
        Self::AnswerOnce,
        Self::TakeBackFromStopped,
        Self::TakeBackFromUnresponsive,
        Self::TakeBackBehindSlow,
        Self::CancelStreams,
        Self::CancelCalls,
        Self::GiveUpAfterLosses,
        Self::SpareTheDebugged,
        Self::RestartTheLimit,
    ];
}

/// The queue, the connected workers and every job that is not done.
pub struct Core<C> {
    limits: Limits,
    /// Jobs that no worker has. The set is ordered by age, because a later job has a larger id.
    queue: BTreeSet<JobId>,
    jobs: JobMap<Job>,
    workers: BTreeMap<WorkerId, Worker<C>>,
    /// Name and exit cause of each worker that has exited while the core still counts its
    /// connection as open. The oldest is first.
    exits: VecDeque<(u32, String)>,
    /// Jobs in [`Stage::Orphaned`].
    orphans: BTreeSet<JobId>,
    phase: Phase,
    #[cfg(test)]
    pub(super) broken: Option<Rule>,
}

/// What queue and workers do at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Jobs that wait for a worker.
    pub queued: usize,
    /// How many may wait (`--max_queue`).
    pub queue_limit: usize,
    /// Jobs that workers may have started. Prefetched jobs do not count.
    pub running: usize,
    /// How many may run at once in the workers that take jobs.
    pub running_limit: usize,
    /// Workers that take jobs and have none.
    pub ready: usize,
    /// Workers that serve and have a job, or do not respond.
    pub busy: usize,
    /// Workers that get no more jobs.
    pub draining: usize,
}

impl<C: ClaimCounter> Core<C> {
    /// A core without workers and with an empty queue.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            queue: BTreeSet::new(),
            jobs: JobMap::default(),
            workers: BTreeMap::new(),
            exits: VecDeque::new(),
            orphans: BTreeSet::new(),
            phase: Phase::Serving,
            #[cfg(test)]
            broken: None,
        }
    }

    /// What queue and workers do now.
    pub fn figures(&self) -> Figures {
        let mut figures =
            Figures { queued: self.queue.len(), queue_limit: self.limits.max_queue, ..Figures::default() };
        for worker in self.workers.values() {
            figures.running += worker.started();
            if worker.is_ready() {
                figures.running_limit += worker.capacity;
            }
            let count = if worker.is_retiring() {
                &mut figures.draining
            } else if worker.is_ready() && worker.in_flight.is_empty() {
                &mut figures.ready
            } else {
                &mut figures.busy
            };
            *count += 1;
        }
        figures
    }

    /// Workers that take jobs.
    pub fn ready_workers(&self) -> usize {
        self.workers.values().filter(|worker| worker.is_ready()).count()
    }

    /// Jobs that wait for a worker.
    #[cfg(test)]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// True while the job waits for a worker that can start it.
    pub fn is_waiting(&self, job: JobId) -> bool {
        let stage = self.jobs.get(&job).map(|job| &job.stage);
        matches!(stage, Some(Stage::Queued | Stage::Sent { startable_since: None, .. }))
    }

    /// True while the job can be cancelled: it waits, or its worker can cancel the call.
    pub fn is_cancellable(&self, job: JobId) -> bool {
        match self.jobs.get(&job).map(|job| &job.stage) {
            Some(Stage::Queued | Stage::Sent { startable_since: None, .. }) => true,
            Some(Stage::Sent { worker, .. } | Stage::Started { worker, .. }) => {
                self.workers.get(worker).is_some_and(|worker| worker.cancels)
            }
            Some(Stage::Streaming { .. } | Stage::Orphaned { .. }) | None => false,
        }
    }

    /// True once [`Event::Stop`] has been handled.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Updates the state for one event and appends the effects that follow from it.
    pub fn handle(&mut self, event: Event<C>, now: Instant, effects: &mut Effects) {
        match event {
            Event::Submitted { job, size } => self.submit(job, size, effects),
            Event::Abandoned(job) => self.abandon(job, now, effects),
            Event::GivenUp(job) => self.give_up(job, now, effects),
            Event::ClientLeft(job) => self.client_left(job, now, effects),
            Event::Joined(id, newcomer) => self.join(id, newcomer, now, effects),
            Event::Replied { worker, job, busy_ms } => self.finish(worker, job, busy_ms, now, effects),
            Event::StreamStarted(worker, job) => self.begin_stream(worker, job, now, effects),
            Event::StreamAwaits { worker, job, client } => self.stream_awaits(worker, job, client, now),
            // A stream takes as long as its client reads, so the worker counts as slow and gets no
            // prefetched jobs.
            Event::StreamEnded(worker, job) => self.finish(worker, job, f64::INFINITY, now, effects),
            Event::Skipped(worker) => self.skipped(worker, effects),
            Event::CallsAgain(worker) => self.calls_again(worker, now),
            Event::Resized { worker, batch } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.batch = batch.max(1);
                }
            }
            Event::Goodbye(worker) => self.say_goodbye(worker, now, effects),
            Event::BodyRead(worker) => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.last_read = Some(now);
                }
            }
            Event::Measured { worker, mib } => self.measured(worker, mib, effects),
            Event::LookedForDebugger { worker, found: None } => self.end_overdue(worker, now, effects, true),
            Event::LookedForDebugger { worker, found: Some(debugger) } => self.spare(worker, &debugger, now, effects),
            Event::Lost { worker, problem } => self.lose(worker, problem, now, effects),
            Event::Retire { name } => self.retire(name, effects),
            Event::Stopped { name } => self.stopped(name, now, effects),
            Event::Continued { name } => {
                if let Some((_, worker)) = self.named(name) {
                    if matches!(worker.pulse(), Some(Pulse::Stopped { .. })) {
                        worker.set_pulse(Pulse::Responsive);
                    }
                }
            }
            Event::Exited { name, cause } => self.exited(name, cause, effects),
            Event::Tick => self.tick(now, effects),
            Event::Stop => self.stop(effects),
        }
        if self.keeps(Rule::AssignAfterEveryEvent) {
            self.assign(now, effects);
        }
    }

    // ---- Clients

    fn submit(&mut self, job: JobId, size: BodySize, effects: &mut Effects) {
        let refusal = match self.phase {
            Phase::Stopped => Some(Outcome::Stopped),
            Phase::Serving if self.queue.len() >= self.limits.max_queue && self.keeps(Rule::BoundTheQueue) => {
                Some(Outcome::QueueFull { waiting: self.queue.len() })
            }
            Phase::Serving => None,
        };
        if let Some(outcome) = refusal {
            return effects.push(Effect::Answer { job, outcome });
        }
        self.jobs.insert(job, Job::queued(size));
        self.queue.insert(job);
    }

    /// Cancels the job, unless a worker has it that can start it now: the core treats such a job as
    /// started.
    fn give_up(&mut self, id: JobId, now: Instant, effects: &mut Effects) {
        if !self.keeps(Rule::RemoveAbandoned) {
            return;
        }
        if let Some(Job { stage: Stage::Sent { worker, startable_since: None, .. }, .. }) = self.jobs.get(&id) {
            let worker = *worker;
            let taken = self.take_back(worker, now);
            self.requeue(taken, effects);
        }
        if self.queue.remove(&id) {
            self.jobs.remove(&id);
            effects.push(Effect::Forget(id));
        } else if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.client == Client::Waits) {
            job.client = Client::HasGivenUp;
        }
    }

    fn client_left(&mut self, id: JobId, now: Instant, effects: &mut Effects) {
        self.give_up(id, now, effects);
        let stage = self.jobs.get(&id).map(|job| &job.stage);
        if let Some(Stage::Sent { worker, .. } | Stage::Started { worker, .. }) = stage {
            let cancels = self.workers.get(worker).is_some_and(|worker| worker.cancels);
            if cancels && self.keeps(Rule::CancelCalls) {
                effects.push(Effect::Cancel { worker: *worker, job: id });
            }
        }
    }

    fn abandon(&mut self, id: JobId, now: Instant, effects: &mut Effects) {
        self.give_up(id, now, effects);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match job.stage {
            Stage::Queued | Stage::Orphaned { .. } => {
                self.orphans.remove(&id);
                self.jobs.remove(&id);
                effects.push(Effect::Forget(id));
            }
            Stage::Sent { worker, .. } | Stage::Started { worker, .. } | Stage::Streaming { worker, .. } => {
                job.client = Client::Settled;
                if self.keeps(Rule::CancelStreams) {
                    effects.push(Effect::Cancel { worker, job: id });
                }
            }
        }
    }

    // ---- Workers and their replies

    fn join(&mut self, id: WorkerId, newcomer: Newcomer<C>, now: Instant, effects: &mut Effects) {
        let name = newcomer.name;
        self.workers.insert(id, Worker::new(newcomer, self.limits.requests_of_next(id.0), now));
        effects.push(Effect::SayReady { name });
    }

    /// Handles a reply or the end of a stream. The core ignores it if the worker does not have the
    /// job any more: the front has revoked or answered the job, and the reply is too late.
    fn finish(&mut self, id: WorkerId, job: JobId, busy_ms: f64, now: Instant, effects: &mut Effects) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(at) = worker.in_flight.iter().position(|sent| *sent == job) else { return };
        worker.in_flight.remove(at);
        worker.window.record(busy_ms);
        worker.turnover = now;
        worker.shows_life();
        if worker.note_served() {
            let reason = Recycle::Served(worker.served);
            effects.push(Effect::AskToRecycle { name: worker.name, reason });
        }
        // The worker can now start the oldest prefetched job, because a slot has become free.
        let next = worker.in_flight.get(worker.capacity - 1).copied();
        let Some(done) = self.jobs.remove(&job) else { return };
        worker.in_flight_size -= done.size;
        if let Some(Job { stage: Stage::Sent { startable_since, .. }, .. }) = next.and_then(|id| self.jobs.get_mut(&id))
        {
            startable_since.get_or_insert(now);
        }
        let is_awaited = done.is_awaited() || !self.keeps(Rule::AnswerOnce);
        effects.push(if is_awaited { Effect::Answer { job, outcome: Outcome::Replied } } else { Effect::Forget(job) });
    }

    fn begin_stream(&mut self, id: WorkerId, job_id: JobId, now: Instant, effects: &mut Effects) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.shows_life();
        let has_it = |job: &&mut Job| job.worker() == Some(id);
        let Some(job) = self.jobs.get_mut(&job_id).filter(has_it) else { return };
        job.stage = Stage::Streaming { worker: id, awaits: Awaits::Script { since: now } };
        match job.client {
            Client::Waits | Client::HasGivenUp => {
                job.client = Client::Receives;
                effects.push(Effect::Answer { job: job_id, outcome: Outcome::Streams });
            }
            // The client had left, or had been answered, before the stream began.
            Client::Receives | Client::Settled => effects.push(Effect::Cancel { worker: id, job: job_id }),
        }
    }

    fn stream_awaits(&mut self, id: WorkerId, job: JobId, client: bool, now: Instant) {
        if let Some(Job { stage: Stage::Streaming { worker, awaits }, .. }) = self.jobs.get_mut(&job) {
            if *worker == id {
                *awaits = if client { Awaits::Client } else { Awaits::Script { since: now } };
            }
        }
    }

    fn skipped(&mut self, id: WorkerId, effects: &mut Effects) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.shows_life() {
            effects.push(Effect::Log(Level::Info, format!("Worker {} responds again", worker.name)));
        }
    }

    /// Restarts the time limit of all jobs that the worker has started, because the limit is for one call.
    fn calls_again(&mut self, id: WorkerId, now: Instant) {
        if !self.keeps(Rule::RestartTheLimit) {
            return;
        }
        self.note_started(id, now);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.shows_life();
        for job in &worker.in_flight {
            if let Some(Job { stage: Stage::Started { since, .. }, .. }) = self.jobs.get_mut(job) {
                *since = now;
            }
        }
    }

    fn say_goodbye(&mut self, id: WorkerId, now: Instant, effects: &mut Effects) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !(worker.is_retiring() || std::mem::replace(&mut worker.replacement_asked, true)) {
            // The worker may take long to exit, because the script may. So ask for its replacement
            // now.
            effects.push(Effect::AskToRecycle { name: worker.name, reason: Recycle::Leaving });
        }
        worker.retire();
        let taken = if worker.claims.is_shared() {
            self.take_back(id, now)
        } else {
            // A worker without a shared counter gets one job at a time and says goodbye between two
            // jobs. So it has not started any job that is in flight.
            worker.in_flight_size = BodySize::default();
            worker.in_flight.drain(..).collect()
        };
        self.requeue(taken, effects);
    }

    fn measured(&mut self, id: WorkerId, mib: u64, effects: &mut Effects) {
        let limit = self.limits.max_worker_rss;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if limit > 0 && mib > limit && !worker.replacement_asked {
            worker.replacement_asked = true;
            effects.push(Effect::AskToRecycle { name: worker.name, reason: Recycle::Large { mib, limit } });
        }
    }

    fn lose(&mut self, id: WorkerId, problem: Option<String>, now: Instant, effects: &mut Effects) {
        let mut taken = self.take_back(id, now);
        let Some(worker) = self.workers.remove(&id) else { return };
        let mut orphans: Vec<JobId> = worker.in_flight.into();
        // The worker may have died of reading the body of the job that it would have started next.
        let next = taken.first().copied().and_then(|next| {
            let job = self.jobs.get_mut(&next)?;
            let was_startable = matches!(job.stage, Stage::Sent { startable_since: Some(_), .. });
            job.losses += u32::from(was_startable);
            (job.losses >= MAX_LOSSES && self.keeps(Rule::GiveUpAfterLosses)).then_some(next)
        });
        if let Some(next) = next {
            taken.remove(0);
            orphans.push(next);
        }
        if self.keeps(Rule::RequeueFromLost) {
            self.requeue(taken, effects);
        }
        // Otherwise the worker has probably died, and the supervisor will say of what.
        let is_known = problem.is_some();
        if is_known {
            effects.push(Effect::SayDisconnected { name: worker.name });
        }
        let until = now + EXIT_CAUSE_PATIENCE;
        let otherwise = problem
            .map_or_else(|| "closed its connection".to_owned(), |reason| format!("was disconnected because {reason}"));
        for job in orphans {
            if let Some(orphan) = self.jobs.get_mut(&job) {
                let started = orphan.started();
                let (name, otherwise) = (worker.name, otherwise.clone());
                orphan.stage = Stage::Orphaned { name, started, until, otherwise };
                self.orphans.insert(job);
                effects.wake_at(until);
            }
        }
        if is_known {
            self.answer_orphans(effects, |name, _, cause| (name == worker.name).then(|| cause.to_owned()));
        } else if let Some(at) = self.exits.iter().position(|(name, _)| *name == worker.name) {
            if let Some((name, cause)) = self.exits.remove(at) {
                self.answer_orphans(effects, |orphan, _, _| (orphan == name).then(|| cause.clone()));
            }
        }
    }

    /// Answers the orphaned jobs for which `cause_of(name, until, otherwise)` returns the cause of
    /// their worker's end.
    fn answer_orphans(&mut self, effects: &mut Effects, cause_of: impl Fn(u32, Instant, &str) -> Option<String>) {
        if !self.keeps(Rule::AnswerForLost) {
            return;
        }
        let jobs = &mut self.jobs;
        self.orphans.retain(|id| {
            let Some(Job { stage: Stage::Orphaned { name, started, until, otherwise }, client, .. }) = jobs.get(id)
            else {
                return false;
            };
            let Some(cause) = cause_of(*name, *until, otherwise) else { return true };
            effects.push(match client {
                Client::Settled => Effect::Forget(*id),
                Client::Waits | Client::HasGivenUp | Client::Receives => {
                    Effect::Answer { job: *id, outcome: Outcome::Lost { started: *started, cause } }
                }
            });
            jobs.remove(id);
            false
        });
    }

    // ---- What the supervisor reports

    fn named(&mut self, name: u32) -> Option<(WorkerId, &mut Worker<C>)> {
        self.workers.iter_mut().find(|(_, worker)| worker.name == name).map(|(id, worker)| (*id, worker))
    }

    fn retire(&mut self, name: u32, effects: &mut Effects) {
        match self.named(name) {
            Some((id, worker)) => {
                worker.retire();
                effects.push(Effect::Retire(id));
            }
            None => {
                let text = format!("Worker {name} was to retire but is not connected");
                effects.push(Effect::Log(Level::Debug, text));
            }
        }
    }

    /// A stopped worker gets no jobs until it continues, and its unclaimed jobs are requeued. If
    /// the worker was not connected yet, the supervisor reports the stop again when the worker is
    /// ready.
    fn stopped(&mut self, name: u32, now: Instant, effects: &mut Effects) {
        let Some((id, worker)) = self.named(name) else { return };
        worker.set_pulse(Pulse::Stopped { since: now });
        if self.keeps(Rule::TakeBackFromStopped) {
            let taken = self.take_back(id, now);
            self.requeue(taken, effects);
        }
    }

    /// Removes the worker even if its connection is still open, because a child process of the
    /// script may hold the socket open.
    fn exited(&mut self, name: u32, cause: String, effects: &mut Effects) {
        self.answer_orphans(effects, |orphan, _, _| (orphan == name).then(|| cause.clone()));
        if self.exits.len() == MAX_EXITS {
            self.exits.pop_front();
        }
        self.exits.push_back((name, cause));
        if let Some((id, _)) = self.named(name) {
            effects.push(Effect::Disconnect(id));
        }
    }

    /// Answers every job that waits or runs. Streams that have begun continue until the front ends.
    fn stop(&mut self, effects: &mut Effects) {
        self.phase = Phase::Stopped;
        // Revoke first: a job that was answered must never start.
        if self.keeps(Rule::RevokeBeforeStop) {
            for worker in self.workers.values() {
                worker.claims.revoke(worker.sent);
            }
        }
        self.queue.clear();
        let mut waiting: Vec<JobId> = self.jobs.iter().filter(|(_, job)| job.is_awaited()).map(|(id, _)| *id).collect();
        waiting.sort();
        for id in waiting {
            self.jobs.remove(&id);
            effects.push(Effect::Answer { job: id, outcome: Outcome::Stopped });
        }
        for worker in self.workers.values_mut() {
            worker.in_flight.retain(|id| self.jobs.contains_key(id));
            worker.in_flight_size = worker.in_flight.iter().map(|id| self.jobs[id].size).sum();
        }
    }

    // ---- Time

    fn tick(&mut self, now: Instant, effects: &mut Effects) {
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        let mut taken = Vec::new();
        for id in &ids {
            self.note_started(*id, now);
            taken.extend(self.take_back_behind_slow(*id, now, effects));
            taken.extend(self.take_back_unclaimed(*id, now));
        }
        self.requeue(taken, effects);
        for id in ids {
            self.end_overdue(id, now, effects, false);
        }
        self.answer_orphans(effects, |_, until, otherwise| (until <= now).then(|| otherwise.to_owned()));
    }

    /// Takes back the prefetched jobs of a worker whose running job is slow, because that job may
    /// run for very much longer.
    fn take_back_behind_slow(&mut self, id: WorkerId, now: Instant, effects: &mut Effects) -> Vec<JobId> {
        let Some(worker) = self.workers.get(&id).filter(|worker| worker.prefetched() > 0) else { return Vec::new() };
        if !self.keeps(Rule::TakeBackBehindSlow) {
            return Vec::new();
        }
        let head = worker.in_flight.front().and_then(|head| self.jobs.get(head));
        let is_started = head.is_some_and(|head| !matches!(head.stage, Stage::Sent { .. }));
        if is_started && now.saturating_duration_since(worker.turnover) >= PREFETCH_BEHIND {
            return self.take_back(id, now);
        }
        effects.wake_at((worker.turnover + PREFETCH_BEHIND).max(now + PREFETCH_BEHIND / 2));
        Vec::new()
    }

    /// Takes back all unclaimed jobs of a worker that hangs: for too long it has not claimed a job
    /// that it could have started.
    fn take_back_unclaimed(&mut self, id: WorkerId, now: Instant) -> Vec<JobId> {
        let Some(worker) = self.workers.get(&id) else { return Vec::new() };
        if worker.pulse() != Some(Pulse::Responsive) || !self.keeps(Rule::TakeBackFromUnresponsive) {
            return Vec::new();
        }
        let last_read = worker.last_read;
        let hangs = worker.in_flight.iter().find_map(|id| {
            let job = self.jobs.get(id)?;
            let Stage::Sent { startable_since: Some(since), .. } = job.stage else { return None };
            // The worker is not late while it still reads a large body.
            let since = last_read.map_or(since, |read| read.max(since));
            // It reads the bodies of a whole batch before it claims the first job.
            let shared = if worker.batch > 1 { worker.in_flight_size.shared } else { job.size.shared };
            let is_late = now.saturating_duration_since(since) > UNRESPONSIVE_AFTER + job.reading_time(shared);
            is_late.then_some((*id, since))
        });
        let Some((late, since)) = hangs else { return Vec::new() };
        let taken = self.take_back(id, now);
        if taken.contains(&late) {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.set_pulse(Pulse::Unresponsive { since });
            }
            if let Some(job) = self.jobs.get_mut(&late) {
                job.delays += 1;
            }
        }
        taken
    }

    /// Answers the overdue jobs of a worker, and asks the supervisor to kill it. A worker is
    /// overdue if a job runs for too long, or if the worker has not started any job for as long.
    /// With `has_looked` false it only asks whether a debugger holds the worker.
    fn end_overdue(&mut self, id: WorkerId, now: Instant, effects: &mut Effects, has_looked: bool) {
        let Some(worker) = self.workers.get(&id).filter(|_| self.keeps(Rule::AnswerOverdue)) else { return };
        let Some(Overdue { reason, jobs }) = self.overdue(worker, now) else { return };
        if !has_looked && self.keeps(Rule::SpareTheDebugged) {
            return effects.push(Effect::LookForDebugger(id));
        }
        let name = worker.name;
        effects.push(Effect::AskToKill { name, reason });
        for (id, message) in jobs {
            let Some(job) = self.jobs.get_mut(&id).filter(|job| job.is_awaited()) else { continue };
            job.client = Client::Settled;
            let started = job.started();
            effects.push(Effect::Answer { job: id, outcome: Outcome::Overdue { started, message } });
        }
        let taken = self.take_back(id, now);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.condition = Condition::Doomed;
        }
        self.requeue(taken, effects);
    }

    /// Does not kill an overdue worker that a debugger holds, because a person is looking at the
    /// call.
    fn spare(&mut self, id: WorkerId, debugger: &str, now: Instant, effects: &mut Effects) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(Overdue { reason, .. }) = self.overdue(worker, now) else { return };
        let text = format!("Worker (pid:{}) {reason}. It is not killed, because {debugger}.", worker.name);
        let is_first = worker.spared_at.is_none();
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.spared_at = Some(now);
        }
        if is_first {
            effects.push(Effect::Log(Level::Warn, text));
        }
    }

    /// Why the supervisor must kill this worker, if it must.
    fn overdue(&self, worker: &Worker<C>, now: Instant) -> Option<Overdue> {
        let pulse = worker.pulse()?;
        let limit = |since: Instant, streaming| {
            let since = worker.spared_at.map_or(since, |spared| spared.max(since));
            self.limits.overdue(now.saturating_duration_since(since), streaming)
        };
        let mut jobs: Vec<(JobId, String)> = Vec::new();
        let mut runs = false;
        for id in &worker.in_flight {
            let message = match self.jobs.get(id).map(|job| &job.stage) {
                Some(Stage::Started { since, .. }) => limit(*since, false),
                Some(Stage::Streaming { awaits: Awaits::Script { since }, .. }) => limit(*since, true),
                // A stream whose client does not read is limited by --client_timeout alone.
                Some(Stage::Streaming { awaits: Awaits::Client, .. }) => None,
                _ => continue,
            };
            runs = true;
            jobs.extend(message.map(|message| (*id, message)));
        }
        let (fault, message) = match (jobs.first(), pulse) {
            (Some((_, message)), _) => ("did not finish a request in time", message.clone()),
            (None, Pulse::Unresponsive { since }) => ("did not begin a request in time", limit(since, false)?),
            (None, Pulse::Stopped { since }) if !runs => {
                ("was stopped for longer than a request may take", limit(since, false)?)
            }
            (None, Pulse::Stopped { .. } | Pulse::Responsive) => return None,
        };
        Some(Overdue { reason: format!("{fault} ({})", message.trim_end_matches('.')), jobs })
    }

    // ---- Moving jobs

    /// Notes which of a worker's jobs it has claimed.
    fn note_started(&mut self, id: WorkerId, now: Instant) {
        let Some(worker) = self.workers.get(&id) else { return };
        let next = worker.claims.next();
        self.note_started_below(id, next, now);
    }

    fn note_started_below(&mut self, id: WorkerId, next: u64, now: Instant) {
        let Some(worker) = self.workers.get(&id) else { return };
        for job_id in &worker.in_flight {
            let Some(job) = self.jobs.get_mut(job_id) else { continue };
            if let Stage::Sent { number, startable_since, .. } = job.stage {
                if number >= next {
                    break;
                }
                let since = startable_since.unwrap_or(now);
                // The worker claims a job only after it has read the whole body.
                let since = worker.last_read.map_or(since, |read| read.max(since));
                job.stage = Stage::Started { worker: id, since };
            }
        }
    }

    /// Revokes the jobs that a worker has not claimed, and returns them, the oldest first. The
    /// worker never starts them.
    fn take_back(&mut self, id: WorkerId, now: Instant) -> Vec<JobId> {
        let Some(worker) = self.workers.get(&id) else { return Vec::new() };
        let revokes = self.keeps(Rule::RevokeBeforeRequeue);
        let first = if revokes { worker.claims.revoke(worker.sent) } else { worker.claims.next() };
        self.note_started_below(id, first, now);
        let Some(worker) = self.workers.get_mut(&id) else { return Vec::new() };
        let is_sent = |id: &JobId| matches!(self.jobs.get(id), Some(Job { stage: Stage::Sent { .. }, .. }));
        let taken: Vec<JobId> = worker.in_flight.iter().filter(|id| is_sent(id)).copied().collect();
        if !taken.is_empty() {
            worker.in_flight.retain(|id| !is_sent(id));
            worker.in_flight_size -= taken.iter().filter_map(|id| self.jobs.get(id)).map(|job| job.size).sum();
        }
        taken
    }

    /// Puts jobs that no worker has started back into the queue, which is ordered by age.
    fn requeue(&mut self, taken: Vec<JobId>, effects: &mut Effects) {
        for id in taken {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if matches!(job.client, Client::Settled | Client::HasGivenUp) {
                self.jobs.remove(&id);
                effects.push(Effect::Forget(id));
            } else {
                job.stage = Stage::Queued;
                self.queue.insert(id);
            }
        }
    }

    /// Hands out queued jobs for as long as a worker takes one.
    fn assign(&mut self, now: Instant, effects: &mut Effects) {
        let unbound = !self.keeps(Rule::BoundTheWindow);
        while let Some(id) = if self.keeps(Rule::OldestFirst) { self.queue.first() } else { self.queue.last() }.copied()
        {
            let Some(job) = self.jobs.get_mut(&id) else {
                self.queue.remove(&id);
                continue;
            };
            let size = job.size;
            let accepting = self
                .workers
                .iter_mut()
                .filter(|(_, worker)| worker.accepts(size, now) || (unbound && worker.is_ready()));
            let Some((worker_id, worker)) = accepting.min_by_key(|(_, worker)| worker.distance()) else { return };
            self.queue.remove(&id);
            let has_room = worker.in_flight.len() < worker.capacity;
            if has_room {
                worker.turnover = now;
            } else {
                effects.wake_at(now + PREFETCH_BEHIND);
            }
            let startable_since = has_room.then_some(now);
            job.stage = Stage::Sent { worker: *worker_id, number: worker.sent, startable_since };
            worker.sent += 1;
            worker.in_flight.push_back(id);
            worker.in_flight_size += size;
            effects.send(*worker_id, id);
        }
    }

    /// Checks that the parts of the state agree with each other, and the rules that hold after
    /// every event.
    #[cfg(test)]
    pub(super) fn audit(&self) -> Result<(), String> {
        for (id, worker) in &self.workers {
            for job in &worker.in_flight {
                if self.jobs.get(job).and_then(Job::worker) != Some(*id) {
                    return Err(format!("{id:?} has {job:?}, which is {:?}", self.jobs.get(job)));
                }
            }
            if worker.in_flight.len() > worker.batch.max(worker.capacity + 31) {
                return Err(format!("{id:?} holds {} jobs", worker.in_flight.len()));
            }
            let size: BodySize = worker.in_flight.iter().map(|id| self.jobs[id].size).sum();
            if size != worker.in_flight_size {
                return Err(format!("{id:?} holds {size:?}, not {:?}", worker.in_flight_size));
            }
            if worker.is_ready() && worker.in_flight.len() < worker.capacity && !self.queue.is_empty() {
                return Err(format!("{id:?} is idle while {} jobs wait", self.queue.len()));
            }
        }
        for id in &self.queue {
            if self.jobs.get(id).is_none_or(|job| job.stage != Stage::Queued) {
                return Err(format!("{id:?} is queued, but its job is {:?}", self.jobs.get(id)));
            }
        }
        for (id, job) in &self.jobs {
            let agrees = match job.stage {
                Stage::Queued => self.queue.contains(id),
                Stage::Orphaned { .. } => self.orphans.contains(id),
                _ => job.worker().is_some_and(|worker| {
                    self.workers.get(&worker).is_some_and(|worker| worker.in_flight.contains(id))
                }),
            };
            if !agrees {
                return Err(format!("{id:?} is not where its stage says: {job:?}"));
            }
        }
        Ok(())
    }

    /// The job that has waited longest.
    #[cfg(test)]
    pub(super) fn oldest_queued(&self) -> Option<JobId> {
        self.queue.first().copied()
    }

    /// Checks that no job is left.
    #[cfg(test)]
    pub(super) fn audit_is_empty(&self) -> Result<(), String> {
        match self.jobs.iter().next() {
            Some((id, job)) => Err(format!("{id:?} is left over: {job:?}")),
            None => Ok(()),
        }
    }

    /// False for the rule that the simulation breaks.
    #[inline]
    fn keeps(&self, rule: Rule) -> bool {
        #[cfg(test)]
        return self.broken != Some(rule);
        #[cfg(not(test))]
        {
            let _ = rule;
            true
        }
    }
}
