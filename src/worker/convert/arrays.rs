//! Arguments that are numpy arrays by schema, read from the JSON body without a Python object for
//! each number.
//!
//! This file replaces a list by an array only if inference-schema would certainly make the same
//! array. Otherwise Python parses the whole body, because its values and error texts are the rule.
//! `scripting/arrays.py` says which parameters are arrays; `json/number_arrays.rs` reads the
//! numbers. Runs on the worker's thread.

use pyo3::{
    buffer::{Element, PyBuffer},
    intern,
    prelude::*,
    types::{PyDict, PyTuple},
};

use crate::{
    json::number_arrays::{Array, Number, Reader},
    worker::script::Script,
};

/// Smallest body that is read this way. Asking about the schema takes longer than parsing a smaller
/// one.
const WORTH_IT: usize = 16 * 1024;

/// Replaces an array in the document that Python parses.
const PLACEHOLDER: &[u8] = b"0";

/// `arrays.ArrayInput`: a parameter, and the arrays it takes.
#[derive(FromPyObject)]
struct ArrayInput<'py> {
    name: String,
    dtype: Bound<'py, PyAny>,
    type_name: String,
    /// The number of dimensions, and the length of each but the first; `None` if any shape will do.
    shape: Option<Vec<usize>>,
}

/// The members of the JSON object in `body`, with an array for each parameter that takes one.
/// `parse` reads the document without the arrays. `None` if a value is not plain numbers, nothing
/// is an array, or the body is small.
pub(super) fn members<'py>(
    py: Python<'py>,
    script: &Script<'py>,
    body: &[u8],
    parse: impl FnOnce(&[u8]) -> Option<Bound<'py, PyDict>>,
) -> Option<Bound<'py, PyDict>> {
    if body.len() < WORTH_IT {
        return None;
    }
    let inputs: Vec<ArrayInput<'_>> = script.object.call_method0(intern!(py, "array_inputs")).ok()?.extract().ok()?;
    let (arrays, remaining) = take_arrays(py, &inputs, body)?;
    let members = parse(&remaining)?;
    for (name, array) in arrays {
        members.set_item(name, array).ok()?;
    }
    Some(members)
}

type Named<'a, 'py> = (&'a str, Bound<'py, PyAny>);

/// The arrays by name, and the document without them. It is correct JSON if and only if the whole
/// body is.
fn take_arrays<'a, 'py>(
    py: Python<'py>,
    inputs: &'a [ArrayInput<'py>],
    body: &[u8],
) -> Option<(Vec<Named<'a, 'py>>, Vec<u8>)> {
    let mut arrays: Vec<Named<'_, '_>> = Vec::new();
    let mut remaining = Vec::new();
    let mut taken = 0;
    let mut reader = Reader::new(body);
    while let Some(key) = reader.next_key()? {
        let Some(input) = inputs.iter().find(|input| input.name.as_bytes() == key) else {
            reader.skip_value()?;
            continue;
        };
        // Of equal keys the last counts, which may hold anything.
        if arrays.iter().any(|(name, _)| *name == input.name) {
            return None;
        }
        remaining.extend_from_slice(&body[taken..reader.position()]);
        remaining.extend_from_slice(PLACEHOLDER);
        arrays.push((&input.name, input.array(py, &mut reader)?));
        taken = reader.position();
    }
    remaining.extend_from_slice(&body[taken..]);
    (!arrays.is_empty()).then_some((arrays, remaining))
}

impl<'py> ArrayInput<'py> {
    /// Reads a value.
    fn array(&self, py: Python<'py>, reader: &mut Reader<'_>) -> Option<Bound<'py, PyAny>> {
        match self.type_name.as_str() {
            "float64" => self.filled(py, &reader.array::<f64>()?),
            "float32" => self.filled(py, &reader.array::<f32>()?),
            "int64" => self.filled(py, &reader.array::<i64>()?),
            "int32" => self.filled(py, &reader.array::<i32>()?),
            "uint8" => self.filled(py, &reader.array::<u8>()?),
            _ => None,
        }
    }

    fn filled<T: Number + Element>(&self, py: Python<'py>, read: &Array<T>) -> Option<Bound<'py, PyAny>> {
        if self.shape.as_ref().is_some_and(|shape| shape.len() != read.shape.len() || shape[1..] != read.shape[1..]) {
            return None;
        }
        let shape = PyTuple::new(py, &read.shape).ok()?;
        let array =
            py.import(intern!(py, "numpy")).ok()?.call_method1(intern!(py, "empty"), (shape, &self.dtype)).ok()?;
        PyBuffer::<T>::get(&array).ok()?.copy_from_slice(py, &read.values).ok()?;
        Some(array)
    }
}
