//! Explanations over HTTP; what they must be is tested in `tests/explain`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use convoy::server::Server;
use serde_json::{Value, json};

use crate::client::{get, send};
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, png, start};

async fn server() -> (Server, Repository) {
    let labels = "zero\none\ntwo\n";
    let repository = Repository::new()
        .with("filters", &graphs::convolutional(8, 3), &format!("{PLAIN_RECIPE}resize = 8\n"), labels)
        .with("means", &graphs::channel_means(8, None), PLAIN_RECIPE, "");
    let folder = repository.path().join("both");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), "members = ['filters', 'means']").unwrap();
    (start(config(&repository)).await, repository)
}

fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n")
}

fn decode(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn an_explanation_is_json_or_a_picture() {
    let (server, _repository) = server().await;
    for path in ["/v1/models/filters/explain", "/v1/models/filters/versions/1/explain"] {
        let answer = send(&server, "POST", path, &[], png([9, 90, 200])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        assert_eq!((&body["model_name"], &body["model_version"]), (&json!("filters"), &json!("1")));
        assert_eq!((&body["method"], &body["layer"]), (&json!("cam"), &json!("rectified")));
        assert_eq!((&body["class"]["index"], &body["class"]["label"]), (&json!(2), &json!("two")));
        assert!(body["class"]["score"].as_f64().unwrap() > 0.5);
        assert_eq!(body["heatmap"]["shape"], json!([8, 8]));
        // The filter adds 2 to the three colours of a pixel.
        let expected = (9.0 + 90.0 + 200.0) / 255.0 + 2.0;
        let data = body["heatmap"]["data"].as_array().unwrap();
        assert_eq!(data.len(), 64);
        assert!(data.iter().all(|value| (value.as_f64().unwrap() - expected).abs() < 1e-5), "{data:?}");
        let frame = json!({"x": 0.0, "y": 0.0, "width": 8.0, "height": 8.0, "picture_width": 8, "picture_height": 8});
        assert_eq!(body["frame"], frame);
        assert!(is_png(&decode(&body["png"])));

        assert_eq!(answer.headers["vary"], "accept");

        let answer = send(&server, "POST", path, &[("accept", "image/png")], png([9, 90, 200])).await;
        assert_eq!(answer.headers["vary"], "accept");
        assert_eq!((answer.status.as_u16(), &answer.headers["content-type"]), (200, &"image/png".parse().unwrap()));
        assert_eq!(answer.body, decode(&body["png"]));
    }
}

#[tokio::test]
async fn every_method_and_parameter_is_taken() {
    let (server, _repository) = server().await;
    for (query, method, units) in [
        ("method=gradcam&class=0", "gradcam", 0),
        ("method=occlusion&patch=4&stride=4", "occlusion", 0),
        ("method=deconvnet&layer=rectified&unit=1", "deconvnet", 1),
        ("method=guided&layer=rectified&count=2", "guided", 2),
        ("method=gradient&class=1", "gradient", 1),
    ] {
        let path = format!("/v1/models/filters/explain?{query}");
        let answer = send(&server, "POST", &path, &[], png([9, 90, 200])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        assert_eq!(body["method"], method);
        assert_eq!(body["units"].as_array().unwrap().len(), units, "{query}");
    }
    let occlusion =
        send(&server, "POST", "/v1/models/filters/explain?method=occlusion&patch=4&stride=4", &[], png([9; 3]));
    assert_eq!(occlusion.await.json()["heatmap"]["shape"], json!([2, 2]));
}

#[tokio::test]
async fn filters_feature_maps_and_exciting_pictures_are_told() {
    let (server, _repository) = server().await;
    let body = get(&server, "/v1/models/filters/filters").await.json();
    assert_eq!((&body["layer"], &body["shape"]), (&json!("convolved"), &json!([3, 3, 3, 3])));
    assert_eq!(body["data"].as_array().unwrap().len(), 81);
    assert!(is_png(&decode(&body["png"])));
    let answer = send(&server, "GET", "/v1/models/filters/versions/1/filters", &[("accept", "image/*")], "").await;
    assert_eq!(answer.body, decode(&body["png"]));

    let body = send(&server, "POST", "/v1/models/filters/features?layer=rectified", &[], png([255; 3])).await.json();
    assert_eq!(body["shape"], json!([3, 8, 8]));
    assert_eq!(body["channels"][1], json!({"min": 4.0, "max": 4.0, "mean": 4.0, "std": 0.0, "active": 1.0}));
    assert!(is_png(&decode(&body["png"])));

    let images: Vec<_> = [[10, 0, 0], [90, 0, 0], [50, 0, 0]].map(|colour| STANDARD.encode(png(colour))).to_vec();
    let path = "/v1/models/filters/exciting?layer=rectified&unit=0&count=2";
    let headers = [("content-type", "application/json")];
    let body = send(&server, "POST", path, &headers, json!({ "images": images }).to_string()).await.json();
    let order: Vec<_> = body["pictures"].as_array().unwrap().iter().map(|it| it["index"].as_u64().unwrap()).collect();
    assert_eq!(order, [1, 2]);
    assert!(is_png(&decode(&body["png"])));
    // Nothing to be seen is no picture.
    let body = send(&server, "POST", path, &[], png([0; 3])).await.json();
    assert_eq!((&body["pictures"], &body["png"]), (&json!([]), &json!(null)));
    let answer = send(&server, "POST", path, &[("accept", "image/png")], png([0; 3])).await;
    let said = "unit 0 of rectified is not above zero in any of the pictures";
    assert_eq!((answer.status.as_u16(), answer.error()), (404, said.to_owned()));
}

#[tokio::test]
async fn kserves_verb_explains_too() {
    let (server, _repository) = server().await;
    let instance = json!({"image_bytes": {"b64": STANDARD.encode(png([9, 90, 200]))}});
    let body = json!({ "instances": [instance, instance] }).to_string();
    let answer = send(&server, "POST", "/v1/models/filters:explain?method=gradcam&class=1", &[], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let explanations = body["explanations"].as_array().unwrap();
    assert_eq!(explanations.len(), 2);
    assert_eq!((&explanations[1]["method"], &explanations[1]["class"]["index"]), (&json!("gradcam"), &json!(1)));
    let answer = send(&server, "POST", "/v1/models/filters/versions/1:explain", &[], r#"{"instances": [[1]]}"#).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (400, "pictures are explained, not tensors".to_owned()));
    // `parameters` are another place for the query's, and go before these.
    let with = async |query: &str, parameters: Value| {
        let body = json!({"instances": [instance], "parameters": parameters}).to_string();
        send(&server, "POST", &format!("/v1/models/filters:explain{query}"), &[], body).await
    };
    for parameters in [json!({"class": 1}), json!({"class": "1", "method": "cam", "layer": null, "patch": null})] {
        let answer = with("?method=gradcam&class=0", parameters).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let explanation = &answer.json()["explanations"][0];
        assert_eq!((&explanation["method"], &explanation["class"]["index"]), (&json!("cam"), &json!(1)));
    }
    for (parameters, said) in [
        (json!({"top_k": 1}), "the JSON is not an explain request: unknown field `top_k`, expected one of `method`, "),
        (json!({"class": -1}), "the JSON is not an explain request: -1 is not a whole number from 0 on"),
        (json!({"class": 1.5}), "expected a whole number from 0 on"),
        (json!({"method": "occlusion", "patch": 0}), "picture 0: patch must be at least 1 pixel, not 0"),
    ] {
        let answer = with("", parameters).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.error().contains(said), "{}", answer.error());
    }
    let answer = send(&server, "POST", "/v1/models/filters:explain", &[], r#"{"instances": []}"#).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (400, "at least one picture must be given".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_explained_says_why() {
    let (server, _repository) = server().await;
    for (path, status, said) in [
        ("/v1/models/none/explain", 404, "no model called none"),
        ("/v1/models/both/explain", 400, "ask for its members, filters, means"),
        (
            "/v1/models/filters/explain?method=magic",
            400,
            "there is no method magic; there are cam, gradcam, occlusion, ",
        ),
        ("/v1/models/filters/explain?classes=1", 400, "unknown field `classes`"),
        ("/v1/models/filters/explain?method=cam&class=7", 400, "there is no class 7: the model has the classes 0 to 2"),
        (
            "/v1/models/filters/explain?method=guided&layer=rectified&unit=3",
            400,
            "there is no unit 3: the layer rectified has the units 0 to 2",
        ),
        (
            "/v1/models/filters/explain?method=guided&layer=rectified&unit=-1",
            400,
            "unit: -1 is not a whole number from 0 on",
        ),
        ("/v1/models/filters/explain?class=-1", 400, "class: -1 is not a whole number from 0 on"),
        ("/v1/models/filters/explain?method=occlusion&patch=0", 400, "patch must be at least 1 pixel, not 0"),
        (
            "/v1/models/filters/exciting?layer=rectified",
            400,
            "name a unit: unit=… in the query, a channel of the layer rectified",
        ),
        (
            "/v1/models/filters/exciting?unit=1",
            400,
            "name a layer: layer=… in the query; /v1/models/filters/versions/1/architecture lists them",
        ),
        (
            "/v1/models/filters/explain?class=",
            400,
            "class: there is nothing behind it: say what is wanted, or leave it out",
        ),
        ("/v1/models/filters/explain?method=", 400, "method: there is nothing behind it"),
        ("/v1/models/filters/explain?method=guided&layer=", 400, "layer: there is nothing behind it"),
        (
            "/v1/models/filters/explain?method=occlusion&patch=99999999999999999999",
            400,
            "patch: 99999999999999999999 is too large",
        ),
        (
            "/v1/models/filters/explain?method=occlusion&patch=9999999999999999999",
            400,
            "a square of 9999999999999999999 pixels does not fit",
        ),
        ("/v1/models/filters/exciting?layer=rectified&unit=x", 400, "unit: x is not a whole number from 0 on"),
        ("/v1/models/filters/explain?method=guided&patch=3", 400, "patch means nothing to guided"),
        ("/v1/models/filters/explain?method=guided&layer=deep", 404, "no layer called deep"),
        ("/v1/models/filters/features?layer=deep", 404, "no layer called deep"),
        (
            "/v1/models/filters/features",
            400,
            "name a layer: layer=… in the query; /v1/models/filters/versions/1/architecture lists them",
        ),
        ("/v1/models/filters/exciting?layer=rectified&unit=0&method=cam", 400, "deconvnet, guided or gradient"),
    ] {
        let answer = send(&server, "POST", path, &[], png([1, 2, 3])).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.error().contains(said), "{path}: {}", answer.error());
    }
    assert_eq!(send(&server, "POST", "/v1/models/filters/explain", &[], "text").await.status, 415);
    assert_eq!(get(&server, "/v1/models/means/filters").await.status, 400);
    for path in ["filters/filters?x=1", "filters/architecture?x=1"] {
        let answer = get(&server, &format!("/v1/models/{path}")).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.error().contains("unknown field `x`"), "{answer:?}");
    }
    for path in ["filters", "architecture"] {
        let answer = get(&server, &format!("/v1/models/both/{path}")).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.error().contains("ask for its members, filters, means"), "{answer:?}");
    }
    assert_eq!(get(&server, "/v1/models/filters/explain").await.status, 405);
}
