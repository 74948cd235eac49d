//! Explanations of models that change while the server serves.

use serde_json::{Value, json};

use crate::server::{PLAIN_RECIPE, Repository, png, start};
use crate::{explicit_all, graphs, http, load, put};

/// Asks twice, so that the second time the graphs are there already.
async fn units(server: &convoy::server::Server, model: &str) -> (u16, Value) {
    let path = format!("/v1/models/{model}/explain?method=gradient&layer=rectified&count=16");
    let ask = || http::send(server, "POST", &path, &[], png([9, 90, 200]));
    let answers = [ask().await, ask().await].map(|answer| (answer.status.as_u16(), answer.json()["units"].clone()));
    assert_eq!(answers[0], answers[1]);
    let [answer, _] = answers;
    answer
}

#[tokio::test]
async fn what_is_explained_is_the_version_that_serves() {
    let config = format!("versions = \"all\"\n{PLAIN_RECIPE}");
    let repository = Repository::new().with("m", &graphs::convolutional(4, 3), &config, "");
    put(&repository.path().join("m"), "2", &graphs::convolutional(4, 5));
    let server = start(explicit_all(&repository)).await;
    let count = async |model: &str| units(&server, model).await.1.as_array().map(Vec::len);
    assert_eq!((count("m/versions/1").await, count("m").await), (Some(3), Some(5)));

    // The graphs of the old one are there, and must not answer for the new one, nor the file for what is still the old one.
    put(&repository.path().join("m"), "2", &graphs::convolutional(4, 7));
    let path = "/v1/models/m/filters";
    let answer = http::send(&server, "GET", path, &[], "").await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.error().contains("has changed since it was loaded"), "{answer:?}");
    assert!(!answer.headers.contains_key("retry-after"), "to ask again helps nobody");
    let loaded = async || {
        let details = http::get(&server, "/v1/models/m").await.json();
        ["1", "2"].map(|version| details["loaded_ms"][version].as_u64().unwrap())
    };
    let before = loaded().await;
    assert_eq!(count("m").await, Some(5));
    assert_eq!(load(&server, "m").await.0, 200);
    assert_eq!((count("m/versions/1").await, count("m").await), (Some(3), Some(7)));
    let after = loaded().await;
    assert!(after[1] > before[1] && before[0] > 0, "{before:?}, {after:?}");
    assert_eq!(http::send(&server, "GET", path, &[], "").await.json()["shape"], json!([7, 3, 3, 3]));
}
