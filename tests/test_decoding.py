import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from input_pipeline import decoding
from input_pipeline.decoding import ImageError, decode_image

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
  error = np.abs(pixels.astype(float) - expected)
  assert error.max() <= tolerance, error.max()


@pytest.mark.parametrize(
  ("data", "tolerance"),
  [
    (encode(PICTURE, "PNG"), 0),
    (encode(PICTURE, "BMP"), 0),
    (encode(PICTURE, "WEBP", lossless=True), 0),
    (encode(PICTURE, "WEBP", quality=95), 30),
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
  difference = decode_image(data) - decoding._decode_with_pillow(data).astype(
    int
  )
  assert np.abs(difference).max() <= 2


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


THUMBNAIL = exif(1, thumbnail=jpeg(NOISE[:16, :16]))
WHOLE = {
  "baseline": jpeg(NOISE),
  "grey": jpeg(NOISE[..., 0]),
  "progressive": jpeg(NOISE, progressive=True),
  "restarts": jpeg(NOISE, restart_marker_rows=1),
  "thumbnail": jpeg(NOISE, exif=THUMBNAIL),
  "progressive thumbnail": jpeg(NOISE, exif=THUMBNAIL, progressive=True),
  "cmyk": jpeg(Image.fromarray(NOISE).convert("CMYK")),
  "png": encode(NOISE, "PNG"),
  "grey png": encode(NOISE[..., 0], "PNG"),
  "webp": encode(NOISE, "WEBP"),
  "lossless webp": encode(NOISE, "WEBP", lossless=True),
  "bmp": encode(NOISE, "BMP"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_files_are_errors(kind):
  data = WHOLE[kind]
  assert decode_image(data).shape == NOISE.shape
  lengths = {*range(0, len(data), 97), *range(len(data) - 30, len(data))}
  if "thumbnail" in kind:
    ends = [i + 2 for i in range(len(data)) if data[i : i + 2] == b"\xff\xd9"]
    assert len(ends) == 2, "there should be a thumbnail with its own end"
    lengths |= set(range(ends[0] - 5, ends[0] + 600))
  for length in sorted(lengths):
    with pytest.raises(ImageError):
      decode_image(data[:length])


# WebP and BMP have no mark by which to tell.
@pytest.mark.parametrize("kind", [k for k in WHOLE if k[-3:] not in "bmpwebp"])
def test_preallocated_files_that_end_in_zeros_are_errors(kind):
  data = WHOLE[kind]
  for share in (0.3, 0.6, 0.95):
    kept = int(share * len(data))
    with pytest.raises(ImageError):
      decode_image(data[:kept] + bytes(len(data) - kept))


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("tail", [b"\0", b"junk" * 99, jpeg(), jpeg()[:-300]])
def test_bytes_after_the_image_are_ignored(kind, tail):
  whole = decode_image(WHOLE[kind])
  np.testing.assert_array_equal(decode_image(WHOLE[kind] + tail), whole)


@pytest.mark.parametrize("kind", WHOLE)
def test_flipped_bits_raise_nothing_else(kind):
  rng = np.random.default_rng(1)
  errors = 0
  for trial in range(60):
    data = np.frombuffer(WHOLE[kind], np.uint8).copy()
    reach = 200 if trial % 2 else len(data)  # Half of the trials: headers.
    where = rng.integers(0, min(reach, len(data)), rng.integers(1, 9))
    data[where] ^= (1 << rng.integers(0, 8, len(where))).astype(np.uint8)
    try:
      pixels = decode_image(data.tobytes())
    except ImageError:
      errors += 1
    else:
      assert pixels.dtype == np.uint8
      assert pixels.ndim == 3
      assert pixels.shape[2] == 3
  assert errors


@pytest.mark.parametrize(
  "data",
  [
    b"",
    b"\0",
    b"hello",
    b"\xff\xd8\xff",
    b"\xff\xd8\xff\xd9",
    b"\xff\xd8\xff\xda\xff\xd9",
    b"\xff\xd8\xff\xc0\x00\x02\xff\xd9",
    b"\xff\xd8\xff\xc0\xff\xd9",
    b"\x89PNG\r\n\x1a\n",
    b"BM",
    b"RIFF\0\0\0\0WEBP",
    b"\xff" * 1000,
    NOISE.tobytes(),
    encode(PICTURE, "GIF"),
    encode(PICTURE, "TIFF"),
  ],
)
def test_garbage_is_an_error(data):
  with pytest.raises(ImageError):
    decode_image(data)


def test_tables_may_come_before_the_frame_header():
  data = jpeg()
  frame, tables = data.index(b"\xff\xc0"), data.index(b"\xff\xc4")
  scan = data.index(b"\xff\xda")
  assert frame < tables < scan
  moved = data[:frame] + data[tables:scan] + data[frame:tables] + data[scan:]
  assert decoding._jpeg_frame(moved) == (40, 64, 3)
  np.testing.assert_array_equal(decode_image(moved), decode_image(data))


def test_absurd_sizes_are_refused():
  data = bytearray(jpeg())
  frame = data.index(b"\xff\xc0")
  data[frame + 5 : frame + 9] = struct.pack(">HH", 10_000, 20_000)
  with pytest.raises(ImageError, match="20000 x 10000 pixels"):
    decode_image(bytes(data))


@pytest.mark.parametrize("limit", ["default", "lifted"])
def test_absurd_sizes_are_refused_by_pillow_or_here(limit, monkeypatch):
  if limit == "lifted":
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
  with pytest.raises(ImageError, match="pixels"):
    decode_image(huge_png(20_000, 20_000))
  bmp = bytearray(encode(PICTURE, "BMP"))
  bmp[18:26] = struct.pack("<ii", 20_000, 20_000)
  with pytest.raises(ImageError, match="pixels"):
    decode_image(bytes(bmp))


def huge_png(width, height):
  """A black and white PNG whose header announces more than it holds."""
  header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
  return png_start(header) + chunk(b"IDAT", zlib.compress(bytes(99))) + PNG_END


def png_start(header):
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def chunk(kind, body):
  """A chunk of a PNG, with its correct checksum."""
  checksum = struct.pack(">I", zlib.crc32(kind + body))
  return struct.pack(">I", len(body)) + kind + body + checksum


PNG_END = chunk(b"IEND", b"")


def test_png_with_too_few_pixels_is_an_error():
  header = struct.pack(">IIBBBBB", 64, 40, 8, 0, 0, 0, 0)
  rows = b"".join(b"\0" + row.tobytes() for row in GREY)

  def png(packed):
    return png_start(header) + chunk(b"IDAT", packed) + PNG_END

  whole = zlib.compress(rows)
  assert_pixels(png(whole), np.repeat(GREY[..., None], 3, axis=2))
  for packed in (whole[: len(whole) // 2], zlib.compress(rows[:1000])):
    with pytest.raises(ImageError):
      decode_image(png(packed))


def test_hostile_files_take_no_memory_and_print_no_warning():
  small = Image.fromarray(PICTURE).quantize(16)
  vp8l = struct.pack("<I", 16382 | 16382 << 14)
  hostile = {
    "warned about by Pillow: size": huge_png(10_000, 9_999),
    "warned about by Pillow: palette": encode(
      small, "PNG", transparency=bytes(range(16))
    ),
    "warned about by Pillow: exif": encode(PICTURE, "PNG", exif=exif(6)[6:-9]),
    "huge png": huge_png(2**31 - 1, 2**31 - 1),
    "huge webp": b"RIFF\x40\0\0\0WEBPVP8L\x30\0\0\0\x2f" + vp8l + bytes(43),
  }
  program = f"""
import resource
from input_pipeline.decoding import ImageError, decode_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for kind, data in {hostile!r}.items():
  try:
    decode_image(data)
  except ImageError:
    print("error", kind)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
  run = subprocess.run(
    [sys.executable, "-W", "always", "-c", program],
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stderr == ""
  *errors, kilobytes = run.stdout.splitlines()
  assert len(errors) == 3
  assert int(kilobytes) < 100_000
