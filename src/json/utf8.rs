//! JSON strings in UTF-8, as serde_json writes them: for log lines and telemetry, which need no form of Python's.

/// Appends `text` as a JSON string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    // Text can always be written to a vector.
    let _ = serde_json::to_writer(out, text);
}
