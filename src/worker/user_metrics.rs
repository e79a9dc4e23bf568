//! The metrics of the user's script, as Python objects.
//!
//! `api/metrics.py` checks names and labels, and makes one object for each series. A call of a method of these objects adds
//! to memory and does nothing else, so that it costs `run()` next to nothing.

use std::sync::{PoisonError, RwLock};

use pyo3::{exceptions::PyValueError, prelude::*};

use crate::telemetry::metrics::{
    self,
    family::Kind,
    user::{Cells, NoSlot, Series, MAX_TEXT},
};

/// The numbers of a series, and why nobody else sees them, if that is so.
fn open(series: &Series) -> (Cells, Option<&'static str>) {
    let Some(metrics) = metrics::shared() else { return (Cells::local(series), None) };
    match metrics.user.open(series, std::process::id()) {
        Ok(cells) => (cells, None),
        Err(NoSlot::Full) => (Cells::local(series), Some("full")),
        Err(NoSlot::Conflict) => (Cells::local(series), Some("conflict")),
    }
}

fn series(kind: Kind, name: &str, help: &str, labels: &[(String, String)], bounds: Vec<f64>) -> PyResult<Series> {
    let mut parts = vec![name, help];
    parts.extend(labels.iter().flat_map(|(label, value)| [label.as_str(), value.as_str()]));
    let text = parts.join("\0").into_bytes();
    if text.len() > MAX_TEXT {
        let length = text.len();
        let message =
            format!("metric {name}: name, help and labels have {length} bytes together, {MAX_TEXT} are allowed");
        return Err(PyValueError::new_err(message));
    }
    Ok(Series { kind, text, bounds })
}

fn finite(amount: f64) -> PyResult<f64> {
    if amount.is_finite() {
        Ok(amount)
    } else {
        Err(PyValueError::new_err(format!("a metric cannot count {amount}: a finite number is needed")))
    }
}

/// A number that only grows.
#[pyclass(frozen, module = "azureml_inference_server_http.api.metrics")]
pub(crate) struct Counter {
    cells: Cells,
    problem: Option<&'static str>,
}

#[pymethods]
impl Counter {
    #[new]
    fn new(name: &str, help: &str, labels: Vec<(String, String)>) -> PyResult<Self> {
        let (cells, problem) = open(&series(Kind::Counter, name, help, &labels, Vec::new())?);
        Ok(Self { cells, problem })
    }

    /// Adds to it.
    #[pyo3(signature = (amount = 1.0))]
    fn inc(&self, amount: f64) -> PyResult<()> {
        if finite(amount)? < 0.0 {
            return Err(PyValueError::new_err("a counter cannot become less: use a gauge"));
        }
        self.cells.add(amount);
        Ok(())
    }

    /// Its value: in the server the sum over all workers.
    #[getter]
    fn value(&self) -> f64 {
        self.cells.value()
    }

    /// Why `/metrics` does not show it: `full` or `conflict`; None if it does.
    #[getter]
    fn problem(&self) -> Option<&'static str> {
        self.problem
    }
}

/// A number that goes up and down.
#[pyclass(frozen, module = "azureml_inference_server_http.api.metrics")]
pub(crate) struct Gauge {
    series: Series,
    /// They change once, in a worker that was forked after the gauge was made. The lock is held for moments, with the GIL.
    cells: RwLock<Cells>,
    problem: Option<&'static str>,
}

impl Gauge {
    fn cells(&self) -> Cells {
        *self.cells.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Gauge {
    #[new]
    fn new(name: &str, help: &str, labels: Vec<(String, String)>) -> PyResult<Self> {
        let series = series(Kind::Gauge, name, help, &labels, Vec::new())?;
        let (cells, problem) = open(&series);
        Ok(Self { series, cells: RwLock::new(cells), problem })
    }

    /// Sets it.
    fn set(&self, value: f64) {
        self.cells().set(value);
    }

    /// Adds to it.
    #[pyo3(signature = (amount = 1.0))]
    fn inc(&self, amount: f64) -> PyResult<()> {
        self.cells().add(finite(amount)?);
        Ok(())
    }

    /// Subtracts from it.
    #[pyo3(signature = (amount = 1.0))]
    fn dec(&self, amount: f64) -> PyResult<()> {
        self.cells().add(-finite(amount)?);
        Ok(())
    }

    /// Its value in this process.
    #[getter]
    fn value(&self) -> f64 {
        self.cells().value()
    }

    /// Why `/metrics` does not show it: `full` or `conflict`; None if it does.
    #[getter]
    fn problem(&self) -> Option<&'static str> {
        self.problem
    }

    /// Gives this process a number of its own, with the value that the process had from which it was forked.
    fn follow_fork(&self) {
        let value = self.value();
        let (cells, _) = open(&self.series);
        cells.set(value);
        *self.cells.write().unwrap_or_else(PoisonError::into_inner) = cells;
    }
}

/// Counts values by their size.
#[pyclass(frozen, module = "azureml_inference_server_http.api.metrics")]
pub(crate) struct Histogram {
    bounds: Vec<f64>,
    cells: Cells,
    problem: Option<&'static str>,
}

#[pymethods]
impl Histogram {
    #[new]
    fn new(name: &str, help: &str, labels: Vec<(String, String)>, bounds: Vec<f64>) -> PyResult<Self> {
        let series = series(Kind::Histogram, name, help, &labels, bounds)?;
        let (cells, problem) = open(&series);
        Ok(Self { bounds: series.bounds, cells, problem })
    }

    /// Counts a value.
    fn observe(&self, value: f64) -> PyResult<()> {
        self.cells.observe(&self.bounds, finite(value)?);
        Ok(())
    }

    /// How many values it has: in the server the sum over all workers.
    #[getter]
    fn count(&self) -> u64 {
        self.cells.counts(self.bounds.len()).iter().sum()
    }

    /// The sum of all values: in the server the sum over all workers.
    #[getter]
    fn sum(&self) -> f64 {
        self.cells.sum()
    }

    /// Why `/metrics` does not show it: `full` or `conflict`; None if it does.
    #[getter]
    fn problem(&self) -> Option<&'static str> {
        self.problem
    }
}
