//! What a model wants done to a picture, as its `config.toml` says it, and the check of that against the graph.
//!
//! Nothing here touches a pixel: a [`Recipe`] is resolved once, at load, into a `Plan` whose every value is known to be
//! sound, so that the work per picture has nothing left to refuse but the picture.

use serde::{Deserialize, Serialize};

use crate::tensor::DataType;

/// Mean and standard deviation of ImageNet's training pictures in 0 to 1, RGB: torchvision's constants.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The crop that is taken when neither the graph nor the recipe says a size: what nearly every ImageNet model was trained on.
const DEFAULT_CROP: u32 = 224;

/// No side of a network's input, nor of a resized picture, may be longer. It keeps sizes far from overflowing, and is
/// far beyond any classifier's.
const MAX_SIDE: u32 = 16_384;

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
    fn channels(self) -> usize {
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
    fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }
}

/// What a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Its own size.
    Keep,
    /// This shorter side, in proportion.
    ShorterSide(usize),
    /// This height and width.
    Exact(usize, usize),
}

/// A recipe resolved against a graph's input: every default filled in, every value checked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) target: Target,
    /// Whether a resized picture of another size than `height`×`width` is cropped and padded to it.
    pub(super) crop: bool,
    pub(super) interpolation: Interpolation,
    pub(super) color: Color,
    pub(super) layout: Layout,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) decode: Decode,
    pub(super) exif_orientation: bool,
    pub(super) scale: f64,
    /// One per channel.
    pub(super) mean: Vec<f32>,
    /// One per channel, none zero.
    pub(super) std: Vec<f32>,
}

impl Plan {
    pub(super) fn channels(&self) -> usize {
        self.color.channels()
    }

    pub(super) fn new(recipe: &Recipe, shape: &[i64], data_type: DataType) -> Result<Self, RecipeError> {
        let input = Input::new(recipe, shape)?;
        let (target, crop, [height, width]) = sizes(recipe, input.size)?;
        for (fixed, side) in input.size.into_iter().zip([height, width]) {
            if fixed.is_some_and(|fixed| fixed != side) {
                let key = if crop { "preprocess.crop" } else { "preprocess.resize" };
                let message = format!("{height}×{width} does not fit the model's input of shape {shape:?}");
                return Err(RecipeError::new(key, message));
            }
        }
        let (scale, mean, std) = normalization(recipe, input.color, data_type)?;
        Ok(Self {
            target,
            crop,
            interpolation: recipe.interpolation,
            color: input.color,
            layout: input.layout,
            height: height as usize,
            width: width as usize,
            decode: recipe.decode,
            exif_orientation: recipe.exif_orientation,
            scale,
            mean,
            std,
        })
    }
}

/// The graph's input read as a picture.
struct Input {
    color: Color,
    layout: Layout,
    /// Height and width, where the graph fixes them.
    size: [Option<u32>; 2],
}

impl Input {
    fn new(recipe: &Recipe, shape: &[i64]) -> Result<Self, RecipeError> {
        let &[first, second, third] = shape else {
            let message = format!("a picture takes three dimensions beside the batch, the model has {shape:?}");
            return Err(RecipeError::new("input", message));
        };
        let color = recipe.color.unwrap_or_else(|| {
            let one_channel = match recipe.layout {
                Some(Layout::Nchw) => first == 1,
                Some(Layout::Nhwc) => third == 1,
                None => first == 1 || (third == 1 && first != 3),
            };
            if one_channel { Color::Gray } else { Color::Rgb }
        });
        let channels = color.channels() as i64;
        let layout =
            recipe.layout.unwrap_or(if first != channels && third == channels { Layout::Nhwc } else { Layout::Nchw });
        let (found, height, width) = match layout {
            Layout::Nchw => (first, second, third),
            Layout::Nhwc => (third, first, second),
        };
        if found >= 0 && found != channels {
            let key = match (recipe.color, recipe.layout) {
                (Some(_), _) => "preprocess.color",
                (None, Some(_)) => "preprocess.layout",
                (None, None) => "input",
            };
            let message = format!("a picture of {channels} channels does not fit the model's input of shape {shape:?}");
            return Err(RecipeError::new(key, message));
        }
        Ok(Self { color, layout, size: [open_or_fixed(height, shape)?, open_or_fixed(width, shape)?] })
    }
}

fn open_or_fixed(dimension: i64, shape: &[i64]) -> Result<Option<u32>, RecipeError> {
    if dimension < 0 {
        return Ok(None);
    }
    match u32::try_from(dimension) {
        Ok(side @ 1..=MAX_SIDE) => Ok(Some(side)),
        _ => Err(RecipeError::new("input", format!("the shape {shape:?} cannot be a picture's"))),
    }
}

/// The target of resizing, whether there is a crop, and the height and width that come out.
fn sizes(recipe: &Recipe, input: [Option<u32>; 2]) -> Result<(Target, bool, [u32; 2]), RecipeError> {
    in_range("preprocess.resize", recipe.resize)?;
    in_range("preprocess.crop", recipe.crop)?;
    let exact = |[height, width]: [u32; 2]| Target::Exact(height as usize, width as usize);

    let crop = match (recipe.crop, recipe.resize) {
        (Extent::Side(side), _) => [side, side],
        (Extent::Size(size), _) => size,
        (Extent::AUTO, Extent::Size(size)) => [input[0].unwrap_or(size[0]), input[1].unwrap_or(size[1])],
        (Extent::AUTO, _) => input.map(|side| side.unwrap_or(DEFAULT_CROP)),
        (Extent::NONE, Extent::Size(size)) => return Ok((exact(size), false, size)),
        (Extent::NONE, Extent::Side(_)) => {
            let message = "\"none\" leaves the longer side open: give a crop, or give resize as [height, width]";
            return Err(RecipeError::new("preprocess.crop", message));
        }
        (Extent::NONE, resize) => {
            let [Some(height), Some(width)] = input else {
                let message = "\"none\" takes a model whose input size is fixed, or resize as [height, width]";
                return Err(RecipeError::new("preprocess.crop", message));
            };
            let size = [height, width];
            return Ok((if resize == Extent::NONE { Target::Keep } else { exact(size) }, false, size));
        }
    };
    let target = match recipe.resize {
        Extent::Side(side) => Target::ShorterSide(side as usize),
        Extent::Size(size) => exact(size),
        Extent::NONE => Target::Keep,
        // 224 of 256 is the share that torchvision's recipes crop; rounding also gives its 342 for 299.
        Extent::AUTO => Target::ShorterSide(((crop[0].min(crop[1]) * 256 + 112) / 224) as usize),
    };
    Ok((target, true, crop))
}

fn in_range(key: &'static str, extent: Extent) -> Result<(), RecipeError> {
    let sides = match extent {
        Extent::Word(_) => return Ok(()),
        Extent::Side(side) => [side, side],
        Extent::Size(size) => size,
    };
    if sides.iter().all(|side| (1..=MAX_SIDE).contains(side)) {
        return Ok(());
    }
    Err(RecipeError::new(key, format!("sizes go from 1 to {MAX_SIDE} pixels")))
}

/// Scale, mean and standard deviation, the latter two one per channel.
fn normalization(recipe: &Recipe, color: Color, data_type: DataType) -> Result<(f64, Vec<f32>, Vec<f32>), RecipeError> {
    let given = [
        ("preprocess.scale", recipe.scale.is_some()),
        ("preprocess.mean", recipe.mean.is_some()),
        ("preprocess.std", recipe.std.is_some()),
    ]
    .into_iter()
    .find_map(|(key, given)| given.then_some(key));
    match (data_type, given) {
        (DataType::Uint8, Some(key)) => {
            let message = "a model whose input is UINT8 takes the pixels as they are";
            return Err(RecipeError::new(key, message));
        }
        (DataType::Uint8 | DataType::Fp16 | DataType::Fp32, _) => {}
        _ => {
            let message = format!("pictures go into FP32, FP16 or UINT8 inputs, the model's is {data_type}");
            return Err(RecipeError::new("input", message));
        }
    }

    let scale = recipe.scale.unwrap_or(1.0 / 255.0);
    if !scale.is_finite() {
        return Err(RecipeError::new("preprocess.scale", "must be a finite number"));
    }
    let channels = color.channels();
    let [mean, std] = match (given, color) {
        (None, Color::Rgb) => [IMAGENET_MEAN.to_vec(), IMAGENET_STD.to_vec()],
        (None, Color::Bgr) => [IMAGENET_MEAN, IMAGENET_STD].map(|rgb| rgb.into_iter().rev().collect()),
        // ImageNet has no gray constants to default to.
        (None, Color::Gray) | (Some(_), _) => [
            recipe.mean.clone().unwrap_or_else(|| vec![0.0; channels]),
            recipe.std.clone().unwrap_or_else(|| vec![1.0; channels]),
        ],
    };
    for (key, values) in [("preprocess.mean", &mean), ("preprocess.std", &std)] {
        if values.len() != channels || values.iter().any(|value| !value.is_finite()) {
            return Err(RecipeError::new(key, format!("takes one finite number for each of the {channels} channels")));
        }
    }
    if std.contains(&0.0) {
        return Err(RecipeError::new("preprocess.std", "must not be 0"));
    }
    Ok((scale, mean, std))
}
