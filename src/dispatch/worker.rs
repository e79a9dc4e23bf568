//! One connected worker as the front sees it: what it has, how fast it is, whether it may get more.
//!
//! State and its small decisions; owned by the dispatcher, in the front's event loop.

use std::{
    collections::VecDeque,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    debugger::debugger_of,
    limits::{resident_mib, Rules},
    prefetch::Window,
    request_log,
    transport::Link,
    Answer, Submission,
};
#[cfg(target_os = "linux")]
use crate::body::Body;
use crate::{
    claims::Claims,
    control::{Recycle, Supervisor},
    frame::{BodyAt, Hello},
};

/// Nothing is sent ahead of time to a worker whose running job has taken this long, and what was sent is taken back: it
/// may take very much longer.
pub(super) const PREFETCH_BEHIND: Duration = Duration::from_millis(2);
/// A worker that has not started a job after this time, though it has nothing else to do, is stopped or hangs.
const UNRESPONSIVE_AFTER: Duration = Duration::from_millis(500);

/// A job that a worker has.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: u64,
    /// Its number on this worker's connection, as `claims.rs` counts.
    number: u64,
    pub(super) submission: Submission,
}

/// One connected worker.
pub(super) struct Worker {
    /// How the supervisor calls it: its process id, or its number if it is a thread.
    pub(super) pid: u32,
    pub(super) hello: Rc<Hello>,
    pub(super) link: Link,
    /// Who owns the jobs in `in_flight`; without it nothing is sent ahead of time.
    pub(super) claims: Option<Claims>,
    /// Jobs sent so far.
    pub(super) sent: u64,
    pub(super) window: Window,
    pub(super) in_flight: VecDeque<InFlight>,
    /// No new jobs: it is being replaced or it said goodbye.
    pub(super) retiring: bool,
    /// When the job at the head of `in_flight` can have started, or its stream last went on.
    pub(super) head_since: Instant,
    /// The job at the head of `in_flight` has begun to stream its reply.
    pub(super) streaming: bool,
    /// The stream waits for its client, not for the script.
    pub(super) held_up: bool,
    /// Since when it has not started what it was sent; it gets nothing until it shows life again.
    pub(super) unresponsive_since: Option<Instant>,
    /// Since when its process is stopped; it gets nothing until it goes on.
    pub(super) stopped_since: Option<Instant>,
    /// Jobs answered.
    pub(super) served: u64,
    /// Jobs after which it is replaced; zero means never.
    pub(super) serves_at_most: u64,
    /// The supervisor has been asked to replace it.
    pub(super) recycling: bool,
    /// When it would have been killed last, had a debugger not held it. Its limits count anew from then on.
    pub(super) spared_at: Option<Instant>,
    /// The supervisor has been asked to kill it.
    pub(super) doomed: bool,
    /// It has answered a request and gets the lines about it before its next job (`Hello::logs_requests`).
    pub(super) awaits_log: bool,
    /// Lines that were sent, by their number on this worker's connection, until it has claimed them.
    pub(super) unlogged: VecDeque<(u64, Vec<request_log::Line>)>,
}

impl Worker {
    pub(super) fn new(hello: Rc<Hello>, link: Link, claims: Option<Claims>, serves_at_most: u64) -> Self {
        Self {
            pid: hello.worker,
            hello,
            link,
            claims,
            sent: 0,
            window: Window::default(),
            in_flight: VecDeque::new(),
            retiring: false,
            head_since: Instant::now(),
            streaming: false,
            held_up: false,
            unresponsive_since: None,
            stopped_since: None,
            served: 0,
            serves_at_most,
            recycling: false,
            spared_at: None,
            doomed: false,
            awaits_log: false,
            unlogged: VecDeque::new(),
        }
    }

    /// True if it takes requests: what health tells.
    pub(super) fn is_ready(&self) -> bool {
        !self.retiring && self.stopped_since.is_none() && self.unresponsive_since.is_none()
    }

    /// If the running job takes too long, or the worker has not been able to run any for as long: who waits for it, and
    /// what to tell them. The worker gets nothing more.
    pub(super) fn take_overdue(
        &mut self,
        now: Instant,
        rules: &Rules,
    ) -> Option<(Option<oneshot::Sender<Answer>>, String)> {
        if self.doomed || self.held_up {
            return None;
        }
        let running_since = self.in_flight.front().map(|_| self.busy_since());
        let since = self.unresponsive_since.or(running_since).or(self.stopped_since)?;
        let since = self.spared_at.map_or(since, |spared| spared.max(since));
        let message = rules.overdue(now.duration_since(since), self.streaming)?;
        if let Some(debugger) = debugger_of(self.hello.pid) {
            if self.spared_at.replace(now).is_none() {
                log::warn!(
                    target: "azmlinfsrv.front",
                    "Worker (pid:{}) {} ({}). It is not killed, because {debugger}.",
                    self.pid, self.fault(), message.trim_end_matches('.'),
                );
            }
            return None;
        }
        self.retiring = true;
        self.doomed = true;
        Some((self.in_flight.front_mut().and_then(|running| running.submission.reply.take()), message))
    }

    /// Since when it can have been at its oldest job. Not while a large body is on its way: how long that takes is not the
    /// worker's fault.
    fn busy_since(&self) -> Instant {
        self.link.last_moved().map_or(self.head_since, |moved| moved.max(self.head_since))
    }

    /// What an overdue worker is killed for, for the log.
    pub(super) fn fault(&self) -> &'static str {
        if !self.in_flight.is_empty() {
            "did not finish a request in time"
        } else if self.stopped_since.is_some() {
            "was stopped for longer than a request may take"
        } else {
            "did not begin a request in time"
        }
    }

    pub(super) fn recycle_if_large(&mut self, rules: &Rules, supervisor: &Supervisor) {
        if rules.max_worker_rss == 0 || self.recycling {
            return;
        }
        let Some(mib) = resident_mib(self.hello.pid).filter(|mib| *mib > rules.max_worker_rss) else { return };
        self.recycling = true;
        supervisor.ask_to_recycle(self.pid, Recycle::Large { mib, limit: rules.max_worker_rss });
    }

    /// May it get a job now?
    pub(super) fn accepts(&self, now: Instant) -> bool {
        if !self.is_ready() || self.awaits_log {
            return false;
        }
        self.in_flight.is_empty()
            || (self.claims.is_some()
                // Its lines would wait behind the job.
                && !self.hello.logs_requests
                && self.in_flight.len() < self.window.size()
                // A worker that still has bytes of earlier jobs to read gains nothing from more of them.
                && self.link.is_flushed()
                && now.duration_since(self.head_since) < PREFETCH_BEHIND)
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

    pub(super) fn take(&mut self, id: u64, submission: Submission, now: Instant) {
        let (at, body) = match self.body_of(&submission) {
            Ok(found) => found,
            // Dropping it answers its client.
            Err(error) => {
                return log::error!(target: "azmlinfsrv.front", "Cannot read the body of a request: {error}");
            }
        };
        let head = if self.hello.wants_request {
            submission.job.encode_head(at)
        } else {
            submission.job.encode_short_head(at)
        };
        if self.in_flight.is_empty() {
            self.head_since = now;
        }
        self.link.send(head, body);
        self.in_flight.push_back(InFlight { id, number: self.sent, submission });
        self.sent += 1;
    }

    /// Where it finds the body, and what is sent of it.
    fn body_of(&self, submission: &Submission) -> io::Result<(BodyAt, Bytes)> {
        Ok(match &submission.body {
            // Without the counter it may start a job that others have, and whose body is gone.
            #[cfg(target_os = "linux")]
            Body::Shared(extent) if self.hello.shares_bodies && self.claims.is_some() => {
                (BodyAt::Shared(extent.place()), Bytes::new())
            }
            body => (BodyAt::Frame(body.length()), body.to_bytes()?),
        })
    }

    /// Sends it the lines about the request that it has answered last.
    pub(super) fn log(&mut self, lines: Vec<request_log::Line>) {
        self.awaits_log = false;
        self.link.send(request_log::encode(&lines), Bytes::new());
        // Without the counter it cannot be known whether they have been logged.
        if self.claims.is_some() {
            self.forget_logged();
            self.unlogged.push_back((self.sent, lines));
        }
        self.sent += 1;
    }

    /// True if it has claimed all lines that were sent.
    pub(super) fn has_logged_all(&mut self) -> bool {
        self.forget_logged();
        self.unlogged.is_empty()
    }

    fn forget_logged(&mut self) {
        let next = self.claims.as_ref().map_or(u64::MAX, Claims::next);
        self.unlogged.retain(|(number, _)| *number >= next);
    }

    /// Takes back the jobs that wait behind one that has been running for long, oldest first.
    pub(super) fn take_back_waiting(&mut self, now: Instant) -> VecDeque<InFlight> {
        let [Some(running), Some(_)] = [self.in_flight.front(), self.in_flight.get(1)] else { return VecDeque::new() };
        let started = self.claims.as_ref().is_some_and(|claims| claims.next() > running.number);
        if !started || now.duration_since(self.head_since) < PREFETCH_BEHIND {
            return VecDeque::new();
        }
        self.take_back_unstarted()
    }

    /// Takes back everything from a worker that has not even started the first of its jobs for a while.
    pub(super) fn take_back_from_hung(&mut self, now: Instant) -> VecDeque<InFlight> {
        let next = self.claims.as_ref().map_or(u64::MAX, Claims::next);
        let waits = self.in_flight.iter().find(|job| job.number >= next).is_some_and(|job| {
            now.duration_since(self.busy_since()) > UNRESPONSIVE_AFTER + job.submission.reading_time()
        });
        if !waits || self.unresponsive_since.is_some() {
            return VecDeque::new();
        }
        let mut unstarted = self.take_back_unstarted();
        if let Some(job) = unstarted.front_mut() {
            job.submission.delays += 1;
        }
        if self.in_flight.is_empty() {
            self.unresponsive_since = Some(self.busy_since());
        }
        unstarted
    }

    /// The jobs that it has not started and now never will. It stays, so lines that it has not logged are sent again.
    pub(super) fn take_back_unstarted(&mut self) -> VecDeque<InFlight> {
        let (jobs, unlogged) = self.revoke();
        for lines in unlogged {
            self.log(lines);
        }
        jobs
    }

    /// The same from a worker that is gone, or stopped for who knows how long; the lines are written here.
    pub(super) fn take_back_all(&mut self) -> VecDeque<InFlight> {
        let (jobs, unlogged) = self.revoke();
        for lines in unlogged {
            request_log::write_all(&lines, self.hello.pid);
        }
        jobs
    }

    /// Takes from it what it has not claimed: jobs and lines, the oldest first.
    fn revoke(&mut self) -> (VecDeque<InFlight>, Vec<Vec<request_log::Line>>) {
        let Some(claims) = &self.claims else { return Default::default() };
        let first = claims.revoke(self.sent);
        let started = self.in_flight.iter().take_while(|job| job.number < first).count();
        let unlogged = self.unlogged.drain(..).filter(|(number, _)| *number >= first).map(|(_, lines)| lines);
        (self.in_flight.split_off(started), unlogged.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{limits::tests::RULES, transport::thread::LocalFrames},
        *,
    };
    use crate::{
        body::Store,
        frame::{tests::hello, Job},
        hub::{Hub, WorkerEnd},
    };

    /// A worker with so many jobs, and the end that it would read them from.
    fn worker_with(jobs: u64, now: Instant) -> (Worker, WorkerEnd) {
        let hub = Hub::default();
        let mut entrance = hub.entrance().expect("there is no front yet");
        let end = hub.connect().expect("a front listens");
        let mut frames = LocalFrames::new(entrance.try_recv().expect("a worker has come"));
        let claims = frames.claims.take();
        let hello = Hello { logs_requests: false, ..hello() };
        let mut worker = Worker::new(Rc::new(hello), Link::Local(frames.link.clone()), claims, 0);
        for id in 0..jobs {
            worker.take(
                id,
                Submission {
                    job: Job::default(),
                    body: Bytes::new().into(),
                    reply: None,
                    losses: 0,
                    delays: 0,
                    given_up: false,
                },
                now,
            );
        }
        (worker, end)
    }

    fn ids(jobs: VecDeque<InFlight>) -> Vec<u64> {
        jobs.into_iter().map(|job| job.id).collect()
    }

    #[test]
    fn a_worker_that_hangs_gives_back_what_it_has_not_started_also_when_it_retires() {
        let now = Instant::now();
        for retiring in [false, true] {
            let (mut worker, _end) = worker_with(2, now);
            worker.retiring = retiring;
            assert!(worker.take_back_from_hung(now).is_empty());
            assert_eq!(ids(worker.take_back_from_hung(now + 2 * UNRESPONSIVE_AFTER)), [0, 1]);
            assert!(!worker.is_ready());
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_worker_does_not_hang_while_a_large_body_is_on_its_way() {
        use tokio::io::AsyncReadExt as _;

        let (stream, peer) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let frames =
            super::super::transport::socket::SocketFrames::new(stream, 0, &Store::default()).expect("a socket");
        // What comes before all frames.
        for _ in ["counter", "bodies"] {
            crate::unix_socket::receive_descriptor(&peer).expect("a welcome");
        }
        peer.set_nonblocking(true).expect("a socket");
        let mut peer = tokio::net::UnixStream::from_std(peer).expect("a socket");
        let (_theirs, claims) = Claims::pair();
        let mut worker = Worker::new(Rc::new(hello()), Link::Socket(frames.link.clone()), Some(claims), 0);
        let long_ago = Instant::now().checked_sub(20 * UNRESPONSIVE_AFTER).expect("the clock has run for long");
        let body = Bytes::from(vec![0; 8 << 20]).into();
        worker.take(
            0,
            Submission { job: Job::default(), body, reply: None, losses: 0, delays: 0, given_up: false },
            long_ago,
        );
        assert!(!worker.link.is_flushed(), "the body is larger than the socket");
        let link = worker.link.clone();
        let read_some = async {
            let mut part = vec![0; 1 << 20];
            while link.last_moved().is_none() {
                peer.read_exact(&mut part).await.expect("more of the body");
            }
        };
        tokio::select! {
            _ = link.flush() => panic!("the peer is there"),
            () = read_some => {}
        }
        let now = Instant::now();
        assert!(worker.take_back_from_hung(now).is_empty());
        assert!(worker.take_overdue(now, &RULES).is_none());
        assert_eq!(ids(worker.take_back_from_hung(now + 2 * UNRESPONSIVE_AFTER)), [0], "it does not go on");
        let read_rest = async {
            let mut part = vec![0; 1 << 20];
            while !link.is_flushed() {
                assert_ne!(peer.read(&mut part).await.expect("the rest of the body"), 0);
            }
        };
        tokio::select! {
            _ = link.flush() => panic!("the peer is there"),
            () = read_rest => {}
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_worker_may_take_longer_to_read_a_large_body_and_longer_each_time() {
        const LENGTH: usize = 64 << 20;
        let now = Instant::now();
        let (mut worker, _end) = worker_with(0, now);
        let mut body = Store::shared(LENGTH).begin(Some(LENGTH));
        for part in vec![0; LENGTH].chunks(1 << 20) {
            body.push(part).expect("memory");
        }
        let mut submission =
            Submission { job: Job::default(), body: body.finish(), reply: None, losses: 0, delays: 0, given_up: false };
        for patience in [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16)] {
            worker.take(0, submission, now);
            assert!(worker.take_back_from_hung(now + UNRESPONSIVE_AFTER + patience).is_empty(), "{patience:?}");
            let mut taken = worker.take_back_from_hung(now + 2 * UNRESPONSIVE_AFTER + patience);
            submission = taken.pop_front().expect("the job").submission;
            worker.unresponsive_since = None;
        }
    }

    #[test]
    fn what_a_worker_has_started_stays_there() {
        let now = Instant::now();
        let (mut worker, end) = worker_with(2, now);
        assert!(end.claims.claim(0));
        assert_eq!(ids(worker.take_back_from_hung(now + 2 * UNRESPONSIVE_AFTER)), [1]);
        assert_eq!(worker.in_flight.len(), 1);
    }

    #[test]
    fn the_lines_of_a_request_come_before_the_next_job() {
        let now = Instant::now();
        let (mut worker, _end) = worker_with(0, now);
        worker.awaits_log = true;
        assert!(!worker.accepts(now));
        worker.log(Vec::new());
        assert!(worker.accepts(now));
    }

    #[test]
    fn lines_are_the_workers_once_it_has_claimed_them() {
        let now = Instant::now();
        let (mut worker, end) = worker_with(1, now);
        assert!(end.claims.claim(0));
        let line = |text: &str| vec![(log::Level::Info, text.to_owned())];
        worker.log(line("one"));
        worker.log(line("two"));
        assert!(!worker.has_logged_all());
        assert!(end.claims.claim(1));
        assert_eq!(worker.unlogged.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
        assert!(worker.take_back_unstarted().is_empty(), "the job is the worker's");
        assert!(!worker.has_logged_all() && !end.claims.claim(2), "the second line has another number now");
        assert!(end.claims.claim(3) && worker.has_logged_all());
        worker.log(line("three"));
        assert!(worker.take_back_all().is_empty());
        assert!(worker.has_logged_all() && !end.claims.claim(4), "the front has written the third line");
    }

    #[test]
    fn a_long_stream_leaves_the_lines_to_its_worker() {
        let now = Instant::now();
        let (mut worker, end) = worker_with(1, now);
        assert!(end.claims.claim(0));
        worker.log(vec![(log::Level::Info, "one".to_owned())]);
        assert!(worker.take_back_from_hung(now + 2 * UNRESPONSIVE_AFTER).is_empty());
        assert!(end.claims.claim(1));
    }

    #[test]
    fn a_stopped_worker_is_overdue_after_as_long_as_a_request_though_it_has_none() {
        let now = Instant::now();
        let (mut worker, _end) = worker_with(0, now);
        assert!(worker.accepts(now));
        worker.stopped_since = Some(now);
        assert!(!worker.accepts(now) && !worker.is_ready());
        assert!(worker.take_overdue(now + Duration::from_secs(1), &RULES).is_none());
        assert!(worker.take_overdue(now + Duration::from_secs(3), &RULES).is_some());
        assert_eq!(worker.fault(), "was stopped for longer than a request may take");
    }
}
