//! An ensemble over gRPC.

use convoy::grpc::proto::convoy::v1 as pb;
use convoy::grpc::proto::convoy::v1::image_classifier_client::ImageClassifierClient;
use convoy::grpc::proto::inference::{ModelConfigRequest, ModelMetadataRequest};

use crate::client::{byte_strings, channel, client, raw};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};

#[tokio::test]
async fn the_members_average_is_answered() {
    let mut negated = graphs::channel_means(8, None);
    let graph = negated.graph.as_mut().unwrap();
    graph.node[1] = graphs::node("Flatten", &["pooled"], "means");
    graph.node.push(graphs::node("Neg", &["means"], "logits"));
    let repository = Repository::new().with("means", &graphs::channel_means(8, None), PLAIN_RECIPE, "").with(
        "negated",
        &negated,
        PLAIN_RECIPE,
        "red\ngreen\nblue\n",
    );
    std::fs::create_dir(repository.path().join("both")).unwrap();
    std::fs::write(repository.path().join("both/config.toml"), "members = ['means', 'negated']").unwrap();
    let server = start(config(&repository)).await;
    let mut classifier = ImageClassifierClient::new(channel(&server).await);
    let mut scores = async |model: &str| {
        let images = vec![png([255, 51, 0]).into()];
        let request = pb::ClassifyRequest { model_name: model.into(), images, ..Default::default() };
        let answer = classifier.classify(request).await.unwrap().into_inner();
        let mut classes = answer.predictions[0].classes.clone();
        classes.sort_by_key(|class| class.index);
        classes
    };
    let (means, negated, both) = (scores("means").await, scores("negated").await, scores("both").await);
    for ((both, a), b) in both.iter().zip(&means).zip(&negated) {
        assert!((both.score - f32::midpoint(a.score, b.score)).abs() < 1e-6, "{both:?} of {a:?} and {b:?}");
    }
    assert_eq!(both[2].label.as_deref(), Some("blue"));

    let mut client = client(&server).await;
    let picture = byte_strings(&[png([255, 51, 0])]);
    let answer = client.model_infer(raw("both", "BYTES", &[1], picture)).await.unwrap().into_inner();
    assert_eq!((&*answer.outputs[0].name, &answer.outputs[0].shape), ("probabilities", &vec![1, 3]));
    let found =
        answer.raw_output_contents[0].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    assert_eq!(found.collect::<Vec<_>>(), both.iter().map(|class| class.score).collect::<Vec<_>>());

    let request = ModelMetadataRequest { name: "both".into(), version: String::new() };
    let metadata = client.model_metadata(request).await.unwrap().into_inner();
    assert_eq!((&*metadata.platform, &*metadata.inputs[0].datatype), ("ensemble", "BYTES"));
    let request = ModelConfigRequest { name: "both".into(), version: String::new() };
    let model = client.model_config(request).await.unwrap().into_inner().config.unwrap();
    assert_eq!((&*model.platform, model.instance_group.len()), ("ensemble", 0));
}
