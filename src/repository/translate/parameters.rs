//! `parameters`: ONNX Runtime's, and convoy's own under a prefix.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::repository::config::ModelConfig;
use crate::triton::proto::ModelParameter;

/// What begins the name of a parameter that is a key of `config.toml`: `convoy.preprocess.resize`.
pub(super) const PREFIX: &str = "convoy.";
/// What begins the name of one that says how a picture becomes the input tensor.
pub(super) const RECIPE: &str = "convoy.preprocess.";

/// Lays the parameters under [`PREFIX`] over `config`. What they say goes before what other fields say.
pub(super) fn lay_over(
    config: ModelConfig,
    parameters: &BTreeMap<String, ModelParameter>,
) -> Result<ModelConfig, String> {
    let mut own = parameters.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value))).peekable();
    if own.peek().is_none() {
        return Ok(config);
    }
    let Ok(Value::Object(mut keys)) = serde_json::to_value(&config) else {
        return Err(format!("parameters: {PREFIX}… cannot be laid over the configuration"));
    };
    for (key, value) in own {
        set(&mut keys, key, parse(&value.string_value))
            .ok_or_else(|| format!("parameters: {PREFIX}{key}: there is no such key"))?;
    }
    serde_json::from_value(Value::Object(keys)).map_err(|error| format!("parameters: {PREFIX}…: {error}"))
}

/// A value as `config.toml` has it; a word needs no quotes.
fn parse(text: &str) -> Value {
    let word = || Value::String(text.to_owned());
    let Ok(table) = format!("value = {text}").parse::<toml::Table>() else { return word() };
    match table.get("value") {
        Some(value) if table.len() == 1 && !value.is_datetime() => {
            serde_json::to_value(value).unwrap_or_else(|_| word())
        }
        _ => word(),
    }
}

/// Sets what `path`, names joined by points, leads to. `None` where it leads through what has no keys.
fn set(keys: &mut Map<String, Value>, path: &str, value: Value) -> Option<()> {
    let Some((table, rest)) = path.split_once('.') else {
        keys.insert(path.to_owned(), value);
        return Some(());
    };
    let inner = keys.entry(table).or_insert(Value::Null);
    if inner.is_null() {
        *inner = Value::Object(Map::new());
    }
    set(inner.as_object_mut()?, rest, value)
}
