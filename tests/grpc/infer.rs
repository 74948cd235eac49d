//! `ModelInfer` and the RPCs that describe.

use std::collections::HashMap;

use convoy::grpc::proto::inference as pb;
use convoy::grpc::proto::inference::model_config::SchedulingChoice;
use tonic::{Code, Request};

use crate::client::{byte_strings, bytes, client, input, int, output, raw};
use crate::server::png;
use crate::{TENSOR, assert_means, server};

#[tokio::test]
async fn raw_and_typed_tensors_give_the_same_answer() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let mut request = raw("means", "FP32", &[1, 3, 2, 2], bytes(&TENSOR));
    request.id = "a-7".into();
    let answer = client.model_infer(request).await.unwrap().into_inner();
    assert_means(&answer);
    assert_eq!((&*answer.id, &*answer.model_name, &*answer.model_version), ("a-7", "means", "1"));

    let contents = pb::InferTensorContents { fp32_contents: TENSOR.to_vec(), ..Default::default() };
    let mut request = raw("means", "FP32", &[1, 3, 2, 2], "");
    request.raw_input_contents.clear();
    request.inputs[0].contents = Some(contents);
    request.model_version = "1".into();
    let answer = client.model_infer(request).await.unwrap().into_inner();
    assert_means(&answer);
    assert_eq!(answer.id, "");
}

#[tokio::test]
async fn encoded_pictures_come_raw_or_typed_and_are_classified() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let pictures = vec![png([255, 51, 0]), png([0, 102, 255])];
    let raw_request = raw("means", "BYTES", &[2], byte_strings(&pictures));
    let mut typed = raw("means", "BYTES", &[2], "");
    typed.raw_input_contents.clear();
    let pictures = pictures.into_iter().map(Into::into).collect();
    typed.inputs[0].contents = Some(pb::InferTensorContents { bytes_contents: pictures, ..Default::default() });
    for mut request in [raw_request, typed] {
        let answer = client.model_infer(request.clone()).await.unwrap().into_inner();
        let means = crate::floats(&answer.raw_output_contents[0]);
        for (mean, expected) in means.iter().zip([1.0, 0.2, 0.0, 0.0, 0.4, 1.0]) {
            assert!((mean - expected).abs() < 1e-6, "{means:?}");
        }

        request.outputs = vec![output("logits", Some(2))];
        let answer = client.model_infer(request).await.unwrap().into_inner();
        let classified = &answer.outputs[0];
        assert_eq!((&*classified.datatype, &*classified.shape), ("BYTES", &[2, 2][..]));
        let expected = ["1.000000:0:red", "0.200000:1:green", "1.000000:2:blue", "0.400000:1:green"]
            .map(|s| s.as_bytes().to_vec());
        assert_eq!(answer.raw_output_contents[0], byte_strings(&expected));
    }
}

#[tokio::test]
async fn parameters_are_honoured_and_unknown_ones_ignored() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let with = |name: &str, parameter| {
        let mut request = raw("means", "FP32", &[1, 3, 2, 2], bytes(&TENSOR));
        request.parameters.insert(name.into(), parameter);
        request
    };
    let unsigned =
        |value| pb::InferParameter { parameter_choice: Some(pb::infer_parameter::ParameterChoice::Uint64Param(value)) };
    for request in [
        with("priority", unsigned(3)),
        with("priority", int(0)),
        with("timeout", int(3_600_000_000)),
        with("binary_data_output", int(1)),
        with("top_k", int(0)),
    ] {
        assert_means(&client.model_infer(request).await.unwrap().into_inner());
    }
    let answer = client.model_infer(with("top_k", int(1))).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents[0], byte_strings(&[b"2.500000:0:red".to_vec()]));

    let text =
        pb::InferParameter { parameter_choice: Some(pb::infer_parameter::ParameterChoice::StringParam("1".into())) };
    for request in [
        with("priority", int(-1)),
        with("priority", unsigned(1 << 32)),
        with("timeout", text),
        with("timeout", pb::InferParameter::default()),
        with("top_k", int(-5)),
    ] {
        let status = client.model_infer(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{request:?}");
        let name = request.parameters.keys().next().unwrap();
        assert!(status.message().contains(name), "{status}");
    }
}

#[tokio::test]
async fn outputs_are_those_asked_for() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let mut request = raw("means", "FP32", &[1, 3, 2, 2], bytes(&TENSOR));
    request.outputs = vec![output("logits", None)];
    assert_means(&client.model_infer(request.clone()).await.unwrap().into_inner());
    // 0 is how clients say that they want none.
    request.outputs = vec![output("logits", Some(0))];
    assert_means(&client.model_infer(request).await.unwrap().into_inner());
}

#[tokio::test]
async fn models_are_described() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let metadata = client.server_metadata(pb::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(metadata.name, "convoy");
    assert!(metadata.extensions.contains(&"classification".to_owned()));
    assert!(client.server_live(pb::ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(pb::ServerReadyRequest {}).await.unwrap().into_inner().ready);

    let metadata = pb::ModelMetadataRequest { name: "means".into(), version: String::new() };
    let metadata = client.model_metadata(metadata).await.unwrap().into_inner();
    assert_eq!((&*metadata.platform, &*metadata.versions), ("onnxruntime_onnx", &["1".to_owned()][..]));
    let tensor = &metadata.inputs[0];
    assert_eq!((&*tensor.name, &*tensor.datatype, &*tensor.shape), ("input", "FP32", &[-1, 3, 2, 2][..]));
    let tensor = &metadata.outputs[0];
    assert_eq!((&*tensor.name, &*tensor.datatype, &*tensor.shape), ("logits", "FP32", &[-1, 3][..]));

    let mut config = async |name: &str| {
        let request = pb::ModelConfigRequest { name: name.into(), version: "1".into() };
        client.model_config(request).await.unwrap().into_inner().config.unwrap()
    };
    let means = config("means").await;
    assert_eq!((means.max_batch_size, &*means.input[0].dims, &*means.output[0].dims), (8, &[3, 2, 2][..], &[3][..]));
    assert_eq!(means.input[0].data_type(), pb::DataType::TypeFp32);
    assert_eq!(means.output[0].label_filename, "labels.txt");
    assert_eq!((&*means.backend, &*means.platform), ("onnxruntime", "onnxruntime_onnx"));
    assert_eq!(means.instance_group[0].kind(), pb::model_instance_group::Kind::Cpu);
    assert!(!means.model_transaction_policy.unwrap().decoupled);
    let held = config("held").await;
    let Some(SchedulingChoice::DynamicBatching(batching)) = held.scheduling_choice else { panic!("{held:?}") };
    assert_eq!(batching.max_queue_delay_microseconds, 3_600_000_000);
    assert_eq!((held.max_batch_size, held.instance_group[0].count), (2, 1));
    let fixed = config("fixed").await;
    assert_eq!((fixed.max_batch_size, &*fixed.input[0].dims), (0, &[1, 3, 2, 2][..]));
    assert!(fixed.scheduling_choice.is_none());
}

#[tokio::test]
async fn statistics_count_what_ran() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let doubled = [TENSOR, TENSOR].concat();
    client.model_infer(raw("means", "FP32", &[2, 3, 2, 2], bytes(&doubled))).await.unwrap();
    client.model_infer(raw("means", "FP32", &[2, 3, 2, 2], "")).await.unwrap_err();
    let mut statistics = async |name: &str, version: &str| {
        let request = pb::ModelStatisticsRequest { name: name.into(), version: version.into() };
        client.model_statistics(request).await.map(|answer| answer.into_inner().model_stats)
    };
    let means = &statistics("means", "").await.unwrap()[0];
    assert_eq!((&*means.name, &*means.version, means.inference_count, means.execution_count), ("means", "1", 2, 1));
    let inference = means.inference_stats.unwrap();
    assert_eq!((inference.success.unwrap().count, inference.fail.unwrap().count), (1, 1));
    assert_eq!((inference.queue.unwrap().count, inference.cache_hit.unwrap().count), (2, 0));
    assert_eq!((means.batch_stats[0].batch_size, means.batch_stats[0].compute_infer.unwrap().count), (2, 1));
    assert!(means.last_inference > 1_700_000_000_000);

    let all: Vec<_> = statistics("", "").await.unwrap().into_iter().map(|model| model.name).collect();
    assert_eq!(all, ["fixed", "held", "means"]);
    assert_eq!(statistics("means", "7").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(statistics("broken", "").await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn the_index_and_readiness_tell_of_every_model() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    for (ready, expected) in [(false, 4), (true, 3)] {
        let request = pb::RepositoryIndexRequest { repository_name: String::new(), ready };
        let models = client.repository_index(request).await.unwrap().into_inner().models;
        let states: HashMap<_, _> = models
            .iter()
            .map(|model| (&*model.name, (&*model.version, &*model.state, !model.reason.is_empty())))
            .collect();
        assert_eq!(states.len(), expected);
        assert_eq!(states["means"], ("1", "READY", false));
        assert_eq!(states.get("broken"), (!ready).then_some(&("1", "UNAVAILABLE", true)));
    }
    let mut ready = async |name: &str, version: &str| {
        let request = pb::ModelReadyRequest { name: name.into(), version: version.into() };
        client.model_ready(request).await.map(|answer| answer.into_inner().ready).map_err(|status| status.code())
    };
    assert_eq!(ready("means", "").await, Ok(true));
    assert_eq!(ready("means", "1").await, Ok(true));
    assert_eq!(ready("broken", "").await, Ok(false));
    // Who waits for a model asks before there is one.
    assert_eq!(ready("means", "2").await, Ok(false));
    assert_eq!(ready("nothing", "").await, Ok(false));
    assert_eq!(ready("means", "latest").await, Err(Code::NotFound));
}

#[tokio::test]
async fn what_is_not_offered_says_so_at_once() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let codes = [
        client.system_shared_memory_status(pb::SystemSharedMemoryStatusRequest::default()).await.unwrap_err(),
        client.system_shared_memory_register(pb::SystemSharedMemoryRegisterRequest::default()).await.unwrap_err(),
        client.system_shared_memory_unregister(pb::SystemSharedMemoryUnregisterRequest::default()).await.unwrap_err(),
        client.cuda_shared_memory_status(pb::CudaSharedMemoryStatusRequest::default()).await.unwrap_err(),
        client.cuda_shared_memory_register(pb::CudaSharedMemoryRegisterRequest::default()).await.unwrap_err(),
        client.cuda_shared_memory_unregister(pb::CudaSharedMemoryUnregisterRequest::default()).await.unwrap_err(),
        client.trace_setting(pb::TraceSettingRequest::default()).await.unwrap_err(),
        client.log_settings(pb::LogSettingsRequest::default()).await.unwrap_err(),
    ];
    for status in codes {
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(!status.message().is_empty());
    }
}

#[tokio::test]
async fn a_request_id_comes_back() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let mut request = Request::new(pb::ServerLiveRequest {});
    request.metadata_mut().insert("x-request-id", "trace-1".parse().unwrap());
    let answer = client.server_live(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "trace-1");
    let answer = client.server_live(pb::ServerLiveRequest {}).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap().len(), 17);
    // On errors, too.
    let mut request = raw("nothing", "FP32", &[1], "");
    request.inputs.push(input("second", "FP32", &[1]));
    let status = client.model_infer(request).await.unwrap_err();
    assert_eq!(status.metadata().get("x-request-id").unwrap().len(), 17);
}
