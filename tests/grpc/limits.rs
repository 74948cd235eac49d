//! Message sizes and compression.

use std::io::Write;
use std::time::Duration;

use convoy::grpc::proto::inference as pb;
use convoy::server::Server;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use prost::Message;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::client::{bytes, client, input, raw};
use crate::raw::{Answer, MODEL_INFER, MODEL_STREAM_INFER, call, frame, framed, open, open_until, send, send_to};
use crate::server::{Repository, config, start, within_a_minute};
use crate::{TENSOR, assert_means, metric, repository, requests, server, until};

fn request() -> pb::ModelInferRequest {
    raw("means", "FP32", &[1, 3, 2, 2], bytes(&TENSOR))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused() {
    let repository = repository();
    let mut config = config(&repository);
    config.grpc.max_message_bytes = 1 << 16;
    let server = start(config).await;
    let large = raw("means", "FP32", &[1, 3, 2, 2], vec![0; 1 << 16]);
    for path in [MODEL_INFER, MODEL_STREAM_INFER] {
        let answer = call(&server, path, &[], frame(&large)).await;
        assert_eq!(answer.code, Code::ResourceExhausted, "{path}: {}", answer.message);
        // The limit is on what is decompressed, too: these are about a hundred bytes.
        let bomb = framed(1, &gzip(&large.encode_to_vec()));
        assert!(bomb.len() < 1 << 10);
        let answer = call(&server, path, &[("grpc-encoding", "gzip")], bomb).await;
        assert_eq!(answer.code, Code::ResourceExhausted, "{path}: {}", answer.message);
    }
    assert_means(client(&server).await.model_infer(request()).await.unwrap().get_ref());
}

/// A server that takes messages of 64 KiB, and has room in memory for so many bytes of them.
async fn with_room_for(max_inflight_bytes: usize) -> (Server, Repository) {
    let repository = repository();
    let mut config = config(&repository);
    config.grpc.max_message_bytes = 1 << 16;
    config.http.max_body_bytes = 1 << 16;
    config.limits.max_inflight_bytes = max_inflight_bytes;
    (start(config).await, repository)
}

/// A call that begins with `bytes` and stays open until what is returned first is dropped.
fn held_open(
    server: &Server,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    bytes: Vec<u8>,
) -> (oneshot::Sender<()>, JoinHandle<Answer>) {
    let (end, ended) = oneshot::channel();
    let body = open_until(bytes, ended);
    let address = server.grpc_address();
    (end, tokio::spawn(async move { send_to(address, path, headers, body).await }))
}

#[tokio::test]
async fn messages_that_do_not_fit_into_memory_are_refused_at_once_and_those_that_left_make_room() {
    let (server, _repository) = with_room_for(1 << 16).await;
    let large = frame(&raw("means", "FP32", &[1, 3, 2, 2], vec![0; 60_000]));
    let answer = call(&server, MODEL_INFER, &[], large.clone()).await;
    assert_eq!(answer.code, Code::InvalidArgument, "{}", answer.message);
    // Half of a message stays, in a call or on a stream.
    for path in [MODEL_INFER, MODEL_STREAM_INFER] {
        let (end, half) = held_open(&server, path, &[], large[..30_000].to_vec());
        let refused = async {
            loop {
                let answer = call(&server, MODEL_INFER, &[], large.clone()).await;
                if answer.code == Code::ResourceExhausted {
                    return answer;
                }
            }
        };
        let answer = within_a_minute(refused).await;
        assert!(answer.message.contains("as many bytes"), "{}", answer.message);
        assert_eq!(answer.headers["grpc-retry-pushback-ms"], "1000");
        // Its own size is what a compressed message takes.
        let bomb = framed(1, &gzip(&raw("means", "FP32", &[1, 3, 2, 2], vec![0; 60_000]).encode_to_vec()));
        let answer = call(&server, MODEL_INFER, &[("grpc-encoding", "gzip")], bomb).await;
        assert_eq!(answer.code, Code::ResourceExhausted, "{}", answer.message);
        assert_means(client(&server).await.model_infer(request()).await.unwrap().get_ref());
        drop(end);
        assert_ne!(half.await.unwrap().code, Code::Ok);
        let room =
            async { while call(&server, MODEL_INFER, &[], large.clone()).await.code == Code::ResourceExhausted {} };
        within_a_minute(room).await;
    }
}

#[tokio::test]
async fn the_buffer_of_an_open_stream_counts_however_small_the_message_came() {
    let (server, _repository) = with_room_for(1 << 17).await;
    // A field that nobody knows, so that the decoded message is small, too.
    let mut message = request().encode_to_vec();
    prost::encoding::bytes::encode(999, &vec![0u8; 50_000], &mut message);
    let is_refused = async || {
        let answer = call(&server, MODEL_INFER, &[], framed(0, &message)).await;
        assert!(matches!(answer.code, Code::Ok | Code::ResourceExhausted), "{}", answer.message);
        answer.code == Code::ResourceExhausted
    };
    let gzipped = framed(1, &gzip(&message));
    assert!(gzipped.len() < 1 << 10);
    for (headers, bytes) in [(&[][..], framed(0, &message)), (&[("grpc-encoding", "gzip")], gzipped)] {
        // What came before is given back soon after its answer.
        within_a_minute(async { while is_refused().await {} }).await;
        let before = metric(&server, &requests("means", "success")).await;
        let (ends, streams): (Vec<_>, Vec<_>) =
            (0..2).map(|_| held_open(&server, MODEL_STREAM_INFER, headers, bytes.clone())).unzip();
        // When its message is answered, each still has 50,000 of the 131,072 bytes.
        until(&server, &requests("means", "success"), before + 2.0).await;
        assert!(is_refused().await);
        drop(ends);
        for stream in streams {
            let answer = stream.await.unwrap();
            assert_eq!(answer.code, Code::Ok, "{}", answer.message);
            assert_means(
                pb::ModelStreamInferResponse::decode(&answer.body[5..]).unwrap().infer_response.as_ref().unwrap(),
            );
        }
    }
}

#[tokio::test]
async fn the_numbers_of_a_tensor_count_as_they_are_decoded() {
    let (server, _repository) = with_room_for(1 << 16).await;
    // A byte each as they come, eight as they are decoded.
    for (count, code) in [(6_000, Code::InvalidArgument), (12_000, Code::ResourceExhausted)] {
        let contents = pb::InferTensorContents { int64_contents: vec![1; count], ..Default::default() };
        let input = pb::model_infer_request::InferInputTensor {
            contents: Some(contents),
            ..input("input", "INT64", &[count as i64])
        };
        let message = pb::ModelInferRequest { inputs: vec![input], ..request() };
        let message = pb::ModelInferRequest { raw_input_contents: Vec::new(), ..message };
        let answer = call(&server, MODEL_INFER, &[], frame(&message)).await;
        assert_eq!(answer.code, code, "{}", answer.message);
    }
}

#[tokio::test]
async fn a_message_that_does_not_arrive_is_given_up_and_a_silent_stream_is_not() {
    let repository = repository();
    let mut config = config(&repository);
    config.grpc.message_timeout_ms = 200;
    let server = start(config).await;
    let whole = frame(&request());
    for path in [MODEL_INFER, MODEL_STREAM_INFER] {
        let answer = within_a_minute(send(&server, path, &[], open(whole[..20].to_vec()))).await;
        assert_eq!(answer.code, Code::DeadlineExceeded, "{path}: {}", answer.message);
        assert!(answer.message.contains("200 ms"), "{}", answer.message);
    }
    let silent = send(&server, MODEL_STREAM_INFER, &[], open(whole));
    assert!(tokio::time::timeout(Duration::from_millis(600), silent).await.is_err());
}

#[tokio::test]
async fn a_message_of_very_many_entries_is_refused_before_it_is_decoded() {
    let (server, _repository) = server().await;
    // Each takes two bytes here and hundreds decoded.
    let inputs = [0x2a, 0].repeat(8 << 20);
    let strings = [0x42, 0].repeat(8 << 20);
    let nested = |field: u8, value: &[u8]| {
        let mut bytes = vec![field << 3 | 2];
        prost::encode_length_delimiter(value.len(), &mut bytes).unwrap();
        [bytes, value.to_vec()].concat()
    };
    let contents = nested(5, &nested(5, &strings));
    for message in [inputs, contents] {
        let answer = call(&server, MODEL_INFER, &[], framed(0, &message)).await;
        assert_eq!(answer.code, Code::ResourceExhausted, "{}", answer.message);
        assert!(answer.message.contains("entries"), "{}", answer.message);
    }
    assert_means(client(&server).await.model_infer(request()).await.unwrap().get_ref());
}

#[tokio::test]
async fn compressed_messages_are_answered_compressed_and_others_are_not() {
    let (server, _repository) = server().await;
    let message = request().encode_to_vec();
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&message).unwrap();
    let deflated = encoder.finish().unwrap();
    for (encoding, compressed) in [("gzip", gzip(&message)), ("deflate", deflated)] {
        let headers = [("grpc-encoding", encoding), ("grpc-accept-encoding", encoding)];
        let answer = call(&server, MODEL_INFER, &headers, framed(1, &compressed)).await;
        assert_eq!((answer.code, answer.body[0]), (Code::Ok, 1), "{}", answer.message);
        assert_eq!(answer.headers["grpc-encoding"], encoding);
    }
    let answer = call(&server, MODEL_INFER, &[("grpc-accept-encoding", "gzip,deflate")], frame(&request())).await;
    assert_eq!((answer.code, answer.body[0]), (Code::Ok, 0), "{}", answer.message);
    assert_means(&pb::ModelInferResponse::decode(&answer.body[5..]).unwrap());

    // Uncompressed ones among them, several in one frame, and what is not what it says.
    let two = [framed(0, &message), framed(1, &gzip(&message))].concat();
    let answer = call(&server, MODEL_STREAM_INFER, &[("grpc-encoding", "gzip")], two).await;
    let first = u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize;
    assert_eq!((answer.code, answer.body.len()), (Code::Ok, 2 * (5 + first)), "{}", answer.message);
    for broken in [framed(1, &message), framed(1, &gzip(&message)[..20]), framed(1, &[])] {
        let answer = call(&server, MODEL_INFER, &[("grpc-encoding", "gzip")], broken).await;
        assert_eq!(answer.code, Code::InvalidArgument, "{}", answer.message);
    }
    let broken_off = &framed(1, &gzip(&message))[..20];
    let answer = call(&server, MODEL_INFER, &[("grpc-encoding", "gzip")], broken_off.to_vec()).await;
    assert_eq!(answer.code, Code::Internal, "{}", answer.message);

    let answer = call(&server, MODEL_INFER, &[("grpc-encoding", "snappy")], framed(1, &message)).await;
    assert_eq!(answer.code, Code::Unimplemented);

    let mut client =
        client(&server).await.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    assert_means(client.model_infer(request()).await.unwrap().get_ref());
}
