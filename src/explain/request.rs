//! What can be asked, and what is answered, free of any wire form.

use std::str::FromStr;

use bytes::Bytes;

use super::adjoint::Rule;
use crate::error::{Error, Result};
use crate::postprocess::Class;
use crate::preprocess::Frame;

/// How an answer is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Class activation mapping, for heads of pooling and a linear layer: Zhou et al. 2015, "Learning Deep Features for
    /// Discriminative Localization".
    Cam,
    /// Gradient-weighted class activation mapping, for any head: Selvaraju et al. 2016, "Grad-CAM".
    Gradcam,
    /// What covering a part of the picture does to the class's probability: Zeiler and Fergus 2013, section 4.2.
    Occlusion,
    /// A projection back to the picture, by one of three rules.
    Projection(Rule),
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 6] = [
        Self::Cam,
        Self::Gradcam,
        Self::Occlusion,
        Self::Projection(Rule::Deconvnet),
        Self::Projection(Rule::Guided),
        Self::Projection(Rule::Gradient),
    ];

    /// Its name in requests and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cam => "cam",
            Self::Gradcam => "gradcam",
            Self::Occlusion => "occlusion",
            Self::Projection(Rule::Deconvnet) => "deconvnet",
            Self::Projection(Rule::Guided) => "guided",
            Self::Projection(Rule::Gradient) => "gradient",
        }
    }

    /// The rule of a projection.
    ///
    /// # Errors
    /// `InvalidArgument` for the other methods.
    pub fn rule(self) -> Result<Rule> {
        match self {
            Self::Projection(rule) => Ok(rule),
            other => Err(Error::invalid(format!(
                "{} projects nothing: the method must be deconvnet, guided or gradient here",
                other.as_str()
            ))),
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid(format!("there is no method {name}; there are {names}"))
        })
    }
}

/// A picture to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainRequest {
    /// The encoded picture.
    pub picture: Bytes,
    /// How; `None` takes CAM where the model's head allows it, else Grad-CAM, or occlusion where there are no maps or no way back to them.
    pub method: Option<Method>,
    /// The class that is asked about; `None` takes the one that classification answers first. Not with the `layer` or `unit` of a projection.
    pub class: Option<usize>,
    /// The layer whose unit is projected, or whose maps Grad-CAM weighs. `None` takes the class scores and the last feature maps.
    pub layer: Option<String>,
    /// The unit of `layer` that is projected: a channel, at its strongest place. `None` takes the strongest.
    pub unit: Option<usize>,
    /// How many units are projected, each by itself, when `unit` is `None`. `None` projects one.
    pub count: Option<usize>,
    /// Occlusion: rows and columns of the square that covers a part of the network's input. `None` takes a sixth of the input.
    pub patch: Option<usize>,
    /// Occlusion: rows and columns from one place of the square to the next. `None` takes half the square's.
    pub stride: Option<usize>,
}

impl ExplainRequest {
    /// The most units that are projected in one request.
    pub const MAX_UNITS: usize = 16;

    /// A request that says nothing but the picture.
    pub fn new(picture: Bytes) -> Self {
        Self { picture, method: None, class: None, layer: None, unit: None, count: None, patch: None, stride: None }
    }

    /// Checks that nothing is said that the method has no use for: it would be answered as if it had.
    ///
    /// # Errors
    /// `InvalidArgument` naming what is too much.
    pub(super) fn validate(&self) -> Result<()> {
        let is_projection = matches!(self.method, Some(Method::Projection(_)));
        let is_occlusion = self.method == Some(Method::Occlusion);
        let is_of_layer = is_projection && self.layer.is_some();
        let refused = [
            ("layer", self.layer.is_some() && is_occlusion),
            ("class", self.class.is_some() && (is_of_layer || self.unit.is_some())),
            ("unit", self.unit.is_some() && !is_projection),
            ("count", self.count.is_some() && (!is_projection || self.unit.or(self.class).is_some())),
            ("patch", self.patch.is_some() && !is_occlusion),
            ("stride", self.stride.is_some() && !is_occlusion),
        ];
        if let Some((name, _)) = refused.iter().find(|(_, is_refused)| *is_refused) {
            let method = self.method.map_or("class activation", Method::as_str);
            let of_layer = if is_of_layer { " of a layer" } else { "" };
            return Err(Error::invalid(format!(
                "{name} means nothing to {method}{of_layer}, beside what else was said"
            )));
        }
        for (name, side) in [("patch", self.patch), ("stride", self.stride)] {
            if side == Some(0) {
                return Err(Error::invalid(format!("{name} must be at least 1 pixel, not 0")));
            }
        }
        let (most, count) = (Self::MAX_UNITS, self.count.unwrap_or(1));
        if count == 0 || count > most {
            return Err(Error::invalid(format!("from 1 to {most} units can be projected at once, not {count}")));
        }
        Ok(())
    }
}

/// Values that lie in the network's input, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// The values. The higher, the more that place speaks for what was asked about.
    pub data: Vec<f32>,
}

impl Heatmap {
    /// # Errors
    /// `Internal` when a value is not finite: the network gave no numbers then.
    pub(super) fn new(height: usize, width: usize, data: Vec<f32>) -> Result<Self> {
        check_finite(&data)?;
        Ok(Self { height, width, data })
    }
}

/// # Errors
/// `Internal` when a value is not finite: the network gave no numbers then.
pub(super) fn check_finite(values: &[f32]) -> Result<()> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(Error::internal("the model's values are not finite numbers for this picture"))
    }
}

/// A unit that was projected.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// The channel of the layer.
    pub unit: usize,
    /// The row of its strongest place; 0 where the layer has no rows.
    pub row: usize,
    /// The column of its strongest place.
    pub column: usize,
    /// Its value there.
    pub activation: f32,
    /// What comes back to the network's input for a 1 at that place: `[3, height, width]`, red, green and blue, or `[1, …]` for
    /// models of gray pictures.
    pub projection: Vec<f32>,
}

/// Why the model answered what it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// How it was found out.
    pub method: Method,
    /// The class that it is about; `None` for the units of a layer.
    pub class: Option<Class>,
    /// The layer that was looked at; `None` for occlusion.
    pub layer: Option<String>,
    /// The units that were projected, the strongest first; empty for the other methods.
    pub units: Vec<Unit>,
    /// Of a projection, the first unit's: the largest magnitude of the channels.
    pub heatmap: Heatmap,
    /// Where the network's input lies in the picture.
    pub frame: Frame,
    /// The heatmap over the picture, or the projections, as PNG.
    pub png: Vec<u8>,
}

/// What a channel of a layer holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelStatistics {
    /// The lowest value.
    pub min: f32,
    /// The highest value.
    pub max: f32,
    /// The mean.
    pub mean: f32,
    /// The standard deviation.
    pub std: f32,
    /// The share of values above zero.
    pub active: f32,
}

/// The feature maps of a layer for a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// The layer.
    pub layer: String,
    /// The shape without the batch dimension: channels, rows and columns.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<f32>,
    /// One for each channel.
    pub channels: Vec<ChannelStatistics>,
    /// Every channel in rows of a grid, each from its lowest value (black) to its highest (white), as PNG.
    pub png: Vec<u8>,
}

/// Which pictures excite a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExcitingRequest {
    /// The layer of the unit.
    pub layer: String,
    /// The unit: a channel.
    pub unit: usize,
    /// How many pictures to show.
    pub count: usize,
    /// How the unit is projected.
    pub rule: Rule,
    /// Whether what is no picture is left out, rather than an error: of a whole data set one file may be broken.
    pub leaves_out_broken: bool,
}

impl ExcitingRequest {
    /// How many pictures are shown where nothing is said: as many as in the paper's figure.
    pub const DEFAULT_COUNT: usize = 9;
}

/// A picture that excites a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct ExcitingPicture {
    /// Which of the request's pictures it is.
    pub index: usize,
    /// The unit at its strongest place in it.
    pub unit: Unit,
    /// Where the network's input lies in the picture.
    pub frame: Frame,
}

/// The pictures that excite a unit most.
#[derive(Debug, Clone, PartialEq)]
pub struct Exciting {
    /// The layer.
    pub layer: String,
    /// The pictures, the most exciting first.
    pub pictures: Vec<ExcitingPicture>,
    /// Why others were left out, a sentence each.
    pub left_out: Vec<String>,
    /// For each picture, what the unit sees of it and the projection beside that, as PNG. `None` where there is no picture.
    pub png: Option<Vec<u8>>,
}
