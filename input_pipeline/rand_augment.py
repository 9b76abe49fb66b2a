"""RandAugment (Cubuk et al. 2020): a few operations, drawn from sixteen.

Operations and ranges are those of the authors' TPU code (tensorflow/tpu,
models/official/efficientnet/autoaugment.py, `distort_image_with_randaugment`):
each layer takes one operation, always at the same magnitude, and turns the
direction of the geometric ones by chance. Two things differ. Contrast blends
with the image's mean, as Pillow does; there it is the number of pixels / 256,
cut to 255. And distances, which are for 224 pixels there, grow with the image.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

_MOST = 10.0  # the magnitude at which the ranges below are reached
_FILL = 128  # of what comes from outside the image
_SIZE = 224.0  # pixels, for which distances are given
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


class Layer(NamedTuple):
  """What is drawn for one layer.

  Attributes:
    operation: its number in OPERATIONS.
    negative: whether a geometric operation goes the other way.
    y, x: the middle of a cut-out, as shares of the sides.
  """

  operation: int
  negative: bool
  y: float
  x: float


@dataclasses.dataclass(frozen=True)
class RandAugment:
  """How many operations (N), and how strong (M, from 0 to 10)."""

  layers: int
  magnitude: float

  def sample(self, rng: np.random.Generator) -> list[Layer]:
    """Draws the layers; each takes four uniform numbers, whatever is drawn."""
    return [
      Layer(int(u[0] * len(OPERATIONS)), bool(u[1] < 0.5), float(u[2]), u[3])
      for u in rng.random((self.layers, 4)).tolist()
    ]

  def apply(self, image: np.ndarray, layers: list[Layer]) -> np.ndarray:
    """Applies drawn layers to uint8 [H, W, 3]; returns the same shape."""
    for layer in layers:
      operation = list(OPERATIONS.values())[layer.operation]
      image = operation(image, self.magnitude / _MOST, layer)
    return image


def _blend(start: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
  """From `start` to `image` and beyond; cut to whole numbers as there."""
  first = start.astype(np.float32)
  mixed = first + np.float32(factor) * (image.astype(np.float32) - first)
  return np.clip(mixed, 0, 255).astype(np.uint8)


def _factor(share: float) -> float:
  return 1.8 * share + 0.1


def _by_table(image: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
  """Each channel through its table of 256 values."""
  return np.stack([t[image[..., c]] for c, t in enumerate(tables)], axis=-1)


def _autocontrast(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  """Stretches each channel from 0 to 255."""
  tables = []
  for channel in np.moveaxis(image, -1, 0):
    low, high = float(channel.min()), float(channel.max())
    table = np.arange(256, dtype=np.float64)
    if high > low:
      table = np.clip((table - low) * (255 / (high - low)), 0, 255)
    tables.append(table.astype(np.uint8))
  return _by_table(image, tables)


def _equalize(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  """Makes the values of each channel equally frequent."""
  tables = []
  for channel in np.moveaxis(image, -1, 0):
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (channel.size - counts[np.flatnonzero(counts)[-1]]) // 255
    table = np.arange(256)
    if step:
      below = np.cumsum(counts) - counts
      table = np.minimum((below + step // 2) // step, 255)
    tables.append(table.astype(np.uint8))
  return _by_table(image, tables)


def _invert(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  return 255 - image


def _posterize(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  """Keeps up to four of the eight bits, more with the magnitude."""
  dropped = 8 - int(4 * share)
  return (image.astype(np.uint16) >> dropped << dropped).astype(np.uint8)


def _solarize(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  return np.where(image < int(256 * share), image, 255 - image)


def _solarize_add(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  """Brightens what is dark."""
  brighter = np.minimum(image.astype(np.int32) + int(110 * share), 255)
  return np.where(image < 128, brighter.astype(np.uint8), image)


def _color(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
  return _blend(gray, image, _factor(share))


def _contrast(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  mean = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
  return _blend(np.asarray(int(mean + 0.5)), image, _factor(share))


def _brightness(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  return _blend(np.asarray(0), image, _factor(share))


def _sharpness(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  """Goes away from the smoothed image; the border stays."""
  smooth = image.copy()
  inner = cv2.filter2D(image.astype(np.float32), -1, _SMOOTH)[1:-1, 1:-1]
  smooth[1:-1, 1:-1] = inner.astype(np.uint8)
  return _blend(smooth, image, _factor(share))


def _cutout(image: np.ndarray, share: float, layer: Layer) -> np.ndarray:
  """Greys a square, of which a part may lie outside."""
  height, width = image.shape[:2]
  half = int(40 * share * width / _SIZE)
  y, x = int(layer.y * height), int(layer.x * width)
  image = image.copy()
  image[max(0, y - half) : y + half, max(0, x - half) : x + half] = _FILL
  return image


def _warp(
  matrix: Callable[[float, float, int, int], Any],
  most: float,
  image: np.ndarray,
  share: float,
  layer: Layer,
) -> np.ndarray:
  """Looks up each pixel, the nearest one, where `matrix` sends its place."""
  height, width = image.shape[:2]
  amount = -most * share if layer.negative else most * share
  return cv2.warpAffine(
    image,
    np.array(matrix(amount, width / _SIZE, height, width), np.float64),
    (width, height),
    flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_CONSTANT,
    borderValue=(_FILL,) * 3,
  )


def _rotation(degrees: float, scale: float, height: int, width: int) -> Any:
  """About the middle."""
  cos = math.cos(math.radians(degrees))
  sin = math.sin(math.radians(degrees))
  y, x = (height - 1) / 2, (width - 1) / 2
  return [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]


Operation = Callable[[np.ndarray, float, Layer], np.ndarray]

# In the order of the authors' list. Each takes uint8 [H, W, 3], the share of
# the full magnitude, and its layer.
OPERATIONS: dict[str, Operation] = {
  "autocontrast": _autocontrast,
  "equalize": _equalize,
  "invert": _invert,
  "rotate": functools.partial(_warp, _rotation, 30.0),
  "posterize": _posterize,
  "solarize": _solarize,
  "color": _color,
  "contrast": _contrast,
  "brightness": _brightness,
  "sharpness": _sharpness,
  "shear_x": functools.partial(
    _warp, lambda a, scale, h, w: [[1, a, 0], [0, 1, 0]], 0.3
  ),
  "shear_y": functools.partial(
    _warp, lambda a, scale, h, w: [[1, 0, 0], [a, 1, 0]], 0.3
  ),
  "translate_x": functools.partial(
    _warp, lambda a, scale, h, w: [[1, 0, a * scale], [0, 1, 0]], 100.0
  ),
  "translate_y": functools.partial(
    _warp, lambda a, scale, h, w: [[1, 0, 0], [0, 1, a * scale]], 100.0
  ),
  "cutout": _cutout,
  "solarize_add": _solarize_add,
}
