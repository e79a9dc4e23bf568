//! Reading a whole request body, within the limits of size, memory and patience.
//!
//! Runs in the front's event loop. A job is queued only with its whole body, so that a slow upload costs a buffer here
//! and never a worker.

use std::{future::poll_fn, time::Duration};

use actix_web::{
    dev::Payload,
    error::PayloadError,
    http::header::{HeaderMap, CONTENT_LENGTH},
};
use bytes::Bytes;
use futures_core::Stream as _;

use super::{budget::Share, error::RequestError};
use crate::body::{Body, Store};

/// What a body may cost.
pub struct Limits {
    /// Largest body in bytes; holds for the declared and for the real length.
    pub size: usize,
    /// Longest pause between two parts.
    pub pause: Duration,
}

/// Collects the body, in `store` if it is large. Its bytes are taken from `share` as they arrive.
pub async fn read(
    headers: &HeaderMap,
    payload: Payload,
    limits: &Limits,
    share: &mut Share,
    store: &Store,
) -> Result<Body, RequestError> {
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > limits.size as u64) {
        return Err(RequestError::BodyTooLarge { limit: limits.size });
    }
    let mut parts = Parts { payload, limits, share, length: 0 };
    let Some(first) = parts.next().await? else { return Ok(Bytes::new().into()) };
    // Small bodies arrive in one piece: no copy.
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
    length: usize,
}

impl Parts<'_> {
    /// The next part within the limits; `None` at the end of the body.
    async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        let next = poll_fn(|cx| std::pin::Pin::new(&mut self.payload).poll_next(cx));
        let timed_out = RequestError::BodyTimeout { seconds: self.limits.pause.as_secs_f64() };
        let part = tokio::time::timeout(self.limits.pause, next).await.map_err(|_| timed_out)?;
        let Some(part) = part.transpose().map_err(broken)? else { return Ok(None) };
        self.length += part.len();
        if self.length > self.limits.size {
            return Err(RequestError::BodyTooLarge { limit: self.limits.size });
        }
        self.share.grow(part.len()).map_err(|_| RequestError::Overloaded)?;
        Ok(Some(part))
    }
}

fn broken(error: PayloadError) -> RequestError {
    match error {
        PayloadError::Incomplete(_) => RequestError::BodyIncomplete,
        PayloadError::EncodingCorrupted => RequestError::BodyInvalid("its chunked coding is broken.".to_owned()),
        other => RequestError::BodyInvalid(format!("{other}.")),
    }
}
