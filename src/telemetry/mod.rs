//! What the server tells about requests. No pyo3, no actix.
//!
//! [`record`] has the facts about one request, [`recorder`] gives them to the readers: the request
//! line, the record for `gunicorn.access`, and whatever exports or counts requests. [`access_line`]
//! is the text of the request line.

pub mod access_line;
pub mod record;
pub mod recorder;
pub mod trace_context;
