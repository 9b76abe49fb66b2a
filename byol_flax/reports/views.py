"""Grids of images and the two views that were made of each."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROWS = ("original", "view 1", "view 2")
GAP = 4  # pixels between cells
SMALLEST_CELL = 96  # pixels; smaller images are enlarged to at least this


def view_grid(
  original: Sequence[np.ndarray], view1: np.ndarray, view2: np.ndarray
) -> np.ndarray:
  """Shows each image above its two views, one column per image.

  Args:
    original: N images, uint8 [h, w, 3] of any sizes; each is fitted into its
      cell with its aspect ratio kept.
    view1: uint8 [N, S, S, 3].
    view2: uint8 [N, S, S, 3].

  Returns:
    uint8 [H, W, 3]. `cell_box` says where each image is. Views under 96 pixels
    are enlarged by a whole factor, without smoothing.
  """
  if view1.shape != view2.shape or len(original) != len(view1):
    raise ValueError(
      "view_grid draws two views of one size for every original: there are "
      f"{len(original)} originals, view1 is {view1.shape}, view2 is "
      f"{view2.shape}."
    )
  factor = math.ceil(SMALLEST_CELL / view1.shape[1])
  size = factor * view1.shape[1]
  rows, columns = cell_box(len(ROWS) - 1, len(view1) - 1, size)
  canvas = Image.new("RGB", (columns.stop + GAP, rows.stop + GAP), "white")
  _draw_labels(canvas, size)
  grid = np.array(canvas)
  for column in range(len(view1)):
    grid[cell_box(0, column, size)] = letterbox(original[column], size)
    grid[cell_box(1, column, size)] = enlarge(view1[column], factor)
    grid[cell_box(2, column, size)] = enlarge(view2[column], factor)
  return grid


def cell_box(row: int, column: int, size: int) -> tuple[slice, slice]:
  """Rows and columns of pixels of one cell in a grid of `size`-pixel cells."""
  top = GAP + row * (size + GAP)
  left = _gutter(size) + column * (size + GAP)
  return slice(top, top + size), slice(left, left + size)


def _font_size(size: int) -> int:
  """Height of the labels beside `size`-pixel cells, in pixels."""
  return max(14, size // 11)


def _gutter(size: int) -> int:
  """Width of the column of labels, in pixels."""
  return 5 * _font_size(size)


def _draw_labels(canvas: Image.Image, size: int) -> None:
  """Writes the name of each row to the left of it, half way up."""
  draw = ImageDraw.Draw(canvas)
  font = ImageFont.load_default(_font_size(size))
  for row, label in enumerate(ROWS):
    middle = cell_box(row, 0, size)[0].start + size // 2
    right = _gutter(size) - 2 * GAP
    draw.text((right, middle), label, fill="#404040", font=font, anchor="rm")


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
  """Repeats each pixel: [H, W, 3] -> [factor*H, factor*W, 3]."""
  return image.repeat(factor, axis=0).repeat(factor, axis=1)


def letterbox(image: np.ndarray, size: int) -> np.ndarray:
  """Fits uint8 [h, w, 3] into the middle of a grey uint8 [size, size, 3]."""
  height, width = image.shape[:2]
  scale = size / max(height, width)
  fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
  # Pixels of a small image stay visible; a large one is reduced smoothly.
  smooth, blocks = Image.Resampling.LANCZOS, Image.Resampling.NEAREST
  resized = Image.fromarray(image).resize(
    fitted, blocks if scale >= 1 else smooth
  )
  cell = Image.new("RGB", (size, size), "#e8e8e8")
  cell.paste(resized, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
  return np.array(cell)
