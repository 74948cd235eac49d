//! Classifies picture files over gRPC, all of them on one stream:
//! `cargo run --example classify -- --address 127.0.0.1:8001 photo.jpg ...`
//!
//! A program outside this crate gets the same client from `proto/convoy/v1/image_classifier.proto` with `tonic-prost-build`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use convoy::grpc::proto::convoy::v1::classify_stream_response::Result as Answer;
use convoy::grpc::proto::convoy::v1::image_classifier_client::ImageClassifierClient;
use convoy::grpc::proto::convoy::v1::{Class, ClassifyRequest, ClassifyStreamRequest};
use futures_util::{StreamExt, stream};
use tonic::transport::Endpoint;

/// Classify picture files over gRPC
#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "127.0.0.1:8001")]
    address: String,
    /// The server's default where absent
    #[arg(long, default_value = "")]
    model: String,
    #[arg(long, default_value_t = 3)]
    top_k: u32,
    #[arg(required = true, value_name = "PICTURE")]
    pictures: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let channel = Endpoint::from_shared(format!("http://{}", options.address))?
        .connect()
        .await
        .with_context(|| format!("{} cannot be reached", options.address))?;

    let mut requests = Vec::new();
    for path in options.pictures {
        let picture = std::fs::read(&path).with_context(|| format!("{path} cannot be read"))?;
        let request = ClassifyRequest {
            model_name: options.model.clone(),
            images: vec![picture.into()],
            top_k: Some(options.top_k),
            ..ClassifyRequest::default()
        };
        requests.push(ClassifyStreamRequest { id: path, request: Some(request) });
    }

    let mut code = ExitCode::SUCCESS;
    let mut answers = ImageClassifierClient::new(channel).classify_stream(stream::iter(requests)).await?.into_inner();
    let mut out = std::io::stdout().lock();
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        match answer.result.context("an answer of the server is empty")? {
            Answer::Response(response) => {
                let classes: Vec<_> = response.predictions.iter().flat_map(|p| &p.classes).map(describe).collect();
                writeln!(out, "{}: {}", answer.id, classes.join(", "))?;
            }
            Answer::Error(error) => {
                code = ExitCode::FAILURE;
                writeln!(std::io::stderr(), "{}: {}", answer.id, error.message)?;
            }
        }
    }
    Ok(code)
}

fn describe(class: &Class) -> String {
    let name = class.label.clone().unwrap_or_else(|| class.index.to_string());
    format!("{name} {:.1}%", class.score * 100.0)
}
