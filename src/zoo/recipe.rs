//! How a family's pictures are prepared, as the `[preprocess]` table of a model's `config.toml` says it.

use serde::Serialize;

/// What a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Resize {
    /// Its shorter side to this many pixels.
    ShorterSide(usize),
    /// Exactly to this height and width, whatever its proportion.
    Exact([usize; 2]),
}

/// The `[preprocess]` table. What a value means is `preprocess`'s business; here it is only known per family.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recipe {
    /// What is resized to.
    pub resize: Resize,
    /// The centre square of this many pixels is taken.
    pub crop: usize,
    /// The filter of the resize.
    pub interpolation: &'static str,
    /// The order of the channels.
    pub color: &'static str,
    /// What the values 0 to 255 are multiplied by.
    pub scale: f64,
    /// What is then subtracted per channel.
    pub mean: [f64; 3],
    /// What is then divided by per channel.
    pub std: [f64; 3],
}

impl Recipe {
    /// torchvision's recipe of the first ImageNet weights (`IMAGENET1K_V1`). The newer `V2` weights of the ResNet family
    /// were measured with `resize = 232`.
    pub const TORCHVISION: Self = Self {
        resize: Resize::ShorterSide(256),
        crop: 224,
        interpolation: "bilinear",
        color: "rgb",
        scale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };

    /// That of EfficientNet-Lite0, whose pixels are `(x - 127) / 128`.
    pub const EFFICIENTNET_LITE0: Self = Self { scale: 1.0, mean: [127.0; 3], std: [128.0; 3], ..Self::TORCHVISION };

    /// That of Inception's weights from TensorFlow: pixels from -1 to 1. torchvision normalises as ever and has the network undo
    /// it (`transform_input`), which comes to the same.
    pub const INCEPTION_224: Self = Self { mean: [0.5; 3], std: [0.5; 3], ..Self::TORCHVISION };

    /// That of Inception v3.
    pub const INCEPTION_299: Self = Self { resize: Resize::ShorterSide(342), crop: 299, ..Self::INCEPTION_224 };

    /// Caffe's, for AlexNet: the whole picture squeezed into a square, BGR from 0 to 255, less ILSVRC-12's mean pixel. Training
    /// subtracted the mean picture; of the two, only the pixel is the same at every place.
    pub const CAFFE_227: Self = Self {
        resize: Resize::Exact([256, 256]),
        crop: 227,
        interpolation: "bilinear",
        color: "bgr",
        scale: 1.0,
        mean: [104.0, 117.0, 123.0],
        std: [1.0; 3],
    };

    /// The same for networks of 224x224.
    pub const CAFFE_224: Self = Self { crop: 224, ..Self::CAFFE_227 };

    /// The same with the paper's resize of the shorter side. That the channels are BGR is the habit of the framework that the
    /// ONNX model zoo's weights come from, and not written down anywhere.
    pub const ZFNET: Self = Self { resize: Resize::ShorterSide(256), ..Self::CAFFE_224 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inceptions_recipe_is_torchvisions_with_transform_input() {
        let (usual, inception) = (Recipe::TORCHVISION, Recipe::INCEPTION_299);
        for channel in 0..3 {
            for pixel in [0.0, 1.0, 127.0, 255.0] {
                let normalise = |recipe: Recipe| (pixel * recipe.scale - recipe.mean[channel]) / recipe.std[channel];
                let transformed = normalise(usual) * (usual.std[channel] / 0.5) + (usual.mean[channel] - 0.5) / 0.5;
                assert!((transformed - normalise(inception)).abs() < 1e-12);
            }
        }
    }
}
