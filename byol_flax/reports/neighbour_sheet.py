"""A sheet of images and the images that are nearest to them."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from byol_flax.reports import views

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_FRAME = 5  # pixels
_FONT = 13  # pixels
_CAPTION = 18  # pixels below a cell
# Green and red that colour-blind readers can tell apart; grey for queries.
RIGHT, WRONG, QUERY = "#009e73", "#d55e00", "#909090"


def sheet(
  images: np.ndarray,
  label: np.ndarray,
  similarity: np.ndarray,
  names: Sequence[Sequence[str]],
) -> np.ndarray:
  """Shows a query in each row, and its neighbours to the right of it.

  Args:
    images: uint8 [Q, 1 + k, S, S, 3], the query first, then its neighbours, the
      nearest first.
    label: int [Q, 1 + k], their classes. The frame of a neighbour is green if
      its class is the query's, otherwise red.
    similarity: float [Q, k], cosines.
    names: of the classes of all images, Q times 1 + k.

  Returns:
    uint8 [H, W, 3]; `cell_box` says where each image is. Images under 96 pixels
    are enlarged by a whole factor, without smoothing.
  """
  queries, columns = label.shape
  factor = math.ceil(views.SMALLEST_CELL / images.shape[2])
  size = factor * images.shape[2]
  bottom, right = cell_box(queries - 1, columns - 1, size)
  canvas = Image.new(
    "RGB",
    (right.stop + _FRAME + views.GAP, bottom.stop + _CAPTION + views.GAP),
    "white",
  )
  draw = ImageDraw.Draw(canvas)
  font = ImageFont.load_default(_FONT)
  for row, column in np.ndindex(queries, columns):
    rows, across = cell_box(row, column, size)
    same = label[row, column] == label[row, 0]
    color = (RIGHT if same else WRONG) if column else QUERY
    draw.rectangle(
      (
        across.start - _FRAME,
        rows.start - _FRAME,
        across.stop + _FRAME - 1,
        rows.stop + _FRAME - 1,
      ),
      fill=color,
    )
    shown = views.enlarge(images[row, column], factor)
    canvas.paste(Image.fromarray(shown), (across.start, rows.start))
    cosine = f" {similarity[row, column - 1]:.2f}" if column else ""
    text = _fitting(names[row][column], cosine, size, font)
    draw.text(
      (across.start, rows.stop + _FRAME), text, fill="#303030", font=font
    )
  return np.array(canvas)


def cell_box(row: int, column: int, size: int) -> tuple[slice, slice]:
  """Rows and columns of pixels of an image of `size` pixels, without frame."""
  edge = views.GAP + _FRAME
  top = edge + row * (size + edge + _FRAME + _CAPTION)
  left = edge + column * (size + edge + _FRAME)
  return slice(top, top + size), slice(left, left + size)


def _fitting(name: str, end: str, size: int, font: Font) -> str:
  """The name, cut so that it and `end` fit into `size` pixels."""
  text = name
  while len(text) > 1 and font.getlength(f"{text}{end}") > size:
    text = f"{text.rstrip('…')[:-1]}…"
  return f"{text}{end}"
