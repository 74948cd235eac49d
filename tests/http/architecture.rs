//! What the layers of a served model cost.

use serde_json::json;

use crate::client::get;
use crate::graphs;
use crate::server::{PLAIN_RECIPE, Repository, config, start};

#[tokio::test]
async fn a_models_layers_and_their_costs_are_told() {
    let repository = Repository::new().with("filters", &graphs::convolutional(4, 5), PLAIN_RECIPE, "");
    let server = start(config(&repository)).await;
    // One 3x3 convolution of three channels to five on 4x4 maps, padded: 5 * 27 weights and 5 biases, 27 products for each of
    // 5 * 16 values.
    let expected = json!({
        "model": "filters",
        "version": "1",
        "name": "test",
        "input_shape": [3, 4, 4],
        "parameters": 140,
        "macs": 2160,
        "activation_bytes": 340,
        "layers": [
            {"name": "convolved", "operator": "Conv", "output_shape": [5, 4, 4], "parameters": 140, "macs": 2160, "activation_bytes": 320},
            {"name": "rectified", "operator": "Relu", "output_shape": [5, 4, 4], "parameters": 0, "macs": 0, "activation_bytes": 0},
            {"name": "pooled", "operator": "GlobalAveragePool", "output_shape": [5, 1, 1], "parameters": 0, "macs": 0, "activation_bytes": 20},
            {"name": "logits", "operator": "Flatten", "output_shape": [5], "parameters": 0, "macs": 0, "activation_bytes": 0},
        ],
    });
    for path in ["/v1/models/filters/architecture", "/v1/models/filters/versions/1/architecture"] {
        let answer = get(&server, path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), expected);
    }
    for path in ["/v1/models/none/architecture", "/v1/models/filters/versions/2/architecture"] {
        assert_eq!(get(&server, path).await.status, 404);
    }
}
