//! Where requests and log records wait until the exporter's thread encodes them.
//!
//! The front's event loop, and with worker threads the script's threads, only push: one short lock, and a wake-up of the
//! exporter's thread for the first item, and when 2,048 items or 2 MiB wait. The intake is bounded in bytes. It drops the
//! oldest items when the thread is late, which happens while a receiver hangs.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    answer::Reason,
    counts::{AllCounts, Counts, ExporterName},
    item::Item,
    lane::Weighed,
};

/// Bytes of the items that are not encoded yet.
const LIMIT: usize = 8 << 20;
/// Items that are encoded without waiting for the interval. Several batches, because each time that the thread is woken, and
/// each request to a receiver, cost more than to encode a few items.
pub const EARLY_ITEMS: usize = 2048;
/// Bytes of items that are encoded without waiting for the interval.
const EARLY_BYTES: usize = 2 << 20;

/// The queue; clones share it.
#[derive(Clone, Default)]
pub struct Intake {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// A mutex, because both sides hold it only to move items.
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    /// When the oldest item was pushed.
    since: Option<Instant>,
    /// The exporters that take items. With worker threads the script may report before they are known.
    exporters: Vec<(ExporterName, Counts)>,
    /// Log records that were dropped before the exporters were known.
    dropped_early: usize,
    ended: bool,
}

impl Waiting {
    /// True if so much waits that it is encoded at once.
    fn is_early(&self) -> bool {
        self.items.len() >= EARLY_ITEMS || self.bytes >= EARLY_BYTES
    }

    /// Counts an item with each exporter that takes it.
    fn count(&self, item: &Item, count: impl Fn(Counts)) {
        self.exporters.iter().filter(|(exporter, _)| exporter.takes(item)).for_each(|(_, counts)| count(*counts));
    }
}

/// What the exporter's thread finds.
#[derive(Default)]
pub struct Taken {
    /// All waiting items, oldest first.
    pub items: VecDeque<Item>,
    /// No more items will come.
    pub ended: bool,
}

impl Intake {
    /// Nothing that is done under the lock can leave the queue half changed, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts items for these exporters from now on, and those that are here already.
    pub fn count_for(&self, exporters: &[ExporterName], counts: AllCounts) {
        let mut waiting = self.lock();
        waiting.exporters = exporters.iter().map(|exporter| (*exporter, counts.of(*exporter))).collect();
        for item in &waiting.items {
            waiting.count(item, |counts| counts.note_waiting(1));
        }
        let dropped = std::mem::take(&mut waiting.dropped_early);
        for (_, counts) in waiting.exporters.iter().filter(|(exporter, _)| exporter.takes_logs()) {
            counts.note_lost(Reason::Full, dropped);
        }
    }

    /// Adds an item. Never waits for anything but the lock.
    pub fn push(&self, item: Item) {
        let mut waiting = self.lock();
        waiting.count(&item, |counts| counts.note_waiting(1));
        let was_early = waiting.is_early();
        waiting.bytes += item.size();
        waiting.items.push_back(item);
        let is_first = waiting.since.is_none();
        if is_first {
            waiting.since = Some(Instant::now());
        }
        while waiting.bytes > LIMIT {
            let Some(oldest) = waiting.items.pop_front() else { break };
            waiting.bytes -= oldest.size();
            waiting.count(&oldest, |counts| counts.note_dropped(Reason::Full, 1));
            waiting.dropped_early += usize::from(waiting.exporters.is_empty());
        }
        let wakes = is_first || waiting.is_early() && !was_early;
        drop(waiting);
        if wakes {
            self.shared.changed.notify_one();
        }
    }

    /// No more items will come. Wakes the exporter's thread.
    pub fn end(&self) {
        self.lock().ended = true;
        self.shared.changed.notify_one();
    }

    /// Waits until the oldest item is `interval` old, so much waits that it is encoded at once, the intake has ended, or
    /// `until` has come. Then moves everything into `taken`, which must be empty. The intake goes on with the memory of
    /// `taken`.
    pub fn take(&self, interval: Duration, until: Option<Instant>, taken: &mut Taken) {
        taken.items.shrink_to(EARLY_ITEMS);
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            let due = waiting.since.map(|since| since + interval);
            let wake_at = [due, until].into_iter().flatten().min();
            if waiting.ended || waiting.is_early() || wake_at.is_some_and(|instant| instant <= now) {
                break;
            }
            waiting = match wake_at {
                None => self.shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(instant) => {
                    let patience = instant.saturating_duration_since(now);
                    self.shared.changed.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        waiting.bytes = 0;
        waiting.since = None;
        std::mem::swap(&mut waiting.items, &mut taken.items);
        taken.ended = waiting.ended;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::telemetry::item::{tests::scored, ReplyStart};

    const HOUR: Duration = Duration::from_secs(3600);

    fn take(intake: &Intake, interval: Duration, until: Option<Instant>) -> Taken {
        let mut taken = Taken::default();
        intake.take(interval, until, &mut taken);
        taken
    }

    fn log(bytes: usize) -> Item {
        Item::Log(Bytes::from(vec![b' '; bytes]))
    }

    #[test]
    fn the_oldest_are_dropped_and_counted_when_it_is_full() {
        let intake = Intake::default();
        let size = LIMIT / 10 - size_of::<Item>();
        let counts = AllCounts::local();
        (0..12).for_each(|_| intake.push(log(size)));
        intake.count_for(&ExporterName::ALL, counts);
        (0..3).for_each(|_| intake.push(log(size)));
        intake.end();
        let taken = take(&intake, HOUR, None);
        assert_eq!((taken.items.len(), taken.ended), (10, true));
        for (exporter, waiting, dropped) in
            [(ExporterName::AppInsights, 10, 5), (ExporterName::OtlpLogs, 10, 5), (ExporterName::OtlpTraces, 0, 0)]
        {
            let counts = counts.of(exporter);
            assert_eq!((counts.waiting(), counts.dropped(Reason::Full)), (waiting, dropped), "{exporter:?}");
        }
    }

    #[test]
    fn a_request_counts_with_the_memory_that_it_takes() {
        let request = || Item::Request(scored(), Some(ReplyStart::of(&[b'a'; 1000], true)));
        let expected = size_of::<Item>() + scored().text_bytes().len() + 1000;
        assert_eq!(request().size(), expected);
        let intake = Intake::default();
        (0..LIMIT / expected + 10).for_each(|_| intake.push(request()));
        assert_eq!(take(&intake, HOUR, None).items.len(), LIMIT / expected);
        (0..EARLY_ITEMS).for_each(|_| intake.push(Item::Request(scored(), None)));
        assert!(intake.lock().bytes < EARLY_BYTES, "so many requests without replies are taken together");
    }

    #[test]
    fn it_waits_for_the_interval_a_full_batch_a_retry_or_the_end() {
        let intake = Intake::default();
        assert!(take(&intake, HOUR, Some(Instant::now())).items.is_empty(), "a retry is due");
        intake.push(log(1));
        assert_eq!(take(&intake, Duration::ZERO, None).items.len(), 1, "the interval is over");
        let other = intake.clone();
        let pushing = std::thread::spawn(move || (0..EARLY_ITEMS).for_each(|_| other.push(log(1))));
        assert_eq!(take(&intake, HOUR, None).items.len(), EARLY_ITEMS, "a batch is full");
        pushing.join().expect("no panic");
        let other = intake.clone();
        let ending = std::thread::spawn(move || other.end());
        assert!(take(&intake, HOUR, None).ended);
        ending.join().expect("no panic");
    }
}
