//! Metrics of the user's script: `azureml_inference_server_http.api.metrics`.
//!
//! Each series has a slot in memory that all processes of the server share, and workers add to it with atomic operations. So
//! the values of all workers are summed by themselves, and stay when a worker ends. A gauge has one slot for each process,
//! because it says what is so in that process; its slot is given back when the process has ended.
//!
//! No lock is ever held: a process may die at any time. Two workers that open the same series at the same moment may get two
//! slots; the reader sums those.

use std::{
    collections::BTreeMap,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{
    family::Kind,
    output::{Label, Output},
};

/// How many series all scripts of a server may have.
pub const MAX_SERIES: usize = 500;
/// How many buckets a histogram may have, without the one for all larger values.
pub const MAX_BOUNDS: usize = 16;
/// Limit for name, help, names and values of labels of a series together, in bytes.
pub const MAX_TEXT: usize = 320;

// A slot: its state, what it is, its process, its text, its numbers.
const STATE: usize = 0;
const SHAPE: usize = 1;
const PROCESS: usize = 2;
const TEXT: usize = 3;
const CELLS: usize = TEXT + MAX_TEXT / 8;
/// Numbers of a slot: for a histogram the bounds, the counts and the sum. Others use the first one.
const CELL_COUNT: usize = 2 * MAX_BOUNDS + 2;
const SLOT: usize = CELLS + CELL_COUNT;
/// How many words [`UserMetrics::at`] needs.
pub const LENGTH: usize = MAX_SERIES * SLOT;

// States of a slot. A slot that was a gauge's is used for another gauge only, because a process that a worker has left
// behind may still write to it.
const FREE: u64 = 0;
const BEING_WRITTEN: u64 = 1;
const READY: u64 = 2;
const FREE_GAUGE: u64 = 3;

/// What a series is.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Type of its family.
    pub kind: Kind,
    /// Name, help, and the name and the value of each label, with a zero byte between them.
    pub text: Vec<u8>,
    /// Upper bounds of the buckets of a histogram.
    pub bounds: Vec<f64>,
}

/// Why a series has no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlot {
    /// There are [`MAX_SERIES`] already.
    Full,
    /// The server has a metric of this name with another type or other buckets, or one of the two is a histogram with
    /// series of the other's name.
    Conflict,
}

/// The numbers of one series.
#[derive(Debug, Clone, Copy)]
pub struct Cells(&'static [AtomicU64]);

impl Cells {
    /// Numbers that no other process sees, and that `/metrics` does not show.
    pub fn local(series: &Series) -> Self {
        let cells = Self(Vec::leak((0..CELL_COUNT).map(|_| AtomicU64::new(0)).collect()));
        cells.set_bounds(&series.bounds);
        cells
    }

    fn set_bounds(self, bounds: &[f64]) {
        for (cell, bound) in self.0.iter().zip(bounds) {
            cell.store(bound.to_bits(), Relaxed);
        }
    }

    /// Adds to a counter or a gauge.
    pub fn add(self, amount: f64) {
        add(&self.0[0], amount);
    }

    /// Sets a gauge.
    pub fn set(self, value: f64) {
        self.0[0].store(value.to_bits(), Relaxed);
    }

    /// The value of a counter or a gauge.
    pub fn value(self) -> f64 {
        f64::from_bits(self.0[0].load(Relaxed))
    }

    /// Counts a value in a histogram that has these bounds.
    pub fn observe(self, bounds: &[f64], value: f64) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.0[MAX_BOUNDS + bucket].fetch_add(1, Relaxed);
        add(&self.0[CELL_COUNT - 1], value);
    }

    /// How many values are in each bucket of a histogram, and in the one for all larger values.
    pub fn counts(self, bounds: usize) -> Vec<u64> {
        self.0[MAX_BOUNDS..=MAX_BOUNDS + bounds].iter().map(|cell| cell.load(Relaxed)).collect()
    }

    /// The sum of all values in a histogram.
    pub fn sum(self) -> f64 {
        f64::from_bits(self.0[CELL_COUNT - 1].load(Relaxed))
    }
}

fn add(cell: &AtomicU64, amount: f64) {
    let add = |bits| Some((f64::from_bits(bits) + amount).to_bits());
    // The closure always returns a value, so this never fails.
    let _ = cell.fetch_update(Relaxed, Relaxed, add);
}

/// The slots of a server; copies share them.
#[derive(Debug, Clone, Copy)]
pub struct UserMetrics {
    words: &'static [AtomicU64],
}

impl UserMetrics {
    /// The slots in these words, of which there must be [`LENGTH`].
    pub const fn at(words: &'static [AtomicU64]) -> Self {
        Self { words }
    }

    fn slots(self) -> impl Iterator<Item = Slot> {
        self.words.chunks_exact(SLOT).map(Slot)
    }

    /// The numbers of a series, as this process shares them with the others.
    pub fn open(self, series: &Series, pid: u32) -> Result<Cells, NoSlot> {
        let owner = if series.kind == Kind::Gauge { u64::from(pid) } else { 0 };
        for slot in self.slots().filter(|slot| slot.is_ready()) {
            let Some(found) = slot.series() else { continue };
            let (name, other) = (name_of(&series.text), name_of(&found.text));
            if is_part(name, series.kind, other) || is_part(other, found.kind, name) {
                return Err(NoSlot::Conflict);
            }
            if name != other {
                continue;
            }
            if found.kind != series.kind || found.bounds != series.bounds {
                return Err(NoSlot::Conflict);
            }
            if found.text == series.text && slot.0[PROCESS].load(Relaxed) == owner {
                return Ok(slot.cells());
            }
        }
        let usable = if series.kind == Kind::Gauge { [FREE_GAUGE, FREE] } else { [FREE, FREE] };
        for state in usable {
            for slot in self.slots() {
                if slot.0[STATE].compare_exchange(state, BEING_WRITTEN, Acquire, Relaxed).is_ok() {
                    slot.write(series, owner);
                    return Ok(slot.cells());
                }
            }
        }
        Err(NoSlot::Full)
    }

    /// Gives back the gauges of a process that has ended.
    pub fn forget_process(self, pid: u32) {
        for slot in self.slots() {
            if slot.is_ready() && slot.0[PROCESS].load(Relaxed) == u64::from(pid) {
                slot.0[STATE].store(FREE_GAUGE, Release);
            }
        }
    }

    /// Writes all families. A gauge counts if its process is one of `workers`.
    pub fn write(self, text: &mut dyn Output, workers: &[u32]) {
        let mut families = BTreeMap::<Vec<u8>, Family>::new();
        for slot in self.slots().filter(|slot| slot.is_ready()) {
            let Some(series) = slot.series() else { continue };
            let process = slot.0[PROCESS].load(Relaxed);
            if series.kind == Kind::Gauge && !workers.iter().any(|pid| u64::from(*pid) == process) {
                continue;
            }
            let family = families.entry(name_of(&series.text).to_vec()).or_insert_with(|| Family {
                kind: series.kind,
                bounds: series.bounds.clone(),
                series: BTreeMap::new(),
            });
            if family.kind != series.kind || family.bounds != series.bounds {
                // Two workers have opened different metrics of one name at the same moment. The first one is shown.
                continue;
            }
            let total = family.series.entry(series.text).or_default();
            total.add(slot.cells(), series.kind, family.bounds.len());
        }
        // Two workers may have opened a histogram and a metric with the name of one of its parts at the same moment. The
        // text would not be valid with both.
        let is_histogram = |name: &[u8]| families.get(name).is_some_and(|family| family.kind == Kind::Histogram);
        let is_shown = |name: &[u8]| !wholes_of(name).any(is_histogram);
        families.iter().filter(|(name, _)| is_shown(name)).for_each(|(_, family)| family.write(text));
    }
}

/// One slot.
#[derive(Clone, Copy)]
struct Slot(&'static [AtomicU64]);

impl Slot {
    fn is_ready(self) -> bool {
        self.0[STATE].load(Acquire) == READY
    }

    fn cells(self) -> Cells {
        Cells(&self.0[CELLS..])
    }

    fn write(self, series: &Series, owner: u64) {
        self.0[PROCESS].store(owner, Relaxed);
        let kind = match series.kind {
            Kind::Counter => 0,
            Kind::Gauge | Kind::UpDown => 1,
            Kind::Histogram => 2,
        };
        let shape = kind << 48 | (series.bounds.len() as u64) << 32 | series.text.len() as u64;
        self.0[SHAPE].store(shape, Relaxed);
        for (word, bytes) in self.0[TEXT..CELLS].iter().zip(series.text.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Relaxed);
        }
        self.0[CELLS..].iter().for_each(|cell| cell.store(0, Relaxed));
        self.cells().set_bounds(&series.bounds);
        self.0[STATE].store(READY, Release);
    }

    /// What the slot is used for; `None` if the script has overwritten the memory.
    fn series(self) -> Option<Series> {
        let shape = self.0[SHAPE].load(Relaxed);
        let kind = match shape >> 48 {
            0 => Kind::Counter,
            1 => Kind::Gauge,
            2 => Kind::Histogram,
            _ => return None,
        };
        let (bounds, length) = ((shape >> 32 & 0xffff) as usize, (shape & 0xffff_ffff) as usize);
        if bounds > MAX_BOUNDS || length > MAX_TEXT {
            return None;
        }
        let words = self.0[TEXT..CELLS].iter();
        let mut text: Vec<u8> = words.flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
        text.truncate(length);
        let bounds = self.0[CELLS..CELLS + bounds].iter().map(|cell| f64::from_bits(cell.load(Relaxed))).collect();
        Some(Series { kind, text, bounds })
    }
}

/// The slots of one name, summed by their labels.
struct Family {
    kind: Kind,
    bounds: Vec<f64>,
    series: BTreeMap<Vec<u8>, Total>,
}

impl Family {
    fn write(&self, text: &mut dyn Output) {
        let mut is_first = true;
        for (described, total) in &self.series {
            let described = String::from_utf8_lossy(described);
            let mut parts = described.split('\0');
            let (name, help) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let mut labels: Vec<Label<'_>> = Vec::new();
            while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
                labels.push((label, value));
            }
            if std::mem::take(&mut is_first) {
                text.begin(name, self.kind, help);
            }
            match self.kind {
                Kind::Counter | Kind::Gauge | Kind::UpDown => text.sample(name, &labels, total.sum),
                Kind::Histogram => text.histogram(name, &labels, &self.bounds, &total.counts, total.sum),
            }
        }
    }
}

/// The numbers of some slots together.
#[derive(Default)]
struct Total {
    counts: Vec<u64>,
    sum: f64,
}

impl Total {
    fn add(&mut self, cells: Cells, kind: Kind, bounds: usize) {
        if kind != Kind::Histogram {
            self.sum += cells.value();
            return;
        }
        self.sum += cells.sum();
        self.counts.resize(bounds + 1, 0);
        for (total, count) in self.counts.iter_mut().zip(cells.counts(bounds)) {
            *total = total.saturating_add(count);
        }
    }
}

fn name_of(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether this family is a histogram that has series of the name `other`. `api/metrics.py` refuses such names if one
/// worker uses both.
fn is_part(family: &[u8], kind: Kind, other: &[u8]) -> bool {
    kind == Kind::Histogram && wholes_of(other).any(|whole| whole == family)
}

/// The names of the histograms that would have series of this name.
fn wholes_of(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    [&b"_bucket"[..], b"_sum", b"_count"].into_iter().filter_map(|part| name.strip_suffix(part))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;
