"""Bytes of an image file to pixels. A damaged file is an error, never grey.

OpenCV decodes ordinary JPEGs, fastest; Pillow decodes everything else. Both
hand back a partly grey image for some truncated files, so `decode_image`
looks for the end of a JPEG or PNG itself.
"""

import io
import re
import struct
import warnings

import cv2
import numpy as np
from PIL import Image

# Pillow's own limit, twice `Image.MAX_IMAGE_PIXELS`: 0.5 GB of RGB.
MAX_PIXELS = 178_956_970

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# The next marker that neither is stuffing (FF00) nor restarts a scan (FFD0-7).
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # The last chunk, with its checksum.

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}

cv2.setNumThreads(0)  # The parallelism is Grain's: one image per worker.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# For the whole process: `warnings.catch_warnings` is not safe in threads, and
# Grain reads in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(ValueError):
  """The bytes are no complete image that this module can decode."""


def decode_image(data: bytes) -> np.ndarray:
  """Decodes a JPEG, PNG, WebP or BMP file, told by content and not by name.

  Pixels are as a viewer shows them: turned upright by the EXIF orientation,
  alpha flattened onto white, CMYK converted (no colour profile is applied),
  grey repeated on three channels, the high byte of 16-bit samples, the first
  frame of an animation.

  Args:
    data: all bytes of the file; bytes after the image's end are ignored.

  Returns:
    uint8 [H, W, 3], RGB, 0..255.

  Raises:
    ImageError: for truncated or otherwise undecodable bytes and for images of
      more than `MAX_PIXELS`. Nothing else is raised, whatever the bytes.
  """
  try:
    if data.startswith(_JPEG_START):
      height, width, channels = _jpeg_frame(data)
      _check_size(width, height)
      if channels in (1, 3):
        pixels = cv2.imdecode(
          np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB
        )
        if pixels is not None:
          return pixels
    elif data.startswith(_PNG_START) and _PNG_END not in data:
      raise ImageError("The PNG file is truncated: it has no IEND chunk.")
    return _decode_with_pillow(data)
  except ImageError:
    raise
  except Exception as error:  # Decoders raise anything on hostile bytes.
    raise ImageError(f"No decodable image: {error!r}") from error


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
  """Walks the segments of a JPEG from its start to its end-of-image marker.

  Skipping by segment length passes over an EXIF thumbnail with its own
  end-of-image marker, and over the scans of a progressive file.

  Returns:
    (height, width, channels), from the frame header.
  """
  frame = None
  position = 2
  while marker := _JPEG_MARKER.search(data, position):
    code, position = data[marker.end() - 1], marker.end()
    if code in _START_OF_FRAME:
      # A second frame header is an error that both decoders report.
      frame = frame or struct.unpack_from(">HHB", data, position + 3)
    elif code == _END_OF_IMAGE and frame:
      return frame
    elif code == _START_OF_SCAN and frame and data.endswith(_JPEG_END):
      # Spares searching the scan. Coded samples never contain a marker, so
      # the one at the end of the file is the image's or comes after it.
      return frame
    position += int.from_bytes(data[position : position + 2], "big")
  raise ImageError("The JPEG file is truncated: no end-of-image marker.")


def _check_size(width: int, height: int) -> None:
  if width * height > MAX_PIXELS:
    raise ImageError(
      f"The header announces {width} x {height} pixels; at most {MAX_PIXELS} "
      "are decoded."
    )


def _decode_with_pillow(data: bytes) -> np.ndarray:
  formats = ("JPEG", "PNG", "WEBP", "BMP")
  with Image.open(io.BytesIO(data), formats=formats) as image:
    _check_size(*image.size)
    image.load()  # Before `_orientation`, which would swallow its errors.
    turn = _UPRIGHT.get(_orientation(image))
    flat = _without_alpha(image)
    return np.array(flat if turn is None else flat.transpose(turn))


def _orientation(image: Image.Image) -> int:
  """The EXIF orientation, 1 (upright) where the EXIF data is damaged."""
  try:
    return int(image.getexif().get(_EXIF_ORIENTATION, 1))
  except Exception:
    return 1


def _without_alpha(image: Image.Image) -> Image.Image:
  """Converts any mode to RGB."""
  if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip.
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.has_transparency_data:
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image.convert("RGBA"))
  return image.convert("RGB")
