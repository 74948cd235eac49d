//! Parameters and multiply-accumulates are as many as published.

use convoy::zoo::describe::Description;
use convoy::zoo::{ARCHITECTURES, IMAGENET_CLASSES};

/// Name, learned parameters, and multiply-accumulates of convolutions and fully connected layers in millions for one picture, both
/// without side branches.
///
/// Where torchvision has the network, the parameters are its published `num_params`. Those of EfficientNet-Lite0 are counted by
/// efficientnet-lite-pytorch, the others' in the files of Caffe's and the ONNX model zoo. The multiply-accumulates were counted by
/// hooks in PyTorch.
const PUBLISHED: &[(&str, u64, f64)] = &[
    ("alexnet", 61_100_840, 714.188),
    ("bvlc_alexnet", 60_965_224, 724.407),
    ("caffenet", 60_965_224, 724.407),
    ("zfnet512", 87_250_536, 1481.727),
    ("nin", 7_595_176, 1100.189),
    ("vgg11", 132_863_336, 7609.090),
    ("vgg11_bn", 132_868_840, 7609.090),
    ("vgg13", 133_047_848, 11308.466),
    ("vgg13_bn", 133_053_736, 11308.466),
    ("vgg16", 138_357_544, 15470.264),
    ("vgg16_bn", 138_365_992, 15470.264),
    ("vgg19", 143_667_240, 19632.062),
    ("vgg19_bn", 143_678_248, 19632.062),
    ("bvlc_googlenet", 6_998_552, 1582.672),
    ("googlenet", 6_624_904, 1498.376),
    ("inception_v3", 23_834_568, 5713.216),
    ("resnet18", 11_689_512, 1814.073),
    ("resnet34", 21_797_672, 3663.761),
    ("resnet50", 25_557_032, 4089.184),
    ("resnet101", 44_549_160, 7801.405),
    ("resnet152", 60_192_808, 11513.627),
    ("resnext50_32x4d", 25_028_904, 4230.480),
    ("resnext101_32x8d", 88_791_336, 16414.015),
    ("resnext101_64x4d", 83_455_272, 15460.270),
    ("wide_resnet50_2", 68_883_240, 11398.021),
    ("wide_resnet101_2", 126_886_696, 22753.051),
    ("squeezenet1_1", 1_235_496, 349.152),
    ("efficientnet-lite0", 4_652_008, 385.188),
];

#[test]
fn parameters_and_multiply_accumulates_are_as_many_as_published() {
    for (architecture, &(name, parameters, million_macs)) in ARCHITECTURES.iter().zip(PUBLISHED) {
        assert_eq!(architecture.name, name);
        let description = Description::of_graph(name, &architecture.graph(IMAGENET_CLASSES).trunk());
        assert_eq!(description.parameters, parameters, "{name}");
        let macs = format!("{:.3}", description.macs as f64 / 1e6);
        assert_eq!(macs, format!("{million_macs:.3}"), "{name}");
    }
    assert_eq!(ARCHITECTURES.len(), PUBLISHED.len());
}

#[test]
fn side_branches_cost_what_they_are_known_to_cost() {
    for (name, parameters, million_macs) in [
        ("googlenet", 13_004_888, None),
        ("inception_v3", 27_161_264, None),
        ("bvlc_googlenet", 13_378_280, Some(1591.044)),
    ] {
        let architecture = ARCHITECTURES.iter().find(|architecture| architecture.name == name).unwrap();
        let description = Description::of_graph(name, &architecture.graph(IMAGENET_CLASSES));
        assert_eq!(description.parameters, parameters, "{name}");
        if let Some(million_macs) = million_macs {
            assert_eq!(format!("{:.3}", description.macs as f64 / 1e6), format!("{million_macs:.3}"), "{name}");
        }
    }
}
