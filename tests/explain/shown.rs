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
        assert_eq!(shown.dimensions(), (32, 32));
        assert_ne!(shown.get_pixel(2, 16).0, [255, 0, 0], "{method:?}: the red is hot");
    }
    // What is small is shown as it is.
    let small = fixture.explain(ExplainRequest::new(png(&RgbImage::new(12, 9)))).await.unwrap();
    assert_eq!(decoded(&small.png).dimensions(), (12, 9));
}
