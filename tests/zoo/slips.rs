//! That the goldens would notice a slip: each semantics that is easily got wrong, got wrong on purpose.

use convoy::onnx::proto::TensorProto;
use convoy::onnx::{ModelProto, NodeProto};
use convoy::tensor::Tensor;
use convoy::zoo::OnnxOptions;

use super::networks::seeded;
use super::{TOLERANCE, answer, distance};

#[test]
fn another_alpha_of_lrn_is_noticed() {
    // An alpha that is not divided by the size, as the paper of AlexNet has it. In a network of seeded weights the
    // normalisation is weak, and still it is far over the tolerance.
    slip("bvlc_alexnet", false, |node| scale_float(node, "LRN", "alpha", 5.0));
    slip("zfnet512", false, |node| scale_float(node, "LRN", "bias", 0.5));
    slip("bvlc_googlenet", false, |node| scale_int(node, "LRN", "size", |size| size - 2));
}

#[test]
fn pools_that_round_down_are_noticed() {
    // Not SqueezeNet: in maps of 111, 55 and 27 no window hangs over the end.
    for name in ["bvlc_googlenet", "googlenet", "nin"] {
        slip(name, false, |node| scale_int(node, "MaxPool", "ceil_mode", |_| 0));
    }
}

#[test]
fn an_average_pool_that_leaves_out_the_padding_is_noticed() {
    slip("inception_v3", false, |node| scale_int(node, "AveragePool", "count_include_pad", |_| 0));
}

#[test]
fn another_epsilon_of_batch_norm_is_noticed() {
    slip("resnet18", true, |node| scale_float(node, "BatchNormalization", "epsilon", 100.0));
    slip("googlenet", true, |node| scale_float(node, "BatchNormalization", "epsilon", 0.01));
}

#[test]
fn adaptive_windows_at_even_distances_are_noticed() {
    let mut model = seeded("googlenet", OnnxOptions { side_branches: true, ..OnnxOptions::default() });
    let mut slips = 0;
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        if tensor.name.ends_with(".indices") {
            assert_eq!(*tensor.to_tensor().unwrap().to_slice::<i64>().unwrap(), [0, 3, 7, 10]);
            let even = Tensor::from_vec(vec![4], vec![0i64, 3, 6, 9]).unwrap();
            *tensor = TensorProto::new(tensor.name.clone(), &even).unwrap();
            slips += 1;
        }
    }
    assert_eq!(slips, 4);
    assert!(distance("googlenet", &answer(model, 224)) > 100.0 * TOLERANCE);
}

#[test]
fn groups_that_see_the_other_groups_channels_are_noticed() {
    // The same as if the second group's filters came first: both halves of the kernel change places.
    let mut model = seeded("caffenet", OnnxOptions::default());
    let graph = model.graph.as_mut().unwrap();
    for name in ["conv2.weight", "conv2.bias"] {
        let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap();
        let mut bytes = tensor.raw_data.to_vec();
        let half = bytes.len() / 2;
        bytes.rotate_left(half);
        tensor.raw_data = bytes.into();
    }
    assert!(distance("caffenet", &answer(model, 227)) > 100.0 * TOLERANCE);
}

/// Changes the nodes of a network by `change`, which says whether it did, and asserts that the logits are far from the golden's.
fn slip(name: &str, keep_batch_norm: bool, mut change: impl FnMut(&mut NodeProto) -> bool) {
    let mut model: ModelProto = seeded(name, OnnxOptions { keep_batch_norm, ..OnnxOptions::default() });
    let graph = model.graph.as_mut().unwrap();
    // The shapes in between may be others now.
    graph.value_info.clear();
    let changed = graph.node.iter_mut().map(&mut change).filter(|&changed| changed).count();
    assert!(changed > 0, "{name} has nothing to change");
    let distance = distance(name, &answer(model, convoy::zoo::Architecture::find(name).unwrap().input_size));
    eprintln!("{name}: {changed} slips move the logits by {distance:.1e} standard deviations");
    assert!(distance > 10.0 * TOLERANCE, "{name}: the slip moves the logits by {distance} only");
}

fn scale_float(node: &mut NodeProto, op_type: &str, attribute: &str, factor: f32) -> bool {
    change(node, op_type, attribute, |attribute| attribute.f *= factor)
}

fn scale_int(node: &mut NodeProto, op_type: &str, attribute: &str, value: impl Fn(i64) -> i64) -> bool {
    change(node, op_type, attribute, |attribute| attribute.i = value(attribute.i))
}

fn change(node: &mut NodeProto, op_type: &str, name: &str, change: impl Fn(&mut convoy::onnx::AttributeProto)) -> bool {
    if node.op_type != op_type {
        return false;
    }
    let attribute = node.attribute.iter_mut().find(|attribute| attribute.name == name).unwrap();
    change(attribute);
    true
}
