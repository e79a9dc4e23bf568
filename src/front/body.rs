//! Reading a whole request body, within the size limit.
//!
//! Runs in the front's event loop. A job is queued only with its whole body, so that a slow upload costs a buffer here
//! and never a worker.

use std::future::poll_fn;

use actix_web::{
    dev::Payload,
    error::PayloadError,
    http::header::{HeaderMap, CONTENT_LENGTH},
};
use bytes::{Bytes, BytesMut};
use futures_core::Stream as _;

use super::error::RequestError;

/// Reserved at most ahead of the bytes that arrived, whatever Content-Length says.
const MAX_RESERVE: usize = 1 << 20;

/// Collects the body; `limit` in bytes applies to the declared and to the real length.
pub async fn read(headers: &HeaderMap, payload: Payload, limit: usize) -> Result<Bytes, RequestError> {
    let too_large = || RequestError::BodyTooLarge { limit };
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut payload = std::pin::pin!(payload);
    let mut next = async || poll_fn(|cx| payload.as_mut().poll_next(cx)).await.transpose();
    let Some(first) = next().await.map_err(broken)? else {
        return Ok(Bytes::new());
    };
    // Small bodies arrive in one piece: no copy.
    let Some(second) = next().await.map_err(broken)? else {
        return Ok(first);
    };
    let expected = declared.map_or(0, |length| length as usize);
    let mut body = BytesMut::with_capacity(expected.clamp(first.len() + second.len(), limit).min(MAX_RESERVE));
    body.extend_from_slice(&first);
    body.extend_from_slice(&second);
    while let Some(chunk) = next().await.map_err(broken)? {
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    if body.len() > limit {
        return Err(too_large());
    }
    Ok(body.freeze())
}

/// Content-Length, if it was sent; the parser has checked that it is a number.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn broken(error: PayloadError) -> RequestError {
    match error {
        PayloadError::Incomplete(_) => RequestError::BodyIncomplete,
        PayloadError::EncodingCorrupted => RequestError::BodyInvalid("its chunked coding is broken.".to_owned()),
        other => RequestError::BodyInvalid(format!("{other}.")),
    }
}
