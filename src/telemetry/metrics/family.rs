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
}

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// May go up and down.
    Gauge,
    /// Counts values by their size.
    Histogram,
}

impl Kind {
    /// The word for it in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($name:ident = $kind:ident $text:literal, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $name: Family = Family {
            name: $text, kind: Kind::$kind, labels: &[$($label),*], help: $help,
        };)*
        /// All of them.
        pub const ALL: &[&Family] = &[$(&$name),*];
    };
}

families! {
    REQUEST_DURATION = Histogram "http_server_request_duration_seconds",
        ["http_request_method", "http_route", "http_response_status_code", "url_scheme"],
        "Time from the request head to the last byte of the reply.";
    ACTIVE_REQUESTS = Gauge "http_server_active_requests", ["http_request_method", "url_scheme"],
        "Requests that have begun and are not finished.";
    QUEUE_DEPTH = Gauge "azmlinfsrv_queue_depth", [], "Requests that wait for a worker.";
    QUEUE_LIMIT = Gauge "azmlinfsrv_queue_limit", [], "Requests that may wait for a worker (--max_queue).";
    QUEUE_DURATION = Histogram "azmlinfsrv_queue_duration_seconds", [],
        "Time from the last byte of the request body until a worker starts the request.";
    RUN_DURATION = Histogram "azmlinfsrv_run_duration_seconds", ["outcome"],
        "Time inside run(). Without a return of run(): time from its start until its worker was given up.";
    RUNS_IN_PROGRESS = Gauge "azmlinfsrv_runs_in_progress", [], "Calls of run() at this moment.";
    REJECTED = Counter "azmlinfsrv_requests_rejected_total", ["reason"],
        "Requests that were refused before run(), because of a limit or because the server was not ready for them.";
    ABANDONED = Counter "azmlinfsrv_requests_abandoned_total", ["state"],
        "Requests whose client left before there was a reply, by what the request was doing.";
    LOST = Counter "azmlinfsrv_requests_lost_total", [],
        "Requests that were not finished when the front process died. No other family counts them.";
    RUN_TIMEOUTS = Counter "azmlinfsrv_run_timeouts_total", [],
        "Calls of run() that exceeded SCORING_TIMEOUT_MS or WORKER_TIMEOUT.";
    WORKERS = Gauge "azmlinfsrv_workers", ["state"], "Workers by what they do.";
    RESTARTS = Counter "azmlinfsrv_worker_restarts_total", ["reason"], "Workers that another worker has replaced, or will.";
    WORKER_MEMORY = Gauge "azmlinfsrv_worker_resident_memory_bytes", ["worker"],
        "Resident memory of a worker process. Memory that workers share counts for each of them.";
    WORKER_INIT = Gauge "azmlinfsrv_worker_init_duration_seconds", ["worker"],
        "Time in which a worker has loaded the script and called init(). With WORKER_PRELOAD: that of its template.";
    BUILD_INFO = Gauge "azmlinfsrv_build_info", ["version"], "Always 1; the label has the version of the server.";
    TELEMETRY_WAITING = Gauge "azmlinfsrv_telemetry_items_waiting", ["exporter"],
        "Spans, log records and other items that wait in memory to be sent. A request is one item until it is encoded.";
    TELEMETRY_SENT = Counter "azmlinfsrv_telemetry_items_sent_total", ["exporter"],
        "Items that a receiver has accepted.";
    TELEMETRY_STORED = Counter "azmlinfsrv_telemetry_items_stored_total", ["exporter"],
        "Items that were written to --telemetry_storage, to be sent later.";
    TELEMETRY_FAILED = Counter "azmlinfsrv_telemetry_requests_failed_total", ["exporter"],
        "Requests to a receiver that it has refused or not answered.";
    TELEMETRY_DROPPED = Counter "azmlinfsrv_telemetry_items_dropped_total", ["exporter", "reason"],
        "Items that are lost.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds", [], "When the server was started, in seconds since 1970.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes", [],
        "Resident memory of all processes of the server. Memory that they share counts for each of them.";
    PROCESS_CPU = Counter "process_cpu_seconds_total", [], "Processor time of all processes of the server.";
    PROCESS_FDS = Gauge "process_open_fds", [], "Open descriptors of all processes of the server.";
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
}
