"""Images with the boxes that a detector found, and with the true ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from byol_flax.reports import panels

# Colours that colour-blind readers can tell apart, on photographs too.
FOUND: panels.Color = (213, 94, 0)
TRUE: panels.Color = (86, 180, 233)
DIFFICULT: panels.Color = (240, 228, 66)
SCORE = 0.5  # found boxes with less are not drawn: there are very many of them
_COLUMNS, _LINE, _FONT = 4, 2, 12  # of the sheet; pixels


class Boxes(NamedTuple):
  """An image with its boxes (x_min, y_min, x_max, y_max), in its pixels.

  Attributes:
    image: uint8 [H, W, 3].
    boxes: float [M, 4], the true ones, half-open.
    label: int [M], their classes from 0.
    difficult: bool [M]; a detector is not asked to find these.
    found_boxes: float [D, 4].
    found_scores: float [D], in [0, 1].
    found_label: int [D].
  """

  image: np.ndarray
  boxes: np.ndarray
  label: np.ndarray
  difficult: np.ndarray
  found_boxes: np.ndarray
  found_scores: np.ndarray
  found_label: np.ndarray


def picture(shown: Sequence[Boxes], class_names: Sequence[str]) -> np.ndarray:
  """Draws images side by side, four in a row, with a legend of the boxes.

  Args:
    shown: the images; at least one.
    class_names: of all classes.

  Returns:
    uint8 [H, W, 3]. A line is two pixels wide and lies within its box. Found
    boxes are above the true ones, the most certain on top.
  """
  drawn = [panel(one, class_names) for one in shown]
  return panels.sheet(
    [drawn[i : i + _COLUMNS] for i in range(0, len(drawn), _COLUMNS)],
    [
      (FOUND, f"found, with class and score (of at least {SCORE})"),
      (TRUE, "true"),
      (DIFFICULT, "true, but difficult: counts nowhere"),
    ],
  )


def panel(shown: Boxes, class_names: Sequence[str]) -> np.ndarray:
  """Draws one image with its boxes, uint8 [h, w, 3]; see `panels.scale_of`."""
  scale = panels.scale_of(shown.image)
  canvas = Image.fromarray(panels.fitted(shown.image, scale))
  draw = ImageDraw.Draw(canvas)
  for box, k, hard in zip(
    shown.boxes, shown.label, shown.difficult, strict=True
  ):
    color = DIFFICULT if hard else TRUE
    _outline(draw, scale * box, color)
    _write(draw, scale * box, class_names[k], color, below=True)
  for i in np.argsort(shown.found_scores, kind="stable"):
    score = shown.found_scores[i]
    if score >= SCORE:
      box = scale * shown.found_boxes[i]
      name = class_names[shown.found_label[i]]
      _outline(draw, box, FOUND)
      _write(draw, box, f"{name} {score:.2f}", FOUND, below=False)
  return np.array(canvas)


def _outline(
  draw: ImageDraw.ImageDraw, box: np.ndarray, color: panels.Color
) -> None:
  """Draws the edges of a box in pixels of the panel, within the box."""
  left, top, right, bottom = np.rint(box).astype(int).tolist()
  # A box without area still leaves a pixel.
  corners = left, top, max(left, right - 1), max(top, bottom - 1)
  draw.rectangle(corners, outline=color, width=_LINE)


def _write(
  draw: ImageDraw.ImageDraw,
  box: np.ndarray,
  text: str,
  color: panels.Color,
  *,
  below: bool,
) -> None:
  """Writes on the colour of a box, at its lower or at its upper left corner."""
  font = ImageFont.load_default(_FONT)
  x, y = box[0] + _LINE, box[3 if below else 1]
  y += -_LINE - _FONT - 3 if below else _LINE
  place = draw.textbbox((x, y), text, font=font)
  draw.rectangle(place, fill=color)
  draw.text((x, y), text, fill="black", font=font)
