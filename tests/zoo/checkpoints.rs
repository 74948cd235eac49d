//! Checkpoints that fit an architecture, and those that don't.

use convoy::error::Result;
use convoy::onnx::ModelProto;
use convoy::zoo::graph::{Graph, Parameter};
use convoy::zoo::weights::{Checkpoint, Weights, random};
use convoy::zoo::{Architecture, OnnxOptions};
use safetensors::{Dtype, tensor::TensorView};

use super::networks::SEED;
use super::{answer, fixtures};

/// The seeded weights of `graph` as a checkpoint with those tensors that `keep` keeps.
fn checkpoint(graph: &Graph, keep: impl Fn(&Parameter) -> bool) -> Weights {
    let tensors: Vec<_> = graph
        .parameters()
        .filter(keep)
        .map(|parameter| {
            let values = random::values(SEED, &parameter.key, &parameter.shape);
            let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (parameter, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(parameter, bytes)| {
        (&parameter.key, TensorView::new(Dtype::F32, parameter.shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    Weights::from_checkpoint(Checkpoint::parse(&file.into()).unwrap(), "made.safetensors")
}

#[test]
fn a_checkpoint_of_ten_classes_gives_ten_logits() {
    let architecture = Architecture::find("resnet18").unwrap();
    let graph = architecture.graph(10);
    let weights = checkpoint(&graph, |_| true);
    assert_eq!(architecture.classes(&weights), 10);

    let from_file = answer(architecture.to_onnx(&weights, OnnxOptions::default()).unwrap(), 224);
    let seed = Weights::random(SEED);
    let from_seed = answer(graph.to_onnx("resnet18", &seed, OnnxOptions::default()).unwrap(), 224);
    assert_eq!(from_file["logits"].len(), 20);
    assert_eq!(from_file, from_seed);
}

#[test]
fn side_branches_may_lie_in_the_checkpoint_or_not_unless_they_are_asked_for() {
    let googlenet = Architecture::find("googlenet").unwrap();
    let graph = googlenet.graph(10);
    let export = |weights: &Weights, side_branches| -> Result<ModelProto> {
        googlenet.to_onnx(weights, OnnxOptions { side_branches, ..OnnxOptions::default() })
    };
    let outputs = |model: ModelProto| -> Vec<String> {
        model.graph.unwrap().output.into_iter().map(|output| output.name).collect()
    };
    let with_branches = checkpoint(&graph, |_| true);
    assert_eq!(outputs(export(&with_branches, true).unwrap()), ["logits", "aux1", "aux2"]);
    let model = export(&with_branches, false).unwrap();
    assert!(model.graph.as_ref().unwrap().initializer.iter().all(|tensor| !tensor.name.starts_with("aux")));
    assert_eq!(outputs(model), ["logits"]);

    let without = checkpoint(&graph, |parameter| !parameter.key.starts_with("aux"));
    assert_eq!(outputs(export(&without, false).unwrap()), ["logits"]);
    let error = export(&without, true).unwrap_err();
    assert!(error.message().contains("the tensor aux1.conv.bn.bias is missing"), "{error}");

    let resnet = Architecture::find("resnet18").unwrap();
    let options = OnnxOptions { side_branches: true, ..OnnxOptions::default() };
    let error = resnet.to_onnx(&Weights::random(SEED), options).unwrap_err();
    assert_eq!(error.message(), "resnet18 has no side branches");
}

#[test]
fn the_model_says_where_it_is_from() {
    let resnet = Architecture::find("resnet18").unwrap();
    let model = resnet.to_onnx(&Weights::random(3), OnnxOptions::default()).unwrap();
    let metadata: Vec<_> = model.metadata_props.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
    assert_eq!(
        metadata,
        [
            ("convoy.architecture", "resnet18"),
            ("convoy.weights", "random:3 (untrained)"),
            ("convoy.version", env!("CARGO_PKG_VERSION")),
        ]
    );
}

#[test]
fn another_networks_weights_are_refused_by_name() {
    let checkpoint = Checkpoint::read(&fixtures().join("plain.safetensors")).unwrap();
    let weights = Weights::from_checkpoint(checkpoint, "plain.safetensors");
    let resnet = Architecture::find("resnet18").unwrap();
    let error = resnet.to_onnx(&weights, OnnxOptions::default()).unwrap_err();
    assert!(
        error.message().starts_with("plain.safetensors does not fit the architecture: the tensor bn1.bias is missing"),
        "{error}"
    );
}
