//! The front: `server.rs` accepts clients and shuts down in order, `routes.rs` and `exchange.rs`
//! handle requests.
//!
//! Runs on one thread, which never takes the GIL. In the front's process no user code runs, except
//! with `--worker_class thread`.

mod access_log;
mod body_rate;
mod body_reader;
mod cors;
mod docs;
mod error;
mod exchange;
pub(crate) mod heap_trim;
mod http1;
mod listener;
mod memory_budget;
mod metrics;
mod metrics_reports;
mod open_inference;
mod proxies;
mod reply;
mod request_ids;
mod routes;
mod server;
mod swagger;
mod tracking;
#[cfg(unix)]
mod worker_reports;

use self::server::Front;
pub use self::{
    access_log::{shown_of_abandoned, JsonLines, RequestLine, ACCESS_LOGGER, REQUEST_LOGGER},
    server::{check, serve, Sockets, Workers},
};
