//! Explanations of models that see several crops of a picture: they are about the class that classification answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use crate::client::send;
use crate::colors::{SIDE, colors};
use crate::server::{Repository, config, start};

/// Red in the middle, where the crop lies that is explained, and blue in the corners, which are most of what is classified.
fn picture() -> Vec<u8> {
    let middle = SIDE..2 * SIDE;
    let picture = RgbImage::from_fn(3 * SIDE, 3 * SIDE, |x, y| {
        Rgb(if middle.contains(&x) && middle.contains(&y) { [255, 0, 0] } else { [0, 0, 240] })
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn score(class: &Value) -> f64 {
    class["score"].as_f64().unwrap()
}

#[tokio::test]
async fn the_class_is_the_one_that_classification_answers() {
    for crops in [5, 10] {
        let recipe = format!(
            "max_batch_size = 4\n[preprocess]\nscale = 0.00392156862745098\nresize = 'none'\ncrops = {crops}\n"
        );
        let repository = Repository::new().with("colors", &colors(), &recipe, "red\nblue\n");
        let server = start(config(&repository)).await;
        let classes = send(&server, "POST", "/v1/models/colors/classify", &[], picture()).await.json();
        let classes = classes["predictions"][0]["classes"].clone();
        assert_eq!(classes[0]["label"], "blue");
        assert!((score(&classes[0]) - 0.8).abs() < 1e-6, "four of five crops are blue: {classes}");
        for (method, said) in [
            ("", ""),
            ("cam", "method=cam"),
            ("gradcam", "method=gradcam"),
            // All is covered at once.
            ("occlusion", "method=occlusion&patch=32&stride=32"),
            ("deconvnet", "method=deconvnet"),
            ("guided", "method=guided"),
            ("gradient", "method=gradient"),
        ] {
            let path = format!("/v1/models/colors/explain?{said}");
            let explain = async |named: &str| {
                let answer = send(&server, "POST", &format!("{path}&{named}"), &[], picture()).await;
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                answer.json()
            };
            let explanation = explain("").await;
            assert_eq!(explanation["class"], classes[0], "{path}");
            // A class that is named has the probability that it has there, too.
            let named = explain("class=0").await;
            assert_eq!(named["class"], classes[1], "{path}");
            // What is looked at is the middle, which has nothing blue.
            assert_eq!(
                explanation["frame"],
                json!({"x": 32.0, "y": 32.0, "width": 32.0, "height": 32.0, "picture_width": 96, "picture_height": 96})
            );
            let strongest = |explanation: &Value| {
                let data = explanation["heatmap"]["data"].as_array().unwrap();
                data.iter().map(|value| value.as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max)
            };
            if ["cam", "gradcam", "occlusion"].contains(&method) {
                assert!(strongest(&named) > 0.0 && strongest(&explanation) <= 0.0, "{path}");
            }
        }
        // Of several units the first is that class, too.
        let path = "/v1/models/colors/explain?method=gradient&count=2";
        let both = send(&server, "POST", path, &[], picture()).await.json();
        assert_eq!((&both["units"][0]["unit"], &both["units"][1]["unit"]), (&json!(1), &json!(0)));
        let body = json!({"instances": [{"b64": STANDARD.encode(picture())}]}).to_string();
        let answer = send(&server, "POST", "/v1/models/colors:explain", &[], body).await;
        assert_eq!(answer.json()["explanations"][0]["class"], classes[0]);
        server.shutdown().await;
    }
}
