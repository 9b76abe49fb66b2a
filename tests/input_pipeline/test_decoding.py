import io
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import decoding, other_formats
from input_pipeline.decoding import ImageError, decode_image
from input_pipeline.sources import open_source
from tests.input_pipeline.test_folders import write

# 40 x 64, smooth and without any symmetry; no row of it needs padding in a BMP.
Y, X = np.mgrid[:40, :64]
PICTURE = np.stack([4 * X, 6 * Y, 255 - 2 * X - 3 * Y], -1).astype(np.uint8)
GREY = PICTURE[..., 0]
ALPHA = (6 * Y).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)


def encode(image, form, **options):
  """Bytes of an array or Pillow image, as Pillow writes them."""
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def jpeg(image=PICTURE, **options):
  return encode(image, "JPEG", **{"quality": 95, "subsampling": 0} | options)


def exif(orientation, order="MM", thumbnail=b"", kind=3, count=1):
  """An EXIF block with an orientation, and bytes where a thumbnail would be."""
  pack = ">" if order == "MM" else "<"
  entry = struct.pack(pack + "HHIHH", 0x0112, kind, count, orientation, 0)
  header = order.encode() + struct.pack(pack + "HIH", 42, 8, 1)
  return b"Exif\0\0" + header + entry + bytes(4) + thumbnail


def on_white(rgb, alpha):
  a = alpha[..., None] / 255
  return rgb * a + 255 * (1 - a)


def assert_pixels(data, expected, tolerance=0.0):
  pixels = decode_image(data)
  assert pixels.dtype == np.uint8
  assert pixels.shape == expected.shape
  assert sorted(decoding.image_size(data)) == sorted(pixels.shape[:2])
  error = np.abs(pixels.astype(float) - expected)
  assert error.max() <= tolerance, error.max()


@pytest.mark.parametrize(
  ("data", "tolerance"),
  [
    (encode(PICTURE, "PNG"), 0),
    (encode(PICTURE, "BMP"), 0),
    (encode(PICTURE, "WEBP", lossless=True), 0),
    (encode(PICTURE, "WEBP", quality=95), 30),
    (encode(PICTURE, "TIFF"), 0),
    (encode(PICTURE, "TIFF", compression="tiff_lzw"), 0),
    (encode(PICTURE, "TIFF", compression="tiff_adobe_deflate"), 0),
    (encode(PICTURE, "AVIF", quality=95, subsampling="4:4:4"), 12),
    (jpeg(), 6),
    (jpeg(progressive=True), 6),
    (jpeg(restart_marker_rows=1), 6),
    (jpeg(subsampling=2), 24),
  ],
)
def test_ordinary_files(data, tolerance):
  assert_pixels(data, PICTURE, tolerance)


def test_jpegs_decode_alike_in_both_decoders():
  data = jpeg(NOISE, quality=80, subsampling=2)
  difference = decode_image(data) - other_formats.decode(data).astype(int)
  assert np.abs(difference).max() <= 6  # the fast DCT and the accurate one


@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpegs_decode_as_in_tensorflow(subsampling):
  """To the same pixels as its default, which the authors' code takes."""
  smooth = cv2.GaussianBlur(NOISE, (5, 5), 2)
  data = jpeg(smooth, quality=90, subsampling=subsampling)
  np.testing.assert_array_equal(
    decode_image(data), tf.io.decode_jpeg(data, channels=3).numpy()
  )


@pytest.mark.parametrize("progressive", [False, True])
def test_a_scan_cut_short_is_an_error_even_with_its_end_marker(progressive):
  data = jpeg(NOISE, quality=95, progressive=progressive)
  with pytest.raises(ImageError, match="damaged"):
    decode_image(data[: len(data) // 2] + b"\xff\xd9")


def test_what_libjpeg_gives_up_on_is_an_error():
  """It leaves the pixels unwritten, and simplejpeg says so only if strict."""
  before, _, after = jpeg(NOISE, progressive=True).rpartition(b"\xff\x00")
  with pytest.raises(ImageError):
    decode_image(before + b"\xff\x8b" + after)


def test_bytes_before_the_end_marker_do_no_harm():
  data = jpeg(NOISE, quality=95)
  extended = data[:-2] + 9 * b"\x55" + data[-2:]
  np.testing.assert_array_equal(decode_image(extended), decode_image(data))


@pytest.mark.parametrize("form", ["PNG", "BMP", "JPEG"])
def test_grey_is_repeated(form):
  expected = np.repeat(GREY[..., None], 3, axis=2)
  assert_pixels(encode(GREY, form), expected, 4 if form == "JPEG" else 0)


def test_one_bit_and_palette():
  bits = Image.fromarray(GREY).point(lambda v: 255 * (v > 99), mode="1")
  expected = np.repeat(np.where(GREY > 99, 255, 0)[..., None], 3, axis=2)
  assert_pixels(encode(bits, "PNG"), expected)
  assert_pixels(encode(bits, "BMP"), expected)
  palette = Image.fromarray(PICTURE).quantize(16)
  colours = np.array(palette.getpalette()).reshape(-1, 3)
  expected = colours[np.asarray(palette)]
  assert len(np.unique(expected.reshape(-1, 3), axis=0)) > 8
  assert_pixels(encode(palette, "PNG"), expected)
  assert_pixels(encode(palette, "BMP"), expected)


def test_alpha_is_flattened_onto_white():
  expected = on_white(PICTURE, ALPHA)
  rgba = np.dstack([PICTURE, ALPHA])
  assert_pixels(encode(rgba, "PNG"), expected, 1)
  webp = encode(rgba, "WEBP", lossless=True, exact=True)
  assert_pixels(webp, expected, 1)
  grey = np.repeat(GREY[..., None], 3, axis=2)
  both = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
  assert_pixels(encode(both, "PNG"), on_white(grey, ALPHA), 1)


def test_transparent_colour_and_palette_become_white():
  keyed = PICTURE.copy()
  keyed[5:9, 3:20] = (1, 2, 3)
  expected = keyed.copy()
  expected[5:9, 3:20] = 255
  assert_pixels(encode(keyed, "PNG", transparency=(1, 2, 3)), expected)
  palette = Image.fromarray(PICTURE).quantize(16)
  colours = np.array(palette.getpalette()).reshape(-1, 3)
  alpha = np.arange(16) * 17
  expected = on_white(colours[:16], alpha)[np.asarray(palette)]
  assert_pixels(
    encode(palette, "PNG", transparency=bytes(alpha.tolist())), expected, 1
  )


def test_sixteen_bits_give_their_high_byte():
  wide = (np.arange(2560).reshape(40, 64) * 25).astype(np.uint16)
  expected = np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, axis=2)
  assert expected.max() > 240
  assert_pixels(encode(Image.fromarray(wide), "PNG"), expected)
  _, data = cv2.imencode(".png", np.dstack([wide // 3, wide // 2, wide]))
  expected = np.dstack([wide, wide // 2, wide // 3]) >> 8
  assert_pixels(data.tobytes(), expected)


def test_cmyk():
  ink = np.dstack([PICTURE // 2, (ALPHA // 3)])
  expected = (255 - ink[..., :3]) * (1 - ink[..., 3:] / 255)
  # Adobe's programs, and Pillow, store the complement and leave an APP14. Files
  # without it are taken alike, as browsers do.
  adobe = jpeg(Image.fromarray(ink, "CMYK"))
  assert b"Adobe" in adobe
  assert_pixels(adobe, expected, 8)
  assert b"Adobe" not in without_adobe(adobe)
  assert_pixels(without_adobe(adobe), expected, 8)


def test_ycck():
  ink = np.dstack([PICTURE // 2, (ALPHA // 3)])
  expected = (255 - ink[..., :3]) * (1 - ink[..., 3:] / 255)
  colour = Image.fromarray(ink[..., :3]).convert("YCbCr")
  planes = np.dstack([np.asarray(colour), 255 - ink[..., 3]])
  # Pillow writes the four planes as they are, once its complement is undone.
  data = bytearray(jpeg(Image.fromarray(255 - planes, "CMYK")))
  data[data.index(b"Adobe") + 11] = 2  # The transform: YCCK.
  assert_pixels(bytes(data), expected, 12)


def without_adobe(data):
  start = data.index(b"\xff\xee")
  length = int.from_bytes(data[start + 2 : start + 4], "big")
  return data[:start] + data[start + 2 + length :]


# What a camera stores for each orientation, by the definition in EXIF 2.32:
# which side of the upright picture row 0 and column 0 of the stored one are.
STORED = {
  1: PICTURE,  # top, left
  2: PICTURE[:, ::-1],  # top, right
  3: PICTURE[::-1, ::-1],  # bottom, right
  4: PICTURE[::-1],  # bottom, left
  5: PICTURE.swapaxes(0, 1),  # left, top
  6: PICTURE.swapaxes(0, 1)[::-1],  # right, top
  7: PICTURE.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
  8: PICTURE.swapaxes(0, 1)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["MM", "II"])
def test_orientation(orientation, order):
  stored = np.ascontiguousarray(STORED[orientation])
  block = exif(orientation, order)
  assert_pixels(encode(stored, "PNG", exif=block), PICTURE)
  assert_pixels(encode(stored, "TIFF", exif=block[6:]), PICTURE)
  avif = encode(stored, "AVIF", quality=95, exif=block, subsampling="4:4:4")
  assert_pixels(avif, PICTURE, 12)
  assert_pixels(encode(stored, "WEBP", lossless=True, exif=block), PICTURE)
  assert_pixels(jpeg(stored, exif=block), PICTURE, 6)
  ink = np.dstack([255 - stored, np.zeros_like(stored[..., 0])])
  cmyk = Image.fromarray(ink, "CMYK")
  assert_pixels(jpeg(cmyk, exif=block), PICTURE, 8)


@pytest.mark.filterwarnings("ignore")  # pytest lifts the module's own filter.
def test_damaged_exif_is_ignored():
  good = exif(6)
  wrong = [good[:n] for n in range(7, 25)]  # The value is at 24 and 25.
  wrong += [exif(9), exif(0), good.replace(b"\0*", b"\xff\xff"), b"Exif\0\0"]
  for block in wrong:
    assert_pixels(jpeg(exif=block), PICTURE, 6)
  wrong += [exif(6, kind=2, count=4), b"MM\0*\xff\xff\xff\xff"]
  for block in wrong:
    assert_pixels(encode(PICTURE, "PNG", exif=block), PICTURE)


def test_heic(tmp_path):
  pillow_heif = pytest.importorskip("pillow_heif")
  pillow_heif.register_heif_opener()
  options = {"quality": -1, "chroma": 444}
  assert_pixels(encode(PICTURE, "HEIF", **options), PICTURE, 8)
  stored = np.ascontiguousarray(STORED[6])
  turned = encode(stored, "HEIF", exif=exif(6), **options)
  assert_pixels(turned, PICTURE, 8)
  data = encode(NOISE, "HEIF", **options)
  for length in (20, 200, len(data) // 2, len(data) - 9):
    with pytest.raises(ImageError):
      decode_image(data[:length])
  write(tmp_path / "a.HEIC")
  assert len(open_source(f"unlabelled:{tmp_path}", "all")) == 1


WITHOUT_HEIF = """
import sys
sys.modules["pillow_heif"] = None  # as if it were not installed
from input_pipeline import sources
from input_pipeline.decoding import decode_image
print(sources.summary(sources.open_source("unlabelled:" + sys.argv[1], "all")))
try:
  decode_image(b"\\0\\0\\0\\x18ftypheic" + bytes(99))
except ValueError as error:
  print(error)
"""


@pytest.mark.slow
def test_heic_without_its_extra_is_told(tmp_path):
  for name in ("a.heic", "b.HEIC", "c.png"):
    write(tmp_path / name)
  done = subprocess.run(
    [sys.executable, "-c", WITHOUT_HEIF, str(tmp_path)],
    capture_output=True,
    text=True,
    check=True,
  )
  summary, error = done.stdout.splitlines()
  advice = "HEIC and HEIF need the extra heif: pip install 'byol-flax[heif]'"
  assert summary.startswith("1 images of ")
  assert summary.endswith(f"ignored 2 files: 2 .heic ({advice})")
  assert advice in error


def test_samples_without_a_range_are_refused():
  for kind in (np.float32, np.int32):
    data = encode(Image.fromarray(GREY.astype(kind)), "TIFF")
    with pytest.raises(ImageError, match="8 or 16 bits"):
      decode_image(data)
  wide = Image.fromarray(GREY.astype(np.uint16) << 8)
  expected = np.repeat(GREY[..., None], 3, axis=2)
  assert_pixels(encode(wide, "TIFF"), expected)
