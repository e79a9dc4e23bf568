//! Counts requests and restarts of workers, in memory that all processes of the server share.
//!
//! Each number has one writer: the front's event loop, the supervisor for restarts, and a worker for its own start. So it is read, changed and stored
//! without a lock, and without an atomic addition. The memory outlives the front: another front goes on counting where the
//! last one has stopped. Requests that the last front had not finished become `azmlinfsrv_requests_lost_total`.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::Method;

use super::{
    super::{
        record::{Outcome, Refusal, RequestRecord, Route, Run, Stage},
        recorder::Reader,
    },
    family,
    output::Output,
};

/// Upper bounds of the buckets of durations, in seconds: those of OpenTelemetry's `http.server.request.duration`.
pub const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Words of a histogram: the buckets, one more for what is above all bounds, and the sum in nanoseconds.
const HISTOGRAM: usize = BOUNDS.len() + 2;

/// Combinations of scheme, method, route and status that have a series of their own. A script can answer with any status, so there
/// must be a limit: further ones count with method `_OTHER`, no route and no status.
const MAX_SERIES: usize = 127;
/// Words of one of these series: one for its key, then its histogram.
const SERIES: usize = 1 + HISTOGRAM;

/// The methods that have a label of their own, and the one for all others.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"];
const OTHER_METHOD: u8 = 9;
/// What clients use: https if a proxy of `--trusted_proxies` says so.
const SCHEMES: [&str; 2] = ["http", "https"];
/// The routes by the number that the key has. The first one is for requests without a route.
const ROUTES: [Option<Route>; 14] = [
    None,
    Some(Route::Health),
    Some(Route::Live),
    Some(Route::Ready),
    Some(Route::Score),
    Some(Route::Swagger),
    Some(Route::Metrics),
    Some(Route::Docs),
    Some(Route::V2),
    Some(Route::V2Live),
    Some(Route::V2Ready),
    Some(Route::V2Model),
    Some(Route::V2ModelReady),
    Some(Route::V2Infer),
];
const OUTCOMES: [&str; 4] = ["ok", "error", "timeout", "lost"];
const REASONS: [&str; 7] = ["queue_full", "queue_timeout", "draining", "no_worker", "too_large", "memory", "stopped"];
const STATES: [&str; 3] = ["arriving", "queued", "running"];
/// Why a worker was replaced.
pub const RESTART_REASONS: [&str; 6] = ["crash", "signal", "oom", "timeout", "recycle", "reload"];

// Where each number is.
const REQUESTS: usize = 0;
const OTHER_REQUESTS: usize = REQUESTS + MAX_SERIES * SERIES;
const ACTIVE: usize = OTHER_REQUESTS + SERIES;
const QUEUE: usize = ACTIVE + SCHEMES.len() * METHODS.len();
const RUNS: usize = QUEUE + HISTOGRAM;
const REJECTED: usize = RUNS + OUTCOMES.len() * HISTOGRAM;
const ABANDONED: usize = REJECTED + REASONS.len();
const RUN_TIMEOUTS: usize = ABANDONED + STATES.len();
const LOST: usize = RUN_TIMEOUTS + 1;
const RESTARTS: usize = LOST + 1;
const STARTING: usize = RESTARTS + RESTART_REASONS.len();
/// Pairs of words: a process, and how long it took to load the script.
const LOADED: usize = STARTING + 1;
/// How many processes have such a pair. The load times of further workers are not shown.
const MAX_LOADED: usize = 512;
/// How many numbers [`Counters::at`] needs.
pub const LENGTH: usize = LOADED + 2 * MAX_LOADED;

/// The counters of one server; copies share them. It is a reader of request records.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    words: &'static [AtomicU64],
}

impl Counters {
    /// The counters in these words, of which there must be [`LENGTH`].
    pub const fn at(words: &'static [AtomicU64]) -> Self {
        Self { words }
    }

    fn get(&self, at: usize) -> u64 {
        self.words[at].load(Relaxed)
    }

    fn add(&self, at: usize, amount: u64) {
        let word = &self.words[at];
        word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    fn observe(&self, at: usize, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.add(at + bucket, 1);
        self.add(at + HISTOGRAM - 1, nanoseconds);
    }

    // ---- The front

    /// Counts what the last front had not finished as lost. A new front calls this before it serves.
    pub fn take_over(&self) {
        for at in ACTIVE..QUEUE {
            self.add(LOST, self.get(at));
            self.words[at].store(0, Relaxed);
        }
    }

    fn count_request(&self, record: &RequestRecord, finished: Instant) {
        let series = self.series(key(record));
        self.observe(series + 1, finished.saturating_duration_since(record.began));
        let job = &record.job;
        if let (Some(queued), Some(started)) = (job.queued, job.started) {
            self.observe(QUEUE, started.saturating_duration_since(queued));
        }
        if let (Some(run), Some(duration)) = (record.run, job.run.or_else(|| job.worked())) {
            self.observe(RUNS + usize::from(run_index(run)) * HISTOGRAM, duration);
        }
        if record.run == Some(Run::Timeout) {
            self.add(RUN_TIMEOUTS, 1);
        }
        if let Some(state) = record.abandoned() {
            self.add(ABANDONED + state_index(state), 1);
        } else if let Outcome::Refused(refusal) = record.outcome {
            if let Some(reason) = reason_index(refusal) {
                self.add(REJECTED + reason, 1);
            }
        }
    }

    /// The place of the series with this key.
    fn series(&self, key: u64) -> usize {
        for at in (REQUESTS..OTHER_REQUESTS).step_by(SERIES) {
            match self.get(at) {
                found if found == key => return at,
                0 => {
                    self.words[at].store(key, Relaxed);
                    return at;
                }
                _ => {}
            }
        }
        OTHER_REQUESTS
    }

    // ---- The supervisor

    /// Counts a worker that is replaced for this reason, one of [`RESTART_REASONS`]. Returns false for any other reason.
    pub fn count_restart(&self, reason: &str) -> bool {
        let index = RESTART_REASONS.iter().position(|known| *known == reason);
        if let Some(index) = index {
            self.add(RESTARTS + index, 1);
        }
        index.is_some()
    }

    /// Notes how many workers are wanted and do not serve yet.
    pub fn set_starting(&self, workers: u64) {
        self.words[STARTING].store(workers, Relaxed);
    }

    /// Workers that are wanted and do not serve yet.
    pub fn starting(&self) -> u64 {
        self.get(STARTING)
    }

    /// Forgets a process that has ended.
    pub fn forget_process(&self, pid: u32) {
        for at in (LOADED..LENGTH).step_by(2) {
            if self.get(at) == u64::from(pid) {
                self.words[at].store(0, Relaxed);
            }
        }
    }

    // ---- Workers

    /// Notes how long this process took to load the script. Each worker process calls this for itself.
    pub fn set_loaded(&self, pid: u32, duration: Duration) {
        let pid = u64::from(pid);
        let mut places = (LOADED..LENGTH).step_by(2);
        // Another worker may look for a place at this moment.
        let place = places
            .find(|at| self.get(*at) == pid || self.words[*at].compare_exchange(0, pid, Relaxed, Relaxed).is_ok());
        if let Some(at) = place {
            self.words[at + 1].store(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// How long this process took to load the script.
    pub fn loaded(&self, pid: u32) -> Option<Duration> {
        let at = (LOADED..LENGTH).step_by(2).find(|at| self.get(*at) == u64::from(pid))?;
        Some(Duration::from_nanos(self.get(at + 1)))
    }

    // ---- The text

    /// Writes the family of request durations.
    pub fn write_requests(&self, text: &mut dyn Output) {
        let family = &family::REQUEST_DURATION;
        text.family(family);
        for at in (REQUESTS..=OTHER_REQUESTS).step_by(SERIES) {
            let is_other = at == OTHER_REQUESTS;
            let key = if is_other { u64::from(OTHER_METHOD) << 32 } else { self.get(at) };
            let counts = self.counts(at + 1);
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let [_, _, scheme, method, _, route, high, low] = key.to_be_bytes();
            let status = u16::from_be_bytes([high, low]);
            let status = if status == 0 { String::new() } else { status.to_string() };
            let route = ROUTES.get(usize::from(route)).copied().flatten().map_or("", Route::path);
            let method = METHODS.get(usize::from(method)).copied().unwrap_or("_OTHER");
            let labels = [
                ("http_request_method", method),
                ("http_route", route),
                ("http_response_status_code", &status),
                ("url_scheme", if scheme & IS_HTTPS == 0 { SCHEMES[0] } else { SCHEMES[1] }),
            ];
            text.histogram(family.name, &labels, &BOUNDS, &counts, self.sum(at + 1));
        }
    }

    /// Writes the gauge of active requests. https has series if a client has used it.
    pub fn write_active(&self, text: &mut dyn Output) {
        let family = &family::ACTIVE_REQUESTS;
        text.family(family);
        let mut keys = (REQUESTS..OTHER_REQUESTS).step_by(SERIES).map(|at| self.get(at).to_be_bytes()[2]);
        let has_https = keys.any(|scheme| scheme & IS_HTTPS != 0);
        for (scheme, at) in SCHEMES.iter().zip((ACTIVE..QUEUE).step_by(METHODS.len())) {
            let numbers: Vec<_> = (at..at + METHODS.len()).map(|at| self.get(at)).collect();
            if *scheme == SCHEMES[1] && !has_https && numbers.iter().all(|number| *number == 0) {
                continue;
            }
            for (method, number) in METHODS.iter().zip(numbers) {
                let labels = [(family.labels[0], *method), (family.labels[1], *scheme)];
                text.sample(family.name, &labels, number as f64);
            }
        }
    }

    /// Writes the time that requests have waited.
    pub fn write_queue(&self, text: &mut dyn Output) {
        let family = &family::QUEUE_DURATION;
        text.family(family);
        text.histogram(family.name, &[], &BOUNDS, &self.counts(QUEUE), self.sum(QUEUE));
    }

    /// Writes the time that calls of `run()` took.
    pub fn write_runs(&self, text: &mut dyn Output) {
        let family = &family::RUN_DURATION;
        text.family(family);
        for (index, outcome) in OUTCOMES.iter().enumerate() {
            let at = RUNS + index * HISTOGRAM;
            text.histogram(family.name, &[("outcome", outcome)], &BOUNDS, &self.counts(at), self.sum(at));
        }
    }

    /// Writes requests that were refused, abandoned or lost, and calls of `run()` that exceeded a limit.
    pub fn write_failures(&self, text: &mut dyn Output) {
        self.write_words(text, &family::REJECTED, REJECTED, &REASONS);
        self.write_words(text, &family::ABANDONED, ABANDONED, &STATES);
        text.single(&family::LOST, self.get(LOST) as f64);
        text.single(&family::RUN_TIMEOUTS, self.get(RUN_TIMEOUTS) as f64);
    }

    /// Writes restarts of workers.
    pub fn write_restarts(&self, text: &mut dyn Output) {
        self.write_words(text, &family::RESTARTS, RESTARTS, &RESTART_REASONS);
    }

    /// Writes a family with one number for each value of its label.
    fn write_words(&self, text: &mut dyn Output, family: &family::Family, at: usize, values: &[&str]) {
        text.family(family);
        for (index, value) in values.iter().enumerate() {
            text.sample(family.name, &[(family.labels[0], *value)], self.get(at + index) as f64);
        }
    }

    fn counts(&self, at: usize) -> Vec<u64> {
        (at..at + HISTOGRAM - 1).map(|at| self.get(at)).collect()
    }

    fn sum(&self, at: usize) -> f64 {
        self.get(at + HISTOGRAM - 1) as f64 / 1e9
    }
}

impl Reader for Counters {
    fn begun(&self, record: &mut RequestRecord) {
        self.add(active(record), 1);
    }

    fn finished(&self, record: &RequestRecord) {
        self.add(active(record), 1_u64.wrapping_neg());
        self.count_request(record, record.finished.unwrap_or_else(Instant::now));
    }
}

// Bits of a key's third byte: set in every key, so that none is 0, and set if the client used https.
const IS_KEY: u8 = 1;
const IS_HTTPS: u8 = 2;

/// Scheme, method, route and status as one number, which is never 0.
fn key(record: &RequestRecord) -> u64 {
    let scheme = if record.is_https == Some(true) { IS_KEY | IS_HTTPS } else { IS_KEY };
    let route = ROUTES.iter().position(|route| *route == record.route).unwrap_or_default();
    let status = u64::from(record.status.unwrap_or_default());
    u64::from(scheme) << 40 | u64::from(method_index(record)) << 32 | (route as u64) << 16 | status
}

/// The place of the number of active requests that are like this one.
fn active(record: &RequestRecord) -> usize {
    let scheme = usize::from(record.is_https == Some(true));
    ACTIVE + scheme * METHODS.len() + usize::from(method_index(record))
}

fn method_index(record: &RequestRecord) -> u8 {
    match record.head.as_ref().map(|head| &head.method) {
        Some(&Method::GET) => 0,
        Some(&Method::HEAD) => 1,
        Some(&Method::POST) => 2,
        Some(&Method::PUT) => 3,
        Some(&Method::DELETE) => 4,
        Some(&Method::CONNECT) => 5,
        Some(&Method::OPTIONS) => 6,
        Some(&Method::TRACE) => 7,
        Some(&Method::PATCH) => 8,
        _ => OTHER_METHOD,
    }
}

const fn run_index(run: Run) -> u8 {
    match run {
        Run::Ok => 0,
        Run::Error => 1,
        Run::Timeout => 2,
        Run::Lost => 3,
    }
}

const fn state_index(stage: Stage) -> usize {
    match stage {
        Stage::Arriving => 0,
        Stage::Queued => 1,
        Stage::Running | Stage::Replying => 2,
    }
}

/// The reason for which a request counts as rejected; `None` for a fault of the request itself.
const fn reason_index(refusal: Refusal) -> Option<usize> {
    match refusal {
        Refusal::QueueFull => Some(0),
        Refusal::QueueTimeout => Some(1),
        Refusal::Draining => Some(2),
        Refusal::NotReady => Some(3),
        Refusal::BodyTooLarge => Some(4),
        Refusal::Memory => Some(5),
        Refusal::Stopped => Some(6),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;
