//! Descriptions of ONNX models: of the zoo's own, whose graphs know their shapes, and of what other exporters write.

use convoy::onnx::proto::tensor_proto::DataType as OnnxType;
use convoy::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use convoy::tensor::Tensor;
use convoy::zoo::describe::{Description, LayerCost};
use convoy::zoo::weights::{Weights, random};
use convoy::zoo::{ARCHITECTURES, Architecture, IMAGENET_CLASSES, OnnxOptions};

use super::networks::{CLASSES, SEED};

#[test]
fn a_models_own_shape_inference_agrees_with_its_architecture() {
    for architecture in ARCHITECTURES {
        // The largest take long to fill, and are built from the same blocks as their smaller relatives.
        let graph = architecture.graph(CLASSES);
        if graph.parameter_count() > 100_000_000 || architecture.name.contains("101") {
            continue;
        }
        let side_branches = !graph.side_branches().is_empty();
        let options = OnnxOptions { side_branches, keep_batch_norm: true, ..OnnxOptions::default() };
        let mut model = graph.to_onnx(architecture.name, &Weights::random(SEED), options).unwrap();
        model.graph.as_mut().unwrap().value_info.clear();
        let inferred = Description::of_model(&model, None).unwrap();
        assert_eq!(inferred, Description::of_graph(architecture.name, &graph));
    }
}

#[test]
fn vgg16_takes_the_memory_that_its_layers_add_up_to() {
    let vgg16 = Description::of_graph("vgg16", &Architecture::find("vgg16").unwrap().graph(IMAGENET_CLASSES));
    // Table 1 of the paper: two convolutions of 64 maps of 224x224, two of 128 of 112x112, and so on; after each stage a
    // pool; 4096, 4096 and 1000 features.
    let convolutions =
        2 * 64 * 224 * 224 + 2 * 128 * 112 * 112 + 3 * 256 * 56 * 56 + 3 * 512 * 28 * 28 + 3 * 512 * 14 * 14;
    let pools = 64 * 112 * 112 + 128 * 56 * 56 + 256 * 28 * 28 + 512 * 14 * 14 + 512 * 7 * 7;
    assert_eq!(vgg16.activation_bytes, 4 * (convolutions + pools + 4096 + 4096 + 1000));
    assert_eq!(vgg16.activation_bytes, 4 * 15_087_080);
}

/// `[N, 3, H, W]` to logits, with nodes that the zoo does not write. `N` is open unless `dimensions` say it.
fn model(dimensions: &[usize], nodes: Vec<NodeProto>, initializers: &[(&str, &[usize])]) -> ModelProto {
    let mut input = ValueInfoProto::batched("x", OnnxType::Float, "N", &dimensions[dimensions.len() - 3..]);
    if let [batch, _, _, _] = dimensions {
        input = ValueInfoProto::batched("x", OnnxType::Float, "N", &dimensions[1..]);
        set_batch(&mut input, *batch);
    }
    let initializer = |&(name, shape): &(&str, &[usize])| {
        let values = random::values(SEED, name, shape);
        TensorProto::new(name, &Tensor::from_vec(shape.to_vec(), values).unwrap()).unwrap()
    };
    ModelProto {
        graph: Some(GraphProto {
            name: "made".to_owned(),
            node: nodes,
            input: vec![input],
            initializer: initializers.iter().map(initializer).collect(),
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

fn set_batch(input: &mut ValueInfoProto, batch: usize) {
    use convoy::onnx::proto::tensor_shape_proto::dimension;
    use convoy::onnx::proto::type_proto;
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().unwrap().value.as_mut() else { panic!() };
    tensor.shape.as_mut().unwrap().dim[0].value = Some(dimension::Value::DimValue(batch as i64));
}

fn node(op_type: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op_type.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}

fn integer(value: i64) -> AttributeProto {
    AttributeProto {
        t: Some(TensorProto::new("", &Tensor::from_vec(vec![], vec![value]).unwrap()).unwrap()),
        r#type: convoy::onnx::proto::attribute_proto::AttributeType::Tensor.into(),
        name: "value".to_owned(),
        ..AttributeProto::default()
    }
}

fn cost(name: &str, operator: &str, shape: &[usize], [parameters, macs, activation_bytes]: [u64; 3]) -> LayerCost {
    LayerCost {
        name: name.to_owned(),
        operator: operator.to_owned(),
        output_shape: Some(shape.to_vec()),
        parameters,
        macs,
        activation_bytes,
    }
}

/// What PyTorch writes for `x.view(x.size(0), -1)`, `x.mean((2, 3))` and a depthwise convolution with `padding="same"`.
fn exported(dimensions: &[usize]) -> ModelProto {
    let same = AttributeProto { s: b"SAME_UPPER".to_vec(), ..AttributeProto::int("auto_pad", 0) };
    let nodes = vec![
        node("Conv", &["x", "kernel"], "c", vec![AttributeProto::ints("strides", [2, 2]), same]),
        node("LeakyRelu", &["c"], "r", vec![]),
        node("Shape", &["r"], "shape", vec![]),
        node("Constant", &[], "zero", vec![integer(0)]),
        node("Constant", &[], "minus", vec![integer(-1)]),
        node("Gather", &["shape", "zero"], "batch", vec![AttributeProto::int("axis", 0)]),
        node("Unsqueeze", &["batch"], "batch1", vec![AttributeProto::ints("axes", [0])]),
        node("Unsqueeze", &["minus"], "minus1", vec![AttributeProto::ints("axes", [0])]),
        node("Concat", &["batch1", "minus1"], "target", vec![AttributeProto::int("axis", 0)]),
        node("Reshape", &["r", "target"], "flat", vec![]),
        node("Transpose", &["w"], "wt", vec![AttributeProto::ints("perm", [1, 0])]),
        node("MatMul", &["flat", "wt"], "m", vec![]),
        node("Add", &["m", "b"], "y", vec![]),
    ];
    model(dimensions, nodes, &[("kernel", &[4, 3, 3, 3]), ("w", &[5, 64]), ("b", &[5])])
}

#[test]
fn reshapes_whose_shape_the_graph_computes_are_followed() {
    let expected = [
        cost("c", "Conv", &[4, 4, 4], [108, 108 * 16, 256]),
        cost("r", "LeakyRelu", &[4, 4, 4], [0, 0, 0]),
        cost("flat", "Reshape", &[64], [0, 0, 0]),
        cost("m", "MatMul", &[5], [320, 320, 20]),
        cost("y", "Add", &[5], [5, 0, 20]),
    ];
    // Another batch than one changes nothing: all costs are one picture's.
    for dimensions in [&[3, 7, 8][..], &[4, 3, 7, 8]] {
        let description = Description::of_model(&exported(dimensions), None).unwrap();
        assert_eq!(description.layers, expected);
        assert_eq!(description.input_shape, [3, 7, 8]);
        assert_eq!((description.parameters, description.macs), (433, 1728 + 320));
        assert!(description.not_inferred.is_empty());
    }
}

#[test]
fn an_operator_without_a_shape_is_named_and_the_rest_is_counted() {
    let mut model = exported(&[3, 7, 8]);
    let graph = model.graph.as_mut().unwrap();
    graph.node[1].op_type = "FancyRelu".to_owned();
    graph.node[1].name = "fancy".to_owned();
    let description = Description::of_model(&model, None).unwrap();
    assert_eq!(description.not_inferred, ["FancyRelu (fancy)"]);
    assert_eq!(description.layers[0], cost("c", "Conv", &[4, 4, 4], [108, 108 * 16, 256]));
    assert!(description.layers[1..].iter().all(|layer| layer.output_shape.is_none()));
    // The parameters are known without any shape.
    assert_eq!((description.parameters, description.macs), (433, 1728));

    // Where the file states the shape, it is taken from there.
    let graph = model.graph.as_mut().unwrap();
    graph.value_info.push(ValueInfoProto::batched("r", OnnxType::Float, "N", &[4, 4, 4]));
    let description = Description::of_model(&model, None).unwrap();
    assert!(description.not_inferred.is_empty());
    assert_eq!(description.macs, 1728 + 320);
}

#[test]
fn a_node_that_takes_what_nothing_gives_is_named() {
    let mut model = exported(&[3, 7, 8]);
    let node = &mut model.graph.as_mut().unwrap().node[1];
    node.input[0] = "nothing".to_owned();
    node.name = "lost".to_owned();
    let named = format!("{} (lost)", node.op_type);
    let description = Description::of_model(&model, None).unwrap();
    assert_eq!(description.not_inferred, [named]);
    assert_eq!(description.macs, 1728, "what follows is not counted, and that is said");
}

/// What numbers of a damaged model become.
const VALUES: [i64; 8] = [0, 1, -1, 2, 1000, i64::MAX, i64::MIN, i64::MAX / 2];
/// And what operators become.
const OPERATORS: [&str; 16] = [
    "Slice",
    "Gather",
    "Split",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Concat",
    "ReduceMean",
    "Pad",
    "Reshape",
    "Shape",
    "MatMul",
    "Gemm",
    "Conv",
    "Flatten",
    "MaxPool",
];

#[test]
fn models_that_claim_nonsense_neither_panic_nor_claim_memory() {
    let originals: Vec<_> = ["googlenet", "efficientnet-lite0", "bvlc_alexnet"]
        .into_iter()
        .map(|name| {
            let graph = Architecture::find(name).unwrap().graph(2);
            let options = OnnxOptions { keep_batch_norm: true, ..OnnxOptions::default() };
            let mut model = graph.to_onnx(name, &Weights::random(SEED), options).unwrap();
            let graph = model.graph.as_mut().unwrap();
            graph.value_info.clear();
            graph.initializer.iter_mut().for_each(|tensor| tensor.raw_data.clear());
            graph.node.truncate(40);
            model
        })
        .chain([exported(&[3, 7, 8])])
        .collect();
    let mut random = random::normal(2, "mutations").map(|z| (z * 1e9).abs() as usize);
    let mut random = move |below: usize| random.next().expect("the numbers never end") % below;
    for original in &originals {
        for _ in 0..3_000 {
            let mut model = original.clone();
            let graph = model.graph.as_mut().unwrap();
            for _ in 0..=random(4) {
                damage(graph, &mut random);
            }
            let description = Description::of_model(&model, None).unwrap();
            assert!(description.layers.len() <= 40);
        }
    }
}

/// Changes one thing: an operator, a dimension of an initializer, an attribute, or an input. `random` gives a number below its
/// argument.
fn damage(graph: &mut GraphProto, random: &mut impl FnMut(usize) -> usize) {
    let change = random(4);
    if change == 1 {
        let tensor = random(graph.initializer.len());
        let dims = &mut graph.initializer[tensor].dims;
        match dims.len() {
            0 => dims.push(VALUES[random(8)]),
            rank => dims[random(rank)] = VALUES[random(8)],
        }
        return;
    }
    let other = graph.node[random(graph.node.len())].output[0].clone();
    let index = random(graph.node.len());
    let node = &mut graph.node[index];
    match change {
        0 => OPERATORS[random(16)].clone_into(&mut node.op_type),
        2 if !node.attribute.is_empty() => {
            let index = random(node.attribute.len());
            let attribute = &mut node.attribute[index];
            attribute.i = VALUES[random(8)];
            if !attribute.ints.is_empty() {
                let index = random(attribute.ints.len());
                attribute.ints[index] = VALUES[random(8)];
            }
        }
        3 if !node.input.is_empty() => {
            let index = random(node.input.len());
            node.input[index] = other;
        }
        _ => {}
    }
}
