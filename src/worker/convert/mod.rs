//! Between the bytes of requests and replies, and the objects that `run()` takes and returns.

pub(super) mod arrays;
pub(super) mod inference;
pub(super) mod input;
pub(super) mod output;
