"""Bytes of an image file to pixels. A damaged file is an error, never grey.

libjpeg-turbo decodes ordinary JPEGs, by the fast DCT, to the same pixels as
TensorFlow's default and so the authors' code; Pillow decodes everything else.
Either may hand back a partly grey image for a truncated file, so `decode_image`
looks for the end of a JPEG or PNG itself.
"""

import io
import re
import struct
import warnings
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

# At which Pillow begins to warn: 0.25 GB of RGB, three times that meanwhile.
MAX_PIXELS = 89_478_485
# What a byte of a file can hold at most: in a JPEG a block of 64 pixels takes a
# bit at least, and deflate makes a byte of 1,032.
_PIXELS_OF_A_JPEG_BYTE = 8 * 64
_BYTES_OF_A_PNG_BYTE = 1032
MAX_SIDE = 65_535  # what a JPEG can have; crops take memory for a whole row

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # of Pillow

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# The next marker that neither is stuffing (FF00) nor restarts a scan (FFD0-7).
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START_OF_SCAN, _END_OF_IMAGE, _APP1 = 0xDA, 0xD9, 0xE1
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# What libjpeg says where samples are lost. Other complaints, such as of bytes
# between segments, come with whole images too; TensorFlow ignores them.
_SAMPLES_LOST = ("remature end", "bad Huffman")

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
      more than `MAX_PIXELS` or `MAX_SIDE`, or than the bytes can hold. Nothing
      else is raised, whatever the bytes.
  """
  try:
    if data.startswith(_JPEG_START):
      frame = _jpeg_frame(data)
      most = _PIXELS_OF_A_JPEG_BYTE * len(data)
      _check_size(frame.width, frame.height, most)
      if frame.channels in (1, 3):
        return _decode_jpeg(data, frame.has_exif)
    elif data.startswith(_PNG_START) and _PNG_END not in data:
      raise ImageError("The PNG file is truncated: it has no IEND chunk.")
    return _decode_with_pillow(data)
  except ImageError:
    raise
  except UnidentifiedImageError:
    raise ImageError("These bytes are no JPEG, PNG, WebP or BMP.") from None
  except Exception as error:  # Decoders raise anything on hostile bytes.
    raise ImageError(f"No decodable image: {error!r}") from error


def image_size(data: bytes) -> tuple[int, int]:
  """Height and width of what `decode_image` would give, from the headers.

  An EXIF orientation is not looked at: it may exchange the two. A file whose
  headers are sound may still turn out to be damaged when it is decoded.

  Raises:
    ImageError: as `decode_image`, as far as the headers tell.
  """
  try:
    if data.startswith(_JPEG_START):
      frame = _jpeg_frame(data)
      height, width = frame.height, frame.width
    else:
      with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        width, height = image.size
  except ImageError:
    raise
  except Exception as error:  # Headers may be hostile, too.
    raise ImageError(f"No decodable image: {error!r}") from error
  _check_size(width, height, MAX_PIXELS)
  return height, width


class _Frame(NamedTuple):
  """What the headers of a JPEG announce."""

  height: int
  width: int
  channels: int
  has_exif: bool


def _decode_jpeg(data: bytes, has_exif: bool) -> np.ndarray:
  """A JPEG of one or three channels to uint8 [H, W, 3]."""
  try:
    pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True)
  except ValueError as error:
    if any(words in str(error) for words in _SAMPLES_LOST):
      raise ImageError(f"The JPEG file is damaged: {error}.") from error
    pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, strict=False)
  if has_exif:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as header:
      turn = _UPRIGHT.get(_orientation(header))
    if turn is not None:
      pixels = np.array(Image.fromarray(pixels).transpose(turn))
  return pixels


def _jpeg_frame(data: bytes) -> _Frame:
  """Walks the segments of a JPEG from its start to its end-of-image marker.

  Skipping by segment length passes over an EXIF thumbnail with its own
  end-of-image marker, and over the scans of a progressive file.
  """
  frame, has_exif = None, False
  position = 2
  while marker := _JPEG_MARKER.search(data, position):
    code, position = data[marker.end() - 1], marker.end()
    if code in _START_OF_FRAME:
      # A second frame header is an error that both decoders report.
      frame = frame or struct.unpack_from(">HHB", data, position + 3)
    elif code == _APP1 and data.startswith(b"Exif", position + 2):
      has_exif = True
    elif code == _END_OF_IMAGE and frame:
      return _Frame(frame[0], frame[1], frame[2], has_exif)
    elif code == _START_OF_SCAN and frame and data.endswith(_JPEG_END):
      # Spares searching the scan. Coded samples never contain a marker, so
      # the one at the end of the file is the image's or comes after it.
      return _Frame(frame[0], frame[1], frame[2], has_exif)
    position += int.from_bytes(data[position : position + 2], "big")
  raise ImageError("The JPEG file is truncated: no end-of-image marker.")


def _check_size(width: int, height: int, most: int) -> None:
  """Before anything is allocated; `most` is what the bytes can hold."""
  pixels = width * height
  if pixels > MAX_PIXELS or max(width, height) > MAX_SIDE or pixels > most:
    raise ImageError(
      f"The header announces {width} x {height} pixels; at most {MAX_PIXELS} "
      f"are decoded, {MAX_SIDE} a side, and not more than the file can hold."
    )


def _decode_with_pillow(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
    most = MAX_PIXELS  # WebP stores a plain picture in next to nothing
    if image.format == "PNG":
      pixels_of_a_byte = 8 if image.mode in ("1", "L", "P") else 1
      most = _BYTES_OF_A_PNG_BYTE * pixels_of_a_byte * len(data)
    elif image.format == "JPEG":
      most = _PIXELS_OF_A_JPEG_BYTE * len(data)
    _check_size(*image.size, most)
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
  return image if image.mode == "RGB" else image.convert("RGB")
