"""Sheets of panels: rows of pictures under titles, with a legend below."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Row = Sequence[np.ndarray]

GAP = 6  # pixels around panels
_LINE, _FONT = 18, 13  # pixels: height of a line of text, and of its font
_INK: Color = (48, 48, 48)
# Pixels of the longer side of a panel: small images are enlarged by a whole
# factor until they have so many, and larger ones are reduced to so many.
_SMALLEST, _LARGEST = 240, 640


def scale_of(image: np.ndarray) -> float:
  """Pixels of a panel for a pixel of an image [H, W, ...]."""
  longest = max(image.shape[:2])
  if longest > _LARGEST:
    return _LARGEST / longest
  return math.ceil(_SMALLEST / longest)


def fitted(
  image: np.ndarray, scale: float, *, smooth: bool = True
) -> np.ndarray:
  """Scales uint8 [H, W, 3] to a panel.

  Args:
    image: what is shown.
    scale: see `scale_of`.
    smooth: whether pixels may be mixed when an image is reduced; colours that
      stand for classes may not. Enlarged pixels stay visible as squares.
  """
  height, width = (max(1, round(scale * side)) for side in image.shape[:2])
  how = Image.Resampling.NEAREST
  if smooth and scale < 1:
    how = Image.Resampling.LANCZOS
  return np.array(Image.fromarray(image).resize((width, height), how))


def sheet(
  rows: Sequence[Row],
  legend: Sequence[tuple[Color, str]],
  titles: Sequence[str] = (),
) -> np.ndarray:
  """Lays panels out in rows and columns, on white.

  Args:
    rows: panels uint8 [h, w, 3] of any sizes, from left to right.
    legend: colours, and what each stands for.
    titles: of the columns; () for none.

  Returns:
    uint8 [H, W, 3]; `places` says where each panel is.
  """
  where = places(rows, titled=bool(titles))
  right = max(across.stop for row in where for _, across in row) + GAP
  bottom = max(down.stop for row in where for down, _ in row) + GAP
  font = ImageFont.load_default(_FONT)
  spots = _spots(legend, right, font)
  height = bottom + (_LINE * (spots[-1][1] + 1) + GAP if spots else 0)
  width = max([right, *(x + _width(name, font) for x, _, name in spots)])
  canvas = Image.new("RGB", (width, height), "white")
  draw = ImageDraw.Draw(canvas)
  for title, (_, across) in zip(titles, where[0], strict=False):
    draw.text((across.start, GAP), title, fill=_INK, font=font)
  for (color, _), (x, line, name) in zip(legend, spots, strict=True):
    y = bottom + _LINE * line
    square = (x, y + 2, x + _FONT - 1, y + _FONT + 1)
    draw.rectangle(square, fill=color, outline=_INK)
    draw.text((x + _LINE, y), name, fill=_INK, font=font)
  grid = np.array(canvas)
  for row, boxes in zip(rows, where, strict=True):
    for panel, box in zip(row, boxes, strict=True):
      grid[box] = panel
  return grid


def places(
  rows: Sequence[Row], *, titled: bool
) -> list[list[tuple[slice, slice]]]:
  """Rows and columns of pixels of each panel in a sheet."""
  columns = max(len(row) for row in rows)
  lefts, left = [], GAP
  for column in range(columns):
    lefts.append(left)
    of_column = [row[column].shape[1] for row in rows if column < len(row)]
    left += max(of_column) + GAP
  found, top = [], GAP + (_LINE if titled else 0)
  for row in rows:
    found.append(
      [
        (
          slice(top, top + panel.shape[0]),
          slice(left, left + panel.shape[1]),
        )
        for panel, left in zip(row, lefts, strict=False)
      ]
    )
    top += max(panel.shape[0] for panel in row) + GAP
  return found


def _spots(
  legend: Sequence[tuple[Color, str]],
  width: int,
  font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> list[tuple[int, int, str]]:
  """(x, line, name) of each entry of a legend in lines of `width` pixels."""
  found, x, line = [], GAP, 0
  for _, name in legend:
    if x > GAP and x + _width(name, font) > width:
      x, line = GAP, line + 1
    found.append((x, line, name))
    x += _width(name, font)
  return found


def _width(
  name: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> int:
  """Pixels that an entry of a legend takes."""
  return _LINE + math.ceil(font.getlength(name)) + 2 * GAP
