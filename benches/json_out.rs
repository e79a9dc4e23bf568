//! The text side of rendering a result, without Python objects: `cargo bench --no-default-features
//! --bench json_out`.

use std::hint::black_box;

use _core::json::write;
use criterion::{Criterion, Throughput};

const COUNT: u32 = 10_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    floats(&mut criterion);
    strings(&mut criterion);
    criterion.final_summary();
}

fn floats(criterion: &mut Criterion) {
    // Numbers between 0 and 1 with all their digits, as probabilities have them; no generator is
    // worth a dependency.
    let full: Vec<f64> = (1..=COUNT).map(|number| f64::from(number).sqrt().fract()).collect();
    let short: Vec<f64> = (1..=COUNT).map(|number| f64::from(number % 1000) / 8.0).collect();
    let tiny: Vec<f64> = full.iter().map(|number| number * 1e-9).collect();

    let mut group = criterion.benchmark_group("write_float");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    for (name, values) in [("17 digits", &full), ("few digits", &short), ("exponents", &tiny)] {
        group.bench_function(name, |bench| {
            let mut out = Vec::new();
            bench.iter(|| {
                out.clear();
                for &value in black_box(values) {
                    write::write_float(&mut out, value);
                    out.extend_from_slice(write::ITEM_SEPARATOR);
                }
                out.len()
            });
        });
    }
    group.finish();
}

fn strings(criterion: &mut Criterion) {
    let texts = [
        ("a word", "setosa".to_owned()),
        ("plain text", "The quick brown fox jumps over the lazy dog. ".repeat(200)),
        ("text with escapes", "\"path\": \"C:\\models\"\n".repeat(200)),
        ("text beyond ASCII", "Größe \u{2264} 5 \u{1f600} ".repeat(200)),
    ];
    let mut group = criterion.benchmark_group("write_str");
    for (name, text) in &texts {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |bench| {
            let mut out = Vec::new();
            bench.iter(|| {
                out.clear();
                write::write_str(&mut out, black_box(text));
                out.len()
            });
        });
    }
    group.finish();
}
