//! From the settings to what is exported where.
//!
//! Pure, but for the name of the machine and the locale, which Application Insights wants as tags. Used once, when the front
//! starts.

use std::{path::PathBuf, time::Duration};

use super::{
    app_insights::{Facts, Origin},
    exporter::Plan,
    http_client::TlsFiles,
    ids::Sampler,
    lane::BATCH_ITEMS,
    otlp::{self, AttributeLimits},
    otlp_metrics::Temporality,
    receiver::{Format, Target},
};

/// How long Application Insights may take to answer.
const APP_INSIGHTS_TIMEOUT: Duration = Duration::from_secs(10);

/// What the settings say about telemetry; `settings_table.py` explains the settings.
#[derive(Debug, Clone, Default)]
pub struct TelemetrySettings {
    /// Application Insights, if it is on.
    pub app_insights: Option<AppInsights>,
    /// `SERVICE_NAME`.
    pub service_name: String,
    /// `WORKSPACE_NAME`.
    pub workspace_name: String,
    /// `HOSTNAME`.
    pub hostname: String,
    /// Name of the machine.
    pub node: String,
    /// Language and country of the machine, `en_US`.
    pub locale: Option<String>,
    /// Folder for items that cannot be sent.
    pub storage: Option<PathBuf>,
    /// How long items are gathered.
    pub interval: Duration,
    /// Certificates that receivers are checked by, in place of the system's.
    pub authorities: Option<String>,
    /// Where spans are sent by OTLP.
    pub traces: Option<OtlpTarget>,
    /// Where log records are sent by OTLP.
    pub logs: Option<OtlpTarget>,
    /// Where metrics are sent by OTLP.
    pub metrics: Option<OtlpTarget>,
    /// How often metrics are sent.
    pub metrics_interval: Duration,
    /// Since when the metrics count.
    pub temporality: Temporality,
    /// Attributes of what is sent by OTLP.
    pub resource: Vec<(String, String)>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Each request begins a trace, also if it comes with `traceparent` (`OTEL_PROPAGATORS`).
    pub begins_own_traces: bool,
}

/// Where one signal is sent by OTLP.
#[derive(Debug, Clone, Default)]
pub struct OtlpTarget {
    /// The whole URL.
    pub url: String,
    /// Further header fields, which may be secrets.
    pub headers: Vec<(String, String)>,
    /// How long the receiver may take to answer.
    pub timeout: Duration,
    /// Bodies are compressed.
    pub gzip: bool,
    /// Certificates.
    pub tls: TlsFiles,
    /// Most items of a request.
    pub batch_items: usize,
    /// Most items that wait, if there is such a limit.
    pub queue_items: Option<usize>,
    /// Limits for attributes.
    pub attributes: AttributeLimits,
}

/// Application Insights.
#[derive(Debug, Clone, Default)]
pub struct AppInsights {
    /// Instrumentation key, in lower case.
    pub key: String,
    /// Where items are sent, without the path.
    pub endpoint: String,
    /// Items have the beginning of the reply.
    pub has_response: bool,
}

impl TelemetrySettings {
    /// True if anything is exported.
    pub fn is_on(&self) -> bool {
        self.exports_requests() || self.metrics.is_some()
    }

    /// True if requests or log records are exported, each by itself.
    pub fn exports_requests(&self) -> bool {
        self.app_insights.is_some() || self.traces.is_some() || self.logs.is_some()
    }

    /// True if items have the beginning of the reply.
    pub fn wants_response(&self) -> bool {
        self.app_insights.as_ref().is_some_and(|settings| settings.has_response)
    }

    /// The receivers.
    pub fn plan(&self) -> Plan {
        let tls = TlsFiles { authorities: self.authorities.clone(), identity: None };
        let app_insights = self.app_insights.as_ref().map(|settings| Target {
            format: Format::AppInsights(self.origin(&settings.key)),
            url: settings.endpoint.clone(),
            headers: Vec::new(),
            timeout: APP_INSIGHTS_TIMEOUT,
            gzip: false,
            tls,
            batch_items: BATCH_ITEMS,
            queue_items: usize::MAX,
        });
        let resource = otlp::resource(&self.resource);
        let traces = self.traces.as_ref().map(|to| to.with(Format::OtlpTraces(resource.clone(), to.attributes)));
        let logs = self.logs.as_ref().map(|to| to.with(Format::OtlpLogs(resource.clone(), to.attributes)));
        let metrics = self.metrics.as_ref().map(|to| to.with(Format::OtlpMetrics(resource)));
        let targets = [app_insights, traces, logs, metrics].into_iter().flatten().collect();
        Plan { targets, interval: self.interval, storage: self.storage.clone() }
    }

    fn origin(&self, key: &str) -> Origin {
        let tag = |name, value: &str| (name, value.to_owned());
        let mut tags = vec![tag("ai.device.id", &self.node)];
        tags.extend(self.locale.as_deref().map(|locale| tag("ai.device.locale", locale)));
        tags.extend([
            tag("ai.device.type", "Other"),
            tag("ai.internal.sdkVersion", concat!("azmlinfsrv:", env!("CARGO_PKG_VERSION"))),
            tag("ai.cloud.role", &self.service_name),
            tag("ai.cloud.roleInstance", &self.node),
            tag("ai.internal.nodeName", &self.node),
        ]);
        Origin::new(Facts {
            key: key.to_owned(),
            service: self.service_name.clone(),
            workspace: self.workspace_name.clone(),
            container: self.hostname.clone(),
            tags,
        })
    }
}

impl OtlpTarget {
    fn with(&self, format: Format) -> Target {
        let Self { url, headers, timeout, gzip, tls, batch_items, queue_items, .. } = self.clone();
        Target { format, url, headers, timeout, gzip, tls, batch_items, queue_items: queue_items.unwrap_or(usize::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_exported_unless_a_setting_says_so() {
        let off = TelemetrySettings::default();
        assert!(!off.is_on() && !off.wants_response() && off.plan().targets.is_empty());
    }

    #[test]
    fn each_signal_has_its_own_receiver() {
        let target = OtlpTarget { url: "http://a/v1/x".to_owned(), gzip: true, ..OtlpTarget::default() };
        let metrics = TelemetrySettings { metrics: Some(target.clone()), ..TelemetrySettings::default() };
        assert!(metrics.is_on() && !metrics.exports_requests());
        let settings = TelemetrySettings { traces: Some(target.clone()), logs: Some(target), ..metrics };
        assert!(settings.is_on() && settings.exports_requests() && !settings.wants_response());
        let targets = settings.plan().targets;
        let names: Vec<_> =
            targets.iter().map(|target| (target.format.exporter().name(), target.url.as_str())).collect();
        assert_eq!(names, ["otlp_traces", "otlp_logs", "otlp_metrics"].map(|name| (name, "http://a/v1/x")));
    }

    #[test]
    fn tags_of_app_insights_are_those_of_1_5_1() {
        let settings = TelemetrySettings {
            app_insights: Some(AppInsights { has_response: true, ..AppInsights::default() }),
            service_name: "ML service".to_owned(),
            node: "host".to_owned(),
            locale: Some("en_US".to_owned()),
            ..TelemetrySettings::default()
        };
        assert!(settings.is_on() && settings.wants_response());
        let targets = settings.plan().targets;
        let Format::AppInsights(origin) = &targets[0].format else { panic!("{targets:?}") };
        let tags: Vec<_> = origin.tags().iter().map(|(name, value)| (*name, value.as_str())).collect();
        let version = concat!("azmlinfsrv:", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            tags,
            [
                ("ai.device.id", "host"),
                ("ai.device.locale", "en_US"),
                ("ai.device.type", "Other"),
                ("ai.internal.sdkVersion", version),
                ("ai.cloud.role", "ML service"),
                ("ai.cloud.roleInstance", "host"),
                ("ai.internal.nodeName", "host"),
            ]
        );
    }
}
