//! What of a picture is shown under its map.

use convoy::explain::{ExplainRequest, Method};
use image::{Rgb, RgbImage};

use super::colors::colors;
use super::known::PLAIN;
use super::{Fixture, decoded, png};

#[tokio::test]
async fn of_a_picture_of_extreme_length_what_the_network_sees_is_shown() {
    let fixture = Fixture::new(&colors(), PLAIN);
    // The network sees two columns of three thousand, in the middle, the left one red.
    let sliver = RgbImage::from_fn(3000, 2, |x, _| Rgb(if x == 1499 { [255, 0, 0] } else { [90; 3] }));
    for method in [Method::Cam, Method::Occlusion] {
        let request = ExplainRequest { method: Some(method), ..ExplainRequest::new(png(&sliver)) };
        let explanation = fixture.explain(request).await.unwrap();
        assert_eq!((explanation.frame.picture_width, explanation.frame.x), (3000, 1499.0));
        let shown = decoded(&explanation.png);
        assert_eq!(shown.dimensions(), (256, 256));
        assert_ne!(shown.get_pixel(16, 128).0, [255, 0, 0], "{method:?}: the red is hot");
    }
    // What is small is shown as it is.
    let small = fixture.explain(ExplainRequest::new(png(&RgbImage::new(12, 9)))).await.unwrap();
    assert_eq!(decoded(&small.png).dimensions(), (12, 9));
}

#[tokio::test]
async fn a_long_picture_that_is_taken_whole_is_shown_as_the_network_sees_it() {
    let fixture = Fixture::new(&colors(), "[preprocess]\nresize = [32, 32]\ncrop = 'none'\n");
    for (width, height) in [(3000, 2), (2, 3000), (1500, 29)] {
        let half = RgbImage::from_fn(width, height, |x, y| {
            Rgb(if x < width / 2 && y <= height / 2 { [255, 0, 0] } else { [90; 3] })
        });
        let explanation = fixture.explain(ExplainRequest::new(png(&half))).await.unwrap();
        let frame = explanation.frame;
        assert_eq!([frame.x, frame.y, frame.width, frame.height], [0.0, 0.0, width as f32, height as f32]);
        let shown = decoded(&explanation.png);
        assert_eq!(shown.dimensions(), (256, 256), "{width}x{height}");
        assert_eq!(shown.get_pixel(250, 250).0, [90; 3]);
        assert_ne!(shown.get_pixel(2, 2), shown.get_pixel(250, 250));
    }
    // 30 rows of 1500 are 16 of 800.
    let whole = fixture.explain(ExplainRequest::new(png(&RgbImage::new(1500, 30)))).await.unwrap();
    assert_eq!(decoded(&whole.png).dimensions(), (800, 16));
}

#[tokio::test]
async fn a_small_crop_of_a_large_picture_is_shown_enlarged() {
    let fixture = Fixture::new(&colors(), "[preprocess]\nresize = 'none'\n");
    let (x, y) = ((1601 - 32) / 2, (1201 - 32) / 2);
    let photo = RgbImage::from_fn(1601, 1201, |column, row| {
        Rgb(if (x..x + 16).contains(&column) && (y..y + 16).contains(&row) { [255, 0, 0] } else { [0, 90, 0] })
    });
    let explanation = fixture.explain(ExplainRequest::new(png(&photo))).await.unwrap();
    assert_eq!(explanation.frame.width, 32.0);
    let shown = decoded(&explanation.png);
    assert_eq!(shown.dimensions(), (256, 256));
    // The upper left quarter is red and hot, the rest is as it was.
    assert_ne!(shown.get_pixel(64, 64).0, [255, 0, 0]);
    for place in [(192, 64), (64, 192), (192, 192)] {
        assert_eq!(shown.get_pixel(place.0, place.1).0, [0, 90, 0]);
    }
}
