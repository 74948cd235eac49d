//! What may be said beside the pictures of an explanation, in the query as a rule.

use std::fmt;
use std::marker::PhantomData;
use std::num::IntErrorKind;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::{self, Error as _, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::App;
use super::super::extract::Payload;
use crate::error::{Error, Result};
use crate::explain::{Admission, ExcitingRequest, ExplainRequest, Method, Rule, Work};
use crate::inference::deadline;
use crate::repository::Model;

/// What may be said beside the picture: in the query, or in the `parameters` of KServe's verb.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Options {
    /// `cam`, `gradcam`, `occlusion`, `deconvnet`, `guided` or `gradient`; `cam` where the head allows it, else `gradcam`, or `occlusion`
    /// where there are no feature maps or no way back to them.
    #[serde(default, deserialize_with = "parsed")]
    #[schemars(with = "Option<String>", extend("enum" = Method::ALL.map(Method::as_str)))]
    method: Option<Method>,
    /// The class that is asked about, by its index; the one that classification answers first.
    #[serde(default, deserialize_with = "number")]
    class: Option<usize>,
    /// The layer whose maps are weighted, or whose units are taken back.
    #[serde(default, deserialize_with = "name")]
    layer: Option<String>,
    /// The unit of the layer that is taken back: a channel; the strongest.
    #[serde(default, deserialize_with = "number")]
    unit: Option<usize>,
    /// How many of the strongest units are taken back, each by itself; 1.
    #[serde(default, deserialize_with = "number")]
    #[schemars(range(min = 1, max = ExplainRequest::MAX_UNITS))]
    count: Option<usize>,
    /// Of occlusion: the side of the square, in pixels of the network's input; a sixth of that.
    #[serde(default, deserialize_with = "number")]
    #[schemars(range(min = 1))]
    patch: Option<usize>,
    /// Of occlusion: how far the square moves; half of the patch.
    #[serde(default, deserialize_with = "number")]
    #[schemars(range(min = 1))]
    stride: Option<usize>,
    /// After so many milliseconds the answer is of no use; 0 and nothing mean what the server allows at most.
    #[serde(default, deserialize_with = "number")]
    timeout_ms: Option<u64>,
}

impl Options {
    /// Admits a request that came with `payload`.
    pub(in super::super) fn admit(&self, app: &App, model: &Arc<Model>, payload: &Payload) -> Result<Admission> {
        app.explainer.admit(Arc::clone(model), self.work(), self.deadline(payload))
    }

    /// What is asked for.
    pub(in super::super) fn work(&self) -> Work {
        Work::Explanation(self.method)
    }

    /// After this the answer to a request that came with `payload` is of no use.
    pub(in super::super) fn deadline(&self, payload: &Payload) -> Option<Instant> {
        deadline_of(self.timeout_ms, payload)
    }

    pub(in super::super) fn request(&self, picture: Bytes) -> ExplainRequest {
        ExplainRequest {
            picture,
            method: self.method,
            class: self.class,
            layer: self.layer.clone(),
            unit: self.unit,
            count: self.count,
            patch: self.patch,
            stride: self.stride,
        }
    }
}

/// Nothing may be said in the query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NoOptions {}

/// The layer that a request is about. What must be there may be missing for serde, so that it is asked for in words.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["layer"]))]
pub(in super::super) struct FeaturesOptions {
    /// Its name, as `/architecture` has it.
    #[serde(default, deserialize_with = "name")]
    layer: Option<String>,
    /// After so many milliseconds the answer is of no use; 0 and nothing mean what the server allows at most.
    #[serde(default, deserialize_with = "number")]
    timeout_ms: Option<u64>,
}

impl FeaturesOptions {
    /// The layer.
    ///
    /// # Errors
    /// `InvalidArgument` saying where the names are where none is given.
    pub(super) fn layer(&self, model: &Model) -> Result<String> {
        named(self.layer.as_ref(), model)
    }

    /// As [`Options::deadline`].
    pub(super) fn deadline(&self, payload: &Payload) -> Option<Instant> {
        deadline_of(self.timeout_ms, payload)
    }
}

/// The unit that a request is about, and how many pictures are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["layer", "unit"]))]
pub(in super::super) struct ExcitingOptions {
    /// The layer's name.
    #[serde(default, deserialize_with = "name")]
    layer: Option<String>,
    /// The unit: a channel of the layer.
    #[serde(default, deserialize_with = "number")]
    unit: Option<usize>,
    /// How many pictures are wanted.
    #[serde(default, deserialize_with = "number")]
    #[schemars(range(min = 1), default = "default_count")]
    pub(super) count: Option<usize>,
    /// `deconvnet`, `guided` or `gradient`; `deconvnet`.
    #[serde(default, deserialize_with = "parsed")]
    #[schemars(with = "Option<String>", extend("enum" = Rule::ALL.map(|rule| Method::Projection(rule).as_str())))]
    pub(super) method: Option<Method>,
    /// After so many milliseconds the answer is of no use; 0 and nothing mean what the server allows at most.
    #[serde(default, deserialize_with = "number")]
    timeout_ms: Option<u64>,
}

fn default_count() -> usize {
    ExcitingRequest::DEFAULT_COUNT
}

impl ExcitingOptions {
    /// The layer and the unit.
    ///
    /// # Errors
    /// `InvalidArgument` saying what is to be named.
    pub(super) fn unit(&self, model: &Model) -> Result<(String, usize)> {
        let layer = named(self.layer.as_ref(), model)?;
        let unit = self.unit.ok_or_else(|| {
            Error::invalid(format!("name a unit: unit=… in the query, a channel of the layer {layer}, counted from 0"))
        })?;
        Ok((layer, unit))
    }

    /// As [`Options::deadline`].
    pub(super) fn deadline(&self, payload: &Payload) -> Option<Instant> {
        deadline_of(self.timeout_ms, payload)
    }
}

fn deadline_of(timeout_ms: Option<u64>, payload: &Payload) -> Option<Instant> {
    deadline(payload.received, timeout_ms.map(Duration::from_millis))
}

fn named(layer: Option<&String>, model: &Model) -> Result<String> {
    layer.cloned().ok_or_else(|| {
        let list = format!("/v1/models/{}/versions/{}/architecture", model.name(), model.version());
        Error::invalid(format!("name a layer: layer=… in the query; {list} lists them"))
    })
}

/// What has a form of its own, in words that say what to do where there is nothing.
fn parsed<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(text) = name(deserializer)? else { return Ok(None) };
    text.parse().map(Some).map_err(D::Error::custom)
}

/// A name that is not empty.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    if text.as_ref().is_some_and(String::is_empty) { Err(D::Error::custom(EMPTY)) } else { Ok(text) }
}

const EMPTY: &str = "there is nothing behind it: say what is wanted, or leave it out";

/// A number from 0 on, as one or as text, which a query alone has.
fn number<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_any(Number(PhantomData))
}

/// Where it is none, that is said in words that need no knowledge of parsers.
struct Number<T>(PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for Number<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 on")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Option<T>, E> {
        T::try_from(value).map(Some).map_err(|_| E::custom(format!("{value} is too large")))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Option<T>, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<T>, E> {
        match text.parse() {
            Ok(value) => self.visit_u64(value),
            Err(error) => Err(E::custom(match error.kind() {
                IntErrorKind::Empty => EMPTY.to_owned(),
                IntErrorKind::PosOverflow => format!("{text} is too large"),
                _ => format!("{text} is not a whole number from 0 on"),
            })),
        }
    }
}
