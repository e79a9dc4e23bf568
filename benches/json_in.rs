//! A JSON body into Python objects as `src/worker/convert/input.rs` asks for it, beside
//! `json.loads`; and where it is an array of numbers, into their values alone.
//!
//! `cargo bench --bench json_in` needs the `python` feature and a shared libpython, as `make test`
//! does.

use std::hint::black_box;

use _core::json::number_arrays::Reader;
use criterion::{Criterion, Throughput};
use jiter::{PythonParse, StringCacheMode};
use pyo3::{prelude::*, types::PyBytes};

fn main() -> PyResult<()> {
    Python::initialize();
    let mut criterion = Criterion::default().configure_from_args();
    Python::attach(|py| parsing(py, &mut criterion))?;
    criterion.final_summary();
    Ok(())
}

fn parsing(py: Python<'_>, criterion: &mut Criterion) -> PyResult<()> {
    let loads = py.import("json")?.getattr("loads")?;
    let numbers: Vec<f64> = (1..=50_000).map(|number| f64::from(number).sqrt()).collect();
    let records = r#"{"name": "setosa", "petal": 1.4, "sepal": 5.1, "known": true}, "#.repeat(1000);
    let bodies = [
        ("a small request", r#"{"data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}"#.to_owned()),
        ("1 MB of numbers", format!("{{\"data\": {numbers:?}}}")),
        ("1000 records", format!("{{\"data\": [{}]}}", records.trim_end_matches(", "))),
    ];
    for (name, body) in &bodies {
        let bytes = PyBytes::new(py, body.as_bytes());
        let parser = PythonParse { allow_inf_nan: true, cache_mode: StringCacheMode::Keys, ..PythonParse::default() };
        let mut group = criterion.benchmark_group(*name);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("here", |bench| bench.iter(|| parser.python_parse(py, black_box(body.as_bytes()))));
        group.bench_function("json.loads", |bench| bench.iter(|| loads.call1((black_box(&bytes),))));
        let array = || {
            let mut reader = Reader::new(black_box(body.as_bytes()));
            reader.next_key()?;
            reader.array::<f64>()
        };
        if array().is_some() {
            group.bench_function("an array", |bench| bench.iter(array));
        }
        group.finish();
    }
    Ok(())
}
