//! The phase of a connection: what it waits for, and for how long.
//!
//! Pure; runs in the front's event loop. `connection.rs` changes from one phase to the next.

use std::time::{Duration, Instant};

/// How long the server reads and drops what a client still sends after the last reply, before the
/// connection is cut. Closing with unread bytes would reset the connection, and the client might
/// never see the reply (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// The time limits for a client.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The limit for a request head, and for reading the bytes that were written
    /// (`--client_timeout`).
    pub client: Duration,
    /// The limit for the time between two requests (`--keep_alive`).
    pub keep_alive: Duration,
}

/// The phase of a connection. It has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first request, or the rest of a request head, has not arrived. The server has waited for
    /// it since this time.
    Head { since: Instant },
    /// The head did not arrive in time; the socket has to refuse it.
    HeadOverdue,
    /// The parser has a request that is not answered yet.
    Open(Request),
    /// The reply is with the parser, which has not written all of it.
    Answered(After),
    /// Everything was written at this time, and nothing of the next request has arrived.
    Idle { since: Instant },
    /// Idle for longer than `--keep_alive`: the socket has to close the connection, unless the next
    /// request has arrived meanwhile.
    IdleOverdue,
    /// The socket itself refuses what the client sent.
    Refused,
    /// The last reply was written at this time. The server drops what the client still sends.
    Closing { since: Instant },
}

/// The state of the request that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// HTTP/1.1 and not HTTP/1.0.
    pub is_http_1_1: bool,
    /// Tells if its body has been read.
    pub body: BodyUse,
    /// What follows the reply, as far as it is known.
    pub after: After,
}

/// Tells if a request's body has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyUse {
    /// The request has no body, or all of it was read.
    Done,
    /// Nobody has read all of the body.
    Unread,
}

/// What follows the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request.
    Next,
    /// The end of the connection.
    Close,
}

/// The result of [`Phase::judge`].
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// The socket has to act; this is the new phase.
    Act(Phase),
    /// The connection has to be cut.
    Cut,
}

impl Phase {
    /// Checks whether the client takes too long.
    pub fn judge(self, now: Instant, patience: &Patience) -> Verdict {
        let waited = |since| now.saturating_duration_since(since);
        match self {
            Self::Head { since } if waited(since) > patience.client => Verdict::Act(Self::HeadOverdue),
            Self::Idle { since } if waited(since) >= patience.keep_alive => Verdict::Act(Self::IdleOverdue),
            Self::Closing { since } if waited(since) > LINGER => Verdict::Cut,
            _ => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { client: Duration::from_secs(30), keep_alive: Duration::from_millis(300) };

    #[test]
    fn an_idle_connection_ends_at_its_time_and_never_earlier() {
        let since = Instant::now();
        let after = |waited| Phase::Idle { since }.judge(since + Duration::from_micros(waited), &PATIENCE);
        assert_eq!(after(299_999), Verdict::Fine);
        assert_eq!(after(300_000), Verdict::Act(Phase::IdleOverdue));
    }

    #[test]
    fn a_head_and_a_last_reply_have_their_time() {
        let since = Instant::now();
        let after = |phase: Phase, seconds| phase.judge(since + Duration::from_secs(seconds), &PATIENCE);
        assert_eq!(after(Phase::Head { since }, 30), Verdict::Fine);
        assert_eq!(after(Phase::Head { since }, 31), Verdict::Act(Phase::HeadOverdue));
        assert_eq!(after(Phase::Closing { since }, 2), Verdict::Fine);
        assert_eq!(after(Phase::Closing { since }, 3), Verdict::Cut);
        for phase in [Phase::HeadOverdue, Phase::IdleOverdue, Phase::Refused, Phase::Answered(After::Next)] {
            assert_eq!(after(phase, 1000), Verdict::Fine, "{phase:?}");
        }
    }
}
