//! Follows the supervisor's orders, until serving is over.

use std::io;

use bytes::BytesMut;

use super::Front;
use crate::{
    fault_injection::{point, Point},
    ipc::control::{Order, Supervisor},
};

/// How serving has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By `drain`.
    Drained,
    /// By `stop`, or because the supervisor is gone.
    Stopped,
}

/// Follows the supervisor's orders until serving is over. After `drain` that is when all requests
/// are answered or `--graceful_timeout` is over; what is not answered then is answered like after
/// `stop`.
pub(super) async fn follow_orders(front: &Front, supervisor: &Supervisor) -> io::Result<Ended> {
    let mut lines = BytesMut::new();
    let drains = take_orders(front, supervisor, &mut lines, false).await?;
    // The front still accepts connections, so that new clients get a reply that says that the
    // server is stopping, not a reset.
    front.end_connections();
    if !drains {
        return Ok(Ended::Stopped);
    }
    let finish = async {
        tokio::select! {
            () = front.all_closed() => Ok(true),
            again = take_orders(front, supervisor, &mut lines, true) => again,
        }
    };
    if let Ok(ended) = tokio::time::timeout(front.settings.graceful_timeout, finish).await {
        ended?;
    }
    Ok(Ended::Drained)
}

/// Follows the supervisor's orders until one of them ends serving: true for `drain`, false for
/// `stop`.
async fn take_orders(front: &Front, supervisor: &Supervisor, lines: &mut BytesMut, draining: bool) -> io::Result<bool> {
    loop {
        let order = supervisor.next_order(lines).await?;
        point(Point::Order);
        match order {
            Some(Order::Exited(pid, cause)) => front.dispatcher.process_exited(pid, cause),
            Some(Order::Stopped(pid)) => front.dispatcher.process_stopped(pid),
            Some(Order::Continued(pid)) => front.dispatcher.process_continued(pid),
            Some(Order::Retire(pid)) => front.dispatcher.retire(pid),
            Some(Order::Outdated(reason)) => front.note_failed_reload(&reason),
            Some(Order::Current) => *front.failed_reload.borrow_mut() = None,
            Some(Order::Drain) if draining => {}
            Some(Order::Drain) => return Ok(true),
            // Without a supervisor nobody replaces workers or passes signals on: end like after
            // `stop`.
            Some(Order::Stop) | None => return Ok(false),
        }
    }
}
