"""Decodes by Pillow all images but JPEG files of one or three channels.

Pillow reads AVIF by itself. For HEIC it needs the package pillow-heif, which
the extra `heif` installs.
"""

import functools
import importlib.util
import io
import os
import warnings
from typing import BinaryIO

import numpy as np
from PIL import AvifImagePlugin, Image, TiffImagePlugin

from input_pipeline.image_limits import MAX_PIXELS, ImageError, check_size

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
HEIF_ADVICE = "HEIC and HEIF need the extra heif: pip install 'byol-flax[heif]'"

_START_BYTES = 64  # tell HEIF from AVIF
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # The last chunk, with its checksum.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")

# The most bytes that a byte of a file can hold: 1,032 by deflate, 4,096 by a
# code of LZW, 64 by a run of PackBits.
_BYTES_OF_A_DEFLATED_BYTE = 1032
_BYTES_OF_AN_LZW_BYTE = 2**12
# By TIFF's tag of compression; other methods make pixels of next to nothing.
_COMPRESSION, _TILE_WIDTH, _TILE_LENGTH = 259, 322, 323
_BYTES_OF_A_TIFF_BYTE = {
  1: 1,
  5: _BYTES_OF_AN_LZW_BYTE,
  8: _BYTES_OF_A_DEFLATED_BYTE,
  32773: 64,
  32946: _BYTES_OF_A_DEFLATED_BYTE,
}

_EXIF_ORIENTATION = 0x0112
UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}

# Both hold for the whole process. Grain reads in threads, in which
# `warnings.catch_warnings` is not safe and of which each keeps a core busy.
warnings.filterwarnings("ignore", module=r"PIL\.")
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def decode(data: bytes, jpeg_factor: int = 1) -> np.ndarray:
  """Decodes a file of any of `FORMATS`, or HEIF, to uint8 [H, W, 3], upright.

  Args:
    data: all bytes of the file.
    jpeg_factor: 1, 2, 4 or 8, by which a JPEG's sides are divided.

  Raises:
    ImageError: the image is too large or cut off, or the range of its samples
      is unknown. Pillow raises other errors besides.
  """
  if data.startswith(_PNG_START) and _PNG_END not in data:
    raise ImageError("The PNG file is truncated: it has no IEND chunk.")
  with _open(data) as image:
    if image.format == "JPEG" and jpeg_factor > 1:
      width, height = image.size
      image.draft(None, (width // jpeg_factor, height // jpeg_factor))
    check_size(*image.size, _most_pixels(image, len(data)))
    image.load()  # Before `orientation`, which would swallow its errors.
    turn = UPRIGHT.get(orientation(image))
    flat = _without_alpha(image)
    return np.array(flat if turn is None else flat.transpose(turn))


def header_size(data: bytes) -> tuple[int, int]:
  """Height and width by the headers; errors are those of `decode`."""
  with _open(data) as image:
    check_size(*image.size, _most_pixels(image, len(data)))
    return image.height, image.width


def upright_size(path: str) -> tuple[int, int]:
  """Height and width of an image file as a viewer shows it, by its headers.

  It reads no more of the file than it must, so a file that is cut off later may
  pass.

  Raises:
    OSError: the file cannot be opened.
    ImageError: the headers announce too many pixels, or are of a format that
      is read by an extra. Pillow raises other errors besides.
  """
  with open(path, "rb") as file:
    start = file.read(_START_BYTES)
    file.seek(0)
    with _open_file(file, start) as image:
      size = os.fstat(file.fileno()).st_size
      check_size(*image.size, _most_pixels(image, size))
      sideways = orientation(image) >= 5
      return image.size if sideways else image.size[::-1]


def orientation(image: Image.Image) -> int:
  """The EXIF orientation; 1 (upright) if the EXIF data is damaged."""
  try:
    return int(image.getexif().get(_EXIF_ORIENTATION, 1))
  except Exception:
    return 1


@functools.cache
def reads_heif() -> bool:
  """Whether the extra `heif` is installed."""
  return importlib.util.find_spec("pillow_heif") is not None


def _open(data: bytes) -> Image.Image:
  """Reads the headers."""
  return _open_file(io.BytesIO(data), data[:_START_BYTES])


def _open_file(file: BinaryIO, start: bytes) -> Image.Image:
  """Reads the headers of a file that begins with `start`."""
  is_heif = start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS
  # "mif1" may come first in an AVIF file too.
  if is_heif and b"avif" not in start[12:]:
    return Image.open(file, formats=(_heif(),))
  return Image.open(file, formats=FORMATS)


@functools.cache
def _heif() -> str:
  """Pillow's name of the format, once Pillow can read it."""
  if not reads_heif():
    raise ImageError(f"It is no JPEG: {HEIF_ADVICE}.")
  import pillow_heif

  pillow_heif.register_heif_opener(
    decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
  )
  return "HEIF"


def _most_pixels(image: Image.Image, size: int) -> int:
  """The most pixels that a file of `size` bytes can hold."""
  in_a_byte = 8 if image.mode in ("1", "L", "P") else 1
  if image.format == "PNG":
    return in_a_byte * _BYTES_OF_A_DEFLATED_BYTE * size
  if image.format == "GIF":
    return _BYTES_OF_AN_LZW_BYTE * size
  if image.format == "JPEG":
    return 8 * 64 * size
  if isinstance(image, TiffImagePlugin.TiffImageFile):
    tags = image.tag_v2
    check_size(
      int(tags.get(_TILE_WIDTH, 0)), int(tags.get(_TILE_LENGTH, 0)), MAX_PIXELS
    )
    ratio = _BYTES_OF_A_TIFF_BYTE.get(tags.get(_COMPRESSION, 1))
    return MAX_PIXELS if ratio is None else in_a_byte * ratio * size
  return MAX_PIXELS


def _without_alpha(image: Image.Image) -> Image.Image:
  """Converts any mode to RGB."""
  if image.mode in ("I", "F"):
    raise ImageError(
      "Its samples are numbers of 32 bits, of which none is known to be white. "
      "Save it with 8 or 16 bits."
    )
  if image.mode.startswith("I;16"):  # grey, which `convert` would clip
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.has_transparency_data:
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image.convert("RGBA"))
  return image if image.mode == "RGB" else image.convert("RGB")
