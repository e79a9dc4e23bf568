//! The settings that Rust needs, read once from the launcher's frozen `Settings` object.
//!
//! Only names, meaning and units. `launch/settings_table.py` and `launch/settings.py` have defaults
//! and parsing.

use std::time::Duration;

use crate::{network::Network, samples, telemetry::plan::TelemetrySettings};

/// Which requests have a line in the log (`--access_log`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those whose status is 400 or more, and those whose client left before there was a reply.
    Errors,
    /// All but health checks.
    All,
}

impl AccessLog {
    /// Whether a request with this status has a line; `None` if its client left before there was a reply.
    pub fn includes(self, status: Option<u16>) -> bool {
        match self {
            Self::Off => false,
            Self::Errors => status.is_none_or(|status| status >= 400),
            Self::All => true,
        }
    }
}

/// The ports that answer `/metrics` (`--metrics`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetricsPorts {
    /// None, so that `/metrics` has no route.
    #[default]
    None,
    /// The health port; the server's port if there is no other.
    First,
    /// All ports.
    All,
}

/// What the server serves by the Open Inference Protocol (`--protocols score,v2`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInference {
    /// The name of its model (`--model_name`).
    pub model: String,
    /// The version of the model. There is only this one.
    pub version: String,
}

/// The settings. `launch/settings_table.py` has the full meaning of each, under the same name.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `x-ms-server-version` of replies that no worker made.
    pub server_version: String,
    /// The list of allowed origins, as given; empty means no cross-origin headers.
    pub cors_origins: String,
    /// Limit for jobs that wait. Beyond it the answer is 503.
    pub max_queue: usize,
    /// Limit for a request body, in bytes.
    pub max_request_size: usize,
    /// How long a request may wait for a worker; zero means no limit.
    pub queue_timeout: Duration,
    /// Limit for the bodies of requests and replies in memory at one time, in bytes.
    pub max_buffered: usize,
    /// Limit for the time of a request head, and for a pause of a client that sends a body or reads
    /// a reply.
    pub client_timeout: Duration,
    /// Bytes per second at which a request body must arrive; zero means that only pauses are
    /// limited.
    pub min_body_rate: usize,
    /// How long an idle connection stays open.
    pub keep_alive: Duration,
    /// Calls of an async `run()` that one worker runs at once.
    pub max_concurrency: u16,
    /// Calls of a plain `run()` that one worker process runs at once, each in a thread.
    pub worker_threads: u16,
    /// Requests after which a worker is replaced; zero means never.
    pub max_requests: u64,
    /// Resident MiB above which a worker is replaced; zero means never.
    pub max_worker_rss: u64,
    /// Time after TERM within which queued and running requests must finish.
    pub graceful_timeout: Duration,
    /// Limit for a call of `run()`, after which its worker is killed; zero means none.
    pub worker_timeout: Duration,
    /// Limit for a call of `run()`, after which the call is interrupted; zero means none.
    pub scoring_timeout: Duration,
    /// What is exported where.
    pub telemetry: TelemetrySettings,
    /// The ports that answer `/metrics`.
    pub metrics_ports: MetricsPorts,
    /// Answer `/docs`, and lead browsers there.
    pub docs: bool,
    /// Show the last errors on `/docs`.
    pub error_details: bool,
    /// Which requests are recorded where; `None` without `--record`.
    pub record: Option<samples::Plan>,
    /// Which requests have a line in the log.
    pub access_log: AccessLog,
    /// The log is JSON (`--log_format json`).
    pub logs_json: bool,
    /// What is served by the Open Inference Protocol; `None` without `v2` in `--protocols`.
    pub open_inference: Option<OpenInference>,
    /// Proxies whose word about the client counts.
    pub trusted_proxies: Vec<Network>,
}

#[cfg(test)]
impl Settings {
    /// Settings for tests of the front.
    pub(crate) fn for_tests() -> Self {
        let second = Duration::from_secs(1);
        Self {
            server_version: String::new(),
            cors_origins: String::new(),
            max_queue: 10,
            max_request_size: 1000,
            queue_timeout: Duration::ZERO,
            max_buffered: 1 << 30,
            client_timeout: 30 * second,
            min_body_rate: 0,
            keep_alive: 75 * second,
            max_concurrency: 1,
            worker_threads: 1,
            max_requests: 0,
            max_worker_rss: 0,
            graceful_timeout: 30 * second,
            worker_timeout: Duration::ZERO,
            scoring_timeout: Duration::ZERO,
            telemetry: Default::default(),
            metrics_ports: Default::default(),
            docs: true,
            error_details: false,
            record: None,
            access_log: AccessLog::All,
            logs_json: false,
            open_inference: None,
            trusted_proxies: Vec::new(),
        }
    }
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
            max_concurrency: object.getattr("max_concurrency")?.extract()?,
            worker_threads: object.getattr("worker_threads")?.extract()?,
            max_requests: object.getattr("max_requests")?.extract()?,
            max_worker_rss: object.getattr("max_worker_rss")?.extract()?,
            graceful_timeout: seconds("graceful_timeout")?,
            worker_timeout: seconds("worker_timeout")?,
            scoring_timeout: Duration::from_millis(object.getattr("scoring_timeout_ms")?.extract()?),
            telemetry: telemetry(object)?,
            metrics_ports: match object.getattr("metrics")?.extract::<String>()?.as_str() {
                "on" => MetricsPorts::All,
                "off" => MetricsPorts::None,
                _ => MetricsPorts::First,
            },
            docs: object.getattr("docs")?.extract()?,
            error_details: object.getattr("error_details")?.extract()?,
            record: record(object)?,
            access_log: match &*object.getattr("access_log")?.extract::<String>()? {
                "off" => AccessLog::Off,
                "errors" => AccessLog::Errors,
                _ => AccessLog::All,
            },
            logs_json: !object.getattr("display")?.getattr("json_log")?.is_none(),
            open_inference: open_inference(object)?,
            trusted_proxies: networks(
                &object.getattr("trusted_proxies")?.extract::<Option<String>>()?.unwrap_or_default(),
            )?,
        })
    }
}

#[cfg(feature = "python")]
fn open_inference(object: pyo3::Borrowed<'_, '_, pyo3::PyAny>) -> pyo3::PyResult<Option<OpenInference>> {
    use pyo3::types::PyAnyMethods;

    let is_on: bool = object.getattr("serves_v2")?.extract()?;
    let text = |name: &str| object.getattr(name)?.extract::<String>();
    Ok(match is_on {
        true => Some(OpenInference { model: text("model_name")?, version: text("model_version")? }),
        false => None,
    })
}

/// The networks of a list that `launch/setting_values.py` has made.
#[cfg(feature = "python")]
fn networks(list: &str) -> pyo3::PyResult<Vec<Network>> {
    let parsed = list.split(',').filter(|text| !text.is_empty()).map(|text| {
        Network::parse(text)
            .ok_or_else(|| pyo3::exceptions::PyValueError::new_err(format!("trusted_proxies: {text:?} is no network")))
    });
    parsed.collect()
}

#[cfg(feature = "python")]
fn record(object: pyo3::Borrowed<'_, '_, pyo3::PyAny>) -> pyo3::PyResult<Option<samples::Plan>> {
    use pyo3::types::PyAnyMethods;

    let folder = object.getattr("record")?.extract::<Option<std::path::PathBuf>>()?;
    let count: usize = object.getattr("record_count")?.extract()?;
    let body_size: usize = object.getattr("record_body_size")?.extract()?;
    Ok(folder.map(|folder| samples::Plan { folder, count, body_size }))
}

#[cfg(feature = "python")]
fn telemetry(object: pyo3::Borrowed<'_, '_, pyo3::PyAny>) -> pyo3::PyResult<TelemetrySettings> {
    use pyo3::types::PyAnyMethods;

    use crate::telemetry::{ids::Sampler, otlp_metrics::Temporality, plan::AppInsights};

    let text = |name: &str| object.getattr(name)?.extract::<Option<String>>();
    let given = |name: &str| text(name).map(|text| text.filter(|text| !text.is_empty()));
    let is_set = |name: &str| object.getattr(name)?.extract::<bool>();
    let is_disabled = is_set("otel_sdk_disabled")?;
    let otlp = object.getattr("otlp")?;
    let app_insights = if is_set("app_insights_enabled")? && !is_disabled {
        Some(AppInsights {
            key: text("app_insights_key")?.unwrap_or_default().to_ascii_lowercase(),
            endpoint: text("app_insights_endpoint")?.unwrap_or_default(),
            has_response: is_set("app_insights_log_response_enabled")?,
        })
    } else {
        None
    };
    Ok(TelemetrySettings {
        app_insights,
        service_name: text("service_name")?.unwrap_or_default(),
        workspace_name: text("workspace_name")?.unwrap_or_default(),
        hostname: text("hostname")?.unwrap_or_default(),
        // The front's caller knows these two.
        node: String::new(),
        locale: None,
        storage: given("telemetry_storage")?.map(Into::into),
        interval: Duration::from_millis(object.getattr("otel_bsp_schedule_delay")?.extract()?),
        authorities: given("requests_ca_bundle")?,
        traces: if is_disabled { None } else { otlp_target(&otlp.getattr("traces")?)? },
        logs: if is_disabled { None } else { otlp_target(&otlp.getattr("logs")?)? },
        metrics: if is_disabled { None } else { otlp_target(&otlp.getattr("metrics")?)? },
        metrics_interval: Duration::from_millis(otlp.getattr("metrics_interval_ms")?.extract()?),
        temporality: if otlp.getattr("is_delta")?.extract()? { Temporality::Delta } else { Temporality::Cumulative },
        resource: otlp.getattr("resource")?.extract()?,
        sampler: Sampler {
            follows_parent: otlp.getattr("follows_parent")?.extract()?,
            share: otlp.getattr("share")?.extract()?,
        },
        begins_own_traces: otlp.getattr("begins_own_traces")?.extract()?,
    })
}

/// An `otlp.Target`, or None.
#[cfg(feature = "python")]
fn otlp_target(object: &pyo3::Bound<'_, pyo3::PyAny>) -> pyo3::PyResult<Option<crate::telemetry::plan::OtlpTarget>> {
    use pyo3::types::PyAnyMethods;

    use crate::telemetry::{http_client::TlsFiles, otlp::AttributeLimits, plan::OtlpTarget};

    if object.is_none() {
        return Ok(None);
    }
    let text = |name: &str| object.getattr(name)?.extract::<Option<String>>();
    Ok(Some(OtlpTarget {
        url: object.getattr("url")?.extract()?,
        headers: object.getattr("headers")?.extract()?,
        timeout: Duration::from_millis(object.getattr("timeout_ms")?.extract()?),
        gzip: object.getattr("gzip")?.extract()?,
        tls: TlsFiles {
            authorities: text("certificate")?,
            identity: text("client_certificate")?.zip(text("client_key")?),
        },
        batch_items: object.getattr("batch_items")?.extract()?,
        queue_items: object.getattr("queue_items")?.extract()?,
        attributes: AttributeLimits {
            count: object.getattr("attribute_count")?.extract()?,
            length: object.getattr("attribute_length")?.extract::<Option<usize>>()?.unwrap_or(usize::MAX),
        },
    }))
}
