//! Every architecture, side branches included, against its reference.

use convoy::onnx::ModelProto;
use convoy::zoo::weights::{Checkpoint, Weights};
use convoy::zoo::{ARCHITECTURES, Architecture, OPSETS, OnnxOptions};

use super::networks::{SEED, mixed, seeded};
use super::{TOLERANCE, answer, assert_close, assert_within, pictures, run, target};

/// One test a network, so that they run side by side.
macro_rules! goldens {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                equals_golden($name);
            }
        )*

        #[test]
        fn every_architecture_has_a_golden() {
            let mut tested = [$($name),*];
            tested.sort_unstable();
            let mut all: Vec<_> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
            all.sort_unstable();
            assert_eq!(tested, *all);
        }
    };
}

goldens! {
    alexnet: "alexnet",
    bvlc_alexnet: "bvlc_alexnet",
    caffenet: "caffenet",
    zfnet512: "zfnet512",
    nin: "nin",
    vgg11: "vgg11",
    vgg11_bn: "vgg11_bn",
    vgg13: "vgg13",
    vgg13_bn: "vgg13_bn",
    vgg16: "vgg16",
    vgg16_bn: "vgg16_bn",
    vgg19: "vgg19",
    vgg19_bn: "vgg19_bn",
    bvlc_googlenet: "bvlc_googlenet",
    googlenet: "googlenet",
    inception_v3: "inception_v3",
    resnet18: "resnet18",
    resnet34: "resnet34",
    resnet50: "resnet50",
    resnet101: "resnet101",
    resnet152: "resnet152",
    resnext50_32x4d: "resnext50_32x4d",
    resnext101_32x8d: "resnext101_32x8d",
    resnext101_64x4d: "resnext101_64x4d",
    wide_resnet50_2: "wide_resnet50_2",
    wide_resnet101_2: "wide_resnet101_2",
    squeezenet1_1: "squeezenet1_1",
    efficientnet_lite0: "efficientnet-lite0",
}

fn equals_golden(name: &str) {
    let architecture = Architecture::find(name).unwrap();
    let side_branches = architecture.graph(1).side_branches().len();
    let options = OnnxOptions { side_branches: side_branches > 0, ..OnnxOptions::default() };
    let outputs = answer(seeded(name, options), architecture.input_size);
    assert_eq!(outputs.len(), 1 + side_branches);
    assert_within(TOLERANCE, name, &outputs);
}

#[test]
fn batch_norms_that_are_kept_change_nothing() {
    for name in ["resnet18", "efficientnet-lite0", "googlenet"] {
        let model = seeded(name, OnnxOptions { keep_batch_norm: true, ..OnnxOptions::default() });
        assert!(has_batch_norm(&model));
        assert_close(name, &answer(model, 224));
        assert!(!has_batch_norm(&seeded(name, OnnxOptions::default())));
    }
}

#[test]
fn every_opset_gives_the_same_network() {
    let seeded_mixed = |opset| {
        let options = OnnxOptions { opset, keep_batch_norm: true, ..OnnxOptions::default() };
        mixed().to_onnx("mixed", &Weights::random(SEED), options)
    };
    for opset in OPSETS {
        let model = seeded_mixed(opset).unwrap();
        assert_eq!(model.opset_import[0].version, opset);
        assert_close("mixed", &answer(model, 32));
    }
    // ReLU6 and the side branches are in these.
    for opset in [*OPSETS.start(), *OPSETS.end()] {
        for name in ["googlenet", "efficientnet-lite0"] {
            assert_close(name, &answer(seeded(name, OnnxOptions { opset, ..OnnxOptions::default() }), 224));
        }
    }
    for opset in [10, 22] {
        let error = seeded_mixed(opset).unwrap_err();
        assert_eq!(error.message(), format!("opset {opset} cannot be written, only 11 to 21"));
    }
}

#[test]
fn layers_that_are_rare_in_those_networks_equal_pytorchs() {
    for keep_batch_norm in [false, true] {
        let options = OnnxOptions { keep_batch_norm, ..OnnxOptions::default() };
        let model = mixed().to_onnx("mixed", &Weights::random(SEED), options).unwrap();
        assert_eq!(has_batch_norm(&model), keep_batch_norm);
        assert_close("mixed", &answer(model, 32));
    }
}

#[test]
fn the_trained_efficientnet_lite0_equals_its_reference() {
    let path = target().join("checkpoints/efficientnet-lite0/efficientnet-lite0.pth");
    let checkpoint = Checkpoint::read(&path).expect("`cargo xtask setup` fetches the checkpoint");
    let weights = Weights::from_checkpoint(checkpoint, "efficientnet-lite0.pth");
    let model = Architecture::find("efficientnet-lite0").unwrap().to_onnx(&weights, OnnxOptions::default()).unwrap();
    assert_close("efficientnet-lite0-trained", &answer(model, 224));
}

#[test]
fn a_row_of_a_batch_equals_its_picture_alone() {
    let model = seeded("googlenet", OnnxOptions { side_branches: true, ..OnnxOptions::default() });
    let pictures = pictures(224);
    let both = run(model.clone(), &pictures, 224);
    for (index, picture) in pictures.chunks(pictures.len() / 2).enumerate() {
        for (output, alone) in run(model.clone(), picture, 224) {
            let row = &both[&output][index * alone.len()..][..alone.len()];
            let scale = row.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
            let same = row.iter().zip(&alone).all(|(left, right)| (left - right).abs() <= 1e-5 * scale);
            assert!(same, "the rows of {output} differ");
        }
    }
}

fn has_batch_norm(model: &ModelProto) -> bool {
    model.graph.as_ref().unwrap().node.iter().any(|node| node.op_type == "BatchNormalization")
}
