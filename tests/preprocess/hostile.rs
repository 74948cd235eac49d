//! Pictures that are broken, cut short, something else, or lie about their size.

use convoy::error::{Error, ErrorKind};
use convoy::preprocess::{PictureLimits, Preprocessor, Recipe, RowMut};
use convoy::tensor::DataType;

use crate::{folder, read};

fn run(encoded: &[u8], limits: &PictureLimits) -> Result<(), Error> {
    let recipe = toml::from_str::<Recipe>("resize = 36\ncrop = 32").unwrap();
    let preprocessor = Preprocessor::new(&recipe, &[3, 32, 32], DataType::Fp32).unwrap();
    let mut row = [0.0; 3 * 32 * 32];
    preprocessor.run(encoded, limits, RowMut::F32(&mut row)).map(drop)
}

fn refusal(encoded: &[u8]) -> Error {
    run(encoded, &PictureLimits::default()).unwrap_err()
}

/// `file` with `bytes` at `offset`.
fn patched(file: &str, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = read(file);
    encoded[offset..offset + bytes.len()].copy_from_slice(bytes);
    encoded
}

/// A JPEG that declares another size. The height and width lie 5 bytes behind the frame's marker.
fn jpeg_declaring(file: &str, height: u16, width: u16) -> Vec<u8> {
    let is_frame = |pair: &[u8]| matches!(pair, [0xFF, 0xC0 | 0xC2]);
    let frame = read(file).windows(2).position(is_frame).unwrap();
    let [height, width] = [height, width].map(u16::to_be_bytes);
    patched(file, frame + 5, &[height, width].concat())
}

/// A PNG that declares another size in its header, whose checksum is set right.
fn png_declaring(file: &str, width: u32, height: u32) -> Vec<u8> {
    let mut encoded = patched(file, 16, &[width.to_be_bytes(), height.to_be_bytes()].concat());
    let checksum = crc32(&encoded[12..29]).to_be_bytes();
    encoded[29..33].copy_from_slice(&checksum);
    encoded
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn what_is_no_picture_is_unsupported() {
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    let avif = b"\0\0\0\x1Cftypavif\0\0\0\0avifmif1";
    for bytes in [b"hello".as_slice(), b"%PDF-1.7", b"<svg/>", b"\xFF\xD8", b"P6 1 1 255 abc", heic, avif, &[0; 100]] {
        let error = refusal(bytes);
        assert_eq!(error.kind(), ErrorKind::UnsupportedMedia, "{error}");
        assert!(error.message().contains("JPEG, PNG, WebP, GIF, BMP and TIFF"), "{error}");
    }
    assert_eq!(refusal(b"").kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_picture_cut_short_is_invalid() {
    for file in ["photo_420.jpg", "progressive.jpg", "gray.jpg", "cmyk.jpg", "rgb.png", "lossless.webp", "lossy.webp"] {
        let whole = read(file);
        run(&whole, &PictureLimits::default()).unwrap();
        for keep in [20, whole.len() / 4, whole.len() / 2, whole.len() * 9 / 10] {
            let error = refusal(&whole[..keep]);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{keep} bytes of {file}: {error}");
        }
    }
    // Pillow, too, refuses a JPEG that lacks nothing but its end marker.
    let whole = read("photo_420.jpg");
    assert!(refusal(&whole[..whole.len() - 2]).message().contains("cut short"));
}

#[test]
fn declared_pixels_are_checked_before_any_is_decoded() {
    let gif = patched("palette.gif", 6, &[0xFF; 4]);
    let bmp = patched("rgb.bmp", 18, &[60_000_u32.to_le_bytes(), 50_000_u32.to_le_bytes()].concat());
    let webp = patched("lossless.webp", 21, &[0xFE, 0xBF, 0xFF, 0x0F]);
    for (name, encoded, numbers) in [
        ("JPEG", jpeg_declaring("photo_420.jpg", 65_500, 65_000), "65000×65500 are 4257500000 pixels"),
        ("progressive JPEG", jpeg_declaring("progressive.jpg", 65_500, 65_000), "65000×65500 are 4257500000 pixels"),
        ("PNG", png_declaring("rgb.png", 60_000, 50_000), "60000×50000 are 3000000000 pixels"),
        ("GIF", gif, "65535×65535"),
        ("BMP", bmp, "60000×50000"),
        ("WebP", webp, "16383×16383"),
    ] {
        let error = refusal(&encoded);
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{name}: {error}");
        assert!(error.message().contains(numbers), "{name}: {error}");
        assert!(error.message().contains("the limit is 100000000"), "{name}: {error}");
    }
}

#[test]
fn the_limit_on_pixels_is_exact() {
    for file in ["exif_1.jpg", "rgb.png", "rgb.tiff", "rgb.bmp", "palette.gif", "lossless.webp"] {
        let encoded = read(file);
        let pixels = if file == "exif_1.jpg" { 97 * 61 } else { 67 * 51 };
        let limits = |max_pixels| PictureLimits { max_pixels, ..PictureLimits::default() };
        run(&encoded, &limits(pixels)).unwrap();
        let error = run(&encoded, &limits(pixels - 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{file}: {error}");
        assert!(error.message().contains(&pixels.to_string()), "{file}: {error}");
    }
}

#[test]
fn the_memory_of_decoding_is_limited_too() {
    // 81 and 98 million pixels are within the limit; what a decoder would hold of them is not.
    for (name, encoded) in [
        ("PNG", png_declaring("rgba.png", 9_000, 9_000)),
        ("progressive JPEG", jpeg_declaring("progressive.jpg", 9_900, 9_900)),
    ] {
        let error = refusal(&encoded);
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{name}: {error}");
        assert!(error.message().contains("the limit is 268435456"), "{name}: {error}");
    }
    // A header may declare more than any decoder can hold.
    let error = refusal(&png_declaring("rgb.png", u32::MAX >> 1, u32::MAX >> 1));
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    // A baseline JPEG is decoded row by row and holds nothing.
    let limits = PictureLimits { max_decode_bytes: 1000, ..PictureLimits::default() };
    run(&read("photo_420.jpg"), &limits).unwrap();
    assert_eq!(run(&read("progressive.jpg"), &limits).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    // No side is longer than JPEG allows, however few pixels there are.
    assert_eq!(refusal(&png_declaring("gray.png", 90_000_000, 1)).kind(), ErrorKind::PayloadTooLarge);
}

#[test]
fn a_jpeg_of_endless_scans_is_refused() {
    let whole = read("progressive.jpg");
    let last_scan = whole.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    let mut encoded = whole[..whole.len() - 2].to_vec();
    for _ in 0..100 {
        encoded.extend_from_slice(&whole[last_scan..whole.len() - 2]);
    }
    encoded.extend_from_slice(&[0xFF, 0xD9]);
    let complaint = "110 scans, the limit is 64";
    let error = refusal(&encoded);
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    assert!(error.message().contains(complaint), "{error}");
    // Neither a missing end nor a segment of no length hides them.
    encoded.truncate(encoded.len() - 2);
    assert!(refusal(&encoded).message().contains(complaint));
    encoded.splice(2..2, [0xFF, 0xFE, 0, 0]);
    assert!(refusal(&encoded).message().contains(complaint));
    // What follows the end of the picture, a film for instance, is not its own.
    let film = [0xFF, 0xDA].repeat(100);
    run(&[whole.as_slice(), &film].concat(), &PictureLimits::default()).unwrap();
}

#[test]
fn a_chunk_that_claims_gigabytes_is_refused() {
    let whole = read("exif_3.webp");
    let exif = whole.windows(4).position(|name| name == b"EXIF").unwrap();
    let error = refusal(&patched("exif_3.webp", exif + 4, &[0xF0, 0xFF, 0xFF, 0xFF]));
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("claims more bytes than there are"), "{error}");
}

/// Numbers that look random and are the same in every run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn damaged_pictures_are_errors_and_never_panics() {
    let limits = PictureLimits { max_pixels: 4_000_000, ..PictureLimits::default() };
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut refused = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        for _ in 0..100 {
            let mut encoded = whole.clone();
            if dice.below(4) == 0 {
                encoded.truncate(dice.below(whole.len()));
            }
            // Half of the damage goes into the headers, which are short.
            let reach = if dice.below(2) == 0 { encoded.len().min(300) } else { encoded.len() };
            for _ in 0..dice.below(9).min(reach) {
                encoded[dice.below(reach)] = [0, 0xFF, 0x7F, dice.below(256) as u8][dice.below(4)];
            }
            if let Err(error) = run(&encoded, &limits) {
                refused += 1;
                let expected = [ErrorKind::InvalidArgument, ErrorKind::PayloadTooLarge, ErrorKind::UnsupportedMedia];
                assert!(expected.contains(&error.kind()), "{}: {error}", path.display());
            }
        }
    }
    assert!(refused > 1000, "only {refused} were damaged enough to tell");
}
