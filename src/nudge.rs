//! Signals that a supervisor has not read, because it runs the script (`WORKER_PRELOAD`).
//!
//! Python runs its handlers between two steps of code. A signal that arrives when a call such as `time.sleep()` is just
//! about to wait, or that the kernel hands to another thread of the script's, does not end that wait: it is handled when
//! the wait is over, which may be never. Its number, however, is in the supervisor's wake-up socket at once. The front
//! watches that without reading, and sends another signal while the number of one lies there that ends the command.
//! Runs in the front's event loop.

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
/// After so many looks only every so manyth is followed by a nudge: native code that goes on all the same may begin a
/// wait again each time.
const INSIST_FOR: u32 = 20;
/// What cannot wait until `init()` returns, as far as a front that lives can tell.
const URGENT: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
/// Ignored by default, so it harms nobody if it comes late. `process.py` knows it.
const NUDGE: Signal = Signal::SIGURG;

/// Nudges the supervisor as long as urgent numbers stay in `signals`, the end of its wake-up socket that it reads from.
pub async fn watch(signals: OwnedFd) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen: u32 = 0;
    loop {
        ticks.tick().await;
        seen = if is_unread(&signals) { seen.saturating_add(1) } else { 0 };
        if is_due(seen) {
            // A supervisor that is gone needs none: the front hears of that by its line.
            let _ = kill(getppid(), NUDGE);
        }
    }
}

/// Whether to nudge at the look that is the so manyth in a row to find something.
fn is_due(seen: u32) -> bool {
    seen > 1 && (seen <= INSIST_FOR || seen.is_multiple_of(INSIST_FOR))
}

fn is_unread(signals: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd as _;
    let mut numbers = [0; 256];
    let seen = recv(signals.as_raw_fd(), &mut numbers, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).unwrap_or(0);
    numbers[..seen].iter().any(|number| URGENT.iter().any(|urgent| *urgent as i32 == i32::from(*number)))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::{is_due, is_unread, INSIST_FOR};

    #[test]
    fn looking_takes_nothing_away() {
        let (mut writer, mut reader) = UnixStream::pair().unwrap();
        let watched = reader.try_clone().unwrap().into();
        assert!(!is_unread(&watched));
        writer.write_all(&[17, 1]).unwrap();
        assert!(!is_unread(&watched), "CHLD and HUP can wait");
        writer.write_all(&[15]).unwrap();
        assert!(is_unread(&watched));
        assert!(is_unread(&watched));
        let mut numbers = [0; 3];
        reader.read_exact(&mut numbers).unwrap();
        assert_eq!(numbers, [17, 1, 15]);
        assert!(!is_unread(&watched));
    }

    #[test]
    fn nudges_come_soon_and_then_seldom() {
        let due: Vec<u32> = (0..=3 * INSIST_FOR).filter(|seen| is_due(*seen)).collect();
        assert_eq!(due, [(2..=INSIST_FOR).collect(), vec![2 * INSIST_FOR, 3 * INSIST_FOR]].concat());
    }

    #[test]
    fn nothing_is_unread_when_nobody_can_write() {
        let (writer, reader) = UnixStream::pair().unwrap();
        drop(writer);
        assert!(!is_unread(&reader.into()));
    }
}
