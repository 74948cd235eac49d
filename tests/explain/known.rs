//! Pictures and graphs whose explanation can be said beforehand.

use convoy::explain::{ExcitingRequest, ExplainRequest, Explanation, Method, Rule};
use convoy::onnx::proto::tensor_proto::DataType;
use convoy::onnx::{AttributeProto, TensorProto};
use convoy::tensor::Tensor;
use image::{Rgb, RgbImage};

use super::colors::{colors, initializer};
use super::graphs::{model, node, value};
use super::{Fixture, decoded, png};

pub(crate) const PLAIN: &str = "[preprocess]\nresize = 32\nscale = 0.00392156862745098\n";

/// Gray, with a square of `color` whose upper left corner is at (`x`, `y`), in 64 rows and columns.
pub(crate) fn painted(x: u32, y: u32, color: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(64, 64, |column, row| {
        let inside = (x..x + 16).contains(&column) && (y..y + 16).contains(&row);
        Rgb(if inside { color } else { [90; 3] })
    })
}

/// Where the highest value lies in the picture, in shares of its width and height.
fn hottest(explanation: &Explanation) -> (f32, f32) {
    let heatmap = &explanation.heatmap;
    let best = (0..heatmap.data.len()).max_by(|&a, &b| heatmap.data[a].total_cmp(&heatmap.data[b])).unwrap();
    let middle = |index: usize, size: usize| (index as f32 + 0.5) / size as f32;
    let (column, row) = (middle(best % heatmap.width, heatmap.width), middle(best / heatmap.width, heatmap.height));
    let frame = &explanation.frame;
    (
        (frame.x + column * frame.width) / frame.picture_width as f32,
        (frame.y + row * frame.height) / frame.picture_height as f32,
    )
}

#[tokio::test]
async fn an_object_in_a_corner_is_where_the_heat_is() {
    let fixture = Fixture::new(&colors(), PLAIN);
    for (x, y) in [(0, 0), (48, 0), (0, 48), (48, 48)] {
        for (class, color) in [(0, [255, 0, 0]), (1, [0, 0, 255])] {
            for method in [None, Some(Method::Cam), Some(Method::Gradcam), Some(Method::Occlusion)] {
                let request = ExplainRequest { method, ..ExplainRequest::new(png(&painted(x, y, color))) };
                let explanation = fixture.explain(request).await.unwrap();
                assert_eq!(explanation.class.as_ref().unwrap().index, class);
                let (column, row) = hottest(&explanation);
                let (left, top) = (x as f32 / 64.0, y as f32 / 64.0);
                let within = |place: f32, start: f32| (start - 0.05..start + 0.3).contains(&place);
                assert!(within(column, left) && within(row, top), "{method:?}: {column}, {row} for {left}, {top}");
                // And so in the picture: the square is where it is hottest.
                let overlay = decoded(&explanation.png);
                assert_eq!(overlay.dimensions(), (64, 64));
                let (inside, outside) = (overlay.get_pixel(x + 8, y + 8), overlay.get_pixel(32, 32));
                assert_ne!(inside.0, color);
                if method != Some(Method::Occlusion) {
                    assert_eq!(outside.0, [90; 3], "{method:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_heat_lies_in_the_crop_of_the_upright_picture() {
    let fixture = Fixture::new(&colors(), PLAIN);
    // The crop is the middle of three: a square at its left edge lies a third into the picture.
    let wide =
        RgbImage::from_fn(192, 64, |x, y| Rgb(if (64..80).contains(&x) && y < 16 { [255, 0, 0] } else { [90; 3] }));
    let request = ExplainRequest { method: Some(Method::Cam), ..ExplainRequest::new(png(&wide)) };
    let explanation = fixture.explain(request).await.unwrap();
    let frame = explanation.frame;
    assert_eq!((frame.picture_width, frame.picture_height), (192, 64));
    assert_eq!([frame.x, frame.y, frame.width, frame.height], [64.0, 0.0, 64.0, 64.0]);
    let (column, row) = hottest(&explanation);
    assert!((0.33..0.42).contains(&column) && (0.0..0.26).contains(&row), "{column}, {row}");
}

#[tokio::test]
async fn any_class_can_be_asked_about() {
    let fixture = Fixture::new(&colors(), PLAIN);
    let ask = |class, method| ExplainRequest {
        class: Some(class),
        method: Some(method),
        ..ExplainRequest::new(png(&painted(0, 0, [255, 0, 0])))
    };
    let of = async |class, method| fixture.explain(ask(class, method)).await;
    let red = of(0, Method::Cam).await.unwrap();
    let blue = of(1, Method::Cam).await.unwrap();
    assert!(red.class.unwrap().score > 0.9);
    assert!(blue.class.unwrap().score < 0.1);
    // What speaks for one speaks against the other: CAM says so, Grad-CAM leaves it out.
    for (red, blue) in red.heatmap.data.iter().zip(&blue.heatmap.data) {
        assert!((red + blue).abs() < 1e-6);
    }
    assert!(of(1, Method::Gradcam).await.unwrap().heatmap.data.iter().all(|&value| value == 0.0));
    let scaled = of(1, Method::Gradcam).await.unwrap();
    assert_eq!((scaled.heatmap.height, scaled.layer.as_deref()), (32, Some("rectified")));
    let error = of(2, Method::Cam).await.unwrap_err();
    assert_eq!(error.message(), "there is no class 2: the model has the classes 0 to 1");
}

#[tokio::test]
async fn filters_are_drawn_as_their_weights_are() {
    let weights: Vec<f32> = (0..2 * 3 * 2 * 2).map(|index| ((index * 7) % 24) as f32 - 10.0).collect();
    let mut convolution = node("Conv", &["input", "filters"], "first");
    convolution.attribute = vec![AttributeProto::ints("kernel_shape", [2, 2])];
    let nodes =
        vec![convolution, node("GlobalAveragePool", &["first"], "pooled"), node("Flatten", &["pooled"], "logits")];
    let graph = model(nodes, vec![initializer("filters", &[2, 3, 2, 2], weights.clone())], &[-1, 3, 8, 8], &[-1, 2]);
    for (color, order) in [("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])] {
        let fixture = Fixture::new(&graph, &format!("[preprocess]\ncolor = \"{color}\"\n"));
        let filters = fixture.filters().await.unwrap();
        assert_eq!((filters.layer.as_str(), filters.shape), ("first", [2, 3, 2, 2]));
        assert_eq!(filters.weights, weights);
        let picture = decoded(&filters.png);
        // Two cells of 2x2 weights, each enlarged 24 times, with two pixels around.
        assert_eq!(picture.dimensions(), (2 + 48 + 2 + 48 + 2, 2 + 48 + 2));
        for (filter, weights) in weights.chunks(12).enumerate() {
            let low = weights.iter().copied().fold(f32::INFINITY, f32::min);
            let high = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let level =
                    |channel: usize| ((weights[channel * 4 + y * 2 + x] - low) / (high - low) * 255.0).round() as u8;
                let expected = order.map(level);
                for inside in [0, 23] {
                    let (left, top) = (2 + filter as u32 * 50 + x as u32 * 24, 2 + y as u32 * 24);
                    assert_eq!(
                        picture.get_pixel(left + inside, top + inside).0,
                        expected,
                        "{color}: {filter}, {x}, {y}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn feature_maps_are_the_layers_values() {
    let fixture = Fixture::new(&colors(), PLAIN);
    let picture = png(&painted(0, 48, [255, 0, 0]));
    let features = fixture.features(picture.clone(), "rectified").await.unwrap();
    assert_eq!(features.shape, [2, 32, 32]);
    assert_eq!((features.values[28 * 32], features.values[0]), (1.0, 0.0));
    let [red, blue] = features.channels[..] else { panic!("two channels") };
    assert_eq!((red.max, red.min, blue.max), (1.0, 0.0, 0.0));
    assert!((red.active - 1.0 / 16.0).abs() < 0.01 && (red.mean - 1.0 / 16.0).abs() < 0.01, "{red:?}");
    let grid = decoded(&features.png);
    assert_eq!(grid.dimensions(), (2 + 32 + 2 + 32 + 2, 2 + 32 + 2));
    assert_eq!((grid.get_pixel(2, 33).0, grid.get_pixel(2, 2).0), ([255; 3], [0; 3]));
    // A layer without rows and columns has a square for each value, from the lowest to the highest of all.
    let flat = fixture.features(picture.clone(), "flat").await.unwrap();
    assert_eq!(flat.shape, [2]);
    let squares = decoded(&flat.png);
    assert_eq!(squares.dimensions(), (2 + 8 + 2 + 8 + 2, 2 + 8 + 2));
    assert_eq!((squares.get_pixel(3, 9).0, squares.get_pixel(13, 3).0), ([255; 3], [0; 3]));
    let error = fixture.features(picture, "none").await.unwrap_err();
    assert_eq!(error.message(), "the model has no layer called none");
}

#[tokio::test]
async fn the_strongest_units_are_projected_each_by_itself() {
    let fixture = Fixture::new(&colors(), PLAIN);
    let mut picture = painted(48, 0, [255, 0, 0]);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if x < 16 && y >= 48 {
            *pixel = Rgb([0, 0, 200]);
        }
    }
    for rule in [Rule::Deconvnet, Rule::Guided, Rule::Gradient] {
        let request = ExplainRequest {
            method: Some(Method::Projection(rule)),
            layer: Some("rectified".into()),
            count: Some(2),
            ..ExplainRequest::new(png(&picture))
        };
        let explanation = fixture.explain(request).await.unwrap();
        let [red, blue] = &explanation.units[..] else { panic!("two units") };
        assert_eq!((red.unit, blue.unit), (0, 1));
        assert!(red.activation > blue.activation && blue.activation > 0.7);
        assert!(red.row < 8 && red.column >= 24 && blue.row >= 24 && blue.column < 8);
        // Through a filter of one place only that place comes back, as the filter has it.
        let places: Vec<_> = red.projection.iter().enumerate().filter(|(_, value)| **value != 0.0).collect();
        let at = red.row * 32 + red.column;
        assert_eq!(places, [(at, &1.0), (at + 1024, &-1.0), (at + 2048, &-1.0)]);
        assert_eq!(decoded(&explanation.png).dimensions(), (2 + 32 + 2 + 32 + 2, 2 + 32 + 2));
    }
}

#[tokio::test]
async fn the_pictures_that_excite_a_unit_come_first() {
    let fixture = Fixture::new(&colors(), PLAIN);
    let levels = [40, 250, 120, 200];
    let pictures = levels.map(|level| png(&painted(0, 0, [level, 0, 0]))).to_vec();
    let request = ExcitingRequest {
        layer: "rectified".into(),
        unit: 0,
        count: 3,
        rule: Rule::Deconvnet,
        leaves_out_broken: false,
    };
    let exciting = fixture.exciting(request.clone(), pictures.clone()).await.unwrap();
    let order: Vec<_> = exciting.pictures.iter().map(|it| it.index).collect();
    assert_eq!(order, [1, 3, 2]);
    assert!((exciting.pictures[0].unit.activation - 250.0 / 255.0).abs() < 1e-6);
    // Two pairs beside each other and one below; the unit sees one pixel of the picture, which is red.
    let grid = decoded(&exciting.png.unwrap());
    assert_eq!(grid.dimensions(), (2 + 4 * 130, 2 + 2 * 130));
    assert_eq!(grid.get_pixel(60, 60).0, [250, 0, 0]);
    assert_eq!(grid.get_pixel(190, 60).0, [255, 0, 0]);

    let error = fixture.exciting(ExcitingRequest { unit: 2, ..request.clone() }, pictures.clone()).await.unwrap_err();
    assert_eq!(error.message(), "there is no unit 2: the layer rectified has the units 0 to 1");
    let unread = vec![pictures[0].clone(), "no picture".into()];
    let error = fixture.exciting(request.clone(), unread.clone()).await.unwrap_err();
    assert!(error.message().starts_with("number 1: "), "{error}");
    // Of a data set one file may be broken, but not each.
    let data_set = ExcitingRequest { leaves_out_broken: true, ..request.clone() };
    let exciting = fixture.exciting(data_set.clone(), [unread.clone(), pictures.clone()].concat()).await.unwrap();
    assert_eq!(exciting.pictures.iter().map(|it| it.index).collect::<Vec<_>>(), [3, 5, 4]);
    assert!(exciting.left_out.len() == 1 && exciting.left_out[0].starts_with("number 1: "), "{:?}", exciting.left_out);
    let error = fixture.exciting(data_set, vec![unread[1].clone()]).await.unwrap_err();
    assert!(error.message().starts_with("number 0: "), "{error}");
    let error = fixture.exciting(request.clone(), vec![]).await.unwrap_err();
    assert_eq!(error.message(), "at least one picture must be given");

    // Blue is in none of them, and what leaves a unit at zero does not excite it.
    let blue = png(&painted(0, 0, [0, 0, 90]));
    let request = ExcitingRequest { unit: 1, ..request };
    let exciting = fixture.exciting(request.clone(), pictures.clone()).await.unwrap();
    assert_eq!((exciting.pictures, exciting.png), (vec![], None));
    let exciting = fixture.exciting(request, [pictures, vec![blue]].concat()).await.unwrap();
    assert_eq!(exciting.pictures.iter().map(|it| it.index).collect::<Vec<_>>(), [4]);
}

/// The same network for pictures as they are: UINT8 or FP16, `[N, H, W, 3]`, blue first.
fn colors_of_pixels(data_type: DataType) -> convoy::onnx::ModelProto {
    let mut model = colors();
    let graph = model.graph.as_mut().unwrap();
    graph.input = vec![value("pixels", data_type, &[-1, 32, 32, 3])];
    let mut cast = node("Cast", &["pixels"], "cast");
    cast.attribute = vec![AttributeProto::int("to", i32::from(DataType::Float).into())];
    let mut transpose = node("Transpose", &["cast"], "upside");
    transpose.attribute = vec![AttributeProto::ints("perm", [0, 3, 1, 2])];
    let mut flip = node("Gather", &["upside", "order"], "flipped");
    flip.attribute = vec![AttributeProto::int("axis", 1)];
    graph.node.splice(0..0, [cast, transpose, flip, node("Div", &["flipped", "scale"], "input")]);
    graph.initializer.push(initializer("scale", &[], vec![255.0]));
    let order = Tensor::from_vec(vec![3], vec![2i64, 1, 0]).unwrap();
    graph.initializer.push(TensorProto::new("order", &order).unwrap());
    model
}

#[tokio::test]
async fn every_form_of_input_is_explained() {
    for (data_type, recipe) in [(DataType::Uint8, ""), (DataType::Float16, "scale = 1.0\n")] {
        let config = format!("[preprocess]\nresize = 32\ncolor = \"bgr\"\n{recipe}");
        let fixture = Fixture::new(&colors_of_pixels(data_type), &config);
        let picture = png(&painted(48, 0, [255, 0, 0]));
        for method in [Method::Cam, Method::Occlusion] {
            let request = ExplainRequest { method: Some(method), ..ExplainRequest::new(picture.clone()) };
            let explanation = fixture.explain(request).await.unwrap();
            assert_eq!(explanation.class.as_ref().unwrap().index, 0);
            let (column, row) = hottest(&explanation);
            assert!(column > 0.7 && row < 0.3, "{data_type:?}, {method:?}: {column}, {row}");
        }
        let request = ExplainRequest {
            method: Some(Method::Projection(Rule::Gradient)),
            layer: Some("rectified".into()),
            ..ExplainRequest::new(picture)
        };
        let explanation = fixture.explain(request).await.unwrap();
        let unit = &explanation.units[0];
        // Red first, whatever the network has first.
        let at = unit.row * 32 + unit.column;
        let slope = 1.0f32 / 255.0;
        let found = [0, 1024, 2048].map(|plane| unit.projection[at + plane]);
        assert_eq!((unit.unit, found), (0, [slope, -slope, -slope]));
    }
}
