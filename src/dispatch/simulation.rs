//! Deterministic simulation of the dispatcher's core: runs seeded histories in virtual time, and
//! checks invariants after every event.
//!
//! A [`World`] has clients that come, leave and read slowly, and workers with one slot or many, or
//! with batches, that are fast or slow, hang, stop, continue, say goodbye, and die before or while they run a job. It
//! performs the core's effects as the transports would, with random delays. One seed is one
//! history, the same on every machine.
//!
//! The world, its checks and the table of mutations stay in one file of more than 400 lines, because
//! a new rule of the core changes all three.
//!
//! `cargo test` runs [`SHORT`] histories and the [`REMEMBERED`] ones. `make simulate` runs millions of
//! events (`SIMULATE_EVENTS`, `SIMULATE_SEED`). [`MUTATIONS`] breaks each rule of the core on purpose
//! and names a seed whose history notices.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    core::{Core, Rule},
    event::{Effect, Effects, Event, Outcome},
    job::{BodySize, JobId, WorkerId},
    limits::Limits,
    worker::{ClaimCounter, Newcomer, UNRESPONSIVE_AFTER},
};

/// Histories in `cargo test`.
const SHORT: u64 = 1_200;
/// Seeds above [`SHORT`] that `cargo test` runs too, because each has broken an invariant once.
/// 6766: a debugger holds a worker that joins after more than a minute. 9853: one tick both sends
/// jobs to a worker and finds the worker overdue. 111821: a job without a shared body waits in a
/// batch with large ones.
const REMEMBERED: &[u64] = &[6766, 9853, 111_821];
/// How often the front ticks.
const TICK: Duration = Duration::from_millis(100);
/// How long after a worker has joined the debugger leaves that holds it. Every debugger leaves,
/// because no limit ends the call of a worker that a debugger holds.
const DEBUGGING: Duration = Duration::from_secs(60);
/// How long a call takes to end when it is cancelled.
const CANCELLING: Duration = Duration::from_micros(50);
/// The longest `run()` may take in this world, grace included.
const LIMIT: Duration = Duration::from_millis(3000);
/// How long after the deadline the answer may come: the tick that notices, and one more.
const SLACK: Duration = Duration::from_millis(201);
/// Jobs that may wait.
const MAX_QUEUE: usize = 40;
/// How many workers one job may kill before the front must answer it. More than the core's limit,
/// because a death is not counted when the job had been taken back from the worker before its end
/// was noticed.
const MAX_VICTIMS: u32 = 8;

/// SplitMix64: a seed must always give the same history, which no library promises.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `times`.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn micros(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(least + self.below(most - least + 1))
    }
}

/// The counter that a simulated worker shares with the core.
#[derive(Clone, Debug, Default)]
struct Counter(Rc<Cell<u64>>);

impl Counter {
    fn claim(&self, number: u64) -> bool {
        let free = self.0.get() == number;
        if free {
            self.0.set(number + 1);
        }
        free
    }
}

impl ClaimCounter for Counter {
    fn is_shared(&self) -> bool {
        true
    }

    fn next(&self) -> u64 {
        self.0.get()
    }

    fn revoke(&self, next: u64) -> u64 {
        let claimed = self.0.get();
        self.0.set(claimed.max(next));
        claimed.min(next)
    }
}

/// What happens next, in the order of time and then of planning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    ClientComes,
    ClientLeaves(JobId),
    JobsArrive(WorkerId, Vec<JobId>),
    JobEnds(WorkerId, JobId),
    CallsAgain(WorkerId),
    PartComes(WorkerId, JobId),
    ClientReads(WorkerId, JobId),
    CancelArrives(WorkerId, JobId),
    RetireArrives(WorkerId),
    WorkerJoins { replaces: Option<u32> },
    WorkerDies(WorkerId),
    EndIsNoticed(WorkerId),
    EndIsExplained(u32),
    Harm,
    DebuggerLeaves(WorkerId),
    WorkerRecovers(WorkerId),
    Tick,
    WakeUp,
}

/// What the simulation knows of a job.
#[derive(Debug)]
struct Request {
    size: BodySize,
    /// The job kills every worker that receives it, before the worker claims it.
    deadly: bool,
    victims: u32,
    left_at: Option<Instant>,
    /// The front has given the job up, and waits for its answer only if the job runs.
    has_given_up: bool,
    /// When its client left, if the worker must then cancel the call.
    cancelled_since: Option<Instant>,
    streams: bool,
    over: bool,
    overdue: bool,
    started_at: Option<Instant>,
    /// Since when the worker has owed a reply or the next part; `None` while the client holds up the stream.
    owed_since: Option<Instant>,
    sent_at: Option<Instant>,
    parts_left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    /// The worker does nothing: a signal has stopped it, or it is stuck in native code.
    Frozen,
    Dead,
}

struct Peer {
    name: u32,
    capacity: usize,
    /// Jobs that it claims together, for one call.
    batch: usize,
    claims: Counter,
    health: Health,
    /// Jobs that it has received and not handled yet; `None` is the order to retire.
    inbox: VecDeque<Option<JobId>>,
    /// Number of the job at the head of the inbox.
    next_number: u64,
    running: Vec<JobId>,
    cancelled: Vec<JobId>,
    retires: bool,
    /// A debugger holds it, so no limit may end it.
    is_debugged: bool,
    /// When it was last not killed because of a debugger. Its limits start again at this time.
    spared_at: Option<Instant>,
    connected: bool,
    /// When the front last saw it read a part of a large body. Its time to claim the job starts
    /// again then.
    last_read: Option<Instant>,
    /// When the last frame that was sent to it arrives.
    last_arrival: Instant,
    /// Frames that arrived while it was frozen.
    held_back: Vec<Happening>,
}

/// Numbers that make histories different from each other.
struct Plan {
    workers: u64,
    capacity: usize,
    batch: usize,
    /// Workers cancel the calls of clients that leave.
    cancels: bool,
    clients: u64,
    pause: u64,
    fast: u64,
    leaves: u64,
    streams: u64,
    slow_in: u64,
    stuck_in: u64,
    harm_every: u64,
    deadly_in: u64,
    stops: bool,
}

struct World {
    random: Random,
    plan: Plan,
    core: Core<Counter>,
    effects: Effects,
    now: Instant,
    agenda: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    planned: u64,
    requests: HashMap<JobId, Request>,
    open: u64,
    next_job: u64,
    next_worker: u64,
    next_name: u32,
    peers: BTreeMap<WorkerId, Peer>,
    explained: Vec<u32>,
    coming: u64,
    ending: bool,
    events: u64,
    trace: Vec<String>,
}

type Verdict = Result<(), String>;

impl World {
    fn new(seed: u64, broken: Option<Rule>) -> Self {
        let mut random = Random(seed);
        // One history in seven has batches.
        let batch = if seed % 7 == 3 { [2, 6, 40][(seed / 7 % 3) as usize] } else { 1 };
        let workers = 1 + random.below(4);
        let capacity = [1, 1, 1, 3, 16][random.below(5) as usize];
        let plan = Plan {
            workers,
            capacity: if batch > 1 { 1 } else { capacity },
            batch,
            // Chosen without a random number, so that all other histories are what they were.
            cancels: capacity > 1 && batch == 1 && seed > 700 && seed % 5 == 4,
            clients: 60 + random.below(200),
            pause: [20, 200, 2_000, 20_000][random.below(4) as usize],
            fast: [15, 100, 900, 5_000][random.below(4) as usize],
            leaves: 2 + random.below(20),
            streams: 3 + random.below(30),
            slow_in: 5 + random.below(60),
            stuck_in: 40 + random.below(400),
            harm_every: [20_000, 100_000, 1_000_000][random.below(3) as usize],
            deadly_in: 100 + random.below(200),
            stops: random.once_in(4),
        };
        let limits = Limits::for_simulation(MAX_QUEUE, LIMIT, if random.once_in(3) { 25 } else { 0 });
        let mut core = Core::new(limits);
        core.broken = broken;
        let mut world = Self {
            random,
            plan,
            core,
            effects: Effects::default(),
            now: Instant::now(),
            agenda: BinaryHeap::new(),
            planned: 0,
            requests: HashMap::new(),
            open: 0,
            next_job: 0,
            next_worker: 0,
            next_name: 100,
            peers: BTreeMap::new(),
            explained: Vec::new(),
            coming: 0,
            ending: false,
            events: 0,
            trace: Vec::new(),
        };
        for _ in 0..world.plan.workers {
            let delay = world.random.micros(0, 5_000);
            world.join_after(delay, None);
        }
        world.after(Duration::ZERO, Happening::ClientComes);
        world.after(Duration::from_millis(1), Happening::Harm);
        world.after(TICK, Happening::Tick);
        world
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.planned += 1;
        self.agenda.push(Reverse((self.now + delay, self.planned, happening)));
    }

    fn join_after(&mut self, delay: Duration, replaces: Option<u32>) {
        self.coming += 1;
        self.after(delay, Happening::WorkerJoins { replaces });
    }

    // ---- The course of a history

    /// Runs to the end. An error is a broken invariant.
    fn run(&mut self) -> Verdict {
        let deadline = self.now + Duration::from_secs(3600);
        while let Some(Reverse((at, _, happening))) = self.agenda.pop() {
            self.now = self.now.max(at);
            if self.now > deadline {
                return Err(format!("the history does not end: {}", self.what_is_left()));
            }
            self.happen(happening)?;
            self.core.audit()?;
            let all_sent = self.next_job >= self.plan.clients;
            if all_sent && !self.ending && (self.open == 0 || self.plan.stops) {
                self.ending = true;
                if self.plan.stops {
                    self.tell(Event::Stop)?;
                    self.core.audit()?;
                }
            }
            // After a stop no client waits for the jobs that still run, and the supervisor ends
            // their processes.
            let is_quiet = self.plan.stops || self.peers.values().all(|peer| peer.running.is_empty());
            if self.ending && self.open == 0 && is_quiet {
                break;
            }
        }
        self.check_nothing_is_left()
    }

    /// The oldest request without an outcome and the workers, for the message about a history that
    /// does not end.
    fn what_is_left(&self) -> String {
        let open = self.requests.iter().filter(|(_, request)| !request.over);
        let oldest = open.min_by_key(|(id, _)| **id);
        let workers = self.peers.iter().map(|(id, peer)| {
            format!("{id:?} is {:?}, debugged: {}, runs {:?}", peer.health, peer.is_debugged, peer.running)
        });
        let workers: Vec<String> = workers.collect();
        format!("{} requests are open, the oldest is {oldest:?}; {}", self.open, workers.join("; "))
    }

    fn check_nothing_is_left(&self) -> Verdict {
        let unanswered = self.requests.iter().find(|(_, request)| !request.over);
        if let Some((id, request)) = unanswered {
            return Err(format!("{id:?} has no outcome: {request:?}"));
        }
        if self.plan.stops {
            return Ok(());
        }
        self.core.audit_is_empty()
    }

    fn happen(&mut self, happening: Happening) -> Verdict {
        if self.trace.len() < 100_000 && std::env::var_os("SIMULATE_TRACE").is_some() {
            self.trace.push(format!("{:?} {happening:?}", self.now));
        }
        match happening {
            Happening::ClientComes => self.client_comes(),
            Happening::ClientLeaves(job) => self.client_leaves(job),
            Happening::WorkerJoins { replaces } => self.worker_joins(replaces),
            Happening::Harm => self.do_harm(),
            Happening::DebuggerLeaves(worker) => {
                if let Some(peer) = self.peers.get_mut(&worker) {
                    peer.is_debugged = false;
                }
                Ok(())
            }
            Happening::EndIsNoticed(worker) => self.end_is_noticed(worker),
            Happening::EndIsExplained(name) => {
                self.tell(Event::Exited { name, cause: "was killed by signal 9 (SIGKILL)".to_owned() })
            }
            Happening::Tick => {
                self.after(TICK, Happening::Tick);
                self.tell(Event::Tick)?;
                self.check_deadlines()
            }
            Happening::WakeUp => self.tell(Event::Tick),
            Happening::WorkerDies(worker) => {
                self.die(worker);
                Ok(())
            }
            Happening::WorkerRecovers(worker) => self.recover(worker),
            Happening::JobsArrive(worker, _)
            | Happening::JobEnds(worker, _)
            | Happening::CallsAgain(worker)
            | Happening::PartComes(worker, _)
            | Happening::ClientReads(worker, _)
            | Happening::CancelArrives(worker, _)
            | Happening::RetireArrives(worker) => self.happen_in_worker(worker, happening),
        }
    }

    /// Gives an event to the core and performs the effects. Performs all of them before the core
    /// gets the events that tell of debuggers, as `dispatch/mod.rs` does.
    fn tell(&mut self, event: Event<Counter>) -> Verdict {
        self.events += 1;
        if !self.trace.is_empty() {
            self.trace.push(format!("  {event:?}"));
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.core.handle(event, self.now, &mut effects);
        if let Some(at) = effects.take_wake_at() {
            let delay = at.saturating_duration_since(self.now) + Duration::from_micros(1);
            self.after(delay, Happening::WakeUp);
        }
        let list: Vec<Effect> = effects.drain().collect();
        if !self.trace.is_empty() {
            self.trace.push(format!("    {list:?}"));
        }
        self.effects = effects;
        let mut looked = Vec::new();
        for effect in list {
            match effect {
                Effect::LookForDebugger(worker) => looked.push(self.look_for_debugger(worker)),
                effect => self.perform(effect)?,
            }
        }
        looked.into_iter().try_for_each(|event| self.tell(event))
    }

    fn look_for_debugger(&mut self, worker: WorkerId) -> Event<Counter> {
        let debugged = self.peers.get_mut(&worker).filter(|peer| peer.is_debugged);
        let found = debugged.map(|peer| {
            peer.spared_at = Some(self.now);
            "process 1 debugs it".to_owned()
        });
        Event::LookedForDebugger { worker, found }
    }

    fn perform(&mut self, effect: Effect) -> Verdict {
        match effect {
            Effect::Send { worker, jobs } => {
                let oldest = self.core.oldest_queued();
                if let Some(younger) = jobs.iter().find(|job| oldest.is_some_and(|oldest| oldest < **job)) {
                    return Err(format!("{younger:?} was sent before {oldest:?}, which is older"));
                }
                for job in &jobs {
                    self.requests.get_mut(job).ok_or("an unknown job was sent")?.sent_at = Some(self.now);
                }
                self.send(worker, Happening::JobsArrive(worker, jobs));
            }
            Effect::Answer { job, outcome } => return self.answered(job, outcome),
            Effect::Forget(job) => return self.forgotten(job),
            Effect::Cancel { worker, job } => self.send(worker, Happening::CancelArrives(worker, job)),
            Effect::Retire(worker) => self.send(worker, Happening::RetireArrives(worker)),
            Effect::Disconnect(worker) => self.after(Duration::from_micros(5), Happening::EndIsNoticed(worker)),
            Effect::AskToKill { name, .. } if self.peers.values().any(|peer| peer.name == name && peer.is_debugged) => {
                return Err(format!("worker {name} is killed while a debugger holds it"));
            }
            Effect::AskToKill { name, reason } => {
                self.check_is_late(name, &reason)?;
                let named = self.peers.iter().find(|(_, peer)| peer.name == name).map(|(id, _)| *id);
                if let Some(worker) = named {
                    let delay = self.random.micros(100, 5_000);
                    self.after(delay, Happening::WorkerDies(worker));
                }
            }
            Effect::AskToRecycle { name, .. } => {
                let delay = self.random.micros(1_000, 50_000);
                self.join_after(delay, Some(name));
            }
            // `tell` performs the last one.
            Effect::SayReady { .. } | Effect::SayDisconnected { .. } | Effect::Log(..) | Effect::LookForDebugger(_) => {
            }
        }
        Ok(())
    }

    /// Frames arrive at a worker in the order sent.
    fn send(&mut self, worker: WorkerId, happening: Happening) {
        let delay = self.random.micros(3, 60);
        let Some(peer) = self.peers.get_mut(&worker) else { return };
        peer.last_arrival = peer.last_arrival.max(self.now + delay);
        let delay = peer.last_arrival.duration_since(self.now);
        self.after(delay, happening);
    }

    // ---- Clients

    fn client_comes(&mut self) -> Verdict {
        if self.next_job >= self.plan.clients {
            return Ok(());
        }
        let job = JobId(self.next_job);
        self.next_job += 1;
        let large = self.random.once_in(12);
        let size = BodySize {
            in_frame: if large { 200_000 } else { 300 },
            shared: if self.random.once_in(40) { 5 << 20 } else { 0 },
        };
        let request = Request {
            size,
            deadly: self.random.once_in(self.plan.deadly_in),
            victims: 0,
            left_at: None,
            has_given_up: false,
            cancelled_since: None,
            streams: false,
            over: false,
            overdue: false,
            started_at: None,
            owed_since: None,
            sent_at: None,
            parts_left: 0,
        };
        self.requests.insert(job, request);
        self.open += 1;
        if self.random.once_in(self.plan.leaves) {
            let delay = self.random.micros(0, 40_000);
            self.after(delay, Happening::ClientLeaves(job));
        }
        // In bursts, so that queues form.
        let pause = if self.random.once_in(4) { self.plan.pause * 6 } else { self.plan.pause / 2 };
        let delay = self.random.micros(0, pause);
        self.after(delay, Happening::ClientComes);
        let waited = self.core.queued();
        self.tell(Event::Submitted { job, size })?;
        if self.core.queued() > waited.max(MAX_QUEUE) {
            return Err(format!("the queue grew to {} jobs", self.core.queued()));
        }
        Ok(())
    }

    fn client_leaves(&mut self, job: JobId) -> Verdict {
        if self.requests.get(&job).is_none_or(|request| request.over || request.overdue) {
            return Ok(());
        }
        // The front asks first whether the job has started, because then it awaits the answer for the log.
        let is_patient = self.random.once_in(2);
        if is_patient {
            if let Some(request) = self.requests.get_mut(&job) {
                request.has_given_up = true;
                if self.plan.cancels && !request.streams {
                    request.cancelled_since = Some(self.now);
                }
            }
            let cancels = self.plan.cancels;
            return self.tell(if cancels { Event::ClientLeft(job) } else { Event::GivenUp(job) });
        }
        let request = self.requests.get_mut(&job).ok_or("an unknown client left")?;
        request.left_at = Some(self.now);
        self.tell(Event::Abandoned(job))
    }

    fn answered(&mut self, job: JobId, outcome: Outcome) -> Verdict {
        let request = self.requests.get_mut(&job).ok_or("an unknown job was answered")?;
        let fits = match outcome {
            Outcome::Lost { .. } => true,
            Outcome::QueueFull { waiting } => waiting >= MAX_QUEUE && request.sent_at.is_none(),
            _ => !request.streams,
        };
        if request.over || request.overdue || request.left_at.is_some() || !fits {
            return Err(format!("{job:?} was answered with {outcome:?} though {request:?}"));
        }
        match outcome {
            Outcome::Streams => request.streams = true,
            // The worker still has the job, and is being killed.
            Outcome::Overdue { .. } => request.overdue = true,
            _ => return self.end(job),
        }
        Ok(())
    }

    fn forgotten(&mut self, job: JobId) -> Verdict {
        let request = self.requests.get_mut(&job).ok_or("an unknown job was forgotten")?;
        let had_an_outcome = request.has_given_up || request.left_at.is_some() || request.streams || request.overdue;
        if request.over || !had_an_outcome {
            return Err(format!("{job:?} was forgotten though {request:?}"));
        }
        self.end(job)
    }

    fn end(&mut self, job: JobId) -> Verdict {
        if let Some(request) = self.requests.get_mut(&job) {
            request.over = true;
            self.open -= 1;
        }
        Ok(())
    }

    // ---- Workers

    fn worker_joins(&mut self, replaces: Option<u32>) -> Verdict {
        self.coming -= 1;
        let (id, name) = (WorkerId(self.next_worker), self.next_name);
        self.next_worker += 1;
        self.next_name += 1;
        let claims = Counter::default();
        let peer = Peer {
            name,
            capacity: self.plan.capacity,
            batch: self.plan.batch,
            claims: claims.clone(),
            health: Health::Well,
            inbox: VecDeque::new(),
            next_number: 0,
            running: Vec::new(),
            cancelled: Vec::new(),
            retires: false,
            is_debugged: self.random.once_in(40),
            spared_at: None,
            connected: true,
            last_read: None,
            last_arrival: self.now,
            held_back: Vec::new(),
        };
        if peer.is_debugged {
            self.after(DEBUGGING, Happening::DebuggerLeaves(id));
        }
        self.peers.insert(id, peer);
        let newcomer = Newcomer {
            name,
            capacity: self.plan.capacity,
            batch: self.plan.batch,
            cancels: self.plan.cancels,
            shares_interpreter: self.plan.fast == 15,
            claims,
        };
        self.tell(Event::Joined(id, newcomer))?;
        match replaces {
            Some(name) => self.tell(Event::Retire { name }),
            None => Ok(()),
        }
    }

    /// Delays a worker's events while it is frozen, and drops them once it is dead.
    fn happen_in_worker(&mut self, id: WorkerId, happening: Happening) -> Verdict {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        if peer.health == Health::Dead {
            return Ok(());
        }
        let is_frozen = peer.health == Health::Frozen;
        if let Happening::JobEnds(_, job) | Happening::PartComes(_, job) = happening {
            if self.plan.cancels && !peer.running.contains(&job) {
                return Ok(()); // the call was cancelled before this
            }
        }
        match happening {
            // The socket takes frames even while the worker does nothing.
            Happening::JobsArrive(_, jobs) => peer.inbox.extend(jobs.iter().copied().map(Some)),
            Happening::RetireArrives(_) => peer.inbox.push_back(None),
            Happening::CancelArrives(_, job) => {
                peer.cancelled.push(job);
                if self.plan.cancels && peer.running.contains(&job) {
                    self.after(CANCELLING, Happening::JobEnds(id, job));
                }
            }
            other if is_frozen => peer.held_back.push(other),
            Happening::JobEnds(_, job) => return self.job_ends(id, job),
            Happening::CallsAgain(_) => return self.calls_again(id),
            Happening::PartComes(_, job) => return self.part_comes(id, job),
            Happening::ClientReads(_, job) => return self.client_reads(id, job),
            _ => {}
        }
        if is_frozen {
            return Ok(());
        }
        self.look(id)
    }

    /// Starts what the worker has room for.
    fn look(&mut self, id: WorkerId) -> Verdict {
        let mut batch = Vec::new();
        let verdict = self.claim_jobs(id, &mut batch);
        let is_alive = self.peers.get(&id).is_some_and(|peer| peer.health != Health::Dead);
        if verdict.is_ok() && is_alive {
            self.batch_starts(id, &batch)?;
        }
        verdict
    }

    /// Claims what the worker has room for. Jobs are started, or put into `batch`, which starts as a
    /// whole.
    fn claim_jobs(&mut self, id: WorkerId, batch: &mut Vec<JobId>) -> Verdict {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
            if peer.retires && batch.is_empty() {
                return self.exit_if_idle(id);
            }
            let is_full = if peer.batch > 1 {
                peer.running.len() > batch.len() || batch.len() >= peer.batch || peer.retires
            } else {
                peer.running.len() >= peer.capacity
            };
            if is_full {
                return Ok(());
            }
            let Some(next) = peer.inbox.pop_front() else { return Ok(()) };
            let Some(job) = next else {
                peer.retires = true;
                continue;
            };
            let request = self.requests.get_mut(&job).ok_or("an unknown job has arrived")?;
            let number = peer.next_number;
            if request.deadly && !request.over && number >= peer.claims.next() {
                request.victims += 1;
                if request.victims > MAX_VICTIMS {
                    return Err(format!("{job:?} has killed {} workers", request.victims));
                }
                self.die(id);
                return Ok(());
            }
            peer.next_number += 1;
            if peer.claims.claim(number) {
                peer.running.push(job);
                if peer.batch > 1 {
                    batch.push(job);
                } else {
                    self.job_starts(id, job)?;
                }
            } else {
                self.tell(Event::Skipped(id))?;
            }
        }
    }

    /// One call answers all jobs, or fails after some time, and then each job gets a call of its own.
    fn batch_starts(&mut self, id: WorkerId, batch: &[JobId]) -> Verdict {
        if batch.is_empty() {
            return Ok(());
        }
        let mut end = self.call_time();
        let fails = self.random.once_in(5);
        for job in batch {
            self.note_start(*job)?;
            if fails {
                self.after(end, Happening::CallsAgain(id));
                end += self.call_time();
            }
            self.after(end, Happening::JobEnds(id, *job));
        }
        Ok(())
    }

    fn calls_again(&mut self, id: WorkerId) -> Verdict {
        let Some(peer) = self.peers.get(&id) else { return Ok(()) };
        for job in &peer.running {
            self.requests.get_mut(job).ok_or("an unknown job runs")?.owed_since = Some(self.now);
        }
        self.tell(Event::CallsAgain(id))
    }

    fn job_starts(&mut self, id: WorkerId, job: JobId) -> Verdict {
        self.note_start(job)?;
        let delay = self.call_time();
        if self.random.once_in(self.plan.streams) {
            self.requests.get_mut(&job).ok_or("an unknown job has started")?.parts_left = 1 + self.random.below(5);
            self.after(delay, Happening::PartComes(id, job));
        } else {
            self.after(delay, Happening::JobEnds(id, job));
        }
        // Its client has left before the worker claimed it.
        if self.plan.cancels && self.peers.get(&id).is_some_and(|peer| peer.cancelled.contains(&job)) {
            self.after(CANCELLING, Happening::JobEnds(id, job));
        }
        Ok(())
    }

    fn note_start(&mut self, job: JobId) -> Verdict {
        let request = self.requests.get_mut(&job).ok_or("an unknown job has started")?;
        if request.started_at.is_some() {
            return Err(format!("{job:?} runs twice"));
        }
        if request.over {
            return Err(format!("{job:?} runs for nobody: {request:?}"));
        }
        request.started_at = Some(self.now);
        request.owed_since = Some(self.now);
        Ok(())
    }

    /// How long one call takes.
    fn call_time(&mut self) -> Duration {
        if self.random.once_in(self.plan.stuck_in) {
            Duration::from_secs(1 << 20)
        } else if self.random.once_in(self.plan.slow_in) {
            self.random.micros(2_000, 900_000)
        } else {
            self.random.micros(self.plan.fast / 3, self.plan.fast)
        }
    }

    fn job_ends(&mut self, id: WorkerId, job: JobId) -> Verdict {
        let request = self.requests.get_mut(&job).ok_or("an unknown job has ended")?;
        let started = request.started_at.ok_or("a job has ended that did not start")?;
        let goes_on = request.cancelled_since.is_some_and(|since| self.now.duration_since(since) > TICK);
        if goes_on && self.peers.get(&id).is_some_and(|peer| !peer.cancelled.contains(&job)) {
            return Err(format!("{job:?} was not cancelled: {request:?}"));
        }
        request.owed_since = None;
        let is_stream = request.parts_left > 0;
        let busy_ms = self.now.duration_since(started).as_secs_f64() * 1e3;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.running.retain(|running| *running != job);
        }
        if is_stream {
            self.tell(Event::StreamEnded(id, job))?;
        } else {
            self.tell(Event::Replied { worker: id, job, busy_ms })?;
        }
        self.look(id)
    }

    /// A part of a stream: the first one is its start.
    fn part_comes(&mut self, id: WorkerId, job: JobId) -> Verdict {
        let patience = self.now.checked_sub(Duration::from_millis(1)).ok_or("the clock is too young")?;
        let request = self.requests.get_mut(&job).ok_or("an unknown stream")?;
        let first = request.owed_since == request.started_at && !request.streams;
        let Some(peer) = self.peers.get(&id) else { return Ok(()) };
        if peer.cancelled.contains(&job) {
            return self.job_ends(id, job);
        }
        if request.left_at.is_some_and(|left| left < patience) && !first {
            return Err(format!("{job:?} is streamed for nobody: {request:?}"));
        }
        if first {
            self.tell(Event::StreamStarted(id, job))?;
        }
        let request = self.requests.get_mut(&job).ok_or("an unknown stream")?;
        request.parts_left -= 1;
        if request.parts_left == 0 {
            request.parts_left = 1;
            return self.job_ends(id, job);
        }
        // The client reads slowly, and the worker owes nothing meanwhile.
        request.owed_since = None;
        self.tell(Event::StreamAwaits { worker: id, job, client: true })?;
        let delay = if self.random.once_in(30) { Duration::from_secs(5) } else { self.random.micros(1, 20_000) };
        self.after(delay, Happening::ClientReads(id, job));
        Ok(())
    }

    fn client_reads(&mut self, id: WorkerId, job: JobId) -> Verdict {
        self.requests.get_mut(&job).ok_or("an unknown stream")?.owed_since = Some(self.now);
        self.tell(Event::StreamAwaits { worker: id, job, client: false })?;
        let delay = self.random.micros(100, 50_000);
        self.after(delay, Happening::PartComes(id, job));
        Ok(())
    }

    fn exit_if_idle(&mut self, id: WorkerId) -> Verdict {
        if self.peers.get(&id).is_some_and(|peer| peer.running.is_empty()) {
            self.die(id);
        }
        Ok(())
    }

    /// The process ends: the front sees the end of the connection, the supervisor says how, in either order or not at all.
    fn die(&mut self, id: WorkerId) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.health != Health::Dead) else { return };
        peer.health = Health::Dead;
        peer.running.clear();
        let name = peer.name;
        let delay = self.random.micros(1, 3_000);
        self.after(delay, Happening::EndIsNoticed(id));
        if !self.random.once_in(10) && !self.explained.contains(&name) {
            self.explained.push(name);
            let delay = self.random.micros(1, 20_000);
            self.after(delay, Happening::EndIsExplained(name));
        }
    }

    fn end_is_noticed(&mut self, id: WorkerId) -> Verdict {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        if !std::mem::take(&mut peer.connected) {
            return Ok(());
        }
        self.tell(Event::Lost { worker: id, problem: None })?;
        self.peers.remove(&id);
        let living = self.peers.values().filter(|peer| peer.health != Health::Dead).count() as u64;
        if living + self.coming < self.plan.workers {
            let delay = self.random.micros(500, 30_000);
            self.join_after(delay, None);
        }
        Ok(())
    }

    /// Something bad happens to a worker.
    fn do_harm(&mut self) -> Verdict {
        if self.ending || self.next_job >= self.plan.clients {
            return Ok(());
        }
        let delay = self.random.micros(1, self.plan.harm_every);
        self.after(delay, Happening::Harm);
        let at = self.random.below(self.peers.len().max(1) as u64) as usize;
        let Some((id, name)) = self.peers.iter().nth(at).map(|(id, peer)| (*id, peer.name)) else { return Ok(()) };
        match self.random.below(7) {
            0 => {
                self.die(id);
                Ok(())
            }
            // A signal stops the worker, and the supervisor tells the front.
            1 | 2 => {
                if self.freeze(id) {
                    self.tell(Event::Stopped { name })?;
                }
                Ok(())
            }
            // The worker is stuck in native code that holds the GIL, and nobody tells the front.
            3 => {
                self.freeze(id);
                Ok(())
            }
            4 => self.tell(Event::Measured { worker: id, mib: 1 }),
            5 => {
                let now = self.now;
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.last_read = Some(now);
                }
                self.tell(Event::BodyRead(id))
            }
            _ => {
                let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.health == Health::Well) else {
                    return Ok(());
                };
                peer.retires = true;
                self.tell(Event::Goodbye(id))?;
                self.exit_if_idle(id)
            }
        }
    }

    /// False if the worker is dead, or frozen already.
    fn freeze(&mut self, id: WorkerId) -> bool {
        let delay = if self.random.once_in(6) { Duration::from_secs(8) } else { self.random.micros(100, 900_000) };
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.health == Health::Well) else { return false };
        peer.health = Health::Frozen;
        self.after(delay, Happening::WorkerRecovers(id));
        true
    }

    fn recover(&mut self, id: WorkerId) -> Verdict {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.health == Health::Frozen) else { return Ok(()) };
        peer.health = Health::Well;
        let name = peer.name;
        for happening in std::mem::take(&mut peer.held_back) {
            self.after(Duration::ZERO, happening);
        }
        self.tell(Event::Continued { name })?;
        self.look(id)
    }

    // ---- What has to hold over time

    /// A worker that is killed because of a request has owed its answer for a long time.
    fn check_is_late(&self, name: u32, reason: &str) -> Verdict {
        let Some(peer) = self.peers.values().find(|peer| peer.name == name) else { return Ok(()) };
        let ages = peer.running.iter().filter_map(|job| self.requests[job].owed_since);
        let longest = ages.map(|since| self.now.duration_since(since)).max().unwrap_or(LIMIT);
        if reason.starts_with("did not finish") && longest < LIMIT / 2 {
            return Err(format!("worker {name} is killed though its call has taken only {longest:?}: {reason}"));
        }
        Ok(())
    }

    /// Every request that a worker holds for too long has been answered, or given to another one.
    fn check_deadlines(&self) -> Verdict {
        for (id, peer) in self.peers.iter().filter(|(_, peer)| peer.health != Health::Dead) {
            for job in peer.running.iter().filter(|_| !peer.is_debugged) {
                let request = &self.requests[job];
                let since = request.owed_since.map(|since| peer.spared_at.map_or(since, |spared| spared.max(since)));
                let late = since.is_some_and(|since| self.now.duration_since(since) > LIMIT + SLACK);
                if late && !(request.over || request.overdue || request.left_at.is_some() || request.streams) {
                    return Err(format!("{job:?} is overdue on {id:?}: {request:?}"));
                }
            }
            let unclaimed = peer.inbox.iter().flatten().enumerate();
            let unclaimed: Vec<_> =
                unclaimed.filter(|(at, _)| peer.next_number + *at as u64 >= peer.claims.next()).collect();
            let batch: usize = unclaimed.iter().map(|(_, job)| self.requests[*job].size.shared).sum();
            for (at, job) in unclaimed {
                let request = &self.requests[job];
                // The worker reads the bodies of a whole batch before it claims the first job.
                let shared = if peer.batch > 1 { batch } else { request.size.shared };
                let reading = Duration::from_secs_f64(shared as f64 / 1e6);
                let patience = UNRESPONSIVE_AFTER + SLACK + reading;
                let since = request.sent_at.max(peer.last_read);
                let waits = since.map_or(Duration::ZERO, |since| self.now.duration_since(since));
                if waits > patience {
                    return Err(format!("{job:?} waits for {waits:?} at place {at} of {id:?}: {request:?}"));
                }
                let behind = Duration::from_millis(20);
                let full = peer.running.len() >= peer.capacity && peer.health == Health::Well;
                let all_slow = peer.running.iter().all(|job| {
                    self.requests[job].started_at.is_some_and(|started| self.now.duration_since(started) > behind)
                });
                if full && all_slow && waits > behind {
                    return Err(format!("{job:?} waits for {waits:?} behind slow jobs of {id:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Runs one history. Returns its number of events, or the broken invariant.
fn simulate(seed: u64, broken: Option<Rule>) -> Result<u64, String> {
    let mut world = World::new(seed, broken);
    let verdict = world.run();
    if verdict.is_err() && !world.trace.is_empty() {
        let tail = world.trace.len().saturating_sub(4000);
        return Err(format!(
            "{verdict:?}
{}",
            world.trace[tail..].join("\n")
        ));
    }
    verdict.map(|()| world.events)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a whole number"))
}

#[test]
fn the_invariants_hold_in_every_history() {
    for seed in (number("SIMULATE_SEED", 0)..SHORT).chain(REMEMBERED.iter().copied()) {
        simulate(seed, None).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

/// The long run: as many histories as it takes for `SIMULATE_EVENTS` events, from `SIMULATE_SEED` on.
#[test]
#[ignore = "the long run: make simulate"]
#[allow(clippy::print_stderr)]
fn the_invariants_hold_for_millions_of_events() {
    let (wanted, mut seed) = (number("SIMULATE_EVENTS", 10_000_000), number("SIMULATE_SEED", 0));
    let (first, mut events) = (seed, 0);
    while events < wanted {
        events += simulate(seed, None).unwrap_or_else(|broken| panic!("SIMULATE_SEED={seed}: {broken}"));
        seed += 1;
    }
    eprintln!("{events} events in {} histories from seed {first} on: no invariant broken", seed - first);
}

/// Each rule of the core, a seed whose history breaks without it, and words of the invariant that notices.
const MUTATIONS: &[(Rule, u64, &str)] = &[
    (Rule::RevokeBeforeRequeue, 3, "runs twice"),
    (Rule::RevokeBeforeStop, 5, "runs for nobody"),
    (Rule::RemoveAbandoned, 0, "is queued, but"),
    (Rule::OldestFirst, 0, "which is older"),
    (Rule::AssignAfterEveryEvent, 0, "is idle while"),
    (Rule::AnswerOverdue, 1, "is overdue on"),
    (Rule::BoundTheQueue, 0, "the queue grew to"),
    (Rule::BoundTheWindow, 0, "holds 33 jobs"),
    (Rule::RequeueFromLost, 0, "is not where its stage says"),
    (Rule::AnswerForLost, 0, "the history does not end"),
    (Rule::AnswerOnce, 1, "was answered with Replied though"),
    (Rule::TakeBackFromStopped, 601, "waits for"),
    (Rule::TakeBackFromUnresponsive, 1, "waits for"),
    (Rule::TakeBackBehindSlow, 2, "behind slow jobs"),
    (Rule::CancelStreams, 2, "is streamed for nobody"),
    (Rule::CancelCalls, 839, "was not cancelled"),
    (Rule::GiveUpAfterLosses, 0, "has killed 9 workers"),
    (Rule::SpareTheDebugged, 82, "while a debugger holds it"),
    (Rule::RestartTheLimit, 1508, "though its call has taken only"),
];

#[test]
fn every_rule_is_missed_by_an_invariant() {
    assert!(Rule::ALL.iter().all(|rule| MUTATIONS.iter().any(|(broken, ..)| broken == rule)), "a rule has no row");
    for (rule, seed, words) in MUTATIONS {
        let verdict = simulate(*seed, Some(*rule));
        let noticed = verdict.as_ref().is_err_and(|broken| broken.contains(words));
        assert!(noticed, "without {rule:?}, seed {seed} should have said {words:?}: {verdict:?}");
    }
}

/// Prints rows for [`MUTATIONS`] after a change of the world.
#[test]
#[ignore = "a tool: cargo test find_mutations -- --ignored --nocapture"]
#[allow(clippy::print_stderr)]
fn find_mutations() {
    for (rule, _, words) in MUTATIONS {
        let notices = |seed| simulate(seed, Some(*rule)).is_err_and(|broken| broken.contains(words));
        match (0..3_000).find(|seed| notices(*seed)) {
            Some(seed) => eprintln!("    (Rule::{rule:?}, {seed}, {words:?}),"),
            None => eprintln!("    no seed below 3000 for {rule:?}: {words:?}"),
        }
    }
}
