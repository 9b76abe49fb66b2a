"""Decodes image files. A damaged file is an error, never partly grey."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import UnidentifiedImageError

from input_pipeline import jpeg, other_formats
from input_pipeline.image_limits import ImageError

__all__ = [
  "ImageError",
  "Reduction",
  "decode_image",
  "image_size",
  "upright_size",
  "whole",
]

Reduction = Callable[[int, int], int]  # see `decode_image`


def whole(height: int, width: int) -> int:
  """The reduction that leaves an image as large as it is."""
  del height, width
  return 1


def decode_image(data: bytes, reduction: Reduction = whole) -> np.ndarray:
  """Decodes an image file, whose format its content tells, not its name.

  Formats are JPEG, PNG, WebP, BMP, GIF, TIFF and AVIF, and HEIC with the extra
  `heif`. Pixels are as a viewer shows them: turned upright by the EXIF
  orientation, alpha flattened onto white, CMYK converted (no colour profile is
  applied), and grey repeated on three channels. Samples of 16 bits keep their
  high byte, and an animation its first frame.

  Args:
    data: all bytes of the file; bytes after the image's end are ignored.
    reduction: takes height and width and returns 1, 2, 4 or 8, by which both
      may be divided. Only JPEG files are divided, while they are decoded, which
      antialiases. If a JPEG has more than `image_limits.MAX_PIXELS`, it is
      divided in any case until it has no more. `reduction` is called once for
      every format; for a JPEG, before any pixel is decoded.

  Returns:
    uint8 [H, W, 3], RGB, 0..255; a side that was divided is rounded up.

  Raises:
    ImageError: for truncated or otherwise undecodable bytes and for images of
      more pixels than are decoded or than the bytes can hold. Nothing else is
      raised, whatever the bytes.
  """
  with _only_image_errors():
    if data.startswith(jpeg.START):
      return jpeg.decode(data, reduction)
    pixels = other_formats.decode(data)
    reduction(*pixels.shape[:2])
    return pixels


def image_size(data: bytes) -> tuple[int, int]:
  """Height and width of what `decode_image` would give, from the headers.

  For formats other than JPEG an EXIF orientation may exchange the two. A file
  with sound headers may still turn out to be damaged when it is decoded.

  Raises:
    ImageError: as in `decode_image`, as far as the headers tell.
  """
  with _only_image_errors():
    if data.startswith(jpeg.START):
      return jpeg.decoded_size(data)
    return other_formats.header_size(data)


def upright_size(path: str) -> tuple[int, int]:
  """Height and width of what `decode_image` would give of a file's bytes.

  Unlike `image_size` it heeds the EXIF orientation of every format, and reads
  little more than the headers, which suffices to look through a whole data set.

  Raises:
    OSError: the file cannot be opened or read.
    ImageError: the headers are damaged, or announce more than MAX_PIXELS.
  """
  try:
    with _only_image_errors():
      return other_formats.upright_size(path)
  except ImageError as error:
    if isinstance(error.__cause__, OSError) and error.__cause__.errno:
      raise error.__cause__ from None
    raise


@contextlib.contextmanager
def _only_image_errors() -> Iterator[None]:
  """Turns whatever decoders raise on hostile bytes into ImageError."""
  try:
    yield
  except ImageError:
    raise
  except UnidentifiedImageError:
    raise ImageError(
      f"These bytes are in none of {', '.join(other_formats.FORMATS)}."
    ) from None
  except Exception as error:
    raise ImageError(f"No decodable image: {error!r}") from error
