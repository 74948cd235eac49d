//! A recipe resolved against a model's input: every default filled in, every value checked.
//!
//! Nothing here touches a pixel: this is done once, at load, so that the work per picture has nothing left to refuse but the
//! picture.

use super::recipe::{Color, Decode, Extent, Interpolation, Layout, Recipe, RecipeError};
use crate::tensor::DataType;

/// Mean and standard deviation of ImageNet's training pictures in 0 to 1, RGB: torchvision's constants.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The crop that is taken when neither the graph nor the recipe says a size: what nearly every ImageNet model was trained on.
const DEFAULT_CROP: u32 = 224;

/// No side of a network's input, nor of a resized picture, may be longer. It keeps sizes far from overflowing, and is
/// far beyond any classifier's.
const MAX_SIDE: u32 = 16_384;

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

/// Which crops are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crops {
    /// The centre.
    Center,
    /// The corners and the centre.
    Five,
    /// These and their mirror images.
    Ten,
}

impl Crops {
    pub(super) fn count(self) -> usize {
        match self {
            Self::Center => 1,
            Self::Five => 5,
            Self::Ten => 10,
        }
    }
}

/// A recipe resolved against a graph's input: every default filled in, every value checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) target: Target,
    /// Whether a resized picture of another size than `height`×`width` is cropped and padded to it.
    pub(super) crop: bool,
    pub(super) crops: Crops,
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
        let crops = crops(recipe.crops, target, crop, [height as usize, width as usize])?;
        let (scale, mean, std) = normalization(recipe, input.color, data_type)?;
        Ok(Self {
            target,
            crop,
            crops,
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

/// The crops, where whatever `target` makes of a picture has room for them. A picture that keeps its own size says that later.
fn crops(count: usize, target: Target, crop: bool, [height, width]: [usize; 2]) -> Result<Crops, RecipeError> {
    let crops = match count {
        1 => return Ok(Crops::Center),
        5 => Crops::Five,
        10 => Crops::Ten,
        _ => return Err(RecipeError::new("preprocess.crops", "must be 1, 5 or 10")),
    };
    let has_room = match target {
        Target::Keep => crop,
        // A square picture has no more than that.
        Target::ShorterSide(side) => leaves_room([side, side], [height, width]),
        Target::Exact(resized_height, resized_width) => {
            crop && leaves_room([resized_height, resized_width], [height, width])
        }
    };
    if has_room {
        return Ok(crops);
    }
    let message = format!("{count} crops of {height}×{width} take a larger resized picture: raise preprocess.resize");
    Err(RecipeError::new("preprocess.crops", message))
}

fn leaves_room(resized: [usize; 2], crop: [usize; 2]) -> bool {
    resized != crop && resized.iter().zip(crop).all(|(&resized, crop)| resized >= crop)
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
