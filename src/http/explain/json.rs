//! The JSON of explanations.

use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::explain::{ChannelStatistics, Exciting, ExcitingPicture, Explanation, Features, Filters, Heatmap, Unit};
use crate::preprocess::Frame;
use crate::repository::Model;

/// An answer with the model that it is of.
#[derive(Serialize)]
pub(in super::super) struct OfModel<T> {
    model_name: String,
    model_version: String,
    #[serde(flatten)]
    answer: T,
}

impl<T> OfModel<T> {
    pub(in super::super) fn new(model: &Model, answer: T) -> Self {
        Self { model_name: model.name().to_owned(), model_version: model.version().to_string(), answer }
    }
}

/// An explanation.
#[derive(Serialize)]
pub(in super::super) struct ExplanationJson {
    method: &'static str,
    class: Option<ClassJson>,
    layer: Option<String>,
    units: Vec<UnitJson>,
    heatmap: HeatmapJson,
    frame: FrameJson,
    png: Png,
}

#[derive(Serialize)]
struct ClassJson {
    index: usize,
    label: Option<String>,
    score: f32,
}

#[derive(Serialize)]
struct UnitJson {
    unit: usize,
    row: usize,
    column: usize,
    activation: f32,
}

#[derive(Serialize)]
struct HeatmapJson {
    shape: [usize; 2],
    data: Vec<f32>,
}

#[derive(Serialize)]
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
#[derive(Serialize)]
pub(super) struct FiltersJson {
    layer: String,
    shape: [usize; 4],
    data: Vec<f32>,
    png: Png,
}

impl From<Filters> for FiltersJson {
    fn from(Filters { layer, shape, weights, png }: Filters) -> Self {
        Self { layer, shape, data: weights, png: Png(png) }
    }
}

/// Feature maps.
#[derive(Serialize)]
pub(super) struct FeaturesJson {
    layer: String,
    shape: Vec<usize>,
    channels: Vec<ChannelJson>,
    png: Png,
}

#[derive(Serialize)]
struct ChannelJson {
    min: f32,
    max: f32,
    mean: f32,
    std: f32,
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
#[derive(Serialize)]
pub(super) struct ExcitingJson {
    layer: String,
    unit: usize,
    pictures: Vec<ExcitingPictureJson>,
    png: Png,
}

#[derive(Serialize)]
struct ExcitingPictureJson {
    index: usize,
    activation: f32,
    row: usize,
    column: usize,
    frame: FrameJson,
}

impl ExcitingJson {
    pub(super) fn new(unit: usize, Exciting { layer, pictures, png }: Exciting) -> Self {
        let picture = |ExcitingPicture { index, unit, frame }: ExcitingPicture| ExcitingPictureJson {
            index,
            activation: unit.activation,
            row: unit.row,
            column: unit.column,
            frame: frame.into(),
        };
        Self { layer, unit, pictures: pictures.into_iter().map(picture).collect(), png: Png(png) }
    }
}
