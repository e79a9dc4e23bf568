//! A log record on its way through the queue.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use log::Level;

use crate::telemetry::access_fields::Fields;

/// A record in the queue.
pub(crate) struct OwnedRecord {
    pub(crate) time: SystemTime,
    pub(crate) level: Level,
    pub(crate) target: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) worker_pid: Option<u64>,
    /// What else is known; empty if nobody wants it.
    pub(crate) fields: Fields,
    /// This is an access record. It has fields and no message; see `front/access_log.rs`.
    pub(crate) is_access: bool,
}

impl OwnedRecord {
    /// A record with the present time.
    pub(crate) fn new(
        level: Level,
        target: impl Into<Cow<'static, str>>,
        message: String,
        worker_pid: Option<u64>,
    ) -> Self {
        let (target, fields) = (target.into(), Fields::default());
        Self { time: SystemTime::now(), level, target, message, worker_pid, fields, is_access: false }
    }

    /// Its time as seconds since 1970, and the milliseconds behind them.
    pub(super) fn since_epoch(&self) -> (u64, u32) {
        let since_epoch = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        (since_epoch.as_secs(), since_epoch.subsec_millis())
    }
}
