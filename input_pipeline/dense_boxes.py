"""Joint transforms of an image and its boxes, for detection.

An image is resized so that its short edge has a given length, unless its long
edge or the canvas forbids that, and lies in the top left corner of a canvas.
Boxes move with the pixels: edges are scaled by exactly the factors of the two
sides, so they are not rounded.
"""

import dataclasses
from typing import Any, NamedTuple

import cv2
import grain
import numpy as np

from input_pipeline.canvases import MEAN_COLOR, on_canvas
from input_pipeline.errors import UsageError

_BYTES_OF_A_BOX = 4 * 4 + 4 + 1  # edges, class, difficult
_BYTES_OF_SIZES = 2 * 4 + 2 * 4  # size and scale


class Canvas(NamedTuple):
  """Where an image goes.

  Attributes:
    height: of the canvas, in pixels.
    width: the same.
    longest: the most that the image's long edge may have.
  """

  height: int
  width: int
  longest: int


class BoxDraw(NamedTuple):
  """Every number drawn for one image."""

  size: tuple[int, int]  # Height and width of the resized image.
  flip: bool


def fitted(
  height: int, width: int, short_edge: int, canvas: Canvas
) -> tuple[int, int]:
  """Height and width of an image with its short edge as near as may be.

  The proportions stay but for rounding, and the size is within the canvas.
  """
  scale = min(
    short_edge / min(height, width),
    canvas.longest / max(height, width),
    canvas.height / height,
    canvas.width / width,
  )
  return max(1, int(scale * height + 0.5)), max(1, int(scale * width + 0.5))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes uint8 [H, W, 3] to a height and a width.

  It interpolates bilinearly to enlarge, and averages to make smaller, so that
  fine patterns of large photographs do not alias.
  """
  shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
  how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return cv2.resize(image, size[::-1], interpolation=how)


def moved(
  boxes: np.ndarray,
  old: tuple[int, int],
  new: tuple[int, int],
  flip: bool,
) -> np.ndarray:
  """Boxes float32 [M, 4] of an image that is resized, then perhaps mirrored.

  `old` and `new` are heights and widths. Applied twice with `flip` and the same
  size it gives what came.
  """
  factors = np.array(new[::-1], np.float32) / np.array(old[::-1], np.float32)
  boxes = boxes * np.tile(factors, 2)
  if not flip:
    return boxes
  width = np.float32(new[1])
  x_min, y_min, x_max, y_max = boxes.T
  return np.stack([width - x_max, y_min, width - x_min, y_max], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Boxes:
  """What training and evaluation share.

  Attributes:
    max_boxes: rows for the boxes of an image, M.
  """

  max_boxes: int

  def _rows(self, boxes: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Arrays of M rows with `boxes` [m, 4] and labels [m, 6], m <= M, first."""
    count = len(label)
    rows: dict[str, Any] = {
      "boxes": np.zeros((self.max_boxes, 4), np.float32),
      "label": np.full(self.max_boxes, -1, np.int32),
      "difficult": np.zeros(self.max_boxes, np.bool_),
    }
    rows["boxes"][:count] = boxes
    rows["label"][:count] = label[:, 4]
    rows["difficult"][:count] = label[:, 5] > 0
    return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainBoxes(_Boxes, grain.transforms.RandomMap):
  """Mirrors an image by chance and puts it on the canvas of its batch.

  An example has "short_edge", an int, and "canvas", a `Canvas`, besides; see
  `bucketed`. Of more than `max_boxes` boxes the first ones are taken.

  Attributes:
    flip_probability: of mirroring left and right.
  """

  flip_probability: float

  def row_bytes(self, canvas: Canvas) -> int:
    """Bytes of the arrays of a row on a canvas."""
    boxes = self.max_boxes * _BYTES_OF_A_BOX
    return 3 * canvas.height * canvas.width + boxes + _BYTES_OF_SIZES

  def draw(
    self,
    height: int,
    width: int,
    short_edge: int,
    canvas: Canvas,
    rng: np.random.Generator,
  ) -> BoxDraw:
    """Draws for an image of a height and a width; always one number."""
    size = fitted(height, width, short_edge, canvas)
    return BoxDraw(size, bool(rng.random() < self.flip_probability))

  def apply(
    self, image: np.ndarray, label: np.ndarray, canvas: Canvas, draw: BoxDraw
  ) -> dict[str, Any]:
    """What a row holds of uint8 [H, W, 3] and float32 [M, 6]."""
    label = label[: self.max_boxes]
    boxes = moved(label[:, :4], image.shape[:2], draw.size, draw.flip)
    image = resized(image, draw.size)
    if draw.flip:
      image = image[:, ::-1]
    return {
      "image": on_canvas(image, canvas.height, canvas.width, MEAN_COLOR),
      "size": np.array(draw.size, np.int32),
      **self._rows(boxes, label),
    }

  def random_map(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """{"image", "size", "boxes", "label", "difficult", "unreadable"}."""
    image, canvas = example["image"], example["canvas"]
    height, width = image.shape[:2]
    draw = self.draw(height, width, example["short_edge"], canvas, rng)
    made = self.apply(image, example["label"], canvas, draw)
    return {**made, "unreadable": example["unreadable"]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalBoxes(_Boxes):
  """Puts an image on a canvas; its boxes stay in pixels of the file.

  Attributes:
    short_edge: of the resized image, as far as the canvas allows.
    canvas: of all images.
  """

  short_edge: int
  canvas: Canvas

  @property
  def row_bytes(self) -> int:
    """Bytes of the arrays of a row."""
    boxes = self.max_boxes * _BYTES_OF_A_BOX
    return 3 * self.canvas.height * self.canvas.width + boxes + _BYTES_OF_SIZES

  def map(self, example: dict[str, Any]) -> dict[str, Any]:
    """{"image", "size", "boxes", "label", "difficult", "scale"}.

    Raises:
      UsageError: the image has more boxes than fit, each of which counts.
    """
    image, label = example["image"], example["label"]
    if len(label) > self.max_boxes:
      raise UsageError(
        f"An image has {len(label)} boxes, but an evaluation has room for "
        f"{self.max_boxes}, and none may be left out. Raise max_boxes."
      )
    height, width = old = image.shape[:2]
    size = fitted(height, width, self.short_edge, self.canvas)
    canvas = self.canvas
    return {
      "image": on_canvas(
        resized(image, size), canvas.height, canvas.width, MEAN_COLOR
      ),
      "size": np.array(size, np.int32),
      **self._rows(label[:, :4], label),
      "scale": np.array(size, np.float32) / np.array(old, np.float32),
    }

  def empty(self) -> dict[str, Any]:
    """A row without boxes; its size is the whole canvas."""
    canvas = self.canvas
    return {
      "image": np.zeros((canvas.height, canvas.width, 3), np.uint8),
      "size": np.array([canvas.height, canvas.width], np.int32),
      **self._rows(np.zeros((0, 4)), np.zeros((0, 6))),
      "scale": np.ones(2, np.float32),
    }
