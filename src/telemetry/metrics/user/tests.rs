//! Tests of `user.rs`.

use super::{super::text::Text, *};

fn metrics() -> UserMetrics {
    UserMetrics::at(Vec::leak((0..LENGTH).map(|_| AtomicU64::new(0)).collect()))
}

fn series(kind: Kind, text: &str) -> Series {
    Series { kind, text: text.into(), bounds: Vec::new() }
}

fn shown(metrics: UserMetrics, workers: &[u32]) -> String {
    let mut text = Text::default();
    metrics.write(&mut text, workers);
    text.finish()
}

#[test]
fn counters_of_all_processes_are_one_and_stay() {
    let metrics = metrics();
    let calls = series(Kind::Counter, "calls_total\0Calls.\0model\0a");
    for pid in [1, 2] {
        metrics.open(&calls, pid).expect("a slot").add(1.5);
    }
    metrics.forget_process(1);
    let expected = "# HELP calls_total Calls.\n# TYPE calls_total counter\ncalls_total{model=\"a\"} 3\n";
    assert_eq!(shown(metrics, &[]), expected);
}

#[test]
fn gauges_are_summed_over_the_processes_that_live() {
    let metrics = metrics();
    let entries = series(Kind::Gauge, "entries\0");
    for pid in [1, 2, 3] {
        metrics.open(&entries, pid).expect("a slot").set(f64::from(pid));
    }
    assert!(shown(metrics, &[1, 2, 3]).ends_with("entries 6\n"));
    metrics.forget_process(3);
    assert!(shown(metrics, &[1, 2]).ends_with("entries 3\n"));
    let other = metrics.open(&series(Kind::Gauge, "other\0"), 3).expect("the slot that was given back");
    assert_eq!(other.value(), 0.0);
    assert!(!shown(metrics, &[]).contains("entries"));
}

#[test]
fn histograms_count_by_their_bounds() {
    let metrics = metrics();
    let bounds = vec![1.0, 10.0];
    let sizes = Series { kind: Kind::Histogram, text: b"size\0Size.".to_vec(), bounds: bounds.clone() };
    let cells = metrics.open(&sizes, 1).expect("a slot");
    [0.5, 1.0, 5.0, 20.0].iter().for_each(|value| cells.observe(&bounds, *value));
    let expected =
        "size_bucket{le=\"1\"} 2\nsize_bucket{le=\"10\"} 3\nsize_bucket{le=\"+Inf\"} 4\nsize_sum 26.5\nsize_count 4\n";
    assert!(shown(metrics, &[]).ends_with(expected), "{}", shown(metrics, &[]));
}

#[test]
fn another_type_of_the_same_name_is_a_conflict() {
    let metrics = metrics();
    metrics.open(&series(Kind::Counter, "a_total\0"), 1).expect("a slot");
    assert_eq!(metrics.open(&series(Kind::Gauge, "a_total\0"), 1).expect_err("another type"), NoSlot::Conflict);
    assert!(metrics.open(&series(Kind::Gauge, "a\0"), 1).is_ok(), "only the beginning of the name is the same");
}

#[test]
fn a_metric_with_the_name_of_a_histograms_part_is_a_conflict() {
    let (histogram, part) = (series(Kind::Histogram, "x\0"), series(Kind::Gauge, "x_sum\0"));
    for (first, second) in [(&histogram, &part), (&part, &histogram)] {
        let metrics = metrics();
        metrics.open(first, 1).expect("a slot");
        assert_eq!(metrics.open(second, 2).expect_err("the name of a part"), NoSlot::Conflict);
        assert!(metrics.open(&series(Kind::Gauge, "x_sums\0"), 2).is_ok(), "no part has this name");
    }
}

#[test]
fn of_a_histogram_and_a_part_that_were_opened_at_the_same_moment_the_histogram_is_shown() {
    let metrics = metrics();
    let mut slots = metrics.slots();
    for each in [series(Kind::Gauge, "x_count\0"), series(Kind::Histogram, "x\0")] {
        slots.next().expect("a slot").write(&each, 1);
    }
    let text = shown(metrics, &[1]);
    assert!(text.contains("# TYPE x histogram") && !text.contains("# TYPE x_count"), "{text}");
}

#[test]
fn the_number_of_series_is_bounded() {
    let metrics = metrics();
    let nth = |number: usize| series(Kind::Counter, &format!("c_total\0\0number\0{number}"));
    for number in 0..MAX_SERIES {
        metrics.open(&nth(number), 1).expect("a slot");
    }
    assert_eq!(metrics.open(&nth(MAX_SERIES), 1).expect_err("no room"), NoSlot::Full);
    assert!(metrics.open(&nth(0), 2).is_ok(), "a series that is there");
}

#[test]
fn memory_that_a_script_has_overwritten_is_skipped() {
    let metrics = metrics();
    metrics.words.iter().for_each(|word| word.store(u64::MAX, Relaxed));
    for slot in metrics.slots() {
        slot.0[STATE].store(READY, Relaxed);
    }
    assert_eq!(shown(metrics, &[]), "");
}

#[test]
fn threads_that_add_at_the_same_time_lose_nothing() {
    let metrics = metrics();
    let calls = series(Kind::Counter, "calls_total\0");
    let cells = metrics.open(&calls, 1).expect("a slot");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| cells.add(1.0)));
        }
    });
    assert_eq!(cells.value(), 40_000.0);
}
