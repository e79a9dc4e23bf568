//! What waits for one receiver: when it is sent, and what becomes of it.
//!
//! A lane holds encoded items up to a limit in bytes, makes batches of them, and settles each batch
//! by the receiver's verdict. It has no clock and does no I/O, so tests run it in virtual time. Used
//! by the exporter's thread only.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    answer::{Reason, Verdict},
    counts::Counts,
};

/// Most items of a batch, unless a setting says otherwise.
pub const BATCH_ITEMS: usize = 512;
/// Most bytes of a batch, unless one item is larger.
const BATCH_BYTES: usize = 1 << 20;
/// The pause after the first failure; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that doubling leads to.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Redirects in a row that are followed.
const MAX_REDIRECTS: u32 = 30;

/// An item that can be counted in bytes.
pub trait Weighed {
    /// About how many bytes of memory it takes.
    fn size(&self) -> usize;
}

/// How much a lane holds and gives out at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all items.
    pub bytes: usize,
    /// Number of all items.
    pub items: usize,
    /// Number of items in a batch.
    pub batch_items: usize,
}

/// Items for one receiver.
pub struct Lane<T> {
    limits: Limits,
    waiting: VecDeque<T>,
    /// Bytes of the waiting items and of the batch that is being sent.
    held: usize,
    /// Number of the same items.
    held_items: usize,
    failures: u32,
    redirects: u32,
    not_before: Option<Instant>,
    counts: Counts,
}

/// What the exporter must do after a batch was settled.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Nothing: continue with the next batch.
    Continue,
    /// The receiver works again after it had failed.
    Recovered,
    /// Say in the log that the receiver has begun to fail. It is tried again after a pause.
    Failing(String),
    /// The receiver still fails. The log has said so.
    StillFailing,
    /// Say in the log that items were dropped.
    Lost(usize, String),
    /// Send to another address from now on.
    GoTo(String),
    /// Store these items, which the receiver may take later. With a text if the log must say that the receiver has begun to
    /// fail.
    Store(Vec<T>, Option<String>),
}

impl<T: Weighed> Lane<T> {
    /// An empty lane.
    pub fn new(limits: Limits, counts: Counts) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            held: 0,
            held_items: 0,
            failures: 0,
            redirects: 0,
            not_before: None,
            counts,
        }
    }

    /// Adds an item. If the lane is full, the oldest waiting items are dropped and counted.
    pub fn push(&mut self, item: T) {
        self.counts.note_waiting(1);
        self.hold(std::slice::from_ref(&item));
        self.waiting.push_back(item);
        self.shed();
    }

    /// Drops the oldest items while there are too many.
    fn shed(&mut self) {
        while self.held > self.limits.bytes || self.held_items > self.limits.items {
            let Some(oldest) = self.waiting.pop_front() else { return };
            self.release(std::slice::from_ref(&oldest));
            self.counts.note_dropped(Reason::Full, 1);
        }
    }

    /// When the next batch may be sent; `None` if nothing waits.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| self.not_before.map_or(now, |instant| instant.max(now)))
    }

    /// True if a batch may be sent now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due(now).is_some_and(|due| due <= now)
    }

    /// True if the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Takes the oldest items as a batch. It must be given back to [`Lane::settle`].
    pub fn take_batch(&mut self) -> Vec<T> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(item) = self.waiting.front() {
            if batch.len() == self.limits.batch_items || (bytes + item.size() > BATCH_BYTES && !batch.is_empty()) {
                break;
            }
            bytes += item.size();
            batch.extend(self.waiting.pop_front());
        }
        batch
    }

    /// Deals with a batch as the receiver's verdict says. `stores` is true if items can be stored on disk. `chance`, from 0
    /// to 1, spreads the retries of several servers.
    pub fn settle(&mut self, batch: Vec<T>, verdict: Verdict, now: Instant, chance: f64, stores: bool) -> Next<T> {
        match verdict {
            Verdict::Accepted => {
                self.counts.note_sent(batch.len());
                self.release(&batch);
                self.works()
            }
            Verdict::Partly { again, refused, why } => {
                self.settle_partly(batch, &again, refused.len(), why, now, chance)
            }
            Verdict::Later { why, after } => {
                let begins = self.failures == 0;
                self.fail(now, after, chance);
                if stores {
                    self.release(&batch);
                    return Next::Store(batch, begins.then_some(why));
                }
                self.put_back(batch);
                if begins {
                    Next::Failing(why)
                } else {
                    Next::StillFailing
                }
            }
            Verdict::Moved(address) if self.redirects < MAX_REDIRECTS => {
                self.redirects += 1;
                self.put_back(batch);
                Next::GoTo(address)
            }
            Verdict::Moved(_) => {
                self.lose(batch, Reason::Refused, format!("more than {MAX_REDIRECTS} redirects in a row"))
            }
            Verdict::Dropped(reason, why) => self.lose(batch, reason, why),
        }
    }

    fn settle_partly(
        &mut self,
        batch: Vec<T>,
        again: &[usize],
        refused: usize,
        why: String,
        now: Instant,
        chance: f64,
    ) -> Next<T> {
        self.counts.note_dropped(Reason::Refused, refused);
        self.counts.note_sent(batch.len() - refused - again.len());
        self.release(&batch);
        let batch: Vec<T> =
            batch.into_iter().enumerate().filter(|(index, _)| again.contains(index)).map(|(_, item)| item).collect();
        let next = if batch.is_empty() {
            self.works()
        } else {
            self.hold(&batch);
            self.fail(now, None, chance);
            self.put_back(batch);
            Next::Continue
        };
        if refused > 0 {
            Next::Lost(refused, why)
        } else {
            next
        }
    }

    fn works(&mut self) -> Next<T> {
        let failed = std::mem::take(&mut self.failures) > 0;
        self.redirects = 0;
        self.not_before = None;
        if failed {
            Next::Recovered
        } else {
            Next::Continue
        }
    }

    fn fail(&mut self, now: Instant, after: Option<Duration>, chance: f64) {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // Half of the pause is fixed and half is chance, so that servers that failed together do not retry together.
        let pause = after.unwrap_or_else(|| doubled.mul_f64(0.5 + 0.5 * chance));
        self.not_before = Some(now + pause);
    }

    fn lose(&mut self, batch: Vec<T>, reason: Reason, why: String) -> Next<T> {
        self.counts.note_dropped(reason, batch.len());
        self.release(&batch);
        self.works();
        Next::Lost(batch.len(), why)
    }

    /// Takes back items that [`Next::Store`] has given out and that could not be stored.
    pub fn take_back(&mut self, batch: Vec<T>) {
        self.hold(&batch);
        self.put_back(batch);
    }

    /// Puts a batch back in front of the items that came later.
    fn put_back(&mut self, batch: Vec<T>) {
        for item in batch.into_iter().rev() {
            self.waiting.push_front(item);
        }
        self.shed();
    }

    fn hold(&mut self, items: &[T]) {
        self.held += items.iter().map(Weighed::size).sum::<usize>();
        self.held_items += items.len();
    }

    fn release(&mut self, items: &[T]) {
        self.held -= items.iter().map(Weighed::size).sum::<usize>();
        self.held_items -= items.len();
    }

    /// Takes everything that is left. The caller counts what becomes of it.
    pub fn take_rest(&mut self) -> Vec<T> {
        (self.held, self.held_items) = (0, 0);
        self.waiting.drain(..).collect()
    }

    /// Bytes of the items that wait or are being sent.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The exporter's counters.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::counts::{AllCounts, ExporterName},
        *,
    };

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Piece(u32, usize);

    impl Weighed for Piece {
        fn size(&self) -> usize {
            self.1
        }
    }

    fn lane(bytes: usize) -> Lane<Piece> {
        with(Limits { bytes, items: usize::MAX, batch_items: BATCH_ITEMS })
    }

    fn with(limits: Limits) -> Lane<Piece> {
        Lane::new(limits, AllCounts::local().of(ExporterName::OtlpLogs))
    }

    fn later() -> Verdict {
        Verdict::Later { why: "status 503".to_owned(), after: None }
    }

    fn numbers(batch: &[Piece]) -> Vec<u32> {
        batch.iter().map(|piece| piece.0).collect()
    }

    #[test]
    fn the_oldest_are_dropped_and_counted_when_the_lane_is_full() {
        let mut lane = lane(100);
        for number in 0..25 {
            lane.push(Piece(number, 10));
        }
        assert_eq!((lane.held(), lane.counts().dropped(Reason::Full)), (100, 15));
        assert_eq!(numbers(&lane.take_batch()), (15..25).collect::<Vec<_>>());
    }

    #[test]
    fn the_number_of_items_may_be_limited_too() {
        let mut lane = with(Limits { bytes: usize::MAX, items: 5, batch_items: 2 });
        (0..7).for_each(|number| lane.push(Piece(number, 10)));
        assert_eq!((lane.held(), lane.counts().dropped(Reason::Full)), (50, 2));
        let batch = lane.take_batch();
        assert_eq!(numbers(&batch), [2, 3]);
        lane.push(Piece(7, 10));
        assert_eq!(lane.counts().dropped(Reason::Full), 3, "a batch that is being sent takes room");
        lane.settle(batch, Verdict::Accepted, Instant::now(), 0.0, false);
        (8..10).for_each(|number| lane.push(Piece(number, 10)));
        assert_eq!((lane.held(), lane.counts().dropped(Reason::Full)), (50, 3));
    }

    #[test]
    fn a_batch_that_is_being_sent_counts_and_keeps_its_place() {
        let now = Instant::now();
        let mut lane = lane(40);
        (0..4).for_each(|number| lane.push(Piece(number, 10)));
        let batch = lane.take_batch();
        lane.push(Piece(4, 10));
        assert_eq!(lane.held(), 40, "the item that had no room beside the batch is dropped");
        assert_eq!(lane.settle(batch, later(), now, 1.0, false), Next::Failing("status 503".to_owned()));
        assert_eq!(numbers(&lane.take_batch()), [0, 1, 2, 3]);
    }

    #[test]
    fn batches_are_limited_in_items_and_bytes() {
        let mut lane = lane(usize::MAX);
        (0..600).for_each(|number| lane.push(Piece(number, 1)));
        assert_eq!((lane.take_batch().len(), lane.take_batch().len()), (BATCH_ITEMS, 600 - BATCH_ITEMS));
        (0..3).for_each(|number| lane.push(Piece(number, BATCH_BYTES / 2 + 1)));
        assert_eq!(lane.take_batch().len(), 1);
        let mut alone = self::lane(usize::MAX);
        alone.push(Piece(0, 2 * BATCH_BYTES));
        assert_eq!(alone.take_batch().len(), 1, "an item that is too large for a batch goes alone");
    }

    #[test]
    fn failures_double_the_pause_and_a_success_ends_it() {
        let mut now = Instant::now();
        let mut lane = lane(1000);
        lane.push(Piece(0, 10));
        let mut pauses = Vec::new();
        for failures in 0..9 {
            let batch = lane.take_batch();
            let next = lane.settle(batch, later(), now, 1.0, false);
            assert_eq!(next == Next::StillFailing, failures > 0);
            let due = lane.due(now).expect("it waits");
            assert!(!lane.is_due(now) && lane.is_due(due));
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let batch = lane.take_batch();
        assert_eq!(lane.settle(batch, Verdict::Accepted, now, 0.0, false), Next::Recovered);
        assert_eq!((lane.held(), lane.counts().sent(), lane.due(now)), (0, 1, None));
        lane.push(Piece(1, 10));
        assert!(lane.is_due(now));
    }

    #[test]
    fn retry_after_counts_instead_of_the_doubling() {
        let now = Instant::now();
        let mut lane = lane(1000);
        lane.push(Piece(0, 10));
        let batch = lane.take_batch();
        let after = Some(Duration::from_secs(7));
        lane.settle(batch, Verdict::Later { why: String::new(), after }, now, 0.3, false);
        assert_eq!(lane.due(now), Some(now + Duration::from_secs(7)));
    }

    #[test]
    fn a_partly_accepted_batch_sends_only_what_may_succeed_again() {
        let now = Instant::now();
        let mut lane = lane(1000);
        (0..5).for_each(|number| lane.push(Piece(number, 10)));
        let batch = lane.take_batch();
        let verdict = Verdict::Partly { again: vec![0, 3], refused: vec![1], why: "bad".to_owned() };
        assert_eq!(lane.settle(batch, verdict, now, 1.0, false), Next::Lost(1, "bad".to_owned()));
        assert_eq!((lane.counts().sent(), lane.counts().dropped(Reason::Refused), lane.held()), (2, 1, 20));
        assert!(!lane.is_due(now));
        assert_eq!(numbers(&lane.take_batch()), [0, 3]);
    }

    #[test]
    fn redirects_are_followed_at_once_but_not_for_ever() {
        let now = Instant::now();
        let mut lane = lane(1000);
        lane.push(Piece(0, 10));
        for _ in 0..MAX_REDIRECTS {
            let batch = lane.take_batch();
            assert_eq!(lane.settle(batch, Verdict::Moved("x".into()), now, 0.0, false), Next::GoTo("x".into()));
            assert!(lane.is_due(now));
        }
        let batch = lane.take_batch();
        assert!(matches!(lane.settle(batch, Verdict::Moved("x".into()), now, 0.0, false), Next::Lost(1, _)));
        assert_eq!((lane.held(), lane.counts().dropped(Reason::Refused)), (0, 1));
    }

    #[test]
    fn with_storage_a_failed_batch_leaves_the_memory() {
        let now = Instant::now();
        let mut lane = lane(1000);
        lane.push(Piece(0, 10));
        let batch = lane.take_batch();
        assert_eq!(
            lane.settle(batch, later(), now, 0.0, true),
            Next::Store(vec![Piece(0, 10)], Some("status 503".to_owned()))
        );
        assert_eq!((lane.held(), lane.is_failing()), (0, true));
    }

    #[test]
    fn everything_is_sent_or_counted_whatever_the_receiver_answers() {
        // A linear congruential generator: the same sequence in each run.
        let mut state = 1_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut lane, mut now, mut pushed) = (lane(400), Instant::now(), 0_u64);
        for _ in 0..20_000 {
            for _ in 0..random(4) {
                lane.push(Piece(0, 1 + random(20) as usize));
                pushed += 1;
            }
            assert!(lane.held() <= 400 + 20);
            if lane.is_due(now) {
                let batch = lane.take_batch();
                let verdict = match random(6) {
                    0 => Verdict::Accepted,
                    1 => later(),
                    2 => Verdict::Dropped(Reason::Quota, String::new()),
                    3 => Verdict::Moved("x".into()),
                    _ => Verdict::Partly {
                        again: (0..batch.len()).step_by(3).collect(),
                        refused: (1..batch.len()).step_by(3).collect(),
                        why: String::new(),
                    },
                };
                if let Next::Store(items, _) = lane.settle(batch, verdict, now, 0.5, random(2) == 0) {
                    if random(3) == 0 {
                        lane.take_back(items);
                    } else {
                        lane.counts().note_stored(items.len());
                    }
                }
            }
            now += Duration::from_millis(random(3000));
        }
        let (counts, rest) = (lane.counts(), lane.take_rest().len() as u64);
        assert_eq!(counts.waiting(), rest);
        assert_eq!(pushed, counts.sent() + counts.all_dropped() + counts.stored() + rest);
        assert_eq!(lane.held(), 0);
    }
}
