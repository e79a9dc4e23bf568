//! A connected worker, as the dispatcher's core knows it: its condition, its jobs, how much it may
//! hold.
//!
//! Owns the state of one worker and the decisions that need nothing else. `core.rs` moves jobs
//! between workers and the queue. Plain data, used in the front's event loop.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    job::{BodySize, JobId},
    prefetch::Window,
};
use crate::ipc::claims::Claims;

/// When a worker has had no free slot for this long, it gets no more prefetched jobs, and the front
/// takes back those that it has, because the running job may take very much longer (measured in
/// docs/decisions/2026-11-22-in-flight-window.md).
pub(super) const PREFETCH_BEHIND: Duration = Duration::from_millis(2);
/// A worker that does not claim a job within this time, although it could start it, is stopped or
/// hangs.
pub(super) const UNRESPONSIVE_AFTER: Duration = Duration::from_millis(500);
/// Body bytes that may be on their way to one worker while it is busy. They fit into the socket's
/// send buffer, so a worker whose socket is full gets no further job.
const PREFETCH_BYTES: usize = 512 << 10;
/// Bytes of the bodies of one batch. The worker has all of them in memory at once, and the objects
/// that it makes of them, which may need ten times as much.
const BATCH_BYTES: usize = 16 << 20;

/// The counter that decides who owns a job that was sent (`ipc/claims.rs`). The front and the
/// worker share it.
pub trait ClaimCounter {
    /// True if the worker shares the counter. Without that, every job that was sent counts as
    /// claimed.
    fn is_shared(&self) -> bool;
    /// Number of the next job that the worker may start; all below it were claimed or revoked.
    fn next(&self) -> u64;
    /// Revokes every job below `next` that was not claimed. Returns the number of the first revoked
    /// one.
    fn revoke(&self, next: u64) -> u64;
}

/// `None`: no memory could be shared. Then every job that was sent counts as claimed, and nothing
/// is prefetched.
impl ClaimCounter for Option<Claims> {
    fn is_shared(&self) -> bool {
        self.is_some()
    }

    fn next(&self) -> u64 {
        self.as_ref().map_or(u64::MAX, Claims::next)
    }

    fn revoke(&self, next: u64) -> u64 {
        self.as_ref().map_or(next, |claims| claims.revoke(next))
    }
}

/// The condition of a worker. It decides whether the worker gets jobs. A worker has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It gets jobs while its pulse is [`Pulse::Responsive`].
    Serving(Pulse),
    /// It gets no more jobs, answers what it has, and exits.
    Retiring(Pulse),
    /// The supervisor has been asked to kill it.
    Doomed,
}

/// Tells if a worker claims the jobs that it could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    Responsive,
    /// It has not claimed a job that it could have started since then.
    Unresponsive {
        since: Instant,
    },
    /// Its process has been stopped by a signal since then.
    Stopped {
        since: Instant,
    },
}

/// The data about a worker that has just connected.
#[derive(Debug)]
pub struct Newcomer<C> {
    /// How the supervisor calls it: its process id, or its number if it is a thread.
    pub name: u32,
    /// Jobs that it may run at once; at least 1.
    pub capacity: usize,
    /// Jobs that it may claim together, for one call of `run()`; 1 if it makes no batches.
    pub batch: usize,
    /// True if it can cancel a call that it has started.
    pub cancels: bool,
    /// True if it shares its interpreter with other workers (`--worker_class thread`).
    pub shares_interpreter: bool,
    /// The counter that decides who owns the jobs that were sent to it.
    pub claims: C,
}

/// The core's record of a connected worker.
#[derive(Debug)]
pub(super) struct Worker<C> {
    pub(super) name: u32,
    pub(super) capacity: usize,
    pub(super) batch: usize,
    pub(super) cancels: bool,
    shares_interpreter: bool,
    pub(super) claims: C,
    /// Jobs sent so far; the number of the next one.
    pub(super) sent: u64,
    /// The jobs that it has, in the order sent. They start in this order and may end in any.
    pub(super) in_flight: VecDeque<JobId>,
    /// The bodies of those jobs together.
    pub(super) in_flight_size: BodySize,
    pub(super) window: Window,
    /// When one of its slots last became free, or a free slot last got a job.
    pub(super) turnover: Instant,
    /// When it last read a part of a body that was too large for the socket's buffer.
    pub(super) last_read: Option<Instant>,
    pub(super) condition: Condition,
    /// When it would last have been killed if no debugger had held it. Its limits count anew from
    /// then on.
    pub(super) spared_at: Option<Instant>,
    /// Jobs answered.
    pub(super) served: u64,
    /// Jobs after which it is replaced; zero means never.
    pub(super) serves_at_most: u64,
    /// The front has asked the supervisor to replace it. It asks once.
    pub(super) replacement_asked: bool,
}

impl<C: ClaimCounter> Worker<C> {
    pub(super) fn new(newcomer: Newcomer<C>, serves_at_most: u64, now: Instant) -> Self {
        Self {
            name: newcomer.name,
            capacity: newcomer.capacity.max(1),
            batch: newcomer.batch.max(1),
            cancels: newcomer.cancels,
            shares_interpreter: newcomer.shares_interpreter,
            claims: newcomer.claims,
            sent: 0,
            in_flight: VecDeque::new(),
            in_flight_size: BodySize::default(),
            window: Window::default(),
            turnover: now,
            last_read: None,
            condition: Condition::Serving(Pulse::Responsive),
            spared_at: None,
            served: 0,
            serves_at_most,
            replacement_asked: false,
        }
    }

    /// True if it takes jobs. The health route counts these workers.
    pub(super) fn is_ready(&self) -> bool {
        self.condition == Condition::Serving(Pulse::Responsive)
    }

    /// Its pulse; `None` once it is doomed.
    pub(super) fn pulse(&self) -> Option<Pulse> {
        match self.condition {
            Condition::Serving(pulse) | Condition::Retiring(pulse) => Some(pulse),
            Condition::Doomed => None,
        }
    }

    /// A doomed worker keeps its condition: it is killed whatever it does now.
    pub(super) fn set_pulse(&mut self, pulse: Pulse) {
        match &mut self.condition {
            Condition::Serving(current) | Condition::Retiring(current) => *current = pulse,
            Condition::Doomed => {}
        }
    }

    /// True if it gets no more jobs.
    pub(super) fn is_retiring(&self) -> bool {
        !matches!(self.condition, Condition::Serving(_))
    }

    /// Sets that it gets no more jobs.
    pub(super) fn retire(&mut self) {
        if let Condition::Serving(pulse) = self.condition {
            self.condition = Condition::Retiring(pulse);
        }
    }

    /// Notes that it has sent a frame, so its loop runs. Returns true if it was unresponsive
    /// before.
    pub(super) fn shows_life(&mut self) -> bool {
        let was_unresponsive = matches!(self.pulse(), Some(Pulse::Unresponsive { .. }));
        if was_unresponsive {
            self.set_pulse(Pulse::Responsive);
        }
        was_unresponsive
    }

    /// Jobs beyond its capacity, which it cannot start yet.
    pub(super) fn prefetched(&self) -> usize {
        self.in_flight.len().saturating_sub(self.capacity)
    }

    /// Jobs that it may have started.
    pub(super) fn started(&self) -> usize {
        if self.batch > 1 {
            self.in_flight.len() - self.unclaimed()
        } else {
            self.in_flight.len().min(self.capacity)
        }
    }

    /// True if it may get this job now.
    pub(super) fn accepts(&self, job: BodySize, now: Instant) -> bool {
        self.is_ready() && (self.in_flight.len() < self.capacity || self.joins(job) || self.prefetches(job, now))
    }

    /// True if the job may still join those that the worker is about to claim together. Once it has
    /// claimed them, the queue keeps the next batch, so that the first free worker gets it.
    fn joins(&self, job: BodySize) -> bool {
        self.in_flight.len() < self.batch
            && self.unclaimed() == self.in_flight.len()
            && self.in_flight_size.total() + job.total() <= BATCH_BYTES
    }

    /// How many of its jobs it has not claimed.
    fn unclaimed(&self) -> usize {
        if !self.claims.is_shared() {
            return 0;
        }
        usize::try_from(self.sent.saturating_sub(self.claims.next())).unwrap_or(usize::MAX).min(self.in_flight.len())
    }

    fn prefetches(&self, job: BodySize, now: Instant) -> bool {
        self.claims.is_shared()
            && self.prefetched() + 1 < self.window.size()
            && self.in_flight_size.in_frame + job.in_frame <= PREFETCH_BYTES
            && now.saturating_duration_since(self.turnover) < PREFETCH_BEHIND
    }

    /// How busy this worker is, relative to its capacity. The worker with the smallest number gets
    /// the next job.
    pub(super) fn distance(&self) -> usize {
        // Worker threads share one interpreter. If one thread's jobs end sooner than another thread
        // wakes up, a job for the other thread would only make both compete for the GIL.
        let keeps_the_gil = self.shares_interpreter && !self.in_flight.is_empty() && self.window.is_fully_open();
        if keeps_the_gil {
            0
        } else {
            1 + self.in_flight.len() * 256 / self.capacity
        }
    }

    /// True if the supervisor is to be asked now to replace it, because it has served as many jobs
    /// as it may.
    pub(super) fn note_served(&mut self) -> bool {
        self.served += 1;
        let due = self.serves_at_most > 0 && self.served >= self.serves_at_most && !self.replacement_asked;
        self.replacement_asked |= due;
        due
    }
}
