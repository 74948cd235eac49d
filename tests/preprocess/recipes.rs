//! Recipes as `config.toml` spells them: what they default to, what they come to, and which key is blamed.

use convoy::preprocess::{Frame, PictureLimits, Preprocessor, Recipe, RowMut};
use convoy::tensor::DataType;

use crate::read;

fn recipe(toml: &str) -> Recipe {
    toml::from_str(toml).unwrap()
}

#[test]
fn sizes_and_layout_follow_the_graph() {
    for (toml, shape, row) in [
        ("", [-1, -1, -1], [3, 224, 224]),
        ("", [3, 299, 299], [3, 299, 299]),
        ("", [3, 240, 320], [3, 240, 320]),
        ("", [224, 224, 3], [224, 224, 3]),
        ("", [-1, -1, 3], [224, 224, 3]),
        ("", [1, 28, 28], [1, 28, 28]),
        ("", [28, 28, 1], [28, 28, 1]),
        ("layout = 'nhwc'", [-1, -1, -1], [224, 224, 3]),
        ("color = 'gray'", [-1, 64, 64], [1, 64, 64]),
        ("crop = 96", [3, -1, -1], [3, 96, 96]),
        ("crop = [96, 64]", [3, -1, -1], [3, 96, 64]),
        ("resize = [90, 80]", [3, -1, -1], [3, 90, 80]),
        ("resize = [90, 80]", [3, 64, -1], [3, 64, 80]),
        ("resize = [90, 80]\ncrop = 'none'", [3, -1, -1], [3, 90, 80]),
        ("crop = 'none'", [3, 90, 80], [3, 90, 80]),
        ("resize = 'none'", [3, 90, 80], [3, 90, 80]),
    ] {
        let preprocessor = Preprocessor::new(&recipe(toml), &shape, DataType::Fp32);
        assert_eq!(preprocessor.unwrap().row_shape(), row, "{toml:?} for {shape:?}");
    }
}

#[test]
fn the_key_at_fault_is_named() {
    let image: &[i64] = &[3, 224, 224];
    for (toml, shape, data_type, key) in [
        ("", [3, 224].as_slice(), DataType::Fp32, "input"),
        ("", &[1000], DataType::Fp32, "input"),
        ("", &[4, 224, 224], DataType::Fp32, "input"),
        ("", &[3, 0, 224], DataType::Fp32, "input"),
        ("", &[3, 224, 1_000_000], DataType::Fp32, "input"),
        ("", image, DataType::Int64, "input"),
        ("color = 'gray'", image, DataType::Fp32, "preprocess.color"),
        ("layout = 'nhwc'", image, DataType::Fp32, "preprocess.layout"),
        ("crop = 225", image, DataType::Fp32, "preprocess.crop"),
        ("crop = 0", image, DataType::Fp32, "preprocess.crop"),
        ("crop = 100_000", &[3, -1, -1], DataType::Fp32, "preprocess.crop"),
        ("resize = 256\ncrop = 'none'", image, DataType::Fp32, "preprocess.crop"),
        ("crop = 'none'", &[3, -1, 224], DataType::Fp32, "preprocess.crop"),
        ("resize = [224, 225]\ncrop = 'none'", image, DataType::Fp32, "preprocess.resize"),
        ("resize = [0, 224]", image, DataType::Fp32, "preprocess.resize"),
        ("crops = 0", image, DataType::Fp32, "preprocess.crops"),
        ("crops = 9", image, DataType::Fp32, "preprocess.crops"),
        ("crops = 10\nresize = 224", image, DataType::Fp32, "preprocess.crops"),
        ("crops = 5\nresize = 200", image, DataType::Fp32, "preprocess.crops"),
        ("crops = 5\nresize = [223, 300]", image, DataType::Fp32, "preprocess.crops"),
        ("crops = 5\nresize = [224, 224]", image, DataType::Fp32, "preprocess.crops"),
        ("crops = 5\ncrop = 'none'", image, DataType::Fp32, "preprocess.crops"),
        ("crops = 5\ncrop = 'none'\nresize = 'none'", image, DataType::Fp32, "preprocess.crops"),
        ("scale = nan", image, DataType::Fp32, "preprocess.scale"),
        ("mean = [0.5]", image, DataType::Fp32, "preprocess.mean"),
        ("mean = [0.5, 0.5, inf]", image, DataType::Fp32, "preprocess.mean"),
        ("std = [1, 0, 1]", image, DataType::Fp32, "preprocess.std"),
        ("std = [1, 1, 1, 1]", image, DataType::Fp32, "preprocess.std"),
        ("scale = 1.0", image, DataType::Uint8, "preprocess.scale"),
        ("std = [1, 1, 1]", image, DataType::Uint8, "preprocess.std"),
    ] {
        let error = Preprocessor::new(&recipe(toml), shape, data_type).unwrap_err();
        assert_eq!(error.key, key, "{toml:?} for {shape:?}: {error}");
    }
}

#[test]
fn what_no_recipe_can_say_is_refused_by_name() {
    for (toml, complaint) in [
        ("crop_size = 224", "unknown field `crop_size`"),
        ("crop = 'half'", "expected a number of pixels, [height, width], \"auto\" or \"none\""),
        ("resize = -1", "expected a number of pixels, [height, width], \"auto\" or \"none\""),
        ("interpolation = 'linear'", "unknown variant `linear`"),
    ] {
        let error = toml::from_str::<Recipe>(toml).unwrap_err().to_string();
        assert!(error.contains(complaint), "{toml}: {error}");
    }
}

#[test]
fn a_recipe_survives_being_written() {
    let toml = "resize = 'none'\ncrop = [3, 4]\nscale = 1.0\nmean = [1.0, 2.0, 3.0]\ndecode = 'fast'\nexif_orientation = false";
    for recipe in [Recipe::default(), recipe(toml)] {
        assert_eq!(toml::from_str::<Recipe>(&toml::to_string(&recipe).unwrap()).unwrap(), recipe);
    }
}

fn frame(toml: &str, [height, width]: [i64; 2], file: &str) -> Frame {
    let preprocessor = Preprocessor::new(&recipe(toml), &[3, height, width], DataType::Uint8).unwrap();
    let mut row = vec![0; preprocessor.crops() * preprocessor.row_shape().iter().product::<usize>()];
    preprocessor.run(&read(file), &PictureLimits::default(), RowMut::U8(&mut row)).unwrap()
}

/// The expected values are the crop's corners scaled back by hand.
#[test]
fn the_frame_says_where_the_input_lies() {
    let near = |frame: Frame, size: [u32; 2], [x, y, width, height]: [f32; 4]| {
        assert_eq!([frame.picture_width, frame.picture_height], size);
        for (found, expected) in [(frame.x, x), (frame.y, y), (frame.width, width), (frame.height, height)] {
            assert!((found - expected).abs() < 0.01, "{frame:?}, not {:?}", [x, y, width, height]);
        }
    };
    // 500×375 becomes 341×256; the crop begins at (58, 16): 58.5 rounds to even.
    let [x, y] = [500.0 / 341.0, 375.0 / 256.0];
    near(frame("", [224, 224], "photo_420.jpg"), [500, 375], [58.0 * x, 16.0 * y, 224.0 * x, 224.0 * y]);
    // The file is 97×61 and lies on its side.
    near(frame("resize = 'none'", [97, 61], "exif_6.jpg"), [61, 97], [0.0, 0.0, 61.0, 97.0]);
    let sideways = frame("resize = 'none'\nexif_orientation = false", [61, 97], "exif_6.jpg");
    near(sideways, [97, 61], [0.0, 0.0, 97.0, 61.0]);
    // 3 columns and 4 rows more than the picture has: 1 and 2 of them before it.
    near(frame("resize = 'none'", [65, 100], "exif_1.jpg"), [97, 61], [-1.0, -2.0, 100.0, 65.0]);
    // Five crops reach the picture's corners.
    near(frame("crops = 5", [224, 224], "photo_420.jpg"), [500, 375], [0.0, 0.0, 500.0, 375.0]);
    near(frame("crop = 'none'", [100, 50], "exif_1.jpg"), [97, 61], [0.0, 0.0, 97.0, 61.0]);
}
