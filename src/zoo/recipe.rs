//! How a family's pictures are prepared, as the `[preprocess]` table of a model's `config.toml` says it.

use serde::Serialize;

/// The `[preprocess]` table. What a value means is `preprocess`'s business; here it is only known per family.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recipe {
    /// The shorter side is resized to this many pixels.
    pub resize: usize,
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
        resize: 256,
        crop: 224,
        interpolation: "bilinear",
        color: "rgb",
        scale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };

    /// That of EfficientNet-Lite0, whose pixels are `(x - 127) / 128`.
    pub const EFFICIENTNET_LITE0: Self = Self { scale: 1.0, mean: [127.0; 3], std: [128.0; 3], ..Self::TORCHVISION };
}
