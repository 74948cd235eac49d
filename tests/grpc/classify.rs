//! `convoy.v1.ImageClassifier`.

use convoy::grpc::proto::convoy::v1 as pb;
use convoy::grpc::proto::convoy::v1::classify_stream_response::Result as StreamResult;
use convoy::grpc::proto::convoy::v1::image_classifier_client::ImageClassifierClient;
use convoy::server::Server;
use futures_util::{StreamExt, stream};
use tonic::Code;
use tonic::transport::Channel;

use crate::client::channel;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start, within_a_minute};
use crate::{graphs, in_flight, server, until};

async fn client(server: &Server) -> ImageClassifierClient<Channel> {
    ImageClassifierClient::new(channel(server).await)
}

fn request(model: &str, pictures: &[[u8; 3]]) -> pb::ClassifyRequest {
    let images = pictures.iter().map(|&colour| png(colour).into()).collect();
    pb::ClassifyRequest { model_name: model.into(), images, ..Default::default() }
}

#[tokio::test]
async fn pictures_go_in_and_classes_come_out() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let mut request = request("means", &[[255, 51, 0], [0, 102, 255]]);
    let answer = client.classify(request.clone()).await.unwrap().into_inner();
    assert_eq!((&*answer.model_name, &*answer.model_version), ("means", "1"));
    // Softmax of the means 1, 0.2, 0: e, e^0.2 and 1 over their sum, 4.939685, worked out by hand.
    let classes = &answer.predictions[0].classes;
    let expected = [(0, "red", 0.550_295), (1, "green", 0.247_263), (2, "blue", 0.202_442)];
    for (class, (index, label, score)) in classes.iter().zip(expected) {
        assert_eq!((class.index, class.label.as_deref()), (index, Some(label)));
        assert!((class.score - score).abs() < 1e-5, "{class:?}");
    }
    assert_eq!(classes.len(), 3);
    assert_eq!(answer.predictions[1].classes[0].label.as_deref(), Some("blue"));
    let timing = answer.timing.unwrap();
    assert!(timing.batch_size >= 1 && timing.decode_ms > 0.0 && timing.total_ms >= timing.compute_ms, "{timing:?}");

    request.top_k = Some(1);
    request.model_version = "1".into();
    let answer = client.classify(request).await.unwrap().into_inner();
    assert!(answer.predictions.iter().all(|prediction| prediction.classes.len() == 1));
}

#[tokio::test]
async fn a_model_without_labels_has_none_and_may_be_the_default() {
    let repository = Repository::new().with("only", &graphs::channel_means(2, None), PLAIN_RECIPE, "");
    let server = start(config(&repository)).await;
    let answer = client(&server).await.classify(request("", &[[255, 0, 0]])).await.unwrap().into_inner();
    assert_eq!(answer.model_name, "only");
    assert_eq!((answer.predictions[0].classes[0].index, &answer.predictions[0].classes[0].label), (0, &None));
}

#[tokio::test]
async fn side_branches_are_answered_when_they_are_asked_for() {
    let mut model = graphs::channel_means(8, None);
    let graph = model.graph.as_mut().unwrap();
    graph.node.push(graphs::node("Neg", &["logits"], "negated"));
    let data_type = convoy::onnx::proto::tensor_proto::DataType::Float;
    graph.output.push(graphs::value("negated", data_type, &[-1, 3]));
    let repository = Repository::new().with("branched", &model, PLAIN_RECIPE, "red\ngreen\nblue\n");
    let server = start(config(&repository)).await;
    let mut client = client(&server).await;
    let mut request = pb::ClassifyRequest { aux: true, ..request("branched", &[[255, 51, 0]]) };
    let answer = client.classify(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.predictions[0].classes[0].label.as_deref(), Some("red"));
    let [branch] = answer.predictions[0].branches.as_slice() else { panic!("{answer:?}") };
    assert_eq!(branch.output, "negated");
    // Softmax of -1, -0.2, 0: e^-1, e^-0.2 and 1 over their sum, 2.186610, worked out by hand.
    let expected = [(2, "blue", 0.457_329), (1, "green", 0.374_429), (0, "red", 0.168_242)];
    for (class, (index, label, score)) in branch.classes.iter().zip(expected) {
        assert_eq!((class.index, class.label.as_deref()), (index, Some(label)));
        assert!((class.score - score).abs() < 1e-5, "{class:?}");
    }
    request.aux = false;
    let answer = client.classify(request).await.unwrap().into_inner();
    assert!(answer.predictions[0].branches.is_empty());
}

#[tokio::test]
async fn errors_have_their_codes() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let good = request("means", &[[1, 2, 3]]);
    let no_picture = pb::ClassifyRequest { images: vec!["not a picture".into()], ..good.clone() };
    for (request, code, said) in [
        (request("nothing", &[[1, 2, 3]]), Code::NotFound, "nothing"),
        (request("broken", &[[1, 2, 3]]), Code::Unavailable, "broken"),
        (request("", &[[1, 2, 3]]), Code::InvalidArgument, "name one as `model_name`"),
        (request("means", &[]), Code::InvalidArgument, "no picture"),
        (request("means", &[[1, 2, 3]; 65]), Code::ResourceExhausted, "65 pictures"),
        (no_picture, Code::InvalidArgument, "picture"),
        (pb::ClassifyRequest { top_k: Some(0), ..good.clone() }, Code::InvalidArgument, "top_k"),
        (pb::ClassifyRequest { aux: true, ..good.clone() }, Code::InvalidArgument, "no side branches"),
        (pb::ClassifyRequest { model_version: "7".into(), ..good.clone() }, Code::NotFound, "7"),
        (pb::ClassifyRequest { model_version: "one".into(), ..good.clone() }, Code::NotFound, "one"),
        (
            pb::ClassifyRequest { model_name: String::new(), model_version: "1".into(), ..good.clone() },
            Code::InvalidArgument,
            "no model",
        ),
        (
            pb::ClassifyRequest { model_name: "held".into(), timeout_ms: 20, ..good.clone() },
            Code::DeadlineExceeded,
            "deadline",
        ),
    ] {
        let status = client.classify(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(said), "{status}");
    }
}

#[tokio::test]
async fn a_stream_answers_each_request_as_it_is_done() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let message = |id: &str, request| pb::ClassifyStreamRequest { id: id.into(), request };
    // The first waits for an hour; the stream stays open.
    let asked = [
        message("held", Some(request("held", &[[9, 9, 9]]))),
        message("good", Some(request("means", &[[0, 255, 0]]))),
        message("unknown", Some(request("nothing", &[[0, 0, 0]]))),
        message("empty", None),
    ];
    let asked = stream::iter(asked).chain(stream::pending());
    let mut answers = client.classify_stream(asked).await.unwrap().into_inner();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let answer = within_a_minute(answers.next()).await.unwrap().unwrap();
        match (&*answer.id, answer.result.unwrap()) {
            ("good", StreamResult::Response(response)) => {
                assert_eq!(response.predictions[0].classes[0].label.as_deref(), Some("green"));
            }
            ("unknown", StreamResult::Error(error)) => {
                assert_eq!((error.code, &*error.message), (5, "there is no model called nothing"));
            }
            ("empty", StreamResult::Error(error)) => assert_eq!(error.code, 3),
            (id, other) => panic!("{id}: {other:?}"),
        }
        seen.push(answer.id);
    }
    seen.sort();
    assert_eq!(seen, ["empty", "good", "unknown"]);
    until(&server, &in_flight("held"), 1.0).await;
}

#[tokio::test]
async fn a_stream_of_many_requests_loses_none() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let asked = (0..500u32).map(|index| {
        let request = Some(request("means", &[[(index % 256) as u8, 255 - (index % 256) as u8, 0]]));
        pb::ClassifyStreamRequest { id: index.to_string(), request }
    });
    let answers = client.classify_stream(stream::iter(asked)).await.unwrap().into_inner();
    let mut ids: Vec<u32> = answers
        .map(|answer| {
            let answer = answer.unwrap();
            let id: u32 = answer.id.parse().unwrap();
            let StreamResult::Response(response) = answer.result.unwrap() else { panic!("{id} failed") };
            // Red is the larger from 128 on.
            assert_eq!(response.predictions[0].classes[0].index, u32::from(id % 256 < 128));
            id
        })
        .collect()
        .await;
    ids.sort_unstable();
    assert_eq!(ids, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_is_explained() {
    let repository = Repository::new().with("filters", &graphs::convolutional(8, 3), PLAIN_RECIPE, "zero\none\ntwo\n");
    let server = start(config(&repository)).await;
    let mut client = client(&server).await;
    let request = pb::ExplainRequest { image: png([9, 90, 200]).into(), ..Default::default() };
    let answer = client.explain(request.clone()).await.unwrap().into_inner();
    assert_eq!((&*answer.model_name, &*answer.method, &*answer.layer), ("filters", "cam", "rectified"));
    assert_eq!(answer.class.unwrap().label.as_deref(), Some("two"));
    let heatmap = answer.heatmap.unwrap();
    assert_eq!((heatmap.height, heatmap.width, heatmap.data.len()), (8, 8, 64));
    assert!(heatmap.data.iter().all(|value| (value - (299.0 / 255.0 + 2.0)).abs() < 1e-5));
    assert_eq!(answer.frame.unwrap().picture_width, 8);
    assert!(answer.png.starts_with(b"\x89PNG"));

    let projection =
        pb::ExplainRequest { method: "guided".into(), layer: "rectified".into(), unit: Some(1), ..request.clone() };
    let answer = client.explain(projection).await.unwrap().into_inner();
    assert_eq!((answer.units.len(), answer.units[0].unit, answer.class), (1, 1, None));
    for (wrong, code) in [
        (pb::ExplainRequest { method: "magic".into(), ..request.clone() }, Code::InvalidArgument),
        (pb::ExplainRequest { method: "guided".into(), unit: Some(3), ..request.clone() }, Code::InvalidArgument),
        (pb::ExplainRequest { method: "cam".into(), patch: 3, ..request.clone() }, Code::InvalidArgument),
        (pb::ExplainRequest { layer: "deep".into(), ..request.clone() }, Code::NotFound),
        (pb::ExplainRequest { image: "text".into(), ..request.clone() }, Code::InvalidArgument),
        (pb::ExplainRequest { model_name: "none".into(), ..request }, Code::NotFound),
    ] {
        assert_eq!(client.explain(wrong).await.unwrap_err().code(), code);
    }
}
