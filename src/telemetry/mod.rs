//! What the server tells about requests. No pyo3, no actix.
//!
//! [`record`] has the facts about one request, [`recorder`] gives them to the readers: the request
//! line, the record for `gunicorn.access`, and whatever exports or counts requests. [`access_line`]
//! is the text of the request line, [`redaction`] hides secrets of queries, [`metrics`] counts for `GET /metrics`.
//!
//! Exporting: [`requests`] reads records, [`intake`] is where items wait for the exporter's thread,
//! [`exporter`] is that thread. [`receiver`] is one receiver, [`lane`] what waits for it, [`answer`] what
//! its answers mean, [`app_insights`], [`otlp`] and [`otlp_metrics`] the formats, [`storage`] the items on disk, [`plan`]
//! what the settings say.

pub mod access_fields;
pub mod access_line;
pub mod answer;
pub mod app_insights;
pub mod counts;
pub mod exporter;
pub mod http_client;
pub mod ids;
pub mod intake;
pub mod item;
pub mod lane;
pub mod metrics;
pub mod otlp;
pub mod otlp_metrics;
pub mod pieces;
pub mod plan;
mod priority;
pub mod receiver;
pub mod record;
pub mod recorder;
pub mod redaction;
pub mod requests;
pub mod storage;
pub mod times;
pub mod trace_context;
