//! Times and durations as Application Insights and lines of the log have them. Pure functions, called several times for each
//! request.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use time::OffsetDateTime;

/// UTC with up to six digits of a second: `2026-11-30T05:38:31.33861Z`. `trims` leaves out zeros at the end.
pub fn time_text(out: &mut Vec<u8>, time: SystemTime, trims: bool) {
    let since = since_epoch(time);
    second(out, since.as_secs(), b'T');
    let micros = since.subsec_micros();
    if micros > 0 {
        out.push(b'.');
        digits(out, u64::from(micros), 6);
        while trims && out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// `2026-11-30T05:38:31.338Z`.
pub fn time_in_milliseconds(out: &mut Vec<u8>, time: SystemTime) {
    let since = since_epoch(time);
    second(out, since.as_secs(), b'T');
    out.push(b'.');
    digits(out, u64::from(since.subsec_millis()), 3);
    out.push(b'Z');
}

/// In milliseconds with up to three digits after the point.
pub fn milliseconds(out: &mut Vec<u8>, duration: Duration) {
    let of_second = u64::from(duration.subsec_nanos() + 500) / 1000;
    let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(of_second);
    out.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
    let rest = micros % 1000;
    if rest > 0 {
        out.push(b'.');
        digits(out, rest, 3);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// A time before 1970 is written as 1970: no server's clock shows one.
fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// `2026-11-30T05:38:31`.
type Second = [u8; 19];
/// Where the `T` of a [`Second`] is.
const AT_SEPARATOR: usize = 10;

thread_local! {
    /// The second that the thread has written last. The date of a second takes longer than the rest of a time, and requests
    /// that follow each other have the same one.
    static LAST_SECOND: Cell<(u64, Second)> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// UTC to the second, from the seconds since 1970. `separator` stands between date and time.
pub fn second(out: &mut Vec<u8>, since_epoch: u64, separator: u8) {
    let (mut last, mut text) = LAST_SECOND.get();
    if last != since_epoch {
        (last, text) = (since_epoch, text_of_second(since_epoch));
        LAST_SECOND.set((last, text));
    }
    text[AT_SEPARATOR] = separator;
    out.extend_from_slice(&text);
}

fn text_of_second(since_epoch: u64) -> Second {
    let seconds = i64::try_from(since_epoch).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut out = Vec::with_capacity(size_of::<Second>());
    digits(&mut out, u64::from(time.year().unsigned_abs()), 4);
    for (separator, number) in [
        (b'-', u8::from(time.month())),
        (b'-', time.day()),
        (b'T', time.hour()),
        (b':', time.minute()),
        (b':', time.second()),
    ] {
        out.push(separator);
        digits(&mut out, u64::from(number), 2);
    }
    // Four digits and five times three bytes are 19.
    out.try_into().unwrap_or_default()
}

/// `HH:MM:SS.mmm`, with `D.` in front from one day on.
pub fn span_text(out: &mut Vec<u8>, duration: Duration) {
    if duration.as_secs() >= 86400 {
        days(out, duration);
    }
    clock(out, duration);
    digits(out, u64::from(duration.subsec_millis()), 3);
}

/// The native form: `D.HH:MM:SS.ffffff`.
pub fn native_span(out: &mut Vec<u8>, duration: Duration) {
    days(out, duration);
    clock(out, duration);
    digits(out, u64::from(duration.subsec_micros()), 6);
}

fn days(out: &mut Vec<u8>, duration: Duration) {
    out.extend_from_slice(itoa::Buffer::new().format(duration.as_secs() / 86400).as_bytes());
    out.push(b'.');
}

/// `HH:MM:SS.`
fn clock(out: &mut Vec<u8>, duration: Duration) {
    let seconds = duration.as_secs();
    for (number, separator) in [(seconds / 3600 % 24, b':'), (seconds / 60 % 60, b':'), (seconds % 60, b'.')] {
        digits(out, number, 2);
        out.push(separator);
    }
}

/// The last digits of a number.
fn digits(out: &mut Vec<u8>, mut number: u64, count: usize) {
    let from = out.len();
    out.resize(from + count, b'0');
    for digit in out[from..].iter_mut().rev() {
        // A number below 10 is a byte.
        *digit += (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::item::tests::at;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn durations() {
        let day = Duration::from_secs(86_400 + 3600 + 60 + 1) + Duration::from_millis(7);
        assert_eq!(text(|out| native_span(out, day)), "1.01:01:01.007000");
        assert_eq!(text(|out| span_text(out, day)), "1.01:01:01.007");
        let short = Duration::from_micros(12_345);
        assert_eq!(text(|out| native_span(out, short)), "0.00:00:00.012345");
        assert_eq!(text(|out| span_text(out, short)), "00:00:00.012");
    }

    #[test]
    fn milliseconds_have_no_zeros_at_the_end() {
        for (nanos, expected) in
            [(0, "0"), (499, "0"), (500, "0.001"), (2_000_000, "2"), (4_500_000, "4.5"), (1_234_567_000, "1234.567")]
        {
            assert_eq!(text(|out| milliseconds(out, Duration::from_nanos(nanos))), expected);
        }
    }

    #[test]
    fn times() {
        assert_eq!(text(|out| time_text(out, at(0, 0), true)), "1970-01-01T00:00:00Z");
        assert_eq!(text(|out| time_text(out, at(0, 100), true)), "1970-01-01T00:00:00.0001Z");
        assert_eq!(text(|out| time_text(out, at(0, 100), false)), "1970-01-01T00:00:00.000100Z");
        assert_eq!(text(|out| time_in_milliseconds(out, at(1_796_017_111, 7_999))), "2026-11-30T05:38:31.007Z");
        assert_eq!(text(|out| time_in_milliseconds(out, at(0, 0))), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(|out| time_text(out, at(1_796_017_111, 338_610), true)), "2026-11-30T05:38:31.33861Z");
        // The second that was written last is not taken for another.
        assert_eq!(text(|out| time_text(out, at(1_796_017_112, 0), true)), "2026-11-30T05:38:32Z");
        assert_eq!(text(|out| time_text(out, at(0, 0), true)), "1970-01-01T00:00:00Z");
    }
}
