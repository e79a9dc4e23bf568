//! Writes all metrics, for `GET /metrics` and for OTLP, from the counters and from what is so at this moment.
//!
//! Runs in the front's event loop, so a scrape costs what it reads: memory, and a few files of `/proc` for each process.

use super::Front;
use crate::telemetry::{
    metrics::{
        family::{self, Family},
        output::Output,
        process,
        text::Text,
        Metrics,
    },
    record::Worker,
};

/// What a listener shows of the server's metrics.
#[derive(Debug, Clone, Copy)]
pub struct Exposure {
    /// The metrics; `None` if `/metrics` has no route on this port (`--metrics`).
    pub metrics: Option<Metrics>,
    /// The process that has started all others.
    pub first_process: u32,
}

/// The text of `/metrics`.
pub fn text(front: &Front, metrics: Metrics, first_process: u32) -> String {
    let mut text = Text::default();
    write(front, metrics, first_process, &mut text);
    text.finish()
}

/// Writes all families: the server's, and then those of the user's script.
pub fn write(front: &Front, metrics: Metrics, first_process: u32, text: &mut dyn Output) {
    let counters = metrics.counters;
    let figures = front.dispatcher.figures();
    counters.write_requests(text);
    counters.write_active(text);
    text.single(&family::QUEUE_DEPTH, figures.queued as f64);
    text.single(&family::QUEUE_LIMIT, figures.queue_limit as f64);
    counters.write_queue(text);
    counters.write_runs(text);
    text.single(&family::RUNS_IN_PROGRESS, figures.running as f64);
    text.single(&family::RUNS_LIMIT, figures.running_limit as f64);
    metrics.batch_sizes.write(text);
    counters.write_failures(text);
    text.family(&family::WORKERS);
    let workers = [
        ("starting", counters.starting() as f64),
        ("ready", figures.ready as f64),
        ("busy", figures.busy as f64),
        ("draining", figures.draining as f64),
    ];
    for (state, count) in workers {
        text.sample(family::WORKERS.name, &[("state", state)], count);
    }
    counters.write_restarts(text);
    let mut workers = front.dispatcher.workers();
    workers.sort_by_key(|worker| worker.slot);
    write_workers(text, &workers, metrics);
    text.family(&family::BUILD_INFO);
    text.sample(family::BUILD_INFO.name, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    metrics.telemetry.write(text);
    write_process(text, first_process);
    let pids: Vec<u32> = workers.iter().map(|worker| worker.pid).collect();
    metrics.user.write(text, &pids);
}

/// Writes the memory of each worker process, and the time of its start.
fn write_workers(text: &mut dyn Output, workers: &[Worker], metrics: Metrics) {
    let own = std::process::id();
    // Worker threads have no memory of their own, and all of them use what the first one shows.
    let memory = |pid| process::resident_bytes(pid).filter(|_| pid != own).map(|bytes| bytes as f64);
    let init = |pid| metrics.counters.loaded(pid).map(|time| time.as_secs_f64());
    write_by_worker(text, &family::WORKER_MEMORY, workers, memory);
    write_by_worker(text, &family::WORKER_INIT, workers, init);
}

/// Writes a family with one number for each worker that has one.
fn write_by_worker(text: &mut dyn Output, family: &Family, workers: &[Worker], value: impl Fn(u32) -> Option<f64>) {
    text.family(family);
    for worker in workers {
        if let Some(value) = value(worker.pid) {
            text.sample(family.name, &[("worker", &worker.slot.to_string())], value);
        }
    }
}

/// Writes what the system tells about the server as a whole.
#[cfg(target_os = "linux")]
fn write_process(text: &mut dyn Output, first_process: u32) {
    if let Some(whole) = process::Whole::of(first_process) {
        text.single(&family::PROCESS_START_TIME, whole.start_time);
        text.single(&family::PROCESS_MEMORY, whole.resident_bytes as f64);
        text.single(&family::PROCESS_CPU, whole.cpu_seconds);
        text.single(&family::PROCESS_FDS, whole.open_fds as f64);
    }
}

/// Other systems tell nothing in this way.
#[cfg(not(target_os = "linux"))]
fn write_process(_text: &mut dyn Output, _first_process: u32) {}
