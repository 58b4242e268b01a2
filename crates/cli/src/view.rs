//! Reading the daemon's JSON: by pointer (RFC 6901), with Go's zero values where something is absent.

use serde_json::{Map, Value};

/// Reads of a JSON object.
pub(crate) trait View {
    /// A string, or "".
    fn text(&self, pointer: &str) -> &str;
    /// An integer, or 0.
    fn int(&self, pointer: &str) -> i64;
    /// A boolean, or false.
    fn yes(&self, pointer: &str) -> bool;
    /// An array, or the empty one.
    fn list(&self, pointer: &str) -> &[Value];
    /// The members of an object, or `None`.
    fn map(&self, pointer: &str) -> Option<&Map<String, Value>>;
    /// An array's strings.
    fn texts(&self, pointer: &str) -> Vec<&str> {
        self.list(pointer).iter().filter_map(Value::as_str).collect()
    }
}

impl View for Value {
    fn text(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
    fn int(&self, pointer: &str) -> i64 {
        self.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
    }
    fn yes(&self, pointer: &str) -> bool {
        self.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
    }
    fn list(&self, pointer: &str) -> &[Value] {
        self.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
    fn map(&self, pointer: &str) -> Option<&Map<String, Value>> {
        self.pointer(pointer).and_then(Value::as_object)
    }
}
