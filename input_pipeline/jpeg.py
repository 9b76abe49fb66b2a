"""JPEG files: what their headers say, and their pixels at 1, 1/2, 1/4 or 1/8.

libjpeg-turbo decodes ordinary ones by the fast DCT, which gives the same pixels
as TensorFlow's default, and so as the authors' code. For a truncated file it
may return a partly grey image, so this module looks for the file's end itself.
At 1/8 `jpeg_eighth` gives the pixels of libjpeg-turbo in less time.
"""

import io
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from input_pipeline import jpeg_eighth, other_formats
from input_pipeline.image_limits import MAX_PIXELS, ImageError, check_honest

START, _END = b"\xff\xd8\xff", b"\xff\xd9"
# The next marker that is neither stuffing (FF00) nor restarts a scan (FFD0-7).
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START_OF_SCAN, _END_OF_IMAGE, _APP1 = 0xDA, 0xD9, 0xE1
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))

# The most pixels that a byte of a file can hold: a block of 64 takes a bit.
PIXELS_OF_A_BYTE = 8 * 64
# The most coefficients that libjpeg may keep while it joins the scans of a
# whole image, whatever the scale: as many as MAX_PIXELS have in full colour.
_MOST_COEFFICIENTS = 3 * MAX_PIXELS
REDUCTIONS = (1, 2, 4, 8)

# What libjpeg says when samples are lost. Other complaints, such as about bytes
# between segments, come with whole images too; TensorFlow ignores them.
_SAMPLES_LOST = ("remature end", "bad Huffman")


class Header(NamedTuple):
  """What comes before the first scan.

  Attributes:
    height: of the image as it is stored.
    width: the same.
    channels: 1, 3 or 4.
    coefficients: how many the decoder keeps at a time, beyond a few rows.
    orientation: of EXIF, 1 to 8; 1 is upright.
  """

  height: int
  width: int
  channels: int
  coefficients: int
  orientation: int

  @property
  def upright(self) -> tuple[int, int]:
    """Height and width as a viewer shows the image."""
    sideways = self.orientation >= 5
    size = (self.height, self.width)
    return size[::-1] if sideways else size


def decode(data: bytes, reduction: Callable[[int, int], int]) -> np.ndarray:
  """Decodes a JPEG to uint8 [H, W, 3], upright; see `decoding.decode_image`."""
  header = read_header(data)
  least = _least_reduction(header, len(data))
  factor = max(least, reduction(*header.upright))
  if header.channels not in (1, 3):
    return other_formats.decode(data, factor)
  pixels = jpeg_eighth.decode(data) if factor == 8 else None
  if pixels is None:
    pixels = _by_libjpeg(data, header, factor)
  turn = other_formats.UPRIGHT.get(header.orientation)
  if turn is not None:
    pixels = np.array(Image.fromarray(pixels).transpose(turn))
  return pixels


def _by_libjpeg(data: bytes, header: Header, factor: int) -> np.ndarray:
  """Decodes colours or greys; see `decode`."""
  options = {
    "fastdct": True,
    "min_height": -(-header.height // factor),
    "min_width": -(-header.width // factor),
  }
  try:
    return simplejpeg.decode_jpeg(data, "RGB", **options)
  except ValueError as error:
    if any(words in str(error) for words in _SAMPLES_LOST):
      raise ImageError(f"The JPEG file is damaged: {error}.") from error
  # Where libjpeg gave up, simplejpeg would now return memory that nobody has
  # written to. Pillow raises OSError then, and for nothing else here.
  with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
    image.draft(None, (-(-header.width // 8), -(-header.height // 8)))
    image.load()
  return simplejpeg.decode_jpeg(data, "RGB", strict=False, **options)


def decoded_size(data: bytes) -> tuple[int, int]:
  """Height and width of what `decode` would give without a reduction."""
  header = read_header(data)
  factor = _least_reduction(header, len(data))
  height, width = header.upright
  return -(-height // factor), -(-width // factor)


def read_header(data: bytes) -> Header:
  """Walks the segments of a JPEG from its start to its end-of-image marker.

  Skipping by segment length passes over an EXIF thumbnail with its own
  end-of-image marker, and over the scans of a progressive file.

  Raises:
    ImageError: there is no end.
  """
  frame, has_exif, scan = -1, False, -1
  position = 2
  while marker := _MARKER.search(data, position):
    code, position = data[marker.end() - 1], marker.end()
    if code in _START_OF_FRAME:
      # A second frame header is an error, which both decoders report.
      frame = position if frame < 0 else frame
    elif code == _APP1 and data.startswith(b"Exif", position + 2):
      has_exif = True
    elif code == _START_OF_SCAN and scan < 0:
      scan = position
    # Coded samples never contain a marker, so one at the end of the file ends
    # the image or comes after it. Then the scan need not be searched.
    ends = code == _START_OF_SCAN and data.endswith(_END)
    if frame >= 0 and (ends or code == _END_OF_IMAGE):
      return _header(data, frame, scan, has_exif)
    position += int.from_bytes(data[position : position + 2], "big")
  raise ImageError("The JPEG file is truncated: no end-of-image marker.")


def _header(data: bytes, frame: int, scan: int, has_exif: bool) -> Header:
  """Reads the segments at `frame` and `scan`, which follow their markers."""
  height, width, channels = struct.unpack_from(">HHB", data, frame + 3)
  factors = [
    (data[at] >> 4) * (data[at] & 15)
    for at in range(frame + 9, frame + 9 + 3 * channels, 3)
  ]
  in_one_scan = scan >= 0 and data[scan + 2] == channels
  kept = 0
  if data[frame - 1] in _PROGRESSIVE or not in_one_scan:
    kept = height * width * sum(factors) // max(1, max(factors, default=1))
  after = scan + int.from_bytes(data[scan : scan + 2], "big")
  orientation = _orientation(data[:after], frame) if has_exif else 1
  return Header(height, width, channels, kept, orientation)


def _orientation(headers: bytes, frame: int) -> int:
  """The orientation as Pillow reads it, whatever size the headers announce."""
  one_pixel = bytearray(headers)
  one_pixel[frame + 3 : frame + 7] = b"\0\1\0\1"
  with Image.open(io.BytesIO(one_pixel), formats=("JPEG",)) as header:
    return other_formats.orientation(header)


def _least_reduction(header: Header, size: int) -> int:
  """By how much an image of `size` bytes must be divided to fit into memory.

  Raises:
    ImageError: no division helps, or the header lies.
  """
  check_honest(header.width, header.height, PIXELS_OF_A_BYTE * size)
  if header.coefficients > _MOST_COEFFICIENTS:
    raise ImageError(
      f"It has {header.width} x {header.height} pixels in several scans, "
      "which must be in memory together. Make it smaller, or a baseline JPEG."
    )
  for factor in REDUCTIONS:
    pixels = -(-header.height // factor) * -(-header.width // factor)
    if pixels <= MAX_PIXELS:
      break
  return factor
