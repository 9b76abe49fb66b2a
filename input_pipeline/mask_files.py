"""Reads masks: a class for each pixel, in a PNG or in SBD's MATLAB files.

A PNG with a palette, as VOC's, or of grey values holds the numbers of classes
themselves; what colours a palette gives them does not matter. A PNG of full
colours is read if VOC's palette has all of its colours, because some tools save
masks so.
"""

import functools
import io

import numpy as np
import scipy.io
from PIL import Image

from input_pipeline import voc_classes
from input_pipeline.image_limits import check_size

_BYTES_OF_A_BYTE = 1032  # the most that deflate makes of one
_IN_A_BYTE = 8  # pixels, at the least bits of a palette


class DamagedError(ValueError):
  """The file cannot be decoded."""


class ModeError(ValueError):
  """The pixels are no classes."""


def decode(data: bytes) -> np.ndarray:
  """The classes in a PNG file, uint8 [H, W].

  Raises:
    DamagedError: it is no whole PNG file, or one too large.
    ModeError: its values are neither classes nor colours of VOC's palette.
  """
  try:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
      check_size(*image.size, _IN_A_BYTE * _BYTES_OF_A_BYTE * len(data))
      image.load()
      mode, pixels = image.mode, np.array(image)
  except Exception as error:  # Pillow raises anything on hostile bytes
    raise DamagedError(str(error)) from error
  if mode in ("P", "L", "1"):
    return pixels.astype(np.uint8)
  if mode == "RGB" or (mode == "RGBA" and (pixels[..., 3] == 255).all()):
    return _of_colors(pixels[..., :3])
  raise ModeError(f"its mode is {mode}")


def decode_matlab(data: bytes) -> np.ndarray:
  """The classes in SBD's `cls/NAME.mat`, uint8 [H, W].

  Raises:
    DamagedError: it is no such file.
  """
  try:
    content = scipy.io.loadmat(io.BytesIO(data), variable_names=["GTcls"])
    mask = content["GTcls"]["Segmentation"][0, 0]
  except Exception as error:  # scipy raises anything on damaged bytes
    raise DamagedError(str(error)) from error
  if mask.ndim != 2 or mask.dtype.kind not in "ui":
    raise DamagedError("GTcls.Segmentation is no matrix of numbers")
  return mask.astype(np.uint8)


def _of_colors(pixels: np.ndarray) -> np.ndarray:
  red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
  numbers = _numbers_of_colors()[red << 16 | green << 8 | blue]
  if (numbers < 0).any():
    raise ModeError("its colours are not those of VOC")
  return numbers.astype(np.uint8)


@functools.cache
def _numbers_of_colors() -> np.ndarray:
  """Class of each colour of 24 bits, int16 [2^24]; -1 for no class."""
  red, green, blue = voc_classes.palette().astype(np.int32).T
  numbers = np.full(2**24, -1, np.int16)
  numbers[red << 16 | green << 8 | blue] = np.arange(256)
  return numbers
