//! What a model wants done to a picture, as its `config.toml` says it.
//!
//! Words and defaults only: `plan` resolves them against a model's input.

use serde::{Deserialize, Serialize};

/// The `[preprocess]` table of a model's `config.toml`.
///
/// The default is torchvision's recipe for ImageNet: resize the shorter side to 256 (bilinear, with antialiasing), crop
/// 224×224 from the centre, divide by 255, subtract the mean and divide by the standard deviation. Where the graph fixes
/// another input size, the sizes follow it: 299 gives a crop of 299 out of a shorter side of 342.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// `n`: the shorter side becomes n pixels and the longer keeps the proportion. `[height, width]`: exactly that, the
    /// proportion given up. `"none"`: as it is. `"auto"` (the default): a shorter side of 256/224 of the crop's, or, with
    /// `crop = "none"`, exactly the graph's input size.
    pub resize: Extent,
    /// `n` or `[height, width]`: that much from the centre of the resized picture, which is padded with black where it is
    /// smaller. `"none"`: no crop. `"auto"` (the default): the graph's input size; where the graph leaves it open, the
    /// exact size of `resize`, else 224.
    pub crop: Extent,
    /// How many crops of a picture the network sees: 1 (the default), 5 (the corners and the centre) or 10 (these and their
    /// mirror images), as section 4.1 of the AlexNet paper has it. Their probabilities are averaged. More than one takes a
    /// `resize` that leaves the crop something to choose from.
    pub crops: usize,
    /// The resampling filter. Default `"bilinear"`.
    pub interpolation: Interpolation,
    /// The channels and their order. Default: `"gray"` where the graph takes one channel, else `"rgb"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<Color>,
    /// The order of the tensor's dimensions. Default: whichever puts the channels where the graph has them, else `"nchw"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// What a pixel, 0 to 255, is multiplied with before `mean` and `std` apply: `(pixel * scale - mean) / std`.
    ///
    /// With none of the three given, they are torchvision's: 1/255 and ImageNet's mean and standard deviation. With any of
    /// them given, the others default to 1/255, 0 and 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// What is subtracted after scaling: one number per channel, in the tensor's channel order. Default: see `scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// What is divided by after that: one number per channel, in the tensor's channel order. Default: see `scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// How JPEG is decoded. Default `"exact"`.
    pub decode: Decode,
    /// Whether a picture that says it lies on its side (EXIF orientation) is turned upright first. Default `true`.
    /// torchvision's own loader does not do it; every phone's pictures need it.
    pub exif_orientation: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            resize: Extent::AUTO,
            crop: Extent::AUTO,
            crops: 1,
            interpolation: Interpolation::default(),
            color: None,
            layout: None,
            scale: None,
            mean: None,
            std: None,
            decode: Decode::default(),
            exif_orientation: true,
        }
    }
}

/// A size in a recipe: a word, one number, or `[height, width]`, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, [height, width], \"auto\" or \"none\"")]
pub enum Extent {
    /// `"auto"` or `"none"`.
    Word(ExtentWord),
    /// One number.
    Side(u32),
    /// `[height, width]`.
    Size([u32; 2]),
}

/// The words that can stand for a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtentWord {
    /// Follow the graph.
    Auto,
    /// Leave this step out.
    None,
}

impl Extent {
    /// `"auto"`.
    pub const AUTO: Self = Self::Word(ExtentWord::Auto);
    /// `"none"`.
    pub const NONE: Self = Self::Word(ExtentWord::None);
}

impl Default for Extent {
    fn default() -> Self {
        Self::AUTO
    }
}

/// Pillow's resampling filters, under Pillow's names. All but `nearest` are antialiased: they widen with the scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The pixel that lies there.
    Nearest,
    /// The mean of the pixels under the output's pixel.
    Box,
    /// A triangle of one pixel to each side.
    #[default]
    Bilinear,
    /// A Hamming-windowed sinc of one pixel to each side.
    Hamming,
    /// Keys's cubic with a = -0.5, two pixels to each side.
    Bicubic,
    /// A Lanczos-windowed sinc of three pixels to each side.
    Lanczos,
}

/// The channels of the tensor and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Red, green, blue: torchvision's.
    Rgb,
    /// Blue, green, red: Caffe's.
    Bgr,
    /// One channel: ITU-R 601 luma, rounded as Pillow's `convert("L")` rounds it, before resizing.
    Gray,
}

impl Color {
    pub(super) fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// The order of the tensor's dimensions; N is the batch, which a row does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels first: `[C, H, W]`.
    Nchw,
    /// Channels last: `[H, W, C]`.
    Nhwc,
}

/// How JPEG is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// Every pixel: the tensor equals Pillow's and torchvision's to the bit.
    #[default]
    Exact,
    /// A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, straight from its DCT coefficients, as long as both sides
    /// stay at least twice what the picture is resized to.
    ///
    /// Measured on 57 JPEGs of photographs resized to a shorter side of 64: the resized pixels, 0 to 255, move by 0.2 to
    /// 1.6 on average and a single one by 16 at most. A picture of 12 megapixels takes 31 ms of CPU instead of 43 for a
    /// 224×224 input; where mozjpeg was built without nasm, 39 instead of 102. Nothing changes below four times the size
    /// that is resized to.
    Fast,
}

/// A recipe that does not hold together, or does not fit the graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct RecipeError {
    /// The key at fault, as it is reached in `config.toml` (`preprocess.crop`), or `input` where the graph's own input
    /// cannot be a picture.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl RecipeError {
    pub(super) fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }
}
