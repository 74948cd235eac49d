//! Weights that others have published: how accurate they are, who says so, and where torchvision's can be downloaded.

use super::recipe::{Recipe, Resize};
use super::{ARCHITECTURES, Architecture};
use crate::error::{Error, Result};

/// Where torchvision's checkpoints are.
pub const CHECKPOINTS_URL: &str = "https://download.pytorch.org/models";

/// Published weights of an architecture.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// The architecture's name.
    pub architecture: &'static str,
    /// The name of the weights, torchvision's where they are torchvision's.
    pub weights: &'static str,
    /// The name of the file under [`CHECKPOINTS_URL`]; `None` where no file has the zoo's tensor names.
    pub file: Option<&'static str>,
    /// Accuracy on ImageNet's validation set in percent: the first answer is right.
    pub top1: f64,
    /// The same, where one of the first five answers is right. `None` where it was not published.
    pub top5: Option<f64>,
    /// Who published the accuracy.
    pub source: &'static str,
    /// The shorter side that pictures were resized to for it, where it is not the architecture's usual one.
    pub resize: Option<usize>,
}

impl Published {
    /// The first 8 hexadecimal digits of the file's SHA-256, which torchvision's file names end with.
    pub fn digest(&self) -> Option<&'static str> {
        self.file.map(digest)
    }

    /// How pictures are prepared for these weights.
    ///
    /// # Panics
    /// Never: the table only has architectures that there are.
    pub fn recipe(&self) -> Recipe {
        let architecture = Architecture::find(self.architecture).expect("the table names architectures");
        let resize = self.resize.map_or(architecture.recipe.resize, Resize::ShorterSide);
        Recipe { resize, ..architecture.recipe }
    }

    /// The weights that `name` means, `ARCHITECTURE` or `ARCHITECTURE:WEIGHTS`: without weights the first that torchvision
    /// published, whose files are also the ones that other programs know.
    ///
    /// # Errors
    /// `NotFound` with the names there are.
    pub fn find(name: &str) -> Result<&'static Self> {
        let (architecture, weights) =
            name.split_once(':').map_or((name, None), |(name, weights)| (name, Some(weights)));
        let architecture = Architecture::find(architecture)?.name;
        let mut files = PUBLISHED.iter().filter(|it| it.architecture == architecture && it.file.is_some()).peekable();
        if files.peek().is_none() {
            let names: Vec<_> = ARCHITECTURES.iter().map(|it| it.name).filter(|name| has_file(name)).collect();
            return Err(Error::not_found(format!(
                "no weights of {architecture} can be downloaded; there are some of {}",
                names.join(", ")
            )));
        }
        let names: Vec<_> = files.clone().map(|it| it.weights).collect();
        files.find(|it| weights.is_none_or(|weights| weights.eq_ignore_ascii_case(it.weights))).ok_or_else(|| {
            Error::not_found(format!("{architecture} has no such weights; there are {}", names.join(", ")))
        })
    }
}

fn has_file(architecture: &str) -> bool {
    PUBLISHED.iter().any(|it| it.architecture == architecture && it.file.is_some())
}

/// What stands between the last `-` of a file's name and its ending.
fn digest(file: &'static str) -> &'static str {
    let name = file.rsplit_once('.').map_or(file, |(name, _)| name);
    name.rsplit_once('-').map_or(name, |(_, digest)| digest)
}

const fn torchvision(
    architecture: &'static str,
    weights: &'static str,
    file: &'static str,
    [top1, top5]: [f64; 2],
) -> Published {
    Published {
        architecture,
        weights,
        file: Some(file),
        top1,
        top5: Some(top5),
        source: "torchvision's metadata",
        resize: None,
    }
}

const fn v1(architecture: &'static str, file: &'static str, accuracy: [f64; 2]) -> Published {
    torchvision(architecture, "IMAGENET1K_V1", file, accuracy)
}

/// torchvision's newer training of the ResNet family, measured at another resize.
const fn v2(architecture: &'static str, file: &'static str, accuracy: [f64; 2]) -> Published {
    Published { resize: Some(232), ..torchvision(architecture, "IMAGENET1K_V2", file, accuracy) }
}

const fn without_file(
    architecture: &'static str,
    weights: &'static str,
    top1: f64,
    top5: Option<f64>,
    source: &'static str,
) -> Published {
    Published { architecture, weights, file: None, top1, top5, source, resize: None }
}

/// All that is known, in the order of [`ARCHITECTURES`]. ZFNet-512's accuracy was never published.
pub const PUBLISHED: &[Published] = &[
    v1("alexnet", "alexnet-owt-7be5be79.pth", [56.522, 79.066]),
    without_file("bvlc_alexnet", "Caffe", 57.1, Some(80.2), "Caffe's models/bvlc_alexnet/readme.md"),
    without_file("caffenet", "Caffe", 57.4, Some(80.4), "Caffe's models/bvlc_reference_caffenet/readme.md"),
    without_file("nin", "Caffe", 59.36, None, "the authors' page in Caffe's model zoo"),
    v1("vgg11", "vgg11-8a719046.pth", [69.020, 88.628]),
    v1("vgg11_bn", "vgg11_bn-6002323d.pth", [70.370, 89.810]),
    v1("vgg13", "vgg13-19584684.pth", [69.928, 89.246]),
    v1("vgg13_bn", "vgg13_bn-abd245e5.pth", [71.586, 90.374]),
    v1("vgg16", "vgg16-397923af.pth", [71.592, 90.382]),
    v1("vgg16_bn", "vgg16_bn-6c64b313.pth", [73.360, 91.516]),
    v1("vgg19", "vgg19-dcbb9e9d.pth", [72.376, 90.876]),
    v1("vgg19_bn", "vgg19_bn-c79401a0.pth", [74.218, 91.842]),
    without_file("bvlc_googlenet", "Caffe", 68.7, Some(88.9), "Caffe's models/bvlc_googlenet/readme.md"),
    v1("googlenet", "googlenet-1378be20.pth", [69.778, 89.530]),
    v1("inception_v3", "inception_v3_google-0cc3c7bd.pth", [77.294, 93.450]),
    v1("resnet18", "resnet18-f37072fd.pth", [69.758, 89.078]),
    v1("resnet34", "resnet34-b627a593.pth", [73.314, 91.420]),
    v1("resnet50", "resnet50-0676ba61.pth", [76.130, 92.862]),
    v2("resnet50", "resnet50-11ad3fa6.pth", [80.858, 95.434]),
    v1("resnet101", "resnet101-63fe2227.pth", [77.374, 93.546]),
    v2("resnet101", "resnet101-cd907fc2.pth", [81.886, 95.780]),
    v1("resnet152", "resnet152-394f9c45.pth", [78.312, 94.046]),
    v2("resnet152", "resnet152-f82ba261.pth", [82.284, 96.002]),
    v1("resnext50_32x4d", "resnext50_32x4d-7cdf4587.pth", [77.618, 93.698]),
    v2("resnext50_32x4d", "resnext50_32x4d-1a0047aa.pth", [81.198, 95.340]),
    v1("resnext101_32x8d", "resnext101_32x8d-8ba56ff5.pth", [79.312, 94.526]),
    v2("resnext101_32x8d", "resnext101_32x8d-110c445d.pth", [82.834, 96.228]),
    // Its first weights are of the newer training.
    Published { resize: Some(232), ..v1("resnext101_64x4d", "resnext101_64x4d-173b62eb.pth", [83.246, 96.454]) },
    v1("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth", [78.468, 94.086]),
    v2("wide_resnet50_2", "wide_resnet50_2-9ba9bcbe.pth", [81.602, 95.758]),
    v1("wide_resnet101_2", "wide_resnet101_2-32ee1156.pth", [78.848, 94.284]),
    v2("wide_resnet101_2", "wide_resnet101_2-d733dc28.pth", [82.510, 96.020]),
    v1("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", [58.178, 80.624]),
    without_file("efficientnet-lite0", "TensorFlow", 75.1, None, "TensorFlow's efficientnet/lite/README.md"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_found_by_name_and_the_first_are_the_default() {
        assert_eq!(Published::find("resnet50").unwrap().digest(), Some("0676ba61"));
        let newer = Published::find("resnet50:imagenet1k_v2").unwrap();
        assert_eq!(newer.digest(), Some("11ad3fa6"));
        assert_eq!(newer.recipe().resize, Resize::ShorterSide(232));
        assert_eq!(Published::find("inception_v3").unwrap().digest(), Some("0cc3c7bd"));
        for (name, reason) in [
            ("resnet50:V9", "resnet50 has no such weights; there are IMAGENET1K_V1, IMAGENET1K_V2"),
            ("nin", "no weights of nin can be downloaded; there are some of alexnet, vgg11"),
            ("lenet", "there is no architecture lenet"),
        ] {
            assert!(Published::find(name).unwrap_err().message().starts_with(reason), "{name}");
        }
    }

    #[test]
    fn the_table_has_whole_digests_of_known_architectures() {
        for published in PUBLISHED {
            assert_eq!(published.recipe().crop, Architecture::find(published.architecture).unwrap().input_size);
            if let Some(digest) = published.digest() {
                assert!(digest.len() == 8 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()), "{digest}");
            }
        }
    }
}
