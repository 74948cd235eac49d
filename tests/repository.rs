//! Models that cannot be served: each is unavailable with a reason that says what is wrong where, and the others serve.

#[expect(dead_code, reason = "not every test graph is needed here")]
mod support;

use convoy::engine::Runtime;
use convoy::onnx::ModelProto;
use convoy::onnx::proto::tensor_proto::DataType;
use convoy::repository::{ModelControlConfig, ModelState, Repository};
use convoy::telemetry::Metrics;
use support::graphs;

fn with_two_inputs() -> ModelProto {
    let nodes = vec![
        graphs::node("Add", &["input", "other"], "sum"),
        graphs::node("GlobalAveragePool", &["sum"], "pooled"),
        graphs::node("Flatten", &["pooled"], "logits"),
    ];
    let mut model = graphs::model(nodes, Vec::new(), &[-1, 3, 8, 8], &[-1, 3]);
    if let Some(graph) = &mut model.graph {
        graph.input.push(graphs::value("other", DataType::Float, &[-1, 3, 8, 8]));
    }
    model
}

/// A graph that takes pictures of any number of channels and any size, or exactly those of `shape`.
fn of_shape(shape: [i64; 3]) -> ModelProto {
    let nodes =
        vec![graphs::node("GlobalAveragePool", &["input"], "pooled"), graphs::node("Flatten", &["pooled"], "logits")];
    graphs::model(nodes, Vec::new(), &[-1, shape[0], shape[1], shape[2]], &[-1, shape[0]])
}

#[test]
fn a_reason_names_the_file_and_the_key_and_the_others_serve() {
    let means = || graphs::channel_means(8, None);
    let rank_2 = || graphs::model(vec![graphs::node("Identity", &["input"], "logits")], vec![], &[-1, 3], &[-1, 3]);
    let cases: [(&str, ModelProto, &str, &str, &[&str]); 15] = [
        ("two-inputs", with_two_inputs(), "", "", &["two-inputs/1/model.onnx", "input, other"]),
        ("rank-2", rank_2(), "", "", &["rank-2/1/model.onnx", "[-1, 3]"]),
        ("four-channels", of_shape([4, 8, 8]), "", "", &["four-channels/1/model.onnx", "[4, 8, 8]"]),
        (
            "huge-crop",
            of_shape([3, -1, -1]),
            "[preprocess]\ncrop = 16384",
            "",
            &["huge-crop/1/model.onnx", "max_batch_size"],
        ),
        ("unknown-key", means(), "max_batchsize = 4", "", &["unknown-key/config.toml", "max_batchsize"]),
        (
            "huge-queue",
            means(),
            "[batching]\nqueue_size = 9223372036854775807",
            "",
            &["huge-queue/config.toml", "queue_size"],
        ),
        (
            "no-bytes",
            means(),
            "[batching]\nqueue_bytes = 700",
            "",
            &["no-bytes/config.toml", "batching.queue_bytes", "768"],
        ),
        (
            "wide-bucket",
            means(),
            "max_batch_size = 4\n[batching]\nbuckets = [2, 8]",
            "",
            &["wide-bucket/config.toml", "batching.buckets", "8"],
        ),
        (
            "fixed-bucket",
            graphs::channel_means(8, Some(2)),
            "[batching]\nbuckets = [1]",
            "",
            &["fixed-bucket/config.toml", "batching.buckets", "2"],
        ),
        ("wrong-crop", means(), "[preprocess]\ncrop = 9", "", &["wrong-crop/config.toml", "preprocess.crop"]),
        ("no-such-output", means(), "output = \"scores\"", "", &["no-such-output/config.toml", "output", "logits"]),
        ("no-such-labels", means(), "labels = \"no.txt\"", "", &["no-such-labels/config.toml", "labels", "no.txt"]),
        ("few-labels", means(), "", "one\ntwo\n", &["few-labels/labels.txt", "2 lines", "3 classes"]),
        ("cuda", means(), "providers = [{ name = \"cuda\" }]", "", &["cuda/1/model.onnx", "CUDA execution provider"]),
        ("no-version", means(), "versions = { specific = [2] }", "", &["no-version/2/model.onnx"]),
    ];
    let root = tempfile::tempdir().unwrap();
    for (name, model, config, labels, _) in cases.iter().chain([&("good", means(), "", "one\ntwo\nthree", &[][..])]) {
        let folder = root.path().join(name);
        std::fs::create_dir_all(folder.join("1")).unwrap();
        graphs::write(&folder.join("1"), model);
        for (file, text) in [("config.toml", config), ("labels.txt", labels)] {
            if !text.is_empty() {
                std::fs::write(folder.join(file), text).unwrap();
            }
        }
    }
    std::fs::create_dir(root.path().join("empty")).unwrap();

    let runtime = Runtime::load(None).expect("`cargo xtask setup` has put ONNX Runtime under target/");
    let repository = Repository::new(root.path(), ModelControlConfig::default(), runtime, Metrics::new());
    repository.load_all().unwrap();
    let index = repository.index();
    assert_eq!(index.len(), cases.len() + 2);
    for (name, _, _, _, words) in &cases {
        let entry = index.iter().find(|entry| entry.name == *name).unwrap();
        assert_eq!(entry.state, ModelState::Unavailable, "{name}");
        for word in *words {
            assert!(entry.reason.contains(word), "{word} in: {}", entry.reason);
        }
    }
    assert_eq!(index.iter().find(|entry| entry.name == "empty").unwrap().state, ModelState::Unavailable);
    assert_eq!(repository.get("good", None).unwrap().labels().len(), 3);
}
