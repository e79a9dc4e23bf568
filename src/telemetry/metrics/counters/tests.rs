//! Tests of `counters.rs`.

use std::rc::Rc;

use super::{
    super::{super::recorder::Recorder, text::Text},
    *,
};
use crate::telemetry::record::Head;

fn counters() -> Counters {
    Counters::at(Vec::leak((0..LENGTH).map(|_| AtomicU64::new(0)).collect()))
}

fn begun(method: Method) -> RequestRecord {
    RequestRecord::begin(Some(Head::without_fields(method, "/score")), None)
}

fn shown(write: impl FnOnce(&mut Text)) -> String {
    let mut text = Text::default();
    write(&mut text);
    text.finish()
}

/// A request that took this many milliseconds, of which it waited 1.
fn count(recorder: &Rc<Recorder>, milliseconds: u64, fill: impl FnOnce(&mut RequestRecord)) {
    let mut recording = recorder.begin(begun(Method::POST));
    recording.began = recording.began.checked_sub(Duration::from_millis(milliseconds)).expect("an earlier time");
    (recording.route, recording.outcome, recording.status) = (Some(Route::Score), Outcome::Answered, Some(200));
    fill(&mut recording);
    recording.answer();
    recording.complete();
}

#[test]
fn requests_are_counted_by_method_route_and_status() {
    let counters = counters();
    let recorder = Recorder::new(vec![Box::new(counters)]);
    count(&recorder, 20, |_| ());
    count(&recorder, 60_000, |_| ());
    count(&recorder, 0, |record| (record.route, record.status) = (None, Some(404)));
    let text = shown(|text| counters.write_requests(text));
    let labels =
        "http_request_method=\"POST\",http_route=\"/score\",http_response_status_code=\"200\",url_scheme=\"http\"";
    for line in [
        format!("_bucket{{{labels},le=\"0.01\"}} 0"),
        format!("_bucket{{{labels},le=\"0.025\"}} 1"),
        format!("_bucket{{{labels},le=\"10\"}} 1"),
        format!("_bucket{{{labels},le=\"+Inf\"}} 2"),
        format!("_count{{{labels}}} 2"),
        "_count{http_request_method=\"POST\",http_route=\"\",http_response_status_code=\"404\",url_scheme=\"http\"} 1"
            .to_owned(),
    ] {
        assert!(text.contains(&format!("http_server_request_duration_seconds{line}\n")), "{line}\n{text}");
    }
}

#[test]
fn what_a_front_leaves_unfinished_is_lost_and_nothing_else_changes() {
    let counters = counters();
    let recorder = Recorder::new(vec![Box::new(counters)]);
    count(&recorder, 1, |_| ());
    let (first, second) = (recorder.begin(begun(Method::POST)), recorder.begin(begun(Method::GET)));
    assert!(shown(|text| counters.write_active(text)).contains("{http_request_method=\"GET\",url_scheme=\"http\"} 1"));
    let before = shown(|text| counters.write_requests(text));
    // Like a process that has died: nothing is finished.
    std::mem::forget((first, second));
    counters.take_over();
    assert!(shown(|text| counters.write_failures(text)).contains("azmlinfsrv_requests_lost_total 2\n"));
    assert!(!shown(|text| counters.write_active(text)).contains("} 1"));
    assert_eq!(shown(|text| counters.write_requests(text)), before);
    counters.take_over();
    assert!(shown(|text| counters.write_failures(text)).contains("azmlinfsrv_requests_lost_total 2\n"));
}

#[test]
fn waits_runs_refusals_and_clients_that_leave_are_counted() {
    let counters = counters();
    let recorder = Recorder::new(vec![Box::new(counters)]);
    count(&recorder, 10, |record| {
        let queued = record.began;
        let started = Some(queued + Duration::from_millis(2));
        record.job.queued = Some(queued);
        (record.job.started, record.job.run) = (started, Some(Duration::from_millis(7)));
        record.run = Some(Run::Ok);
    });
    count(&recorder, 10, |record| {
        (record.job.started, record.job.ended) = (Some(record.began), Some(record.began + Duration::from_secs(3)));
        (record.run, record.outcome) = (Some(Run::Timeout), Outcome::Timeout);
    });
    for refusal in [Refusal::QueueFull, Refusal::BodyTooLarge, Refusal::Stopped, Refusal::NotFound] {
        count(&recorder, 0, |record| record.outcome = Outcome::Refused(refusal));
    }
    let mut left = recorder.begin(begun(Method::POST));
    left.enter(Stage::Queued);
    drop(left);
    assert!(counters.count_restart("crash") && !counters.count_restart("boredom"));
    let text = shown(|text| {
        counters.write_queue(text);
        counters.write_runs(text);
        counters.write_failures(text);
        counters.write_restarts(text);
    });
    for line in [
        "azmlinfsrv_queue_duration_seconds_bucket{le=\"0.005\"} 1",
        "azmlinfsrv_queue_duration_seconds_count 1",
        "azmlinfsrv_run_duration_seconds_sum{outcome=\"ok\"} 0.007",
        "azmlinfsrv_run_duration_seconds_sum{outcome=\"timeout\"} 3",
        "azmlinfsrv_run_duration_seconds_count{outcome=\"error\"} 0",
        "azmlinfsrv_requests_rejected_total{reason=\"queue_full\"} 1",
        "azmlinfsrv_requests_rejected_total{reason=\"too_large\"} 1",
        "azmlinfsrv_requests_rejected_total{reason=\"stopped\"} 1",
        "azmlinfsrv_requests_rejected_total{reason=\"no_worker\"} 0",
        "azmlinfsrv_requests_abandoned_total{state=\"queued\"} 1",
        "azmlinfsrv_requests_abandoned_total{state=\"running\"} 0",
        "azmlinfsrv_run_timeouts_total 1",
        "azmlinfsrv_worker_restarts_total{reason=\"crash\"} 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
    }
}

#[test]
fn the_number_of_series_is_bounded_and_every_request_counts() {
    let counters = counters();
    let recorder = Recorder::new(vec![Box::new(counters)]);
    for status in 200..600 {
        count(&recorder, 0, |record| record.status = Some(status));
    }
    let text = shown(|text| counters.write_requests(text));
    let counts = text.lines().filter(|line| line.contains("_count{"));
    let numbers: Vec<u64> = counts.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    assert_eq!((numbers.len(), numbers.iter().sum::<u64>()), (MAX_SERIES + 1, 400));
    assert!(text.contains("_count{http_request_method=\"_OTHER\",http_route=\"\",http_response_status_code=\"\","));
}

#[test]
fn a_process_has_one_load_time_until_it_is_forgotten() {
    let counters = counters();
    for (pid, seconds) in [(7, 1), (8, 2), (7, 3)] {
        counters.set_loaded(pid, Duration::from_secs(seconds));
    }
    assert_eq!([7, 8, 9].map(|pid| counters.loaded(pid).map(|time| time.as_secs())), [Some(3), Some(2), None]);
    counters.forget_process(7);
    assert_eq!(counters.loaded(7), None);
    (10..10 + MAX_LOADED as u32).for_each(|pid| counters.set_loaded(pid, Duration::ZERO));
    assert_eq!(counters.loaded(8), Some(Duration::from_secs(2)));
}

#[test]
fn the_scheme_is_that_of_the_client() {
    let counters = counters();
    let recorder = Recorder::new(vec![Box::new(counters)]);
    count(&recorder, 0, |_| ());
    assert!(!shown(|text| counters.write_active(text)).contains("https"));
    let by_https = || RequestRecord { is_https: Some(true), ..begun(Method::POST) };
    let active = recorder.begin(by_https());
    let shown_active = || shown(|text| counters.write_active(text));
    assert!(shown_active().contains("{http_request_method=\"POST\",url_scheme=\"https\"} 1\n"));
    assert!(shown_active().contains("{http_request_method=\"POST\",url_scheme=\"http\"} 0\n"));
    drop(active);
    // The series stays, because its number has not become unknown.
    assert!(shown_active().contains("{http_request_method=\"POST\",url_scheme=\"https\"} 0\n"));
    let text = shown(|text| counters.write_requests(text));
    for (scheme, status) in [("http", "200"), ("https", "")] {
        let labels = format!("http_response_status_code=\"{status}\",url_scheme=\"{scheme}\"}} 1\n");
        assert!(text.contains(&labels), "{labels}\n{text}");
    }
}

#[test]
fn every_route_has_a_number() {
    assert!(ROUTES.iter().flatten().all(|route| Route::ALL.contains(route)) && ROUTES.len() == Route::ALL.len() + 1);
}
