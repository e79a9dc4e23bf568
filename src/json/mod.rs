//! JSON text as Python's `json` module would write it, and numbers read from JSON text. Knows no
//! Python objects: `worker` has those. No pyo3.

pub mod number_arrays;
pub mod utf8;
pub mod write;
