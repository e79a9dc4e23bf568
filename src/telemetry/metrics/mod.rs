//! What `GET /metrics` shows. docs/metrics.md is the page for users.
//!
//! [`counters`] counts requests and restarts in memory that outlives the front, so that no counter goes backwards when
//! another front takes over, and `telemetry/counts.rs` does that for telemetry. [`batches`] counts calls of `run()` by how
//! many requests they are for. [`user`] has the metrics of the user's script. [`family`] names what is shown, [`output`] is
//! where it is written to, [`text`] is the text, [`process`] asks the system about processes.
//! `front/metrics.rs` answers the requests.

pub mod batches;
pub mod counters;
pub mod family;
pub mod output;
pub mod process;
pub mod text;
pub mod user;

use std::{
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        OnceLock,
    },
    time::{Duration, SystemTime},
};

use self::{batches::BatchSizes, counters::Counters, user::UserMetrics};
use super::counts::{self, AllCounts};

/// How many words [`Metrics::at`] needs.
pub const LENGTH: usize = counters::LENGTH + batches::LENGTH + user::LENGTH + counts::LENGTH + Times::LENGTH;

/// The numbers of this server. One set for each server, because its processes share it by being forked.
static SHARED: OnceLock<Metrics> = OnceLock::new();

/// Handle to the numbers of a server; copies share them.
#[derive(Debug, Clone, Copy)]
pub struct Metrics {
    /// Counts requests and restarts.
    pub counters: Counters,
    /// The sizes of batches.
    pub batch_sizes: BatchSizes,
    /// What the user's script counts.
    pub user: UserMetrics,
    /// What has become of telemetry.
    pub telemetry: AllCounts,
    /// Since when they count.
    pub times: Times,
}

impl Metrics {
    /// The numbers in these words, of which there must be [`LENGTH`].
    pub fn at(words: &'static [AtomicU64]) -> Self {
        let (counters, rest) = words.split_at(counters::LENGTH);
        let (batch_sizes, rest) = rest.split_at(batches::LENGTH);
        let (user, rest) = rest.split_at(user::LENGTH);
        let (telemetry, times) = rest.split_at(counts::LENGTH);
        Self {
            counters: Counters::at(counters),
            batch_sizes: BatchSizes::at(batch_sizes),
            user: UserMetrics::at(user),
            telemetry: AllCounts::at(telemetry),
            times: Times { words: times },
        }
    }
}

/// When the server began to count, and whether a front has sent its numbers. OTLP needs both.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    words: &'static [AtomicU64],
}

impl Times {
    const LENGTH: usize = 2;

    fn start(self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.words[0].store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// When the server began to count.
    pub fn started(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.words[0].load(Relaxed))
    }

    /// Notes that a front has given its numbers to the exporters.
    pub fn note_sent(self) {
        self.words[1].store(1, Relaxed);
    }

    /// True if a front, perhaps an earlier one, has done that.
    pub fn have_been_sent(self) -> bool {
        self.words[1].load(Relaxed) > 0
    }
}

/// Makes these words, which are zero, the numbers of this server. False if it has numbers already. The supervisor calls this
/// before it starts any other process or thread.
pub fn share(words: &'static [AtomicU64]) -> bool {
    let metrics = Metrics::at(words);
    metrics.times.start();
    SHARED.set(metrics).is_ok()
}

/// The numbers of this server; `None` if it counts nothing (`--metrics off`, and nothing is sent by OTLP).
pub fn shared() -> Option<Metrics> {
    SHARED.get().copied()
}
