//! What no proper client sends: each is answered with a clear status, and the server goes on.

use convoy::grpc::proto::inference as pb;
use tonic::Code;

use crate::client::{byte_strings, bytes, client, input, output, raw};
use crate::raw::{MODEL_INFER, MODEL_STREAM_INFER, call, frame, framed};
use crate::server::png;
use crate::{TENSOR, assert_means, server};

fn good() -> pb::ModelInferRequest {
    raw("means", "FP32", &[1, 3, 2, 2], bytes(&TENSOR))
}

fn with(change: impl FnOnce(&mut pb::ModelInferRequest)) -> pb::ModelInferRequest {
    let mut request = good();
    change(&mut request);
    request
}

fn contents() -> pb::InferTensorContents {
    pb::InferTensorContents { fp32_contents: TENSOR.to_vec(), ..Default::default() }
}

#[tokio::test]
async fn requests_that_do_not_add_up_are_refused_with_the_reason() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let shape = |shape: &[i64]| raw("means", "FP32", shape, bytes(&TENSOR));
    let pictures = |bytes: Vec<u8>| raw("means", "BYTES", &[1], bytes);
    let prefix = |length: u32| [&length.to_le_bytes()[..], &[0; 8]].concat();
    for (request, said) in [
        // How many tensors.
        (with(|request| request.inputs.clear()), "there are 0 inputs, but raw_input_contents has 1 entries"),
        (with(|request| request.raw_input_contents.clear()), "neither contents nor raw_input_contents"),
        (
            with(|request| request.raw_input_contents.push("".into())),
            "there are 1 inputs, but raw_input_contents has 2",
        ),
        (pb::ModelInferRequest { model_name: "means".into(), ..Default::default() }, "takes one input"),
        (
            with(|request| {
                request.inputs.push(input("second", "FP32", &[1]));
                request.raw_input_contents.push(vec![0; 4].into());
            }),
            "takes one input",
        ),
        (with(|request| request.inputs[0].contents = Some(contents())), "both raw_input_contents and"),
        // Names.
        (with(|request| request.model_name.clear()), "names no model"),
        (
            with(|request| {
                request.inputs.push(request.inputs[0].clone());
                request.raw_input_contents.push(request.raw_input_contents[0].clone());
            }),
            "input input is given twice",
        ),
        (with(|request| request.inputs[0].name = "image".into()), "no input called image"),
        (with(|request| request.outputs = vec![output("probabilities", None)]), "no output called probabilities"),
        (with(|request| request.outputs = vec![output("logits", None); 2]), "asked for twice"),
        (with(|request| request.outputs = vec![output("logits", Some(-1))]), "classification"),
        (with(|request| request.outputs = vec![output("logits", None); 65]), "at most 64 tensors"),
        // Shapes.
        (shape(&[1, 3, 2, 3]), "takes 18 elements of 4 bytes, but 48 bytes were given"),
        (shape(&[1, 3, 4, 1]), "takes the shape"),
        (shape(&[12]), "takes the shape"),
        (shape(&[]), "takes 1 elements"),
        (shape(&[-1, 3, 2, 2]), "negative dimension"),
        (shape(&[i64::MIN, 3, 2, 2]), "negative dimension"),
        (shape(&[1 << 40, 1 << 40, 2, 2]), "more elements than can be counted"),
        (shape(&[i64::MAX, 3, 2, 2]), "more elements than can be counted"),
        (shape(&[1 << 62, 1, 1, 1]), "bytes were given"),
        (shape(&[1; 33]), "at most 32 dimensions"),
        (raw("means", "FP32", &[0, 3, 2, 2], ""), "no elements"),
        // Types.
        (with(|request| request.inputs[0].datatype = "FLOAT".into()), "no datatype FLOAT"),
        (with(|request| request.inputs[0].datatype = "INT32".into()), "takes FP32"),
        (
            with(|request| {
                request.raw_input_contents.clear();
                request.inputs[0].datatype = "INT32".into();
                request.inputs[0].contents = Some(contents());
            }),
            "belong into int_contents, not into fp32_contents",
        ),
        // Byte strings.
        (pictures(prefix(1 << 30)), "says an element has 1073741824 bytes, but 8 are left"),
        (pictures(prefix(u32::MAX)), "says an element has"),
        (pictures(vec![1, 0]), "ends inside an element's length"),
        (pictures(vec![]), "takes 1 elements, but 0 were given"),
        (pictures(byte_strings(&[b"no picture".to_vec()])), "picture"),
        (raw("means", "BYTES", &[1, 2], byte_strings(&[png([0; 3]), png([0; 3])])), "of shape [N]"),
        (raw("means", "BYTES", &[0], ""), "no picture"),
        (
            with(|request| {
                let region = pb::infer_parameter::ParameterChoice::StringParam("region".into());
                let region = pb::InferParameter { parameter_choice: Some(region) };
                request.inputs[0].parameters.insert("shared_memory_region".into(), region);
            }),
            "shared memory",
        ),
    ] {
        let status = client.model_infer(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status} to {request:?}");
        assert!(status.message().contains(said), "{:?} does not say {said:?}", status.message());
    }
    assert_means(client.model_infer(good()).await.unwrap().get_ref());
}

#[tokio::test]
async fn very_many_empty_pictures_are_refused() {
    let (server, _repository) = server().await;
    let mut client = client(&server).await;
    let count = 8 << 20;
    let request = raw("means", "BYTES", &[count], vec![0; 4 * count as usize]);
    let status = client.model_infer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("8388608 pictures, the limit is 64"), "{status}");
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let (server, _repository) = server().await;
    let truncated = &frame(&good())[5..40];
    // Field 7, of 1 GiB by its own account.
    let gibibyte = [0x3a, 0x80, 0x80, 0x80, 0x80, 0x04, 1, 2, 3];
    let endless_varint = [0xff; 20];
    let group = [0x0b];
    // A string that is not UTF-8.
    let text = [0x0a, 2, 0xff, 0xfe];
    for message in [truncated, &gibibyte, &endless_varint, &group, &text] {
        for path in [MODEL_INFER, MODEL_STREAM_INFER] {
            let answer = call(&server, path, &[], framed(0, message)).await;
            assert_eq!(answer.code, Code::InvalidArgument, "{path} {message:?}: {}", answer.message);
            assert!(answer.message.contains("message"), "{}", answer.message);
        }
    }
    // The frame itself says 1 GiB.
    let answer = call(&server, MODEL_INFER, &[], [0, 0x40, 0, 0, 0, 1, 2, 3].to_vec()).await;
    assert_eq!(answer.code, Code::ResourceExhausted, "{}", answer.message);
    // No message at all, a flag that does not exist, a compressed message without a word on how.
    for body in [vec![], framed(7, b""), framed(1, b"abc")] {
        let answer = call(&server, MODEL_INFER, &[], body).await;
        assert_ne!(answer.code, Code::Ok);
        assert!(!answer.message.is_empty());
    }
    assert_means(client(&server).await.model_infer(good()).await.unwrap().get_ref());
}

#[tokio::test]
async fn what_does_not_exist_is_unimplemented() {
    let (server, _repository) = server().await;
    for path in ["/inference.GRPCInferenceService/ModelTrain", "/no.such.Service/Call", "/"] {
        let answer = call(&server, path, &[], framed(0, b"")).await;
        assert_eq!(answer.code, Code::Unimplemented, "{path}");
    }
    let unmatched = "convoy_grpc_requests_total{method=\"unmatched\",service=\"unmatched\",status=\"UNIMPLEMENTED\"}";
    assert_eq!(crate::metric(&server, unmatched).await as u32, 3);
}
