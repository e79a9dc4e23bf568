//! Makes JSON of a result, exactly as `json.dumps` writes it, for the types that scripts usually
//! return.
//!
//! Takes exact `str`, `int`, `float`, `bool`, `None`, `list`, `tuple` and `dict` with `str` keys.
//! Anything else, however deep inside, makes the whole result go through `scripting/outputs.py`
//! instead, so exactness never depends on this file. Runs on the worker's main thread.

use pyo3::{
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};

use crate::json::write;

/// Deepest nesting that this file writes. Python handles deeper results, because it has its own
/// limit and error text.
const MAX_DEPTH: u32 = 100;

/// The value is not one that the fast path writes.
pub(in crate::worker) struct Unusual;

/// A result as JSON; `None` is `{}` (contract section 7).
pub(in crate::worker) fn to_json(result: &Bound<'_, PyAny>) -> Result<Vec<u8>, Unusual> {
    if result.is_none() {
        return Ok(b"{}".to_vec());
    }
    let mut out = Vec::with_capacity(128);
    write(&mut out, result, 0)?;
    Ok(out)
}

fn write(out: &mut Vec<u8>, value: &Bound<'_, PyAny>, depth: u32) -> Result<(), Unusual> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        // Lone surrogates have no UTF-8; Python writes them as escapes.
        write::write_str(out, text.to_str().map_err(|_| Unusual)?);
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        write::write_float(out, number.value());
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        let number: i64 = number.extract().map_err(|_| Unusual)?;
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    } else if value.is_none() {
        out.extend_from_slice(b"null");
    } else if let Ok(flag) = value.cast_exact::<PyBool>() {
        out.extend_from_slice(if flag.is_true() { b"true" } else { b"false" });
    } else if depth >= MAX_DEPTH {
        return Err(Unusual);
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        write_items(out, list.iter(), depth)?;
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        write_items(out, tuple.iter(), depth)?;
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        write_dict(out, dict, depth)?;
    } else {
        return Err(Unusual);
    }
    Ok(())
}

fn write_items<'py>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: u32,
) -> Result<(), Unusual> {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.extend_from_slice(write::ITEM_SEPARATOR);
        }
        write(out, &item, depth + 1)?;
    }
    out.push(b']');
    Ok(())
}

fn write_dict(out: &mut Vec<u8>, dict: &Bound<'_, PyDict>, depth: u32) -> Result<(), Unusual> {
    out.push(b'{');
    for (index, (key, value)) in dict.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(write::ITEM_SEPARATOR);
        }
        let key = key.cast_exact::<PyString>().map_err(|_| Unusual)?;
        write::write_str(out, key.to_str().map_err(|_| Unusual)?);
        out.extend_from_slice(write::KEY_SEPARATOR);
        write(out, &value, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}
