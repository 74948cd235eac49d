//! Message sizes and compression.

use std::io::Write;

use convoy::grpc::proto::inference as pb;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use prost::Message;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::client::{bytes, client, raw};
use crate::raw::{MODEL_INFER, MODEL_STREAM_INFER, call, frame, framed};
use crate::server::{config, start};
use crate::{TENSOR, assert_means, repository, server};

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

    let answer = call(&server, MODEL_INFER, &[("grpc-encoding", "snappy")], framed(1, &message)).await;
    assert_eq!(answer.code, Code::Unimplemented);

    let mut client =
        client(&server).await.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    assert_means(client.model_infer(request()).await.unwrap().get_ref());
}
