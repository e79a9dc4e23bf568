//! What the dispatcher keeps for the core, and how it performs the core's effects.
//!
//! The core knows jobs and workers by number. This file knows their requests, bodies, waiting clients
//! and connections. It makes no decisions. Used in the front's event loop.

use std::{
    collections::BTreeMap,
    io,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    core::Core,
    event::{Effect, Effects, Outcome},
    job::{JobId, JobMap, WorkerId},
    pending::{Answer, Answered, Interest},
    session::OpenStream,
    transport::FrameSender,
    LOG,
};
use crate::{
    ipc::{
        body::Body,
        claims::Claims,
        control::Supervisor,
        frame::{self, BodyAt, Hello, Job, Kind, ReplyHead},
    },
    telemetry::record::{JobTimes, Worker},
};

/// Who gets a job's answer.
pub(super) enum Client {
    /// The client has no answer yet. If the answer is a stream, the stream takes over the
    /// `Interest`.
    Waits(oneshot::Sender<Answered>, Weak<Interest>),
    /// A streamed answer has begun.
    Receives(OpenStream),
    /// The job has been answered while its worker still has it.
    Answered,
}

/// A request that has been submitted and is not over.
pub(super) struct Request {
    pub(super) job: Job,
    pub(super) body: Body,
    pub(super) client: Client,
    /// When it was queued, and when it was sent last.
    pub(super) times: JobTimes,
    /// The worker that it was sent to last.
    pub(super) worker: Option<Worker>,
}

/// A connected worker.
pub(super) struct Peer {
    pub(super) hello: Rc<Hello>,
    /// Number of the worker; see [`Worker::slot`].
    pub(super) slot: u32,
    pub(super) sender: FrameSender,
}

/// A reply that a worker has just sent. It goes with the event that reports it.
#[derive(Default)]
pub(super) enum Reply {
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
pub(super) struct State {
    pub(super) core: Core<Option<Claims>>,
    pub(super) effects: Effects,
    pub(super) requests: JobMap<Request>,
    pub(super) peers: BTreeMap<WorkerId, Peer>,
    pub(super) next_job: u64,
    pub(super) next_worker: u64,
}

impl State {
    /// The smallest number that no connected worker has.
    pub(super) fn free_slot(&self) -> u32 {
        (0..).find(|slot| self.peers.values().all(|peer| peer.slot != *slot)).unwrap_or_default()
    }

    pub(super) fn perform(&mut self, effect: Effect, now: Instant, supervisor: &Supervisor) {
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
    pub(super) fn answer(&mut self, id: JobId, outcome: Outcome, reply: Reply, now: Instant) -> Option<Answered> {
        let request = self.requests.get_mut(&id)?;
        let times = request.times_until(&outcome, &reply, now);
        let worker = request.worker.filter(|_| !matches!(outcome, Outcome::QueueFull { .. } | Outcome::Stopped));
        let client = std::mem::replace(&mut request.client, Client::Answered);
        let interest = match &client {
            Client::Waits(_, interest) => interest.upgrade(),
            Client::Receives(_) | Client::Answered => None,
        };
        let answer = match (outcome, reply) {
            (Outcome::Replied, Reply::Whole { head, body }) => {
                if let Some(interest) = interest {
                    interest.is_over.set(true);
                }
                Answer::Whole { head, body }
            }
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
