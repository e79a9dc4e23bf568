//! What `GET /metrics` shows. docs/metrics.md is the page for users.
//!
//! [`counters`] counts requests and restarts in memory that outlives the front, so that no counter goes backwards when
//! another front takes over; `telemetry/counts.rs` does that for telemetry. [`user`] has the metrics of the user's script. [`family`] names what is shown, [`text`] writes it, [`process`] asks the system about processes.
//! `front/metrics.rs` answers the requests.

pub mod counters;
pub mod family;
pub mod process;
pub mod text;
pub mod user;

use std::sync::{atomic::AtomicU64, OnceLock};

use self::{counters::Counters, user::UserMetrics};
use super::counts::{self, AllCounts};

/// How many words [`Metrics::at`] needs.
pub const LENGTH: usize = counters::LENGTH + user::LENGTH + counts::LENGTH;

/// The numbers of this server. One set for each server, because its processes share it by being forked.
static SHARED: OnceLock<Metrics> = OnceLock::new();

/// Handle to the numbers of a server; copies share them.
#[derive(Debug, Clone, Copy)]
pub struct Metrics {
    /// Counts requests and restarts.
    pub counters: Counters,
    /// What the user's script counts.
    pub user: UserMetrics,
    /// What has become of telemetry.
    pub telemetry: AllCounts,
}

impl Metrics {
    /// The numbers in these words, of which there must be [`LENGTH`].
    pub fn at(words: &'static [AtomicU64]) -> Self {
        let (counters, rest) = words.split_at(counters::LENGTH);
        let (user, telemetry) = rest.split_at(user::LENGTH);
        Self { counters: Counters::at(counters), user: UserMetrics::at(user), telemetry: AllCounts::at(telemetry) }
    }
}

/// Makes these words, which are zero, the numbers of this server. False if it has numbers already. The supervisor calls this
/// before it starts any other process or thread.
pub fn share(words: &'static [AtomicU64]) -> bool {
    SHARED.set(Metrics::at(words)).is_ok()
}

/// The numbers of this server; `None` if it counts nothing (`--metrics off`).
pub fn shared() -> Option<Metrics> {
    SHARED.get().copied()
}
