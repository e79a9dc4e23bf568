//! Native core of `azureml-inference-server-http`.
//!
//! One crate, two roles, never in one process: the **front** (`front`, `dispatch`, `control`) owns clients and the
//! queue and touches no Python object on the request path; a **worker** (`worker`) runs the user's script. They share
//! only [`frame`] and [`claims`]. `error`, `pyjson` and `settings` are leaves. `docs/design.md` follows one request through the files.
//!
//! pyo3 is named only here and in `settings`, `logging` and `worker`; without the `python` feature the rest builds and
//! is tested on a machine without libpython.

pub mod frame;
pub mod pyjson;
pub mod settings;

#[cfg(unix)]
pub mod claims;
#[cfg(unix)]
pub mod control;
#[cfg(unix)]
pub mod dispatch;
#[cfg(unix)]
pub mod front;

#[cfg(all(unix, feature = "python"))]
mod fd;
#[cfg(feature = "python")]
mod logging;
#[cfg(all(unix, feature = "python"))]
mod worker;

#[cfg(all(unix, feature = "python"))]
mod python_module;
