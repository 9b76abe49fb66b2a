"""Joint transforms of an image and its classes, for segmentation.

An image is resampled bilinearly. Its classes are taken from the nearest pixel,
whose centre is found in the same way, so that no class arises in between and
both stay aligned. Padding has the mean colour and is void.
"""

import dataclasses
from typing import Any, NamedTuple

import cv2
import grain
import numpy as np

from input_pipeline.canvases import MEAN_COLOR, on_canvas
from input_pipeline.errors import UsageError
from input_pipeline.voc_classes import VOID

_ROW_BYTES_OF_A_PIXEL = 3 + 1  # colours and class


class CropDraw(NamedTuple):
  """Every number drawn for one crop.

  Attributes:
    size: height and width of the whole image when it is scaled.
    corner: of the crop in the scaled image, (y, x); 0 along a side on which the
      scaled image is no larger than the crop.
    flip: whether left and right change sides.
  """

  size: tuple[int, int]
  corner: tuple[int, int]
  flip: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledCrop(grain.transforms.RandomMap):
  """A crop of an image that is scaled by chance, for training (App. D.4).

  Attributes:
    size: of the square crop, in pixels.
    scales: range of the factor, uniform, the same for both sides.
    flip_probability: of mirroring left and right.
  """

  size: int
  scales: tuple[float, float]
  flip_probability: float

  @property
  def row_bytes(self) -> int:
    """Bytes of the arrays of a row."""
    return _ROW_BYTES_OF_A_PIXEL * self.size**2

  def draw(self, height: int, width: int, rng: np.random.Generator) -> CropDraw:
    """Draws for an image of a height and a width; always four numbers."""
    u_scale, u_y, u_x, u_flip = rng.random(4).tolist()
    low, high = self.scales
    scale = low + (high - low) * u_scale
    sides = [max(1, round(scale * side)) for side in (height, width)]
    y, x = (
      int(u * (max(side - self.size, 0) + 1))
      for u, side in zip((u_y, u_x), sides, strict=True)
    )
    flip = u_flip < self.flip_probability
    return CropDraw((sides[0], sides[1]), (y, x), flip)

  def apply(
    self, image: np.ndarray, classes: np.ndarray, draw: CropDraw
  ) -> dict[str, np.ndarray]:
    """The crop of uint8 [H, W, 3] and uint8 [H, W]; no randomness is left."""
    size = draw.size[::-1]  # OpenCV's order
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    # INTER_NEAREST would take pixels by their corners, half a pixel off.
    classes = cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST_EXACT)
    y, x = draw.corner
    image, classes = _crop(image[y:, x:], classes[y:, x:], self.size, self.size)
    if draw.flip:
      image, classes = image[:, ::-1], classes[:, ::-1]
    return {"image": image, "classes": classes}

  def random_map(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """{"image", "classes", "unreadable"} of an example with its classes."""
    image, classes = example["image"], example["label"]
    height, width = image.shape[:2]
    made = self.apply(image, classes, self.draw(height, width, rng))
    return {**made, "unreadable": example["unreadable"]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evaluated:
  """A canvas of an evaluation; the subclasses say which part lies on it."""

  height: int
  width: int

  @property
  def row_bytes(self) -> int:
    """Bytes of the arrays of a row."""
    return _ROW_BYTES_OF_A_PIXEL * self.height * self.width

  def empty(self) -> dict[str, Any]:
    """A row without pixels that count."""
    size = (self.height, self.width)
    return {
      "image": np.zeros((*size, 3), np.uint8),
      "classes": np.full(size, VOID, np.uint8),
    }

  def _row(self, image: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    image, classes = _crop(image, classes, self.height, self.width)
    return {"image": image, "classes": classes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentreCrop(_Evaluated):
  """The middle of an image, at its own scale (App. D.4).

  Along a side that is shorter than the crop, the whole image lies at its top or
  left.
  """

  def map(self, example: dict[str, Any]) -> dict[str, Any]:
    """{"image", "classes"} of an example with its classes."""
    image, classes = example["image"], example["label"]
    y = max(image.shape[0] - self.height, 0) // 2
    x = max(image.shape[1] - self.width, 0) // 2
    return self._row(image[y:, x:], classes[y:, x:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class WholeImage(_Evaluated):
  """A whole image at its own scale; `canvases.covering` gives the canvas."""

  def map(self, example: dict[str, Any]) -> dict[str, Any]:
    """{"image", "classes"} of an example with its classes.

    Raises:
      UsageError: the image is larger than the canvas.
    """
    image, classes = example["image"], example["label"]
    height, width = image.shape[:2]
    if height > self.height or width > self.width:
      raise UsageError(
        f"An image of {width} × {height} pixels does not fit on a canvas of "
        f"{self.width} × {self.height}. Was it changed since the evaluation "
        "began? Give the command again."
      )
    return self._row(image, classes)


def _crop(
  image: np.ndarray, classes: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  return (
    on_canvas(image, height, width, MEAN_COLOR),
    on_canvas(classes, height, width, VOID),
  )
