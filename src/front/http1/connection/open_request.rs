//! A request that is being answered, as its handler and the body of its reply see it.
//!
//! Runs in the front's event loop.

use std::{rc::Rc, time::Instant};

use super::{Connection, Phase};
use crate::telemetry::record::RequestRecord;

/// A request that is being answered.
pub struct OpenRequest(pub(super) Rc<Connection>);

impl OpenRequest {
    /// True while the client has not taken everything that was written.
    pub fn has_unread(&self) -> bool {
        self.0.has_unread()
    }

    /// Notes that the parser has got so many bytes of the reply's body.
    pub fn note_written(&self, bytes: usize) {
        self.note(|record| record.bytes_out += bytes as u64);
    }

    /// Notes that the parser has got this part of a stream.
    pub fn note_streamed(&self, part: &[u8]) {
        self.note_written(part.len());
        self.note(|record| record.note_streamed(part));
    }

    /// Notes that the script has ended its stream.
    pub fn note_end_of_stream(&self) {
        self.note(|record| record.job.ended = Some(Instant::now()));
    }

    fn note(&self, change: impl FnOnce(&mut RequestRecord)) {
        if let Some(recording) = &mut *self.0.record.borrow_mut() {
            change(recording);
        }
    }

    /// Notes that the stream failed, so that the reply is never complete.
    pub fn note_broken_off(&self) {
        if let Some(mut recording) = self.0.record.take() {
            recording.job.ended = Some(Instant::now());
            recording.break_off();
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if let Phase::Open(request) = self.0.phase.get() {
            self.0.phase.set(Phase::Answered(request.after));
        }
    }
}
