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

/// Most items of a batch, unless a setting says otherwise. OTLP has its own default (`launch/otlp.py`).
pub const BATCH_ITEMS: usize = 1024;
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

/// An item of a lane.
pub trait Waits: Weighed + Sized {
    /// The same item in memory that it shares with no other, so that it alone keeps no more memory than its size.
    fn apart(self) -> Self;
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

impl<T: Waits> Lane<T> {
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
        let (mut batch, mut bytes) = (Vec::with_capacity(self.waiting.len().min(self.limits.batch_items)), 0);
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
        let batch: Vec<T> = batch
            .into_iter()
            .enumerate()
            .filter(|(index, _)| again.contains(index))
            .map(|(_, item)| item.apart())
            .collect();
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
mod tests;
