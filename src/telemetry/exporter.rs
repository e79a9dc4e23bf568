//! The thread that sends requests and log records to their receivers.
//!
//! One thread for each front. It takes items from the intake, encodes them, sends batches, and acts by the receivers'
//! answers. It may wait for a receiver for as long as it likes, because nobody waits for it: items are dropped, and counted,
//! when too many wait. At the end of the server it has [`STOP_PATIENCE`]. What it has not sent by then is stored or counted.
//!
//! Memory: the intake and the receivers together hold at most 32 MiB of items.
//!
//! One file of more than 400 lines, because every step reads and changes the receivers that the thread owns.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use super::{
    answer::{Reason, Verdict},
    counts::AllCounts,
    intake::{Intake, Taken, EARLY_ITEMS},
    item::{Item, LogRecord},
    lane::Next,
    priority,
    receiver::{host_of, Encoded, Receiver, Target},
    storage::{Storage, Stored},
};
use crate::{
    fault_injection::{point, Point},
    panics::catch,
};

/// Logger of its lines.
const LOG: &str = "azmlinfsrv.telemetry";
/// Bytes of the encoded items, for all receivers together. The intake holds another 8 MiB.
const RECEIVERS_BYTES: usize = 24 << 20;
/// How many items are encoded before the thread gives way to others.
const ITEMS_AT_ONCE: usize = 8;
/// How long the server waits at its end for items to be sent.
pub const STOP_PATIENCE: Duration = Duration::from_millis(1800);
/// The pause of the thread after a panic, so that a fault that repeats does not fill the log.
const PAUSE_AFTER_PANIC: Duration = Duration::from_secs(1);
/// How often the end of the thread is looked for then.
const LOOK: Duration = Duration::from_millis(5);

/// What is exported where.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Who gets items.
    pub targets: Vec<Target>,
    /// How long items are gathered before they are sent.
    pub interval: Duration,
    /// Folder for items that cannot be sent (`--telemetry_storage`).
    pub storage: Option<PathBuf>,
}

/// Handle of the thread.
pub struct Exporter {
    intake: Intake,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What the thread and the front's thread share.
struct Shared {
    /// A mutex, because the front's thread takes it only at the end. The thread does not hold it while a receiver answers.
    state: Mutex<State>,
    storage: Option<Storage>,
}

struct State {
    receivers: Vec<Receiver>,
    /// Set when the server ends: nothing may take longer.
    deadline: Option<Instant>,
    /// The front's thread has taken everything that was left.
    is_over: bool,
}

impl State {
    /// How long sending may take from `now` on; `None` if nothing more may be sent.
    fn time_left(&self, now: Instant) -> Option<Duration> {
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        (!self.is_over && !left.is_zero()).then_some(left)
    }
}

impl Shared {
    /// No code leaves the state half changed, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exporter {
    /// Starts the thread. Logs, and leaves out, receivers and a storage that cannot be used; `None` if no receiver is left.
    /// `counts` may have the numbers of a front that has died: what waited in it is lost.
    pub fn start(plan: Plan, intake: Intake, counts: AllCounts) -> std::io::Result<Option<Self>> {
        let lost = usize::try_from(counts.take_over()).unwrap_or(usize::MAX);
        if lost > 0 {
            log::warn!(target: LOG, "{} waited in the front that has ended, and {} lost.", counted(lost), one_or_more(lost, "is", "are"));
        }
        let storage = plan.storage.as_deref().and_then(|folder| match Storage::open(folder) {
            Ok(storage) => Some(storage),
            Err(error) => {
                let folder = folder.display();
                log::error!(target: LOG, "Cannot use --telemetry_storage {folder}: {error}. Nothing is stored.");
                None
            }
        });
        let limit = RECEIVERS_BYTES / plan.targets.len().max(1);
        let mut receivers = Vec::new();
        for target in plan.targets {
            let (name, variables) = (target.format.exporter().name(), target.format.variables_of_files());
            match Receiver::new(target, limit, counts) {
                Ok(receiver) => receivers.push(receiver),
                Err(problem) => {
                    log::error!(target: LOG, "Telemetry is not sent to {name}: {problem}. Correct {variables}, which names the file.")
                }
            }
        }
        if receivers.is_empty() {
            return Ok(None);
        }
        let exporters: Vec<_> = receivers.iter().map(Receiver::exporter).collect();
        intake.count_for(&exporters, counts);
        let state = State { receivers, deadline: None, is_over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), storage });
        let worker = Worker { intake: intake.clone(), shared: shared.clone(), interval: plan.interval };
        let thread = std::thread::Builder::new().name("azmlinfsrv-telemetry".to_owned()).spawn(|| worker.run())?;
        Ok(Some(Self { intake, shared, thread }))
    }

    /// Where items are put.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Sends what waits, for at most [`STOP_PATIENCE`]. Then what is left is stored, or counted as lost and said so in the
    /// log. Call it when no more items come.
    pub fn finish(self) {
        let deadline = Instant::now() + STOP_PATIENCE;
        self.shared.lock().deadline = Some(deadline);
        self.intake.end();
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        // A thread that still waits for a receiver ends with the process.
        let mut late = Taken::default();
        self.intake.take(Duration::ZERO, Some(Instant::now()), &mut late);
        let mut state = self.shared.lock();
        encode_all(&mut state.receivers, &mut late);
        state.is_over = true;
        for receiver in &mut state.receivers {
            abandon(receiver, self.shared.storage.as_ref());
        }
    }
}

/// Stores or counts everything that waits for a receiver.
fn abandon(receiver: &mut Receiver, storage: Option<&Storage>) {
    let mut rest: Vec<Encoded> = receiver.in_flight.take().map(|batch| batch.to_vec()).unwrap_or_default();
    rest.append(&mut receiver.lane.take_rest());
    if rest.is_empty() {
        return;
    }
    let items = rest.len();
    if storage.is_some_and(|storage| store(receiver, storage, &rest)) {
        log::info!(target: LOG, "{} for {} {} in --telemetry_storage.", counted(items), receiver.name(), one_or_more(items, "is", "are"));
    } else {
        receiver.counts().note_dropped(Reason::Stopped, items);
        log::warn!(
            target: LOG,
            "{} {} not sent to {} ({}), because the server ended first.",
            counted(items),
            one_or_more(items, "was", "were"),
            receiver.name(),
            receiver.host()
        );
    }
}

/// Writes items to the disk. False, and a line in the log, if that failed.
fn store(receiver: &Receiver, storage: &Storage, items: &[Encoded]) -> bool {
    match storage.store(receiver.name(), items, SystemTime::now()) {
        Ok(lost) => {
            receiver.counts().note_stored(items.len());
            receiver.counts().note_lost(Reason::Storage, lost);
            true
        }
        Err(error) => {
            log::error!(target: LOG, "Cannot write to --telemetry_storage: {error}. The items stay in memory.");
            false
        }
    }
}

/// Encodes what the intake had for every receiver. An item leaves `taken` when it is encoded. If the thread is not behind,
/// it gives way to others every few items: the system may let a thread keep a processor for milliseconds although the front
/// or a worker could go on, and clients would wait for that long.
fn encode_all(receivers: &mut [Receiver], taken: &mut Taken) {
    let is_behind = taken.items.len() > 2 * EARLY_ITEMS;
    let mut encoded = 0;
    while let Some(item) = taken.items.front() {
        encode(receivers, item);
        taken.items.pop_front();
        encoded += 1;
        if encoded % ITEMS_AT_ONCE == 0 && !is_behind {
            std::thread::yield_now();
        }
    }
}

/// Encodes an item for every receiver.
fn encode(receivers: &mut [Receiver], item: &Item) {
    match item {
        Item::Request(request, reply) => {
            receivers.iter_mut().for_each(|receiver| receiver.push_request(request, reply.as_ref()));
        }
        Item::Metrics(metrics) => receivers.iter_mut().for_each(|receiver| receiver.push_metrics(metrics)),
        Item::Log(bytes) => match serde_json::from_slice::<LogRecord>(bytes) {
            Ok(record) => {
                for receiver in receivers.iter_mut() {
                    receiver.note_lost_by_worker(record.lost);
                    receiver.push_log(&record);
                }
            }
            Err(error) => {
                log::error!(target: LOG, "A worker sent what is no log record: {error}");
                return receivers.iter().for_each(|receiver| receiver.note_dropped(item, Reason::Worker));
            }
        },
    }
    receivers.iter().for_each(|receiver| receiver.note_encoded(item));
}

/// Whether the thread has more to do.
enum Turn {
    Next,
    Last,
}

/// The thread's own side.
struct Worker {
    intake: Intake,
    shared: Arc<Shared>,
    interval: Duration,
}

impl Worker {
    fn run(self) {
        priority::lower();
        let mut taken = Taken::default();
        loop {
            match catch(|| self.turn(&mut taken)) {
                Ok(Turn::Next) => {}
                Ok(Turn::Last) => return,
                Err(panic) => {
                    log::error!(
                        target: LOG,
                        "The thread that sends telemetry {panic}. \
                         The items that it was encoding or sending are lost, and it goes on."
                    );
                    self.give_up(&taken);
                    taken.items.clear();
                    std::thread::sleep(PAUSE_AFTER_PANIC);
                }
            }
        }
    }

    /// Waits for items, encodes them, and sends what is due. `taken` has the items that are not encoded yet, and is empty at
    /// the beginning.
    fn turn(&self, taken: &mut Taken) -> Turn {
        let until = self.next_due(Instant::now());
        self.intake.take(self.interval, until, taken);
        let receivers = {
            let mut state = self.shared.lock();
            if state.is_over {
                return Turn::Last;
            }
            encode_all(&mut state.receivers, taken);
            state.receivers.len()
        };
        for index in 0..receivers {
            if !self.send_all(index, taken.ended) {
                return Turn::Last;
            }
        }
        if taken.ended {
            Turn::Last
        } else {
            Turn::Next
        }
    }

    /// Counts what a panic has cost: the items that were not encoded yet, and the batches that were being sent. Nobody knows
    /// whether the receivers have those.
    fn give_up(&self, taken: &Taken) {
        let mut state = self.shared.lock();
        if state.is_over {
            return;
        }
        for receiver in &mut state.receivers {
            for item in &taken.items {
                receiver.note_dropped(item, Reason::Panic);
            }
            if let Some(batch) = receiver.in_flight.take() {
                let verdict = Verdict::Dropped(Reason::Panic, String::new());
                receiver.lane.settle(Arc::unwrap_or_clone(batch), verdict, Instant::now(), 0.0, false);
            }
        }
    }

    /// When a receiver that has failed is tried again.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.shared.lock().receivers.iter().filter_map(|receiver| receiver.lane.due(now)).min()
    }

    /// Sends all batches of a receiver that are due; at the end of the server, also those that wait for a retry, once. False
    /// if nothing more may be sent.
    fn send_all(&self, index: usize, is_last: bool) -> bool {
        loop {
            let now = Instant::now();
            let (sending, limit) = {
                let mut state = self.shared.lock();
                let Some(limit) = state.time_left(now) else { return false };
                let receiver = &mut state.receivers[index];
                if !(receiver.lane.is_due(now) || is_last && receiver.lane.due(now).is_some()) {
                    break;
                }
                (receiver.begin(), limit)
            };
            point(Point::Telemetry);
            let verdict = sending.post(limit);
            let works = matches!(verdict, Verdict::Accepted);
            let goes_on = !matches!(verdict, Verdict::Later { .. });
            if !self.settle(index, sending.batch, verdict) {
                return false;
            }
            if works && !self.send_stored(index) {
                return false;
            }
            if !goes_on {
                break;
            }
        }
        true
    }

    /// Deals with the answer to a batch. False if the front's thread has taken the batch meanwhile, at the end.
    fn settle(&self, index: usize, batch: Arc<Vec<Encoded>>, verdict: Verdict) -> bool {
        let mut state = self.shared.lock();
        if state.is_over {
            return false;
        }
        let receiver = &mut state.receivers[index];
        receiver.in_flight = None;
        if verdict.is_failure() {
            receiver.counts().note_failed();
        }
        let batch = Arc::unwrap_or_clone(batch);
        let storage = self.shared.storage.as_ref();
        let (name, host) = (receiver.name(), receiver.host());
        match receiver.lane.settle(batch, verdict, Instant::now(), chance(), storage.is_some()) {
            Next::Continue | Next::StillFailing => {}
            Next::Recovered => log::info!(target: LOG, "{name} ({host}) accepts telemetry again."),
            Next::Failing(why) => log_failing(name, &host, &why),
            Next::Lost(items, why) => {
                if let Some(items) = receiver.tell_refused(items, Instant::now()) {
                    log::error!(target: LOG, "{name} ({host}) refused {}, which {} lost: {why}.", counted(items), one_or_more(items, "is", "are"));
                }
            }
            Next::GoTo(location) => {
                if !receiver.go_to(&location) {
                    let rest = receiver.lane.take_rest();
                    receiver.counts().note_dropped(Reason::Refused, rest.len());
                    if let Some(items) = receiver.tell_refused(rest.len(), Instant::now()) {
                        log::error!(target: LOG, "{name} ({host}) redirects to {}, which is not followed, so {} {} lost.", shown_location(&location), counted(items), one_or_more(items, "is", "are"));
                    }
                }
            }
            Next::Store(items, why) => {
                if let Some(why) = why {
                    log_failing(name, &host, &why);
                }
                if !storage.is_some_and(|storage| store(receiver, storage, &items)) {
                    receiver.lane.take_back(items);
                }
            }
        }
        true
    }

    /// Sends what is on the disk for a receiver that has just accepted a batch.
    fn send_stored(&self, index: usize) -> bool {
        let Some(storage) = &self.shared.storage else { return true };
        loop {
            let (stored, sending, limit) = {
                let state = self.shared.lock();
                let Some(limit) = state.time_left(Instant::now()) else { return false };
                let receiver = &state.receivers[index];
                let mut stored = match storage.take(receiver.name()) {
                    Ok(Some(stored)) => stored,
                    Ok(None) => return true,
                    Err(error) => {
                        log::error!(target: LOG, "Cannot read --telemetry_storage: {error}");
                        return true;
                    }
                };
                receiver.keep_intact(&mut stored.items);
                let batch = Arc::new(std::mem::take(&mut stored.items));
                (stored, receiver.sending(batch), limit)
            };
            let verdict = if sending.batch.is_empty() { Verdict::Accepted } else { sending.post(limit) };
            if !self.settle_stored(index, stored, sending.batch, verdict) {
                return true;
            }
        }
    }

    /// Deals with the answer to a batch from the disk. False if the receiver takes no more of them now.
    fn settle_stored(&self, index: usize, stored: Stored, batch: Arc<Vec<Encoded>>, verdict: Verdict) -> bool {
        let mut state = self.shared.lock();
        let receiver = &mut state.receivers[index];
        if verdict.is_failure() {
            receiver.counts().note_failed();
        }
        match verdict {
            Verdict::Accepted => receiver.counts().note_sent_from_disk(batch.len()),
            Verdict::Partly { again, refused, .. } => {
                receiver.counts().note_sent_from_disk(batch.len() - again.len() - refused.len());
                receiver.counts().note_lost(Reason::Refused, refused.len());
                again.iter().filter_map(|index| batch.get(*index)).for_each(|item| receiver.lane.push(item.clone()));
            }
            Verdict::Dropped(reason, why) => {
                receiver.counts().note_lost(reason, batch.len());
                let (name, items) = (receiver.name(), counted(batch.len()));
                let are = one_or_more(batch.len(), "is", "are");
                log::error!(target: LOG, "{name} refused {items} of --telemetry_storage, which {are} lost: {why}.");
            }
            // The file stays.
            Verdict::Later { .. } | Verdict::Moved(_) => return false,
        }
        stored.delete();
        true
    }
}

/// A number of items in words.
fn counted(items: usize) -> String {
    format!("{items} telemetry item{}", one_or_more(items, "", "s"))
}

/// The word that goes with one item, or with more.
fn one_or_more(items: usize, one: &'static str, more: &'static str) -> &'static str {
    if items == 1 {
        one
    } else {
        more
    }
}

/// The host of an address that a receiver names, because the rest may have secrets.
fn shown_location(location: &str) -> String {
    match host_of(location) {
        host if host.is_empty() => "an address without a host".to_owned(),
        host => host,
    }
}

fn log_failing(name: &str, host: &str, why: &str) {
    log::warn!(
        target: LOG,
        "{name} ({host}) does not accept telemetry: {why}. Items wait, and the oldest are dropped if too many wait."
    );
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let [a, b] = super::ids::random_bytes::<2>();
    f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests;
