"""Files that are cut, flipped, absurd or no images: errors, nothing else."""

import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline import decoding
from input_pipeline import jpeg as jpeg_files
from input_pipeline.decoding import ImageError, decode_image
from tests import hostile
from tests.input_pipeline.test_decoding import (
  GREY,
  NOISE,
  PICTURE,
  assert_pixels,
  encode,
  exif,
  jpeg,
)

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
  "gif": encode(NOISE, "GIF"),
  "tiff": encode(NOISE, "TIFF"),
  "lzw tiff": encode(NOISE, "TIFF", compression="tiff_lzw"),
  "deflate tiff": encode(NOISE, "TIFF", compression="tiff_adobe_deflate"),
  "packbits tiff": encode(NOISE, "TIFF", compression="packbits"),
  "jpeg tiff": encode(NOISE, "TIFF", compression="jpeg"),
  "grey tiff": encode(NOISE[..., 0], "TIFF"),
  "avif": encode(NOISE, "AVIF"),
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
  if kind == "gif":  # The pixels end before the last two bytes.
    lengths -= {len(data) - 1, len(data) - 2}
  for length in sorted(lengths):
    with pytest.raises(ImageError):
      decode_image(data[:length])


# The others have no mark by which to tell.
@pytest.mark.parametrize(
  "kind",
  [k for k in WHOLE if not k.endswith(("bmp", "webp", "avif", "tiff"))]
  + ["lzw tiff", "deflate tiff", "packbits tiff"],
)
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
    b"GIF89a",
    b"II*\0\x08\0\0\0",
    b"\0\0\0\x1cftypavif",
    b"\0\0\0\x1cftypheic",
    encode(PICTURE, "PPM"),
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
  assert jpeg_files.read_header(moved) == (40, 64, 3, 0, 1)
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


def stretched(data, height, width):
  """A JPEG that announces another size, long enough to hold it."""
  data = bytearray(data)
  frame = re.search(rb"\xff[\xc0\xc2]\0\x11", data).start()
  data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
  padding = bytes(height * width // jpeg_files.PIXELS_OF_A_BYTE)
  return bytes(data[:-2]) + padding + b"\xff\xd9"


def test_jpegs_beyond_the_limit_are_divided_until_memory_holds_them():
  for side, divided in ((9_000, 9_000), (12_000, 6_000), (40_000, 5_000)):
    size = decoding.image_size(stretched(jpeg(NOISE), side, side))
    assert size == (divided, divided)
  # What a decoder keeps of several scans has no smaller size.
  progressive = jpeg(NOISE, progressive=True)
  for size in ((12_000, 8_000), (40_000, 40_000)):
    with pytest.raises(ImageError, match="in several scans"):
      decode_image(stretched(progressive, *size))
  half_color = jpeg(NOISE, progressive=True, subsampling=2)
  size = decoding.image_size(stretched(half_color, 12_000, 12_000))
  assert size == (6_000, 6_000)


LARGE = """
import io, resource, sys
import numpy as np
from PIL import Image
from input_pipeline.decoding import decode_image
image = Image.new("L", (12_000, 9_000), 77)
image.paste(200, (0, 0, 6_000, 9_000))
file = io.BytesIO()
image.save(file, "JPEG", exif={exif!r})
del image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels = decode_image(file.getvalue())
print(*pixels.shape, pixels[0].mean(), pixels[-1].mean())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_photograph_of_108_megapixels_is_read_at_half_its_size():
  """939a972 counted it as unreadable."""
  run = subprocess.run(
    [sys.executable, "-c", LARGE.format(exif=exif(6))],
    capture_output=True,
    text=True,
    check=True,
  )
  pixels, kilobytes = run.stdout.splitlines()
  assert pixels == "6000 4500 3 200.0 77.0"
  assert int(kilobytes) < 200_000


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


@pytest.mark.slow
def test_hostile_files_go_through_the_pipeline(tmp_path):
  """A few of those that `python -m tests.hostile` makes by the thousand."""
  images = tmp_path / "images"
  images.mkdir()
  hostile.write_files(images, 112, seed=1)
  report = tmp_path / "unreadable.txt"
  source, unreadable, _, _, _ = hostile.run(images, 0, report)
  counts = hostile.check(source, unreadable)
  assert counts["sound", True] == 14
  refused = {kind for kind, decoded in counts if not decoded}
  assert refused >= {"cut", "bits_flipped", "size_is_a_lie", "bomb"}
  assert len(unreadable.indices) > 40
