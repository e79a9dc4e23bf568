//! The rules of the dispatcher's core, one short scenario each, in virtual time. `simulation.rs`
//! looks for cases that nobody thought of. One file of more than 400 lines, because all scenarios
//! share its few helpers.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    core::Core,
    event::{Effect, Effects, Event, Outcome},
    job::{BodySize, JobId, WorkerId},
    limits::{tests::LIMITS, Limits},
    worker::{ClaimCounter, Newcomer, PREFETCH_BEHIND, UNRESPONSIVE_AFTER},
};
use crate::ipc::control::Recycle;

/// What one end of a worker's counter sees.
#[derive(Clone, Debug)]
struct Counter {
    next: Rc<Cell<u64>>,
    is_shared: bool,
}

impl ClaimCounter for Counter {
    fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn next(&self) -> u64 {
        if self.is_shared {
            self.next.get()
        } else {
            u64::MAX
        }
    }

    fn revoke(&self, next: u64) -> u64 {
        let claimed = if self.is_shared { self.next.get() } else { next };
        self.next.set(claimed.max(next));
        claimed.min(next)
    }
}

/// A core, its time, and the counters of its workers.
struct Story {
    core: Core<Counter>,
    now: Instant,
    counters: Vec<Counter>,
    jobs: u64,
}

impl Story {
    fn new() -> Self {
        Self { core: Core::new(LIMITS), now: Instant::now(), counters: Vec::new(), jobs: 0 }
    }

    fn tell(&mut self, event: Event<Counter>) -> Vec<Effect> {
        let mut effects = Effects::default();
        self.core.handle(event, self.now, &mut effects);
        self.core.audit().expect("the state is consistent");
        effects.drain().collect()
    }

    /// A worker with this number of slots joins. Its name is 100 above its number.
    fn join(&mut self, capacity: usize, is_shared: bool) -> WorkerId {
        self.join_with(capacity, 1, is_shared)
    }

    /// A worker joins that claims up to `batch` jobs together.
    fn join_batching(&mut self, batch: usize) -> WorkerId {
        self.join_with(1, batch, true)
    }

    fn join_with(&mut self, capacity: usize, batch: usize, is_shared: bool) -> WorkerId {
        let id = WorkerId(self.counters.len() as u64);
        let counter = Counter { next: Rc::default(), is_shared };
        self.counters.push(counter.clone());
        let name = 100 + id.0 as u32;
        self.tell(Event::Joined(
            id,
            Newcomer { name, capacity, batch, cancels: capacity > 1, shares_interpreter: false, claims: counter },
        ));
        id
    }

    fn submit(&mut self, size: BodySize) -> Vec<Effect> {
        let job = JobId(self.jobs);
        self.jobs += 1;
        self.tell(Event::Submitted { job, size })
    }

    fn submit_small(&mut self) -> Vec<Effect> {
        self.submit(BodySize::default())
    }

    /// The worker claims its next job.
    fn claim(&mut self, worker: WorkerId) {
        let next = &self.counters[worker.0 as usize].next;
        next.set(next.get() + 1);
    }

    fn reply(&mut self, worker: WorkerId, job: u64, busy_ms: f64) -> Vec<Effect> {
        self.tell(Event::Replied { worker, job: JobId(job), busy_ms })
    }

    /// Makes the worker known as a fast one, which may prefetch.
    fn warm_up(&mut self, worker: WorkerId) {
        let job = self.jobs;
        self.submit_small();
        self.claim(worker);
        self.reply(worker, job, 0.01);
    }

    /// Time passes. No debugger is found.
    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        let mut said = Vec::new();
        for effect in self.tell(Event::Tick) {
            match effect {
                Effect::LookForDebugger(worker) => {
                    said.extend(self.tell(Event::LookedForDebugger { worker, found: None }));
                }
                effect => said.push(effect),
            }
        }
        said
    }
}

fn send(worker: WorkerId, jobs: &[u64]) -> Effect {
    Effect::Send { worker, jobs: jobs.iter().copied().map(JobId).collect() }
}

fn answer(job: u64, outcome: Outcome) -> Effect {
    Effect::Answer { job: JobId(job), outcome }
}

#[test]
fn the_oldest_job_goes_to_the_first_free_slot() {
    let mut story = Story::new();
    assert_eq!(story.submit_small(), []);
    let worker = story.join(1, true);
    assert_eq!(story.core.ready_workers(), 1);
    story.claim(worker);
    assert_eq!(story.submit_small(), []);
    assert_eq!(story.reply(worker, 0, 5.0), [answer(0, Outcome::Replied), send(worker, &[1])]);
}

#[test]
fn a_worker_with_three_slots_gets_three_jobs_and_may_end_them_in_any_order() {
    let mut story = Story::new();
    let worker = story.join(3, true);
    for job in 0..3 {
        assert_eq!(story.submit_small(), [send(worker, &[job])]);
        story.claim(worker);
    }
    assert_eq!(story.submit_small(), [], "a new worker is taken for slow, so nothing is prefetched");
    assert_eq!(story.reply(worker, 1, 5.0), [answer(1, Outcome::Replied), send(worker, &[3])]);
    story.claim(worker);
    assert_eq!(story.reply(worker, 2, 5.0), [answer(2, Outcome::Replied)]);
    assert_eq!(story.reply(worker, 0, 5.0), [answer(0, Outcome::Replied)]);
    assert_eq!(story.reply(worker, 0, 5.0), [], "a second reply to one job is nobody's");
}

#[test]
fn waiting_jobs_leave_together() {
    let mut story = Story::new();
    story.submit_small();
    let first = story.join(1, true);
    story.claim(first);
    story.reply(first, 0, 0.01);
    story.submit_small();
    assert_eq!(story.submit_small(), [send(first, &[2])], "a fast worker prefetches");
    let mut other = Story::new();
    for _ in 0..3 {
        other.core.handle(
            Event::Submitted { job: JobId(other.jobs), size: BodySize::default() },
            other.now,
            &mut Effects::default(),
        );
        other.jobs += 1;
    }
    let counter = Counter { next: Rc::default(), is_shared: true };
    let newcomer =
        Newcomer { name: 7, capacity: 8, batch: 1, cancels: false, shares_interpreter: false, claims: counter };
    let joined = other.tell(Event::Joined(WorkerId(0), newcomer));
    assert_eq!(joined, [Effect::SayReady { name: 7 }, send(WorkerId(0), &[0, 1])], "the queue holds two");
}

#[test]
fn what_was_prefetched_behind_a_slow_job_is_taken_back() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.warm_up(worker);
    story.submit_small();
    assert_eq!(story.submit_small(), [send(worker, &[2])]);
    story.claim(worker);
    assert_eq!(story.pass(PREFETCH_BEHIND / 2), []);
    assert_eq!(story.pass(PREFETCH_BEHIND), []);
    let idle = WorkerId(1);
    story.join(1, true);
    assert_eq!(story.core.queued(), 0, "it went to the worker that has come");
    assert_eq!(story.reply(idle, 2, 1.0), [answer(2, Outcome::Replied)]);
}

#[test]
fn a_worker_that_claims_nothing_gives_back_what_it_has_also_when_it_retires() {
    for retires in [false, true] {
        let mut story = Story::new();
        let worker = story.join(1, true);
        story.submit_small();
        if retires {
            assert_eq!(story.tell(Event::Retire { name: 100 }), [Effect::Retire(worker)]);
        }
        assert_eq!(story.pass(UNRESPONSIVE_AFTER), []);
        story.pass(Duration::from_millis(1));
        assert_eq!((story.core.queued(), story.core.ready_workers()), (1, 0));
        let log = story.tell(Event::Skipped(worker));
        assert!(matches!(&log[..1], [Effect::Log(..)]), "{log:?}");
        assert_eq!(story.core.ready_workers(), usize::from(!retires));
    }
}

#[test]
fn a_worker_does_not_hang_while_it_reads_a_large_body() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.submit(BodySize { in_frame: 8 << 20, shared: 0 });
    for _ in 0..20 {
        assert_eq!(story.pass(UNRESPONSIVE_AFTER / 2), []);
        story.tell(Event::BodyRead(worker));
    }
    assert_eq!(story.core.queued(), 0);
    story.pass(2 * UNRESPONSIVE_AFTER);
    assert_eq!(story.core.queued(), 1, "it does not go on reading");
}

#[test]
fn reading_shared_memory_takes_time_and_more_after_each_time_that_it_was_too_little() {
    let mut story = Story::new();
    story.core = Core::new(Limits::for_simulation(2, Duration::from_secs(300), 0));
    let worker = story.join(1, true);
    story.submit(BodySize { in_frame: 0, shared: 64 << 20 });
    for patience in [1, 4, 16].map(Duration::from_secs) {
        story.pass(UNRESPONSIVE_AFTER + patience);
        assert_eq!(story.core.queued(), 0, "{patience:?}");
        story.pass(Duration::from_millis(1));
        assert_eq!(story.core.queued(), 1, "{patience:?}");
        story.tell(Event::Skipped(worker));
        assert_eq!(story.core.queued(), 0, "it responds again, and gets the job again");
    }
}

#[test]
fn what_a_worker_has_claimed_stays_there() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.warm_up(worker);
    story.submit_small();
    story.submit_small();
    story.claim(worker);
    story.tell(Event::Stopped { name: 100 });
    assert_eq!(story.core.queued(), 1, "the other one is taken back");
    story.tell(Event::Continued { name: 100 });
    assert_eq!(story.reply(worker, 1, 0.1)[0], answer(1, Outcome::Replied));
}

#[test]
fn a_stopped_worker_is_killed_after_as_long_as_a_request_may_take() {
    let mut story = Story::new();
    story.join(1, true);
    story.tell(Event::Stopped { name: 100 });
    assert_eq!(story.core.ready_workers(), 0);
    assert_eq!(story.pass(Duration::from_secs(1)), []);
    let killed = story.pass(Duration::from_secs(2));
    let reason = "was stopped for longer than a request may take (Scoring timeout after 400 ms)".to_owned();
    assert_eq!(killed, [Effect::AskToKill { name: 100, reason }]);
    assert_eq!(story.pass(Duration::from_secs(2)), [], "once");
}

#[test]
fn an_overdue_job_is_answered_its_worker_killed_and_the_others_told_how_it_ended() {
    let mut story = Story::new();
    let worker = story.join(2, true);
    story.submit_small();
    story.claim(worker);
    story.pass(Duration::from_secs(2));
    story.submit_small();
    story.claim(worker);
    let reason = "did not finish a request in time (Scoring timeout after 400 ms)".to_owned();
    let (begin, later) = (story.now - Duration::from_secs(2), story.now);
    let message = "Scoring timeout after 400 ms".to_owned();
    let overdue = Outcome::Overdue { started: Some(begin), message };
    assert_eq!(
        story.pass(Duration::from_secs(1)),
        [Effect::AskToKill { name: 100, reason }, answer(0, overdue)],
        "the second job has time left"
    );
    assert_eq!(story.tell(Event::Lost { worker, problem: None }), []);
    let cause = "was killed by signal 9 (SIGKILL)".to_owned();
    assert_eq!(
        story.tell(Event::Exited { name: 100, cause: cause.clone() }),
        [Effect::Forget(JobId(0)), answer(1, Outcome::Lost { started: Some(later), cause })]
    );
}

#[test]
fn the_end_of_a_worker_that_nobody_explains_is_told_after_half_a_second() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.submit_small();
    let started = Some(story.now);
    story.claim(worker);
    story.tell(Event::Lost { worker, problem: None });
    assert_eq!(story.pass(Duration::from_millis(499)), []);
    let cause = "closed its connection".to_owned();
    assert_eq!(story.pass(Duration::from_millis(1)), [answer(0, Outcome::Lost { started, cause })]);
}

#[test]
fn a_worker_that_the_front_disconnects_costs_what_it_ran_and_the_supervisor_is_told() {
    let mut story = Story::new();
    let worker = story.join(2, true);
    for _ in 0..3 {
        story.submit_small();
    }
    let started = Some(story.now);
    story.claim(worker);
    let problem = "the server failed to handle its reply".to_owned();
    let effects = story.tell(Event::Lost { worker, problem: Some(problem) });
    let cause = "was disconnected because the server failed to handle its reply".to_owned();
    assert_eq!(
        effects,
        [Effect::SayDisconnected { name: 100 }, answer(0, Outcome::Lost { started, cause })],
        "nobody has to wait for the supervisor to say why"
    );
    assert!(story.core.is_waiting(JobId(1)) && story.core.is_waiting(JobId(2)));
}

#[test]
fn a_stream_is_limited_part_by_part_and_not_while_its_client_reads() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.submit_small();
    story.claim(worker);
    let job = JobId(0);
    assert_eq!(story.tell(Event::StreamStarted(worker, job)), [answer(0, Outcome::Streams)]);
    story.tell(Event::StreamAwaits { worker, job, client: true });
    assert_eq!(story.pass(Duration::from_secs(10_000)), []);
    story.tell(Event::StreamAwaits { worker, job, client: false });
    assert_eq!(story.pass(Duration::from_secs(299)), [], "SCORING_TIMEOUT_MS is not for streams");
    assert!(matches!(story.pass(Duration::from_secs(2))[..], [Effect::AskToKill { .. }]), "WORKER_TIMEOUT is");
}

#[test]
fn a_client_that_leaves_takes_back_what_is_not_claimed_and_cancels_what_is() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.warm_up(worker);
    story.submit_small();
    story.submit_small();
    story.claim(worker);
    assert_eq!(story.tell(Event::GivenUp(JobId(2))), [Effect::Forget(JobId(2))], "prefetched");
    assert_eq!(story.tell(Event::GivenUp(JobId(1))), [], "started: its answer is awaited");
    assert_eq!(story.tell(Event::Abandoned(JobId(1))), [Effect::Cancel { worker, job: JobId(1) }]);
    assert_eq!(story.reply(worker, 1, 1.0), [Effect::Forget(JobId(1))]);
}

#[test]
fn a_client_that_leaves_has_its_call_cancelled_by_a_worker_that_can() {
    let mut story = Story::new();
    let worker = story.join(2, true);
    story.submit_small();
    story.submit_small();
    story.claim(worker);
    for job in [JobId(0), JobId(1)] {
        assert!(story.core.is_cancellable(job));
        assert_eq!(story.tell(Event::GivenUp(job)), [], "--queue_timeout is for jobs that wait");
        assert_eq!(story.tell(Event::ClientLeft(job)), [Effect::Cancel { worker, job }], "claimed or not");
        assert_eq!(story.reply(worker, job.0, 1.0), [Effect::Answer { job, outcome: Outcome::Replied }]);
    }
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.submit_small();
    story.claim(worker);
    assert!(!story.core.is_cancellable(JobId(0)));
    assert_eq!(story.tell(Event::ClientLeft(JobId(0))), [], "other workers cannot");
    story.reply(worker, 0, 1.0);
}

#[test]
fn a_stream_for_nobody_is_cancelled_at_its_start() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.submit_small();
    story.claim(worker);
    story.tell(Event::Abandoned(JobId(0)));
    let started = story.tell(Event::StreamStarted(worker, JobId(0)));
    assert_eq!(started, [Effect::Cancel { worker, job: JobId(0) }]);
    assert_eq!(story.tell(Event::StreamEnded(worker, JobId(0))), [Effect::Forget(JobId(0))]);
}

#[test]
fn a_job_that_three_workers_did_not_survive_to_start_is_answered() {
    let mut story = Story::new();
    story.submit_small();
    for victim in 0..3 {
        let worker = story.join(1, true);
        story.tell(Event::Lost { worker, problem: None });
        let cause = "exited with code 1".to_owned();
        let told = story.tell(Event::Exited { name: 100 + victim, cause: cause.clone() });
        let expected = answer(0, Outcome::Lost { started: None, cause });
        assert_eq!(told, if victim == 2 { vec![expected] } else { Vec::new() });
    }
}

#[test]
fn without_a_shared_counter_a_worker_gets_one_job_at_a_time() {
    let mut story = Story::new();
    let worker = story.join(1, false);
    story.warm_up(worker);
    story.submit_small();
    assert_eq!(story.submit_small(), []);
    story.tell(Event::Stopped { name: 100 });
    assert_eq!(story.core.queued(), 1, "what was sent counts as started");
    story.tell(Event::Continued { name: 100 });
    let said = story.tell(Event::Goodbye(worker));
    assert_eq!(said, [Effect::AskToRecycle { name: 100, reason: Recycle::Leaving }]);
    assert_eq!(story.core.queued(), 2, "it says goodbye between two jobs");
}

#[test]
fn a_stop_answers_everything_and_nothing_starts_any_more() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.submit_small();
    story.submit_small();
    assert_eq!(story.tell(Event::Stop), [answer(0, Outcome::Stopped), answer(1, Outcome::Stopped)]);
    assert_eq!(story.counters[0].next.get(), 1, "the worker will not claim it");
    assert_eq!(story.submit_small(), [answer(2, Outcome::Stopped)]);
    assert_eq!(story.reply(worker, 0, 1.0), []);
}

#[test]
fn a_full_queue_refuses_but_takes_back_what_it_has_admitted() {
    let mut story = Story::new();
    for _ in 0..LIMITS_QUEUE {
        assert_eq!(story.submit_small(), []);
    }
    let refused = story.submit_small();
    assert_eq!(refused, [answer(LIMITS_QUEUE, Outcome::QueueFull { waiting: LIMITS_QUEUE as usize })]);
    let worker = story.join(1, true);
    assert_eq!(story.submit_small(), [], "one has left the queue");
    story.tell(Event::Goodbye(worker));
    assert_eq!(story.core.queued() as u64, LIMITS_QUEUE + 1);
}

/// How many jobs may wait in these scenarios.
const LIMITS_QUEUE: u64 = 2;

#[test]
fn a_worker_that_a_debugger_holds_is_spared_and_its_limits_count_anew() {
    let mut story = Story::new();
    let worker = story.join(1, true);
    story.submit_small();
    story.claim(worker);
    let found = || Some("process 7 debugs it".to_owned());
    story.now += Duration::from_secs(3);
    assert_eq!(story.tell(Event::Tick), [Effect::LookForDebugger(worker)]);
    let text =
        "Worker (pid:100) did not finish a request in time (Scoring timeout after 400 ms). It is not killed, because \
                process 7 debugs it.";
    let told = story.tell(Event::LookedForDebugger { worker, found: found() });
    assert_eq!(told, [Effect::Log(log::Level::Warn, text.to_owned())]);
    story.now += Duration::from_secs(2);
    assert_eq!(story.tell(Event::Tick), []);
    story.now += Duration::from_secs(1);
    assert_eq!(story.tell(Event::Tick), [Effect::LookForDebugger(worker)]);
    assert_eq!(story.tell(Event::LookedForDebugger { worker, found: found() }), [], "told once");
    assert!(matches!(story.pass(Duration::from_secs(3))[..], [Effect::AskToKill { .. }, Effect::Answer { .. }]));
}

#[test]
fn jobs_join_a_batch_until_its_worker_claims_it() {
    let mut story = Story::new();
    let worker = story.join_batching(3);
    assert_eq!(story.submit_small(), [send(worker, &[0])]);
    assert_eq!(story.submit_small(), [send(worker, &[1])]);
    story.claim(worker);
    story.claim(worker);
    assert_eq!(story.submit_small(), []);
    assert_eq!(story.reply(worker, 0, 5.0), [answer(0, Outcome::Replied)]);
    assert_eq!(story.submit_small(), []);
    // What has queued meanwhile goes together, with one system call.
    assert_eq!(story.reply(worker, 1, 5.0), [answer(1, Outcome::Replied), send(worker, &[2, 3])]);
    assert_eq!(story.core.figures().running, 0);
    story.claim(worker);
    story.claim(worker);
    assert_eq!(story.core.figures().running, 2);
}

#[test]
fn a_batch_has_its_size_and_limited_bytes() {
    let mut story = Story::new();
    let worker = story.join_batching(2);
    assert_eq!(story.submit_small(), [send(worker, &[0])]);
    assert_eq!(story.submit_small(), [send(worker, &[1])]);
    assert_eq!(story.submit_small(), []);
    // The worker wants larger ones from now on.
    assert_eq!(story.tell(Event::Resized { worker, batch: 4 }), [send(worker, &[2])]);
    let large = BodySize { in_frame: 0, shared: 17 << 20 };
    assert_eq!(story.submit(large), []);
    // A later job does not overtake it.
    assert_eq!(story.submit_small(), []);
    for job in 0..3 {
        story.claim(worker);
        story.reply(worker, job, 5.0);
    }
    assert_eq!(story.core.figures().queued, 1, "the large job was sent alone");
}

#[test]
fn an_idle_worker_gets_a_job_before_another_one_makes_a_batch() {
    let mut story = Story::new();
    let (first, second) = (story.join_batching(4), story.join_batching(4));
    assert_eq!(story.submit_small(), [send(first, &[0])]);
    assert_eq!(story.submit_small(), [send(second, &[1])]);
    assert_eq!(story.submit_small(), [send(first, &[2])]);
}

#[test]
fn what_a_batch_leaves_out_goes_to_the_next_free_worker() {
    let mut story = Story::new();
    let worker = story.join_batching(3);
    for _ in 0..3 {
        story.submit_small();
    }
    story.claim(worker);
    assert_eq!(story.pass(PREFETCH_BEHIND), []);
    assert_eq!(story.core.figures().queued, 2);
    let other = story.join_batching(3);
    assert_eq!(story.core.figures().queued, 0);
    story.claim(other);
    assert_eq!(story.reply(other, 1, 5.0), [answer(1, Outcome::Replied)]);
}

#[test]
fn a_client_that_leaves_before_the_claim_is_taken_out_of_the_batch() {
    let mut story = Story::new();
    let worker = story.join_batching(3);
    for _ in 0..3 {
        story.submit_small();
    }
    assert_eq!(story.tell(Event::ClientLeft(JobId(1))), [Effect::Forget(JobId(1)), send(worker, &[0, 2])]);
}

#[test]
fn all_claimed_jobs_of_a_batch_are_lost_with_their_worker_and_the_others_go_on() {
    let mut story = Story::new();
    let worker = story.join_batching(3);
    for _ in 0..3 {
        story.submit_small();
    }
    story.claim(worker);
    story.claim(worker);
    story.tell(Event::Exited { name: 100, cause: "died".to_owned() });
    let said = story.tell(Event::Lost { worker, problem: None });
    let lost = |effect: &&Effect| matches!(effect, Effect::Answer { outcome: Outcome::Lost { .. }, .. });
    assert_eq!(said.iter().filter(lost).count(), 2, "{said:?}");
    assert_eq!(story.core.figures().queued, 1);
}

#[test]
fn each_call_for_a_batch_has_the_whole_time_limit() {
    let mut story = Story::new();
    let worker = story.join_batching(2);
    story.submit_small();
    story.submit_small();
    story.claim(worker);
    story.claim(worker);
    // The limit is 0.4 s, with a grace of 2 s.
    story.pass(Duration::from_secs(2));
    assert_eq!(story.tell(Event::CallsAgain(worker)), []);
    assert_eq!(story.pass(Duration::from_secs(2)), []);
    let said = story.pass(Duration::from_secs(1));
    assert!(said.iter().any(|effect| matches!(effect, Effect::AskToKill { .. })), "{said:?}");
}
