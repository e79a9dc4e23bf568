//! The bound on bytes of bodies that the front holds at once (`--max_buffered`), and which upload
//! gives way at the bound.
//!
//! Only counts bytes; runs in the front's event loop. Uploads cannot take all memory: the last
//! quarter is kept for small ones, and an upload that is behind its least rate gives way when
//! another one needs its memory. An upload that still finds no room is refused, because an upload
//! that waited would keep its memory and could block all others.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::body_rate::Progress;

/// An upload that is behind its least rate by more than this gives way.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);
/// Unfinished uploads together may take all but one part in this many of the limit.
const KEPT_PART: usize = 4;
/// Uploads of up to one part in this many of the limit may take the kept part too.
const SMALL_PART: usize = 16;

/// Counts the bytes of all bodies in memory, up to the limit.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: Cell<usize>,
    /// The most bytes in use since the last [`Budget::take_peak`].
    peak: Cell<usize>,
    /// The unfinished uploads whose client has had to be waited for.
    uploads: RefCell<Vec<Rc<Upload>>>,
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Other uploads hold enough memory, and give way if they fall behind their least rate.
    ForNow,
    /// Other requests hold the memory and do not give way.
    Entirely,
}

/// A body that is not complete.
#[derive(Debug)]
struct Upload {
    bytes: Cell<usize>,
    progress: Cell<Progress>,
    /// The upload waits for memory, so its client is not to blame for a delay.
    waits_for_room: Cell<bool>,
    gave_way: Notify,
}

impl Budget {
    /// Makes a budget of `limit` bytes.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit, used: Cell::new(0), peak: Cell::new(0), uploads: RefCell::default() })
    }

    /// Makes a share that has taken no bytes.
    pub fn share(self: &Rc<Self>) -> Share {
        Share { budget: self.clone(), bytes: 0, upload: None }
    }

    /// The most bytes that were taken at once since the last call.
    pub fn take_peak(&self) -> usize {
        self.peak.replace(self.used.get())
    }

    fn add(&self, bytes: usize) {
        let used = self.used.get() + bytes;
        self.used.set(used);
        self.peak.set(self.peak.get().max(used));
    }

    fn release(&self, bytes: usize) {
        self.used.set(self.used.get() - bytes);
    }

    /// True if there is room for this many bytes without the kept part. This is the usual case, and
    /// needs no look at the other uploads.
    fn has_plenty(&self, bytes: usize) -> bool {
        self.used.get() + bytes <= self.limit - self.limit / KEPT_PART
    }

    /// How many bytes other uploads would have to give up, so that an upload that has `held` bytes
    /// can take `bytes` more. `others` is what the other uploads have.
    fn missing(&self, held: usize, bytes: usize, others: usize) -> usize {
        let over_all = (self.used.get() + bytes).saturating_sub(self.limit);
        let is_small = held + bytes <= self.limit / SMALL_PART;
        if is_small || others == 0 {
            return over_all;
        }
        let over_part = (others + held + bytes).saturating_sub(self.limit - self.limit / KEPT_PART);
        over_all.max(over_part)
    }

    /// Makes other uploads give way, if necessary. An error if they hold too little, or are not far
    /// enough behind their least rate.
    fn make_room(&self, share: &Share, bytes: usize, now: Instant) -> Result<(), Exhausted> {
        let mut uploads = self.uploads.borrow_mut();
        let is_other = |upload: &Rc<Upload>| !share.upload.as_ref().is_some_and(|own| Rc::ptr_eq(own, upload));
        let others: Vec<Holder> = uploads.iter().filter(|upload| is_other(upload)).map(|it| it.holder(now)).collect();
        let missing = self.missing(share.held(), bytes, others.iter().map(|other| other.bytes).sum());
        if missing == 0 {
            return Ok(());
        }
        let behind = giving_way(missing, others)?;
        uploads.retain(|upload| {
            let gives_way = is_other(upload) && upload.holder(now).behind >= behind;
            if gives_way {
                self.release(upload.bytes.take());
                upload.gave_way.notify_one();
            }
            !gives_way
        });
        Ok(())
    }
}

impl Upload {
    fn holder(&self, now: Instant) -> Holder {
        let behind = if self.waits_for_room.get() { Duration::ZERO } else { self.progress.get().behind(now) };
        Holder { bytes: self.bytes.get(), behind }
    }
}

/// The numbers that decide whether an upload gives way.
#[derive(Debug, Clone, Copy)]
struct Holder {
    bytes: usize,
    /// For how long it is behind its least rate.
    behind: Duration,
}

/// Which uploads give way so that `missing` bytes become free: all that are behind by the returned
/// time or more.
fn giving_way(missing: usize, mut others: Vec<Holder>) -> Result<Duration, Exhausted> {
    if others.iter().map(|other| other.bytes).sum::<usize>() < missing {
        return Err(Exhausted::Entirely);
    }
    others.retain(|other| other.behind > GIVES_WAY_AFTER);
    others.sort_by_key(|other| std::cmp::Reverse(other.behind));
    let mut freed = 0;
    let last = others.iter().find(|other| {
        freed += other.bytes;
        freed >= missing
    });
    last.map(|last| last.behind).ok_or(Exhausted::ForNow)
}

/// Bytes taken for one request; given back on drop.
#[derive(Debug)]
pub struct Share {
    budget: Rc<Budget>,
    /// Bytes taken, without those of `upload`.
    bytes: usize,
    /// The body that is still arriving, once its next bytes had to be waited for.
    upload: Option<Rc<Upload>>,
}

impl Share {
    /// Takes more bytes for a body that is arriving, if there is room or other uploads give way.
    pub fn grow(&mut self, bytes: usize, now: Instant) -> Result<(), Exhausted> {
        let room = if self.budget.has_plenty(bytes) { Ok(()) } else { self.budget.make_room(self, bytes, now) };
        if let Some(upload) = &self.upload {
            upload.waits_for_room.set(room.is_err());
        }
        room.map(|()| self.charge(bytes))
    }

    /// Takes more bytes without a check, because they are in memory already (a worker's reply).
    pub fn charge(&mut self, bytes: usize) {
        match &self.upload {
            Some(upload) => upload.bytes.set(upload.bytes.get() + bytes),
            None => self.bytes += bytes,
        }
        self.budget.add(bytes);
    }

    /// Notes that the upload waits for its client's next bytes. From now on it may have to give
    /// way.
    pub fn wait_for_client(&mut self, progress: Progress) {
        if let Some(upload) = &self.upload {
            return upload.progress.set(progress);
        }
        let upload = Rc::new(Upload {
            bytes: Cell::new(std::mem::take(&mut self.bytes)),
            progress: Cell::new(progress),
            waits_for_room: Cell::new(false),
            gave_way: Notify::new(),
        });
        self.budget.uploads.borrow_mut().push(upload.clone());
        self.upload = Some(upload);
    }

    /// Resolves when the body has had to give way. Its bytes are not counted any more.
    pub async fn gave_way(&self) {
        match &self.upload {
            Some(upload) => upload.gave_way.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Notes that the body is complete. It never has to give way after this.
    pub fn finish_upload(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.budget.uploads.borrow_mut().retain(|other| !Rc::ptr_eq(other, &upload));
            self.bytes += upload.bytes.take();
        }
    }

    fn held(&self) -> usize {
        self.bytes + self.upload.as_ref().map_or(0, |upload| upload.bytes.get())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.finish_upload();
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::body_rate::LeastRate, *};

    const RATE: LeastRate = LeastRate { bytes_per_second: 1, pause: Duration::from_secs(60) };

    #[test]
    fn shares_are_limited_together_and_given_back() {
        let (budget, now) = (Budget::new(10), Instant::now());
        let mut one = budget.share();
        let mut two = budget.share();
        assert_eq!(one.grow(6, now), Ok(()));
        assert_eq!(two.grow(5, now), Err(Exhausted::Entirely));
        assert_eq!(two.grow(4, now), Ok(()));
        one.charge(100);
        drop(one);
        assert_eq!(two.grow(6, now), Ok(()));
        drop(two);
        assert_eq!(budget.used.get(), 0);
        assert_eq!([budget.take_peak(), budget.take_peak()], [110, 0]);
    }

    /// Makes an upload that has taken `bytes` and has waited for more since `now`.
    fn upload(budget: &Rc<Budget>, bytes: usize, now: Instant) -> Share {
        let mut share = budget.share();
        share.grow(bytes, now).expect("room");
        share.wait_for_client(Progress::begin(RATE, now));
        share
    }

    #[test]
    fn uploads_that_do_not_get_on_give_way_and_finished_ones_do_not() {
        let (budget, start) = (Budget::new(100), Instant::now());
        let mut finished = upload(&budget, 30, start);
        finished.finish_upload();
        let slow = upload(&budget, 40, start);
        let mut late = budget.share();
        assert_eq!(late.grow(50, start), Err(Exhausted::ForNow), "it may get on yet");
        assert_eq!(late.grow(80, start), Err(Exhausted::Entirely), "even its memory would not do");
        let later = start + 2 * GIVES_WAY_AFTER;
        assert_eq!(late.grow(50, later), Ok(()));
        assert_eq!((slow.held(), finished.held(), late.held()), (0, 30, 50));
        drop((slow, finished, late));
        assert_eq!((budget.used.get(), budget.uploads.borrow().len()), (0, 0));
    }

    #[test]
    fn the_last_quarter_is_kept_for_small_uploads() {
        let (budget, now) = (Budget::new(160), Instant::now());
        let _uploads = [upload(&budget, 60, now), upload(&budget, 60, now)];
        assert_eq!(budget.share().grow(11, now), Err(Exhausted::ForNow));
        let mut small = upload(&budget, 10, now);
        assert_eq!(small.grow(1, now), Err(Exhausted::ForNow), "it is not small any more");
        small.finish_upload();
    }

    #[test]
    fn an_upload_alone_may_take_everything() {
        let (budget, now) = (Budget::new(100), Instant::now());
        let mut alone = upload(&budget, 60, now);
        assert_eq!(alone.grow(40, now), Ok(()));
        assert_eq!(alone.grow(1, now), Err(Exhausted::Entirely));
    }

    #[test]
    fn those_that_are_furthest_behind_give_way_and_no_more_than_needed() {
        let holders = |of: &[(usize, u64)]| {
            of.iter().map(|(bytes, behind)| Holder { bytes: *bytes, behind: Duration::from_secs(*behind) }).collect()
        };
        let second = Duration::from_secs(1);
        assert_eq!(giving_way(10, holders(&[(10, 2), (10, 9), (10, 5)])), Ok(9 * second));
        assert_eq!(giving_way(11, holders(&[(10, 2), (10, 9), (10, 5)])), Ok(5 * second));
        assert_eq!(giving_way(11, holders(&[(10, 1), (10, 9)])), Err(Exhausted::ForNow));
        assert_eq!(giving_way(21, holders(&[(10, 9), (10, 9)])), Err(Exhausted::Entirely));
    }
}
