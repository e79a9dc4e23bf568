//! The settings the Rust side needs, read once from the launcher's frozen `Settings` object.
//!
//! Owns nothing but the list: names, meaning, units. Defaults and parsing live in `launch/settings_table.py` alone.

use std::time::Duration;

/// See `launch/settings_table.py` for what each means; field names are the same there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `x-ms-server-version` of replies that no worker made.
    pub server_version: String,
    /// The raw list of allowed origins; empty means no cross-origin headers.
    pub cors_origins: String,
    /// Jobs that may wait before 503 is answered.
    pub max_queue: usize,
    /// Largest request body in bytes.
    pub max_request_size: usize,
    /// How long a request may wait for a worker; zero means as long as its client does.
    pub queue_timeout: Duration,
    /// Bytes of request and reply bodies that may be held at once.
    pub max_buffered: usize,
    /// Time for a request head, and the longest pause a client may make in a body or while it reads a reply.
    pub client_timeout: Duration,
    /// Bytes per second that a request body has to bring; zero means that only pauses are limited.
    pub min_body_rate: usize,
    /// How long an idle connection stays open.
    pub keep_alive: Duration,
    /// Requests after which a worker is replaced; zero means never.
    pub max_requests: u64,
    /// Resident MiB above which a worker is replaced; zero means never.
    pub max_worker_rss: u64,
    /// Seconds after TERM within which queued and running requests finish.
    pub graceful_timeout: Duration,
    /// Limit of one `run()`; zero means none.
    pub worker_timeout: Duration,
    /// Limit after which `run()` is interrupted; zero means none.
    pub scoring_timeout: Duration,
    /// Put the traceback of a script error into the reply.
    pub error_details: bool,
}

#[cfg(feature = "python")]
impl<'a, 'py> pyo3::FromPyObject<'a, 'py> for Settings {
    type Error = pyo3::PyErr;

    fn extract(object: pyo3::Borrowed<'a, 'py, pyo3::PyAny>) -> pyo3::PyResult<Self> {
        use pyo3::types::PyAnyMethods;
        let seconds = |name: &str| -> pyo3::PyResult<Duration> {
            let seconds: f64 = object.getattr(name)?.extract()?;
            Duration::try_from_secs_f64(seconds)
                .map_err(|error| pyo3::exceptions::PyValueError::new_err(format!("{name}: {error}")))
        };
        Ok(Self {
            server_version: object.getattr("server_version")?.extract()?,
            cors_origins: object.getattr("cors_origins")?.extract::<Option<String>>()?.unwrap_or_default(),
            max_queue: object.getattr("max_queue")?.extract()?,
            max_request_size: object.getattr("max_request_size")?.extract()?,
            queue_timeout: seconds("queue_timeout")?,
            max_buffered: object.getattr("max_buffered")?.extract()?,
            client_timeout: seconds("client_timeout")?,
            min_body_rate: object.getattr("min_body_rate")?.extract()?,
            keep_alive: seconds("keep_alive")?,
            max_requests: object.getattr("max_requests")?.extract()?,
            max_worker_rss: object.getattr("max_worker_rss")?.extract()?,
            graceful_timeout: seconds("graceful_timeout")?,
            worker_timeout: seconds("worker_timeout")?,
            scoring_timeout: Duration::from_millis(object.getattr("scoring_timeout_ms")?.extract()?),
            error_details: object.getattr("error_details")?.extract()?,
        })
    }
}
