//! Makes the record of each request, and gives it to every reader when its time has come.
//!
//! Runs in the front's event loop. A [`Recording`] belongs to whoever has the request at that time:
//! the request's handler, then its connection until the reply has been written. Whoever drops it,
//! for whatever reason, finishes the record. So each record is answered once and then finished once.

use std::{
    ops::{Deref, DerefMut},
    rc::Rc,
    time::Instant,
};

use http::Method;

use super::record::{Delivery, RequestRecord, Stage};

/// Something that wants to know about requests. It is called in the front's event loop, so it must never block or wait:
/// what takes longer than a few microseconds belongs into a queue that another thread empties.
pub trait Reader {
    /// The head of a request has been read. A reader that exports spans sets [`RequestRecord::span`] here.
    fn begun(&self, _record: &mut RequestRecord) {}

    /// Status and outcome are known; nothing of the reply has been written.
    fn answered(&self, _record: &RequestRecord) {}

    /// Nothing about the request will change any more.
    fn finished(&self, _record: &RequestRecord) {}
}

/// The readers, in the order in which they are called.
#[derive(Default)]
pub struct Recorder {
    readers: Vec<Box<dyn Reader>>,
}

impl Recorder {
    /// A recorder for these readers.
    pub fn new(readers: Vec<Box<dyn Reader>>) -> Rc<Self> {
        Rc::new(Self { readers })
    }

    /// Begins to record a request.
    pub fn begin(self: &Rc<Self>, mut record: RequestRecord) -> Recording {
        for reader in &self.readers {
            reader.begun(&mut record);
        }
        Recording { record: Box::new(record), recorder: self.clone(), stage: Stage::Arriving }
    }
}

/// The record of a request that is not finished. Dropping it finishes the record.
pub struct Recording {
    record: Box<RequestRecord>,
    recorder: Rc<Recorder>,
    stage: Stage,
}

impl Recording {
    /// Notes where the request is. If its connection ends, the record will say that it ended there.
    pub fn enter(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Notes that the client has left, although the outcome of the request is still to come.
    pub fn abandon(&mut self) {
        self.record.delivery = Delivery::ClientLeft(self.stage);
    }

    /// Notes that status and outcome are known, and that the reply is about to be written.
    pub fn answer(&mut self) {
        if self.record.answered.is_none() {
            self.record.answered = Some(Instant::now());
            self.recorder.readers.iter().for_each(|reader| reader.answered(&self.record));
        }
        self.stage = Stage::Replying;
    }

    /// Moves the recording out of something that is being dropped. What stays behind tells the readers nothing.
    pub fn take(&mut self) -> Self {
        let mut spent = RequestRecord::begin(None, None);
        spent.finished = Some(spent.began);
        let record = std::mem::replace(&mut self.record, Box::new(spent));
        Self { record, recorder: self.recorder.clone(), stage: self.stage }
    }

    /// Finishes the record of a request whose reply has been written completely.
    pub fn complete(mut self) {
        if let Some(length) = self.record.reply_length {
            let is_head = self.record.head.as_ref().is_some_and(|head| head.method == Method::HEAD);
            self.record.bytes_out = if is_head { 0 } else { length };
        }
        self.finish();
    }

    /// Finishes the record of a request whose stream failed in the middle.
    pub fn break_off(mut self) {
        self.record.delivery = Delivery::BrokenOff;
        self.finish();
    }

    fn finish(&mut self) {
        if self.record.finished.is_some() {
            return;
        }
        self.answer();
        self.record.finished = Some(Instant::now());
        self.recorder.readers.iter().for_each(|reader| reader.finished(&self.record));
    }
}

impl Deref for Recording {
    type Target = RequestRecord;

    fn deref(&self) -> &RequestRecord {
        &self.record
    }
}

impl DerefMut for Recording {
    fn deref_mut(&mut self) -> &mut RequestRecord {
        &mut self.record
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.record.finished.is_none() && self.record.delivery == Delivery::Complete {
            self.abandon();
        }
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{
        super::record::{Outcome, RequestRecord},
        *,
    };

    /// Keeps what it is told, in words.
    struct Diary(Rc<RefCell<Vec<String>>>);

    impl Reader for Diary {
        fn begun(&self, record: &mut RequestRecord) {
            self.0.borrow_mut().push(format!("begun {:?}", record.outcome));
        }

        fn answered(&self, record: &RequestRecord) {
            self.0.borrow_mut().push(format!("answered {:?}", record.outcome));
        }

        fn finished(&self, record: &RequestRecord) {
            self.0.borrow_mut().push(format!("finished {:?}", record.delivery));
        }
    }

    /// What a reader is told about a request with which `deal` deals.
    fn told(deal: impl FnOnce(Recording)) -> Vec<String> {
        let diary = Rc::<RefCell<Vec<String>>>::default();
        let recorder = Recorder::new(vec![Box::new(Diary(diary.clone()))]);
        deal(recorder.begin(RequestRecord::begin(None, None)));
        diary.take()
    }

    fn answer(mut recording: Recording) -> Recording {
        recording.outcome = Outcome::Answered;
        recording.answer();
        recording
    }

    #[test]
    fn every_request_is_answered_once_and_then_finished_once() {
        type Case = (&'static str, fn(Recording), [&'static str; 2]);
        let cases: [Case; 7] = [
            ("written", |recording| answer(recording).complete(), ["Answered", "Complete"]),
            ("dropped at once", drop, ["Abandoned", "ClientLeft(Arriving)"]),
            (
                "dropped in the queue",
                |mut recording| recording.enter(Stage::Queued),
                ["Abandoned", "ClientLeft(Queued)"],
            ),
            ("dropped when answered", |recording| drop(answer(recording)), ["Answered", "ClientLeft(Replying)"]),
            ("broken off", |recording| answer(recording).break_off(), ["Answered", "BrokenOff"]),
            (
                "abandoned, then answered",
                |mut recording| {
                    recording.enter(Stage::Running);
                    recording.abandon();
                    drop(answer(recording));
                },
                ["Answered", "ClientLeft(Running)"],
            ),
            ("answered twice", |recording| answer(answer(recording)).complete(), ["Answered", "Complete"]),
        ];
        for (case, deal, [outcome, delivery]) in cases {
            let expected =
                ["begun Abandoned".to_owned(), format!("answered {outcome}"), format!("finished {delivery}")];
            assert_eq!(told(deal), expected, "{case}");
        }
    }
}
