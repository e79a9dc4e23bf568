//! The metric families of the server: names, types, labels and meaning, in the order in which they are shown.
//!
//! Data only. A test compares the table in docs/metrics.md with it.

/// One family: all series with the same name.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The labels of its series, for the documentation.
    pub labels: &'static [&'static str],
    /// What it means, for people.
    pub help: &'static str,
    /// Its name in OTLP; empty if it is not sent.
    pub otel: &'static str,
    /// Its unit in OTLP.
    pub unit: &'static str,
}

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// May go up and down.
    Gauge,
    /// A gauge whose values may be added, such as those of several servers. OTLP tells the two apart.
    UpDown,
    /// Counts values by their size.
    Histogram,
}

impl Kind {
    /// The word for it in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::UpDown => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($name:ident = $kind:ident $text:literal, [$($label:literal),*], $otel:literal $unit:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $name: Family = Family {
            name: $text, kind: Kind::$kind, labels: &[$($label),*], help: $help, otel: $otel, unit: $unit,
        };)*
        /// All of them.
        pub const ALL: &[&Family] = &[$(&$name),*];
    };
}

families! {
    REQUEST_DURATION = Histogram "http_server_request_duration_seconds",
        ["http_request_method", "http_route", "http_response_status_code", "url_scheme"],
        "http.server.request.duration" "s",
        "Time from the request head to the last byte of the reply.";
    ACTIVE_REQUESTS = UpDown "http_server_active_requests", ["http_request_method", "url_scheme"],
        "http.server.active_requests" "{request}",
        "Requests that have begun and are not finished.";
    QUEUE_DEPTH = UpDown "azmlinfsrv_queue_depth", [],
        "azmlinfsrv.queue.depth" "{request}",
        "Requests that wait for a worker.";
    QUEUE_LIMIT = Gauge "azmlinfsrv_queue_limit", [],
        "azmlinfsrv.queue.limit" "{request}",
        "Requests that may wait for a worker (--max_queue).";
    QUEUE_DURATION = Histogram "azmlinfsrv_queue_duration_seconds", [],
        "azmlinfsrv.queue.duration" "s",
        "Time from the last byte of the request body until a worker starts the request.";
    RUN_DURATION = Histogram "azmlinfsrv_run_duration_seconds", ["outcome"],
        "azmlinfsrv.run.duration" "s",
        "Time inside run(). Without a return of run(): time from its start until its worker was given up.";
    RUNS_IN_PROGRESS = UpDown "azmlinfsrv_runs_in_progress", [],
        "azmlinfsrv.run.active" "{run}",
        "Calls of run() at this moment.";
    RUNS_LIMIT = UpDown "azmlinfsrv_runs_limit", [],
        "azmlinfsrv.run.limit" "{run}",
        "Calls of run() that the workers which serve may run at once.";
    BATCH_SIZE = Histogram "azmlinfsrv_run_batch_size", [],
        "azmlinfsrv.run.batch.size" "{request}",
        "Requests for which one call of run() was made, of scripts whose calls are joined (--max_batch_size, @batched).";
    REJECTED = Counter "azmlinfsrv_requests_rejected_total", ["reason"],
        "azmlinfsrv.request.rejected" "{request}",
        "Requests that were refused before run(), because of a limit or because the server was not ready for them.";
    ABANDONED = Counter "azmlinfsrv_requests_abandoned_total", ["state"],
        "azmlinfsrv.request.abandoned" "{request}",
        "Requests whose client left before there was a reply, by what the request was doing.";
    LOST = Counter "azmlinfsrv_requests_lost_total", [],
        "azmlinfsrv.request.lost" "{request}",
        "Requests that were not finished when the front process died. No other family counts them.";
    RUN_TIMEOUTS = Counter "azmlinfsrv_run_timeouts_total", [],
        "azmlinfsrv.run.timeouts" "{run}",
        "Calls of run() that exceeded SCORING_TIMEOUT_MS or WORKER_TIMEOUT.";
    WORKERS = UpDown "azmlinfsrv_workers", ["state"],
        "azmlinfsrv.worker.count" "{worker}",
        "Workers by what they do.";
    RESTARTS = Counter "azmlinfsrv_worker_restarts_total", ["reason"],
        "azmlinfsrv.worker.restarts" "{worker}",
        "Workers that another worker has replaced, or will.";
    WORKER_MEMORY = UpDown "azmlinfsrv_worker_resident_memory_bytes", ["worker"],
        "azmlinfsrv.worker.memory" "By",
        "Resident memory of a worker process. Memory that workers share counts for each of them.";
    WORKER_INIT = Gauge "azmlinfsrv_worker_init_duration_seconds", ["worker"],
        "azmlinfsrv.worker.init.duration" "s",
        "Time in which a worker has loaded the script and called init(). With WORKER_PRELOAD: that of its template.";
    BUILD_INFO = Gauge "azmlinfsrv_build_info", ["version"],
        "" "",
        "Always 1; the label has the version of the server.";
    TELEMETRY_WAITING = UpDown "azmlinfsrv_telemetry_items_waiting", ["exporter"],
        "azmlinfsrv.telemetry.waiting" "{item}",
        "Spans, log records and other items that wait in memory to be sent. A request is one item until it is encoded.";
    TELEMETRY_SENT = Counter "azmlinfsrv_telemetry_items_sent_total", ["exporter"],
        "azmlinfsrv.telemetry.sent" "{item}",
        "Items that a receiver has accepted.";
    TELEMETRY_STORED = Counter "azmlinfsrv_telemetry_items_stored_total", ["exporter"],
        "azmlinfsrv.telemetry.stored" "{item}",
        "Items that were written to --telemetry_storage, to be sent later.";
    TELEMETRY_FAILED = Counter "azmlinfsrv_telemetry_requests_failed_total", ["exporter"],
        "azmlinfsrv.telemetry.failed" "{request}",
        "Requests to a receiver that it has refused or not answered.";
    TELEMETRY_DROPPED = Counter "azmlinfsrv_telemetry_items_dropped_total", ["exporter", "reason"],
        "azmlinfsrv.telemetry.dropped" "{item}",
        "Items that are lost.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds", [],
        "" "",
        "When the server was started, in seconds since 1970.";
    PROCESS_MEMORY = UpDown "process_resident_memory_bytes", [],
        "process.memory.usage" "By",
        "Resident memory of all processes of the server. Memory that they share counts for each of them.";
    PROCESS_CPU = Counter "process_cpu_seconds_total", [],
        "process.cpu.time" "s",
        "Processor time of all processes of the server.";
    PROCESS_FDS = UpDown "process_open_fds", [],
        "process.open_file_descriptor.count" "{file_descriptor}",
        "Open descriptors of all processes of the server.";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row of a family in docs/metrics.md.
    fn row(family: &Family) -> String {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        format!("| `{}` | {} | {labels} | {} |", family.name, family.kind.name(), family.help)
    }

    #[test]
    fn the_page_has_a_row_for_each_family_in_order() {
        let page = include_str!("../../../docs/metrics.md");
        let table = page.lines().skip_while(|line| *line != "## Families").skip(1);
        let table = table.take_while(|line| !line.starts_with("## "));
        let rows: Vec<_> = table.filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<_> = ALL.iter().map(|family| row(family)).collect();
        assert_eq!(rows, expected, "docs/metrics.md must have these rows:\n{}", expected.join("\n"));
    }

    #[test]
    fn counters_end_in_total_and_nothing_else_does() {
        for family in ALL {
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
        }
    }

    #[test]
    fn names_in_otlp_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|family| family.otel).filter(|name| !name.is_empty()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
