//! Reading a whole request body, within the limits of size, memory and patience.
//!
//! Runs in the front's event loop. A job is queued only with its whole body, so that a slow upload
//! costs a buffer here and never a worker.

use std::{
    future::poll_fn,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use actix_web::{
    dev::Payload,
    error::PayloadError,
    http::header::{HeaderMap, CONTENT_LENGTH},
};
use bytes::Bytes;
use futures_core::Stream as _;

use super::{
    body_rate::{Late, LeastRate, Progress},
    error::RequestError,
    memory_budget::{Exhausted, Share},
};
use crate::ipc::body::{Body, Store};

/// How long a body waits for the memory of other uploads. Longer than the time after which those
/// give way.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);
/// How often a body that waits for memory asks for it.
const ROOM_CHECK: Duration = Duration::from_millis(50);

/// The limits for a body.
pub struct Limits {
    /// Largest body in bytes; holds for the declared and for the real length.
    pub size: usize,
    /// How fast it must arrive.
    pub rate: LeastRate,
}

/// The next item of a payload: bytes, an error, or its end.
type NextPart = Option<Result<Bytes, PayloadError>>;

/// Collects the body, in `store` if it is large. Its bytes are taken from `share` as they arrive, and `arrived` counts them.
pub async fn read(
    headers: &HeaderMap,
    payload: Payload,
    limits: &Limits,
    share: &mut Share,
    store: &Store,
    arrived: &mut u64,
) -> Result<Body, RequestError> {
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > limits.size as u64) {
        return Err(RequestError::BodyTooLarge { limit: limits.size });
    }
    let progress = Progress::begin(limits.rate, Instant::now());
    let mut parts = Parts { payload, limits, share, progress, arrived };
    let Some(first) = parts.next().await? else { return Ok(Bytes::new().into()) };
    // A small body arrives in one piece and is not copied.
    let Some(second) = parts.next().await? else { return Ok(first.into()) };
    let mut body = store.begin(declared.and_then(|length| usize::try_from(length).ok()));
    body.push(&first).map_err(|_| RequestError::Internal)?;
    body.push(&second).map_err(|_| RequestError::Internal)?;
    while let Some(part) = parts.next().await? {
        body.push(&part).map_err(|_| RequestError::Internal)?;
    }
    Ok(body.finish())
}

/// Content-Length, if it was sent; the parser has checked that it is a number.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

struct Parts<'a> {
    payload: Payload,
    limits: &'a Limits,
    share: &'a mut Share,
    progress: Progress,
    arrived: &'a mut u64,
}

impl Parts<'_> {
    /// The next part within the limits; `None` at the end of the body.
    async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        let part = match self.poll().await {
            Poll::Ready(part) => part,
            Poll::Pending => self.wait().await?,
        };
        let Some(part) = part.transpose().map_err(broken)? else {
            self.share.finish_upload();
            return Ok(None);
        };
        *self.arrived += part.len() as u64;
        if *self.arrived > self.limits.size as u64 {
            return Err(RequestError::BodyTooLarge { limit: self.limits.size });
        }
        let now = self.make_room(part.len()).await?;
        self.progress.add(now, part.len());
        Ok(Some(part))
    }

    /// Takes bytes that have arrived already. Most bodies have arrived completely when the head has
    /// been read.
    async fn poll(&mut self) -> Poll<NextPart> {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut self.payload).poll_next(cx))).await
    }

    /// Waits for the client.
    async fn wait(&mut self) -> Result<NextPart, RequestError> {
        self.share.wait_for_client(self.progress);
        let (deadline, late) = self.progress.deadline();
        tokio::select! {
            biased;
            // Check this first: the body's memory has been given to another body.
            () = self.share.gave_way() => Err(RequestError::BodyGaveWay),
            part = poll_fn(|cx| Pin::new(&mut self.payload).poll_next(cx)) => Ok(part),
            () = tokio::time::sleep_until(deadline.into()) => Err(self.limits.rate.refusal(late)),
        }
    }

    /// Takes memory for a part. If there is none left, takes it from uploads that are behind their
    /// least rate. Returns the time.
    async fn make_room(&mut self, bytes: usize) -> Result<Instant, RequestError> {
        let mut now = Instant::now();
        let deadline = now + ROOM_PATIENCE;
        loop {
            match self.share.grow(bytes, now) {
                Ok(()) => return Ok(now),
                Err(Exhausted::ForNow) if now < deadline => tokio::time::sleep(ROOM_CHECK).await,
                Err(Exhausted::ForNow | Exhausted::Entirely) => return Err(RequestError::Overloaded),
            }
            now = Instant::now();
        }
    }
}

impl LeastRate {
    fn refusal(&self, late: Late) -> RequestError {
        match late {
            Late::Paused => RequestError::BodyTimeout { seconds: self.pause.as_secs_f64() },
            Late::Slow => RequestError::BodyTooSlow {
                bytes_per_second: self.bytes_per_second,
                seconds: self.grace().as_secs_f64(),
            },
        }
    }
}

fn broken(error: PayloadError) -> RequestError {
    match error {
        PayloadError::Incomplete(_) => RequestError::BodyIncomplete,
        PayloadError::EncodingCorrupted => RequestError::BodyInvalid("its chunked coding is broken.".to_owned()),
        other => RequestError::BodyInvalid(format!("{other}.")),
    }
}
