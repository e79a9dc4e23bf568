//! Signals that a supervisor has not read, because it runs the script (`WORKER_PRELOAD`).
//!
//! Python runs its handlers between two steps of code. A signal that arrives when a call such as `time.sleep()` is just
//! about to wait, or that the kernel hands to another thread of the script's, does not end that wait: it is handled when
//! the wait is over, which may be never. Its number, however, is in the supervisor's wake-up socket at once. The front
//! watches that without reading, and sends another signal for as long as a number lies there. Runs in the front's event
//! loop.

use std::{os::fd::OwnedFd, time::Duration};

use nix::{
    sys::{
        signal::{kill, Signal},
        socket::{recv, MsgFlags},
    },
    unistd::getppid,
};

/// A number that is there at two looks in a row is not about to be read.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Ignored by default, so it harms nobody if it comes late. `process.py` knows it.
const NUDGE: Signal = Signal::SIGURG;

/// Nudges the supervisor as long as numbers stay in `signals`, the end of its wake-up socket that it reads from.
pub async fn watch(signals: OwnedFd) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_unread = false;
    loop {
        ticks.tick().await;
        let is_unread = is_unread(&signals);
        if is_unread && was_unread {
            // A supervisor that is gone needs none: the front hears of that by its line.
            let _ = kill(getppid(), NUDGE);
        }
        was_unread = is_unread;
    }
}

fn is_unread(signals: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd as _;
    let mut number = [0];
    let seen = recv(signals.as_raw_fd(), &mut number, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    matches!(seen, Ok(1..))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::is_unread;

    #[test]
    fn looking_takes_nothing_away() {
        let (mut writer, mut reader) = UnixStream::pair().unwrap();
        let watched = reader.try_clone().unwrap().into();
        assert!(!is_unread(&watched));
        writer.write_all(&[15]).unwrap();
        assert!(is_unread(&watched));
        assert!(is_unread(&watched));
        let mut number = [0];
        reader.read_exact(&mut number).unwrap();
        assert_eq!(number, [15]);
        assert!(!is_unread(&watched));
    }

    #[test]
    fn nothing_is_unread_when_nobody_can_write() {
        let (writer, reader) = UnixStream::pair().unwrap();
        drop(writer);
        assert!(!is_unread(&reader.into()));
    }
}
