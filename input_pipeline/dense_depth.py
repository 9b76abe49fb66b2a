"""Joint transforms of a frame and its depth (paper, App. D.6; paper.md, 7.3).

A frame of 640 × 480 pixels is halved, and its middle of 304 × 228 is what the
network sees. Its output of 160 × 128 covers that middle evenly.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import cv2
import grain
import numpy as np

from input_pipeline import image_ops
from input_pipeline.nyu import HEIGHT, WIDTH

SEEN = (228, 304)  # height and width of what the network sees
PREDICTED = (128, 160)  # and of what it predicts
_HALF = (HEIGHT // 2, WIDTH // 2)
_CORNER = ((_HALF[0] - SEEN[0]) // 2, (_HALF[1] - SEEN[1]) // 2)  # in _HALF
_ROW_BYTES = 3 * SEEN[0] * SEEN[1]


class ColorDraw(NamedTuple):
  """Every number drawn for one frame."""

  flip: bool
  brightness: float  # Added to values in [0, 1].
  saturation: float  # Factor.
  hue: float  # Turns.
  grayscale: bool


def seen(image: np.ndarray) -> np.ndarray:
  """The middle of the halved frame: uint8 [480, 640, 3] -> [228, 304, 3].

  A pixel of the half is the mean of four.
  """
  half = cv2.resize(image, _HALF[::-1], interpolation=cv2.INTER_AREA)
  y, x = _CORNER
  return np.ascontiguousarray(half[y : y + SEEN[0], x : x + SEEN[1]])


def target(depth: np.ndarray) -> np.ndarray:
  """Depth of what the network predicts: float32 [480, 640] -> [128, 160].

  A cell of the output takes the valid pixel that is nearest to its centre,
  among the pixels of the whole frame whose centres lie in the cell, and 0 if
  none of them is valid. So depths are never mixed with each other or with
  invalid pixels.
  """
  flat = np.append(depth.ravel(), np.float32(0))
  result = np.zeros(PREDICTED, np.float32)
  for pixels in _by_distance()[::-1]:  # the nearest last
    found = flat[pixels]
    result = np.where(found > 0, found, result)
  return result


@functools.cache
def _by_distance() -> np.ndarray:
  """Numbers of a frame's pixels in each cell, int32 [K, 128, 160].

  They are in order of their distance from the cell's centre; cells with fewer
  than K pixels are filled up with the number of pixels of the frame.
  """
  (rows, row_off), (columns, column_off) = (
    _of_cells(2 * start, 2 * length, cells)
    for start, length, cells in zip(_CORNER, SEEN, PREDICTED, strict=True)
  )
  squares = (
    row_off[:, None, :, None] ** 2 + column_off[None, :, None, :] ** 2
  ).reshape(*PREDICTED, -1)
  within = (rows[:, None, :, None] >= 0) & (columns[None, :, None, :] >= 0)
  numbers = rows[:, None, :, None] * WIDTH + columns[None, :, None, :]
  numbers = np.where(within, numbers, HEIGHT * WIDTH).reshape(*PREDICTED, -1)
  squares = np.where(numbers == HEIGHT * WIDTH, np.inf, squares)
  order = np.argsort(squares, axis=-1, kind="stable")
  numbers = np.take_along_axis(numbers, order, axis=-1)
  return np.ascontiguousarray(np.moveaxis(numbers, -1, 0), np.int32)


def _of_cells(
  start: int, length: int, cells: int
) -> tuple[np.ndarray, np.ndarray]:
  """Pixels along a side in each cell of `length` pixels from `start` on.

  Returns:
    int [cells, k], -1 for none, and their distances from the cell's centre.
  """
  side = length / cells
  first = np.ceil(np.arange(cells) * side - 0.5).astype(int)
  most = int(np.ceil(side))
  pixels = first[:, None] + np.arange(most)
  last = np.ceil((np.arange(cells) + 1) * side - 0.5).astype(int)
  centre = (np.arange(cells) + 0.5) * side
  distances = pixels + 0.5 - centre[:, None]
  return np.where(pixels < last[:, None], start + pixels, -1), distances


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainDepth(grain.transforms.RandomMap):
  """Mirrors a frame with its depth and changes its colours, by chance.

  Attributes:
    flip_probability: of mirroring left and right.
    brightness: most that is added or subtracted, values being in [0, 1].
    saturation: range of the factor, uniform.
    hue: most that is turned either way, in turns.
    grayscale_probability: of taking the colours away.
  """

  flip_probability: float
  brightness: float
  saturation: tuple[float, float]
  hue: float
  grayscale_probability: float

  @property
  def row_bytes(self) -> int:
    """Bytes of the arrays of a row."""
    return _ROW_BYTES + 4 * PREDICTED[0] * PREDICTED[1]

  def draw(self, rng: np.random.Generator) -> ColorDraw:
    """Draws for a frame; always five numbers."""
    u_flip, u_bright, u_saturation, u_hue, u_gray = rng.random(5).tolist()
    low, high = self.saturation
    return ColorDraw(
      flip=u_flip < self.flip_probability,
      brightness=self.brightness * (2 * u_bright - 1),
      saturation=low + (high - low) * u_saturation,
      hue=self.hue * (2 * u_hue - 1),
      grayscale=u_gray < self.grayscale_probability,
    )

  def random_map(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """{"image", "depth", "unreadable"} of an example with its depth."""
    made = apply(example["image"], example["label"], self.draw(rng))
    return {**made, "unreadable": example["unreadable"]}


def apply(
  image: np.ndarray, depth: np.ndarray, draw: ColorDraw
) -> dict[str, np.ndarray]:
  """What a row holds of uint8 [480, 640, 3] and float32 [480, 640].

  The colours change in the order in which App. D.6 names them but for grey,
  which comes last because nothing after it could bring a colour back.
  """
  image, depth = seen(image), target(depth)
  if draw.flip:
    image, depth = image[:, ::-1], depth[:, ::-1]
  planes = np.ascontiguousarray(image.transpose(2, 1, 0), np.float32) / 255
  image_ops.adjust_brightness(planes, draw.brightness)
  image_ops.adjust_saturation(planes, draw.saturation)
  image_ops.adjust_hue(planes, draw.hue)
  if draw.grayscale:
    planes = image_ops.to_grayscale(planes)
  return {"image": image_ops.to_image(planes), "depth": depth}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalDepth:
  """What the network sees of a frame, and the depth of the whole frame."""

  @property
  def row_bytes(self) -> int:
    """Bytes of the arrays of a row."""
    return _ROW_BYTES + 4 * HEIGHT * WIDTH

  def map(self, example: dict[str, Any]) -> dict[str, Any]:
    """{"image", "depth"} of an example with its depth."""
    return {"image": seen(example["image"]), "depth": example["label"]}

  def empty(self) -> dict[str, Any]:
    """A row without a valid pixel."""
    return {
      "image": np.zeros((*SEEN, 3), np.uint8),
      "depth": np.zeros((HEIGHT, WIDTH), np.float32),
    }
