//! A job: one request on its way to `run()`, as the dispatcher's core knows it.
//!
//! Owns the states of a job and the numbers that decisions need. `dispatch/mod.rs` keeps the
//! request itself (head, body, who waits for the answer) under the same [`JobId`]. Plain data, used
//! in the front's event loop.

use std::{
    collections::HashMap,
    iter::Sum,
    ops::{AddAssign, SubAssign},
    time::{Duration, Instant},
};

/// Bytes of shared memory that a worker reads in one second, even on a slow machine.
const SLOW_READER: f64 = (64 << 20) as f64;

/// Names a job; never reused by one front. A later job gets a larger id, so the smaller id is the
/// older job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// What is kept for each job. The front itself makes the ids, so their hashes need no protection
/// against clients that choose them, which the standard hasher pays for with a multiple of the time.
pub(super) type JobMap<T> = HashMap<JobId, T, foldhash::fast::RandomState>;

/// Names a connected worker; never reused by one front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// How a job's body reaches a worker, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodySize {
    /// Sent in the job's frame.
    pub in_frame: usize,
    /// Read by the worker from shared memory.
    pub shared: usize,
}

impl BodySize {
    /// Bytes of the body, wherever it is.
    pub(super) fn total(self) -> usize {
        self.in_frame + self.shared
    }
}

impl AddAssign for BodySize {
    fn add_assign(&mut self, other: Self) {
        self.in_frame += other.in_frame;
        self.shared += other.shared;
    }
}

impl SubAssign for BodySize {
    fn sub_assign(&mut self, other: Self) {
        self.in_frame -= other.in_frame;
        self.shared -= other.shared;
    }
}

impl Sum for BodySize {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), |mut sum, size| {
            sum += size;
            sum
        })
    }
}

/// The state of a job. A job has exactly one; a job that is done is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// In the queue.
    Queued,
    /// Sent to a worker that has not claimed it yet.
    Sent {
        worker: WorkerId,
        /// Number of the job on this worker's connection (`ipc/claims.rs`).
        number: u64,
        /// Since when the worker has had room to start it. `None` while the job is prefetched: all
        /// of the worker's capacity is taken by jobs that were sent earlier.
        startable_since: Option<Instant>,
    },
    /// Claimed: `run()` is called, or has returned and the reply is on its way.
    Started {
        worker: WorkerId,
        /// The earliest time at which `run()` can have been called.
        since: Instant,
    },
    /// The worker has sent the head of a streamed reply; the parts follow.
    Streaming { worker: WorkerId, awaits: Awaits },
    /// Its worker's connection was lost. The answer waits until `until` for the supervisor to say
    /// what happened.
    Orphaned {
        /// The worker's name for the supervisor.
        name: u32,
        /// When the worker had started the job; `None` if it had not.
        started: Option<Instant>,
        until: Instant,
        /// The cause that the client is told if the supervisor reports none until then.
        otherwise: String,
    },
}

/// Who has to act before a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The script has to yield the next part. It has had to since this time.
    Script { since: Instant },
    /// The client has to read.
    Client,
}

/// The state of the client that a job's answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// A client that has heard nothing yet.
    Waits,
    /// A client that has given the job up. The log still needs the outcome, but the job is not
    /// requeued.
    HasGivenUp,
    /// A client that receives a stream.
    Receives,
    /// Nobody: the client has left, or has been answered while its worker still holds the job.
    Settled,
}

/// The core's record of a job.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) stage: Stage,
    pub(super) client: Client,
    pub(super) size: BodySize,
    /// How many workers were lost when this was the next job that they would have started.
    pub(super) losses: u32,
    /// How many times the front took the job back from a worker that did not start it in time.
    pub(super) delays: u32,
}

impl Job {
    pub(super) fn queued(size: BodySize) -> Self {
        Self { stage: Stage::Queued, client: Client::Waits, size, losses: 0, delays: 0 }
    }

    /// The worker that has the job, if one has it.
    pub(super) fn worker(&self) -> Option<WorkerId> {
        match self.stage {
            Stage::Sent { worker, .. } | Stage::Started { worker, .. } | Stage::Streaming { worker, .. } => {
                Some(worker)
            }
            Stage::Queued | Stage::Orphaned { .. } => None,
        }
    }

    /// The earliest time at which a worker can have called `run()` for the job. `None` if no worker has started it, and
    /// for a stream, whose call of `run()` is over.
    pub(super) fn started(&self) -> Option<Instant> {
        match self.stage {
            Stage::Started { since, .. } => Some(since),
            _ => None,
        }
    }

    /// True if the answer is wanted, by a client or for the log, and has not begun.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.client, Client::Waits | Client::HasGivenUp)
    }

    /// How long a worker may read `shared` bytes from shared memory before it claims the job: the
    /// body of the job, and those of the jobs that it claims together with it. (The progress of a
    /// body in the frame is visible on the socket.) Each time a worker did not claim the job in
    /// time, the next worker gets four times as long, because otherwise a slow machine would never
    /// serve the request.
    pub(super) fn reading_time(&self, shared: usize) -> Duration {
        Duration::from_secs_f64(shared as f64 / SLOW_READER) * 4_u32.saturating_pow(self.delays.min(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_shared_body_may_take_longer_and_longer_each_time() {
        let mut job = Job::queued(BodySize { in_frame: 0, shared: 64 << 20 });
        let mut times = Vec::new();
        for delays in 0..3 {
            job.delays = delays;
            times.push(job.reading_time(job.size.shared).as_secs());
        }
        assert_eq!(times, [1, 4, 16]);
    }
}
