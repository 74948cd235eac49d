"""Draws the pictures of tests/fixtures/preprocess and works out what preprocessing has to make of them.

The reference is Pillow, with the arithmetic of torchvision's Resize, CenterCrop, ToTensor and Normalize in numpy. Run
from the repository's root, with Pillow 13.0.0 and numpy:

    python3 tests/reference/preprocess.py

It rewrites the pictures and golden.json, which tests/preprocess/ compares against. Each golden is the SHA-256 of the
tensor's little-endian bytes, and a few of its values to show how far off a mismatch is.
"""

import hashlib
import json
import math
import pathlib
import struct
import zlib

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageOps

assert PIL.__version__ == "13.0.0", f"the goldens are of Pillow 13.0.0, this is {PIL.__version__}"

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "preprocess"
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


# The pictures.


def scene(width, height, seed, noise=1.0):
    """Something like a photograph: fractal noise under a gradient, with discs, bars and text-like strokes on it."""
    random = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3))
    cells = 2
    while cells < max(width, height):
        layer = random.uniform(0, 255, (min(cells, height), min(cells, width), 3)).astype(np.uint8)
        layer = Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC)
        canvas += noise * (np.asarray(layer, dtype=float) - 128) / cells**0.7
        cells *= 2
    ramp_x, ramp_y = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None]
    canvas += 128 + (ramp_x - 0.5) * random.uniform(-160, 160, 3) + (ramp_y - 0.5) * random.uniform(-160, 160, 3)
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        x, y = random.uniform(0, width), random.uniform(0, height)
        radius = random.uniform(0.02, 0.2) * max(width, height)
        color = tuple(int(value) for value in random.integers(0, 256, 3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=(0, 0, 0))
    for index in range(0, width // 3, 4):
        draw.line((index, height * 0.8, index + 2, height * 0.95), fill=(255, 255, 255) if index % 8 else (0, 0, 0))
    draw.rectangle((width * 0.6, height * 0.1, width * 0.9, height * 0.15), fill=(255, 0, 0))
    return picture


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def draw_pictures():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()

    def save(picture, name, **options):
        picture.save(FOLDER / name, **options)

    save(scene(500, 375, 1), "photo_420.jpg", quality=80, subsampling="4:2:0")
    save(scene(333, 251, 2), "photo_422.jpg", quality=75, subsampling="4:2:2")
    save(scene(227, 301, 3), "photo_444.jpg", quality=75, subsampling="4:4:4")
    save(scene(401, 299, 4), "progressive.jpg", quality=70, progressive=True)
    save(scene(259, 258, 5).convert("L"), "gray.jpg", quality=75)
    save(scene(161, 120, 6).convert("CMYK"), "cmyk.jpg", quality=75)
    save(scene(150, 101, 7), "rgb.jpg", quality=75, keep_rgb=True)
    save(scene(131, 97, 8), "restarts.jpg", quality=75, restart_marker_blocks=5)
    save(scene(1003, 801, 9, noise=0.4), "large.jpg", quality=40)
    save(scene(1, 1, 10), "one_pixel.jpg", quality=90)
    save(scene(700, 9, 11), "wide.jpg", quality=75)
    save(scene(5, 600, 12), "tall.jpg", quality=75)
    for orientation in range(1, 9):
        save(scene(97, 61, 13), f"exif_{orientation}.jpg", quality=60, exif=exif(orientation))
    save(scene(611, 403, 14, noise=0.4), "exif_6_large.jpg", quality=50, exif=exif(6))

    # Pillow writes no YCCK, but the transform flag in Adobe's marker is all that tells it from CMYK.
    ycck = (FOLDER / "cmyk.jpg").read_bytes()
    flag = ycck.index(b"Adobe") + 11
    (FOLDER / "ycck.jpg").write_bytes(ycck[:flag] + b"\2" + ycck[flag + 1 :])

    small = scene(67, 51, 15, noise=0.3)
    alpha = Image.fromarray(np.random.default_rng(16).integers(0, 256, (51, 67), dtype=np.uint8))
    rgba = small.copy()
    rgba.putalpha(alpha)
    save(small, "rgb.png")
    save(rgba, "rgba.png")
    save(rgba.convert("LA"), "gray_alpha.png")
    save(small.convert("L"), "gray.png")
    save(small.convert("1"), "bilevel.png")
    palette = small.quantize(64)
    save(palette, "palette.png")
    save(palette, "palette_transparent.png", transparency=bytes(range(0, 256, 4)))
    save(small.quantize(4), "palette_2_bits.png", bits=2)
    deep = np.asarray(small.convert("L"), dtype=np.uint16) * 257
    deep += np.random.default_rng(17).integers(0, 100, deep.shape, dtype=np.uint16) * (deep < 65000)
    save(Image.fromarray(deep), "gray_16_bits.png")
    write_rgb_16_bits(FOLDER / "rgb_16_bits.png", np.asarray(small))
    save(small, "exif_8.png", exif=exif(8))
    save(small, "lossless.webp", lossless=True)
    save(rgba, "lossless_alpha.webp", lossless=True, exact=True)
    save(scene(160, 121, 18), "lossy.webp", quality=75)
    save(small, "exif_3.webp", lossless=True, exif=exif(3))
    save(palette, "palette.gif")
    save(palette, "animated.gif", save_all=True, append_images=[small.transpose(0).quantize(64)])
    save(palette, "transparent.gif", transparency=3)
    save(small, "rgb.bmp")
    save(palette, "palette.bmp")
    save(small.convert("L"), "gray.bmp")
    save(small, "rgb.tiff")
    save(small, "lzw.tiff", compression="tiff_lzw")
    save(small, "deflate.tiff", compression="tiff_adobe_deflate")
    save(small.convert("L"), "gray.tiff")
    save(small, "exif_5.tiff", exif=exif(5))


def write_rgb_16_bits(path, pixels):
    """A PNG of 16-bit colour, which Pillow reads but does not write. The low bytes are noise."""
    low = np.random.default_rng(19).integers(0, 256, pixels.shape, dtype=np.uint8)
    rows = np.stack([pixels, low], axis=-1).reshape(pixels.shape[0], -1)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


# What has to come out.


def expect(name, recipe, shape, data_type):
    """The tensor that `recipe` makes of a picture, for a model's input of `shape` without the batch.

    With several crops there are as many of them, one behind the other.
    """
    layout = recipe.get("layout", "nchw" if data_type != "UINT8" else "nhwc")
    model = shape[1:] if layout == "nchw" else shape[:2]

    picture = Image.open(FOLDER / name)
    if picture.format == "TIFF":
        picture.load()  # turns it upright, whatever one asks
    if picture.mode == "I;16":
        # The one place where Pillow is not followed: it would clip to 255 what is above it.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    orientation = picture.getexif().get(0x0112, 1) if recipe.get("exif_orientation", True) else 1
    sideways = orientation >= 5
    target = resized_size(picture.size[::-1] if sideways else picture.size, recipe, model)
    box = None
    if recipe.get("decode") == "fast":
        box = draft(picture, target[::-1] if sideways else target)

    upright = picture.convert("L" if recipe.get("color") == "gray" else "RGB")
    if orientation != 1:
        upright.getexif()[0x0112] = orientation
        upright = ImageOps.exif_transpose(upright)
        box = box and turn_box(box, orientation, upright.size)
    resized = upright.resize(target, RESAMPLING[recipe.get("interpolation", "bilinear")], box=box)
    crop = crop_size(recipe, model)
    crops = [resized] if crop is None else cut(resized, recipe.get("crops", 1), *crop)
    rows = [to_tensor(picture, recipe, layout, data_type) for picture in crops]
    assert all(list(row.shape) == shape for row in rows), (name, recipe, rows[0].shape, shape)
    return np.stack(rows)


def to_tensor(picture, recipe, layout, data_type):
    """One row of the model's input."""
    pixels = np.asarray(picture).reshape(picture.size[1], picture.size[0], -1)
    if recipe.get("color") == "bgr":
        pixels = pixels[:, :, ::-1]
    if data_type != "UINT8":
        pixels = normalize(pixels, recipe)
    if layout == "nchw":
        pixels = pixels.transpose(2, 0, 1)
    return pixels.astype(np.float16) if data_type == "FP16" else pixels


def crop_size(recipe, model):
    """Height and width of the crop, or None. `model` is what the graph says."""
    crop = recipe.get("crop", "auto")
    if crop == "none":
        return None
    if crop == "auto":
        return model
    return [crop, crop] if isinstance(crop, int) else crop


def resized_size(size, recipe, model):
    """Width and height that torchvision's Resize gives a picture of `size`."""
    width, height = size
    resize = recipe.get("resize", "auto")
    if resize == "none":
        return size
    if isinstance(resize, list):
        return (resize[1], resize[0])
    if resize == "auto":
        resize = round(min(crop_size(recipe, model)) * 256 / 224)
    if width <= height:
        return (resize, int(resize * height / width))
    return (int(resize * width / height), resize)


def draft(picture, target):
    """Decodes at 1/2, 1/4 or 1/8 while both sides stay at twice the target; the box of what that shows."""
    width, height = picture.size
    for share in (8, 4, 2):
        if width >= 2 * share * target[0] and height >= 2 * share * target[1]:
            picture.draft(None, (width // share, height // share))
            assert picture.size == (math.ceil(width / share), math.ceil(height / share)), (picture.size, share)
            return (0, 0, width / share, height / share)
    return None


def turn_box(box, orientation, size):
    """The box in the turned picture, whose far edge may have become the near one."""
    width, height = (box[3], box[2]) if orientation >= 5 else (box[2], box[3])
    left = size[0] - width if orientation in (2, 3, 6, 7) else 0
    top = size[1] - height if orientation in (3, 4, 7, 8) else 0
    return (left, top, left + width, top + height)


def center_crop(picture, height, width):
    """torchvision's CenterCrop."""
    picture_width, picture_height = picture.size
    if width > picture_width or height > picture_height:
        left, top = max(width - picture_width, 0) // 2, max(height - picture_height, 0) // 2
        padded = Image.new(picture.mode, (max(width, picture_width), max(height, picture_height)))
        padded.paste(picture, (left, top))
        picture, (picture_width, picture_height) = padded, padded.size
    top = int(round((picture_height - height) / 2.0))
    left = int(round((picture_width - width) / 2.0))
    return picture.crop((left, top, left + width, top + height))


def cut(picture, count, height, width):
    """torchvision's CenterCrop, FiveCrop or TenCrop."""
    if count == 1:
        return [center_crop(picture, height, width)]
    if count == 10:
        mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return cut(picture, 5, height, width) + cut(mirrored, 5, height, width)
    picture_width, picture_height = picture.size
    assert width <= picture_width and height <= picture_height, (picture.size, height, width)
    left, top = picture_width - width, picture_height - height
    corners = [(0, 0), (left, 0), (0, top), (left, top)]
    crops = [picture.crop((x, y, x + width, y + height)) for x, y in corners]
    return [*crops, center_crop(picture, height, width)]


def normalize(pixels, recipe):
    """torchvision's ToTensor and Normalize, in float32."""
    given = any(key in recipe for key in ("scale", "mean", "std"))
    gray = pixels.shape[2] == 1
    if given or gray:
        mean, std = recipe.get("mean", [0.0] * pixels.shape[2]), recipe.get("std", [1.0] * pixels.shape[2])
    else:
        mean, std = (MEAN[::-1], STD[::-1]) if recipe.get("color") == "bgr" else (MEAN, STD)
    values = pixels.astype(np.float32)
    values = values * np.float32(recipe["scale"]) if "scale" in recipe else values / np.float32(255)
    return (values - np.float32(mean)) / np.float32(std)


def cases():
    small = {"resize": 32, "crop": 28}
    for path in sorted(FOLDER.iterdir()):
        width, height = Image.open(path).size
        # Every pixel that was decoded, and the whole recipe.
        raw = {"resize": "none", "crop": "none", "layout": "nhwc", "exif_orientation": path.suffix == ".tiff"}
        yield path.name, raw, [height, width, 3], "UINT8"
        yield path.name, {}, [3, 224, 224], "FP32"
    for filter in RESAMPLING:
        for resize in (232, [224, 224], [40, 300], "none"):
            yield "photo_420.jpg", {"interpolation": filter, "resize": resize, "crop": 224}, [3, 224, 224], "FP32"
        yield "photo_444.jpg", {"interpolation": filter, "resize": 500, "crop": [400, 233]}, [400, 233, 3], "UINT8"
        yield "gray.jpg", {"interpolation": filter, "resize": 64, "crop": 61}, [3, 61, 61], "FP32"
        yield "exif_6_large.jpg", {"interpolation": filter}, [3, 224, 224], "FP32"
        for size in ([40, 490], [300, 490], [40, 600], [360, 300], [41, 57]):  # either pass may be the first
            yield "photo_420.jpg", {"interpolation": filter, "resize": size, "crop": 40}, [40, 40, 3], "UINT8"
        yield "tall.jpg", {"interpolation": filter, "resize": 4, "crop": [470, 4]}, [470, 4, 3], "UINT8"
        yield "wide.jpg", {"interpolation": filter, **small}, [3, 28, 28], "FP32"
        yield "photo_422.jpg", {"interpolation": filter, "color": "gray", **small}, [1, 28, 28], "FP32"
    for orientation in range(1, 9):
        yield f"exif_{orientation}.jpg", small, [3, 28, 28], "FP32"
        exact = {"interpolation": "lanczos", "resize": [41, 57], "crop": "none"}
        yield f"exif_{orientation}.jpg", exact, [41, 57, 3], "UINT8"
        yield f"exif_{orientation}.jpg", {"resize": 70, "crop": [90, 80]}, [3, 90, 80], "FP32"
    for crop in (299, 227, 300, 371, [1, 1], [500, 3], [3, 600]):
        height, width = (crop, crop) if isinstance(crop, int) else crop
        for name in ("photo_420.jpg", "photo_444.jpg", "one_pixel.jpg", "tall.jpg"):
            yield name, {"resize": "none", "crop": crop}, [3, height, width], "FP32"
    for name in ("large.jpg", "photo_420.jpg", "exif_6_large.jpg", "exif_2.jpg"):
        for size in (16, 32, 64, 112, 224):
            yield name, {"decode": "fast", "crop": size}, [3, size, size], "FP32"
        yield name, {"decode": "fast", "resize": [20, 90], "crop": "none"}, [20, 90, 3], "UINT8"
    for count in (5, 10):
        for name in ("photo_420.jpg", "photo_444.jpg", "gray.jpg", "exif_6_large.jpg"):
            yield name, {"crops": count}, [3, 224, 224], "FP32"
        # What is left beside a crop is even and odd, and nothing along one side.
        for size in ([29, 31], [30, 30], [28, 57], [61, 28], [97, 88]):
            for orientation in range(1, 9):
                recipe = {"crops": count, "resize": size, "crop": 28}
                yield f"exif_{orientation}.jpg", recipe, [28, 28, 3], "UINT8"
        yield "photo_420.jpg", {"crops": count, "resize": "none", "crop": [371, 299]}, [371, 299, 3], "UINT8"
        yield "photo_422.jpg", {"crops": count, "color": "gray", "layout": "nchw", **small}, [1, 28, 28], "FP16"
        yield "photo_422.jpg", {"crops": count, "color": "bgr", "layout": "nhwc", **small}, [28, 28, 3], "FP32"
        yield "large.jpg", {"crops": count, "decode": "fast", "crop": 64}, [3, 64, 64], "FP32"
    inputs = "photo_422.jpg"
    yield inputs, {}, [3, 299, 299], "FP32"
    yield inputs, {"color": "bgr"}, [3, 224, 224], "FP32"
    yield inputs, {"color": "bgr", "scale": 1, "mean": [103.939, 116.779, 123.68]}, [3, 224, 224], "FP32"
    yield inputs, {"scale": 1, "mean": [127, 127, 127], "std": [128, 128, 128]}, [3, 224, 224], "FP32"
    yield inputs, {"mean": [0.48235, 0.45882, 0.40784], "std": [0.00392156862745098] * 3}, [3, 224, 224], "FP32"
    yield inputs, {"layout": "nhwc"}, [224, 224, 3], "FP32"
    yield inputs, {"layout": "nhwc", "color": "bgr", **small}, [28, 28, 3], "FP16"
    yield inputs, {"color": "gray", **small}, [1, 28, 28], "FP16"
    yield inputs, {"layout": "nchw", **small}, [3, 28, 28], "UINT8"
    yield inputs, {"color": "gray", "mean": [0.5], "std": [0.25], **small}, [1, 28, 28], "FP32"


def main():
    draw_pictures()
    goldens = []
    for name, recipe, shape, data_type in cases():
        tensor = expect(name, recipe, shape, data_type)
        flat = tensor.reshape(-1)
        places = [len(flat) * part // 8 for part in range(8)]
        goldens.append(
            {
                "file": name,
                "recipe": recipe,
                "shape": shape,
                "data_type": data_type,
                "sha256": hashlib.sha256(tensor.tobytes()).hexdigest(),
                "samples": [float(flat[place]) for place in places],
            }
        )
    lines = ",\n".join(json.dumps(golden) for golden in goldens)
    (FOLDER / "golden.json").write_text(f"[\n{lines}\n]\n")
    print(len(goldens), "goldens,", sum(path.stat().st_size for path in FOLDER.iterdir()), "bytes")


if __name__ == "__main__":
    main()
