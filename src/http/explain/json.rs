//! The JSON of explanations.

use std::borrow::Cow;

use base64::engine::general_purpose::STANDARD;
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Serialize, Serializer};

use crate::explain::{ChannelStatistics, Exciting, ExcitingPicture, Explanation, Features, Filters, Heatmap, Unit};
use crate::preprocess::Frame;
use crate::repository::Model;

/// An answer with the model that it is of.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{T}")]
pub(in super::super) struct OfModel<T> {
    model_name: String,
    model_version: String,
    /// When that was loaded, in milliseconds since 1970: another when it has been loaded again.
    model_loaded_ms: u64,
    #[serde(flatten)]
    answer: T,
}

impl<T> OfModel<T> {
    pub(in super::super) fn new(model: &Model, answer: T) -> Self {
        Self {
            model_name: model.name().to_owned(),
            model_version: model.version().to_string(),
            model_loaded_ms: model.loaded_ms(),
            answer,
        }
    }
}

/// An explanation.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Explanation")]
pub(in super::super) struct ExplanationJson {
    method: &'static str,
    /// The class that was explained; `null` for the units of a layer.
    class: Option<ClassJson>,
    /// The layer that was used; `null` for occlusion.
    layer: Option<String>,
    /// The units that were taken back.
    units: Vec<UnitJson>,
    heatmap: HeatmapJson,
    frame: FrameJson,
    png: Png,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExplainedClass")]
struct ClassJson {
    index: usize,
    /// `null` for a model without labels.
    label: Option<String>,
    score: f32,
}

/// A unit that was taken back, where it is strongest in its layer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Unit")]
struct UnitJson {
    unit: usize,
    row: usize,
    column: usize,
    activation: f32,
}

/// Values that lie evenly over the frame.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Heatmap")]
struct HeatmapJson {
    /// Height and width.
    shape: [usize; 2],
    /// The rows, one after the other.
    data: Vec<f32>,
}

/// A part of the picture that has been turned upright, in its pixels; it may reach beyond.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Frame")]
struct FrameJson {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    picture_width: u32,
    picture_height: u32,
}

/// A PNG file, base64 on the wire.
struct Png(Vec<u8>);

impl Serialize for Png {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(&self.0, &STANDARD))
    }
}

impl JsonSchema for Png {
    fn schema_name() -> Cow<'static, str> {
        "Png".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"})
    }
}

impl From<Explanation> for ExplanationJson {
    fn from(explanation: Explanation) -> Self {
        let Explanation { method, class, layer, units, heatmap: Heatmap { height, width, data }, frame, png } =
            explanation;
        let class = class.map(|class| ClassJson {
            index: class.index,
            label: class.label.map(|label| label.to_string()),
            score: class.score,
        });
        Self {
            method: method.as_str(),
            class,
            layer,
            units: units.into_iter().map(UnitJson::from).collect(),
            heatmap: HeatmapJson { shape: [height, width], data },
            frame: frame.into(),
            png: Png(png),
        }
    }
}

impl From<Unit> for UnitJson {
    fn from(Unit { unit, row, column, activation, .. }: Unit) -> Self {
        Self { unit, row, column, activation }
    }
}

impl From<Frame> for FrameJson {
    fn from(Frame { picture_width, picture_height, x, y, width, height }: Frame) -> Self {
        Self { x, y, width, height, picture_width, picture_height }
    }
}

/// Filters.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Filters")]
pub(super) struct FiltersJson {
    layer: String,
    /// Filters, 3, height, width.
    shape: [usize; 4],
    /// The weights, row-major.
    data: Vec<f32>,
    png: Png,
}

impl From<Filters> for FiltersJson {
    fn from(Filters { layer, shape, weights, png }: Filters) -> Self {
        Self { layer, shape, data: weights, png: Png(png) }
    }
}

/// Feature maps.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Features")]
pub(super) struct FeaturesJson {
    layer: String,
    /// Channels, height, width.
    shape: Vec<usize>,
    channels: Vec<ChannelJson>,
    png: Png,
}

/// The values of a channel.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Channel")]
struct ChannelJson {
    min: f32,
    max: f32,
    mean: f32,
    std: f32,
    /// The share of values above zero.
    active: f32,
}

impl From<Features> for FeaturesJson {
    fn from(Features { layer, shape, channels, png, .. }: Features) -> Self {
        let channels = channels.into_iter().map(|ChannelStatistics { min, max, mean, std, active }| ChannelJson {
            min,
            max,
            mean,
            std,
            active,
        });
        Self { layer, shape, channels: channels.collect(), png: Png(png) }
    }
}

/// Exciting pictures.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Exciting")]
pub(super) struct ExcitingJson {
    layer: String,
    unit: usize,
    pictures: Vec<ExcitingPictureJson>,
    /// `null` where there is no picture.
    png: Option<Png>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExcitingPicture")]
struct ExcitingPictureJson {
    /// Its place in the request.
    index: usize,
    activation: f32,
    row: usize,
    column: usize,
    frame: FrameJson,
}

impl ExcitingJson {
    pub(super) fn new(unit: usize, Exciting { layer, pictures, png, left_out: _ }: Exciting) -> Self {
        let picture = |ExcitingPicture { index, unit, frame }: ExcitingPicture| ExcitingPictureJson {
            index,
            activation: unit.activation,
            row: unit.row,
            column: unit.column,
            frame: frame.into(),
        };
        Self { layer, unit, pictures: pictures.into_iter().map(picture).collect(), png: png.map(Png) }
    }
}
