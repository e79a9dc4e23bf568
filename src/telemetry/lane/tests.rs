//! Tests of `lane.rs`.

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

impl Waits for Piece {
    fn apart(self) -> Self {
        self
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
    (0..BATCH_ITEMS as u32 + 88).for_each(|number| lane.push(Piece(number, 1)));
    assert_eq!((lane.take_batch().len(), lane.take_batch().len()), (BATCH_ITEMS, 88));
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

/// An item that is a part of the memory that the reference counts.
struct Part(std::rc::Rc<()>);

impl Weighed for Part {
    fn size(&self) -> usize {
        1 + size_of_val(&*self.0)
    }
}

impl Waits for Part {
    fn apart(self) -> Self {
        Self(std::rc::Rc::default())
    }
}

#[test]
fn an_item_that_is_sent_again_does_not_keep_the_memory_of_the_others() {
    let limits = Limits { bytes: 100, items: 100, batch_items: BATCH_ITEMS };
    let mut lane = Lane::new(limits, AllCounts::local().of(ExporterName::OtlpLogs));
    let memory = std::rc::Rc::default();
    (0..5).for_each(|_| lane.push(Part(std::rc::Rc::clone(&memory))));
    let batch = lane.take_batch();
    let verdict = Verdict::Partly { again: vec![2], refused: vec![], why: String::new() };
    lane.settle(batch, verdict, Instant::now(), 1.0, false);
    assert_eq!((lane.held(), std::rc::Rc::strong_count(&memory)), (1, 1));
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
