//! Pictures: their classes and why.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use serde_json::json;

use crate::server::{PLAIN_RECIPE, Repository, config, start};
use crate::{Page, changes, first_class, graphs, photo, serve};

fn encoded(picture: impl Into<DynamicImage>) -> Vec<u8> {
    encoded_as(ImageFormat::Png, picture)
}

fn encoded_as(format: ImageFormat, picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) async fn a_photograph_is_classified_and_explained() {
    let (server, repository) = serve().await;
    let page = Page::open(&server, "/", 1280, false).await;
    let browser = &page.browser;
    browser.wait_for("the list of models", "return document.querySelector('#model').options.length === 2").await;
    page.check_accessibility("before anything").await;

    // A file is chosen, another is dropped.
    let siamese = photo("cats/siamese-cat.jpg");
    browser.type_into("#files", siamese.to_str().unwrap()).await;
    let label = browser.wait_for("the class of the cat", &first_class("siamese-cat.jpg")).await;
    assert_eq!(label, "Siamese cat, Siamese");
    page.drop_files(&[("coffee.png", std::fs::read(photo("scikit-image/coffee.png")).unwrap())]).await;
    assert_eq!(browser.wait_for("the class of the coffee", &first_class("coffee.png")).await, "espresso");
    let timing = "return document.querySelector('.timing').innerText";
    let timing = browser.run(timing, json!([])).await.as_str().unwrap().to_owned();
    for part in ["decode", "queue", "batch", "compute", "round trip"] {
        assert!(timing.contains(part), "{timing}");
    }

    // Why: what is painted over the picture changes it, where the network has looked.
    let pixels = "const url = document.querySelector('.picture canvas').toDataURL();
        return [...url].reduce((sum, letter) => (31 * sum + letter.charCodeAt()) % 4294967291, 0)";
    let before = browser.run(pixels, json!([])).await;
    let said = "const it = document.querySelector('.why .said').textContent; return it.includes('Strongest') && it";
    browser.click(".why .explain").await;
    let words = browser.wait_for("the heatmap", said).await;
    assert!(words.as_str().unwrap().starts_with("cam, “Siamese cat, Siamese”"), "{words}");
    let heated = browser.run(pixels, json!([])).await;
    assert_ne!(before, heated);
    let opacity = "const it = document.querySelector('.why input[type=range]'); it.value = 0;
        it.dispatchEvent(new Event('input'))";
    browser.run(opacity, json!([])).await;
    assert_eq!(browser.run(pixels, json!([])).await, before, "nothing is left at no opacity");
    page.keep_screenshot("explained").await;

    // A projection of a unit of a layer.
    browser.choose(".why .method", "DeconvNet").await;
    browser.wait_for("the layers", "return document.querySelector('.why .layer').options.length > 10").await;
    browser.choose(".why .layer", "_blocks.2._relu1").await;
    browser.click(".why .explain").await;
    let words = browser.wait_for("the projection", &said.replace("'Strongest'", "'deconvnet'")).await;
    assert!(words.as_str().unwrap().contains("of _blocks.2._relu1"), "{words}");
    assert_ne!(browser.run(pixels, json!([])).await, before);

    // What is no picture is refused in words.
    let text = repository.path().join("<img src=x onerror=alert(1)>.txt");
    std::fs::write(&text, "no picture").unwrap();
    browser.type_into("#files", text.to_str().unwrap()).await;
    let said = browser.wait_for("the error", "return document.querySelector('.picture .error')?.textContent").await;
    assert!(said.as_str().unwrap().starts_with("The bytes are not a picture"), "{said}");
    let names = browser.run("return document.querySelector('.picture:last-child h2').textContent", json!([])).await;
    assert_eq!(names, "<img src=x onerror=alert(1)>.txt");
    page.check_accessibility("with pictures").await;
    page.keep_screenshot("classified").await;

    // Another model answers anew.
    browser.choose("#model", "means").await;
    let other = format!("{}?.match(/^class [012]$/)?.[0]", first_class("coffee.png"));
    assert_eq!(browser.wait_for("the other model's class", &other).await, "class 0");
    page.close(2).await;
    server.shutdown().await;
}

pub(crate) async fn pictures_are_drawn_as_they_are_classified() {
    let (server, _repository) = changes::serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    // The network gets colours, whatever their alpha is.
    let clear = RgbaImage::from_fn(8, 8, |x, _| Rgba([200, 100, 50, if x < 4 { 0 } else { 255 }]));
    page.drop_files(&[("clear.png", encoded(clear))]).await;
    let pixel = "const copy = new OffscreenCanvas(8, 8).getContext('2d', {willReadFrequently: true});
        copy.drawImage(document.querySelector('.picture canvas'), 0, 0);
        const pixel = [...copy.getImageData(1, 1, 1, 1).data];
        return pixel[3] === 255 && pixel";
    assert_eq!(browser.wait_for("a colour", pixel).await, json!([200, 100, 50, 255]));
    browser.click("#clear").await;

    // Of a picture so long that what the network sees is a speck of it, that is shown, as long as it is explained.
    let long = RgbImage::from_fn(3000, 2, |x, _| Rgb(if x == 1499 { [255, 0, 0] } else { [90; 3] }));
    page.drop_files(&[("long.png", encoded(long))]).await;
    browser.wait_for("its class", &first_class("long.png")).await;
    let size = "const it = document.querySelector('.picture canvas'); return [it.width, it.height]";
    assert_eq!(browser.run(size, json!([])).await, json!([960, 1]));
    browser.click(".explain").await;
    let said = "return document.querySelector('.why .said').textContent.includes('Strongest')";
    browser.wait_for("the map", said).await;
    assert_eq!(browser.run(size, json!([])).await, json!([480, 480]));
    browser.click("#again").await;
    let whole = "return document.querySelector('.picture canvas').width === 960";
    browser.wait_for("the whole picture", whole).await;
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn what_the_network_sees_is_never_a_speck() {
    let model = graphs::convolutional(8, 3);
    // One squeezes whole pictures, the other cuts 8×8 pixels out of their middle.
    let squeezing = format!("{PLAIN_RECIPE}resize = [8, 8]\ncrop = 'none'\n");
    let cutting = format!("{PLAIN_RECIPE}resize = 'none'\n");
    for (recipe, width, height) in [(squeezing, 3000, 2), (cutting, 1601, 1201)] {
        let repository = Repository::new().with("filters", &model, &recipe, "");
        let server = start(config(&repository)).await;
        let page = Page::open_with_models(&server).await;
        let browser = &page.browser;
        page.drop_files(&[("a.png", encoded(RgbImage::from_pixel(width, height, Rgb([90; 3]))))]).await;
        browser.wait_for("its class", &first_class("a.png")).await;
        browser.click(".explain").await;
        let size = "const said = document.querySelector('.why .said').textContent;
            const it = document.querySelector('.picture canvas');
            return said.includes('Strongest') && [it.width, it.height]";
        assert_eq!(browser.wait_for("the map", size).await, json!([480, 480]), "{recipe}");
        page.close(0).await;
        server.shutdown().await;
    }
}

pub(crate) async fn explanations_are_put_in_words() {
    // A label that turns what follows it around.
    let labels = "one\ntwo\n\u{202e}eerht\n";
    let recipe = format!("{PLAIN_RECIPE}resize = 8\n");
    let repository = Repository::new().with("filters", &graphs::convolutional(8, 3), &recipe, labels);
    let server = start(config(&repository)).await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    page.drop_files(&[("a.png", encoded(RgbImage::from_pixel(8, 8, Rgb([90; 3]))))]).await;
    browser.wait_for("its class", &first_class("a.png")).await;
    browser.click(".explain").await;
    let label = "return document.querySelector('.why .said bdi')?.textContent";
    assert_eq!(browser.wait_for("the map", label).await, "\u{202e}eerht");

    // Where in the picture, whatever part of it the network sees.
    let place = "const it = await import('/page/picture.js');
        const frame = {y: 0, picture_height: arguments[0].height, ...arguments[0]};
        return it.strongestPlace({shape: [1, 3], data: [1, 0, 0]}, frame)";
    for (frame, expected) in [
        (json!({"x": 0, "width": 300, "height": 100, "picture_width": 300}), "in the middle of the left"),
        (json!({"x": 100, "width": 100, "height": 100, "picture_width": 300}), "in the middle"),
        (json!({"x": 200, "width": 100, "height": 100, "picture_width": 300}), "in the middle of the right"),
        // It is padded, or so small that it is shown alone.
        (json!({"x": -100, "width": 300, "height": 100, "picture_width": 100}), "in the middle of the left"),
        (json!({"x": 1499, "width": 2, "height": 2, "picture_width": 3000}), "in the middle of the left"),
    ] {
        assert_eq!(browser.run(place, json!([frame])).await, expected, "{frame}");
    }
    // Maps of any size.
    let large = "const it = await import('/page/picture.js');
        return it.heatmapCanvas({shape: [448, 448], data: Array(448 * 448).fill(1)}).width";
    assert_eq!(browser.run(large, json!([])).await, 448);
    page.close(0).await;
    server.shutdown().await;
}

pub(crate) async fn what_the_browser_cannot_show_is_explained_by_the_server() {
    let (server, _repository) = changes::serve().await;
    let page = Page::open_with_models(&server).await;
    let browser = &page.browser;
    let picture = RgbImage::from_fn(64, 48, |x, _| Rgb([x as u8, 90, 90]));
    page.drop_files(&[("a.tiff", encoded_as(ImageFormat::Tiff, picture))]).await;
    browser.wait_for("its class", &first_class("a.tiff")).await;
    let shown = "return document.querySelector('.view').textContent === 'This browser cannot show the file.'";
    browser.wait_for("that it cannot be shown", shown).await;
    for (method, width) in [("Occlusion", 64), ("Gradient", 8)] {
        browser.choose(".why .method", method).await;
        browser.click(".explain").await;
        let drawn = format!("return document.querySelector('.view img')?.naturalWidth === {width}");
        browser.wait_for("the server's picture", &drawn).await;
        let controls = "return ['.why input[type=range]', '.why .legend'].filter(it => document.querySelector(it).checkVisibility())";
        assert_eq!(browser.run(controls, json!([])).await, json!([]), "{method}");
        page.check_accessibility("the server's picture").await;
    }
    browser.click("#again").await;
    browser.wait_for("that it cannot be shown", shown).await;
    page.close(0).await;
    server.shutdown().await;
}
