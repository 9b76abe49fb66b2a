"""Images with true and found depth, and how far the one is from the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import cm, colormaps, colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from byol_flax.reports import figures

# Pixels without a true depth; neither map has this colour.
INVALID = (190, 190, 190)
_COLUMNS = ("image", "true", "found", "error: found minus true")


class Scale(NamedTuple):
  """What colours stand for.

  Attributes:
    colormap: name of one of matplotlib's.
    low: metres of its first colour.
    high: metres of its last colour.
  """

  colormap: str
  low: float
  high: float


class Depths(NamedTuple):
  """An image with its depth.

  Attributes:
    image: uint8 [H, W, 3].
    depth: float [h, w], metres; 0 is not valid.
    found: float [h, w], metres, of the same pixels.
  """

  image: np.ndarray
  depth: np.ndarray
  found: np.ndarray


def picture(shown: Sequence[Depths]) -> np.ndarray:
  """Draws each image beside true depth, found depth and error.

  All depths of the picture have one scale, from 0 to the largest true depth,
  and all errors have one; both have a bar in metres. Pixels without a true
  depth are grey in the true map and in that of errors.

  Args:
    shown: the images; at least one.

  Returns:
    uint8 [H, W, 3].
  """
  deepest = max(float(one.depth.max()) for one in shown) or 1.0
  widest = max(_largest_error(one) for one in shown) or 1.0
  depths = Scale("viridis", 0, deepest)
  errors = Scale("coolwarm", -widest, widest)

  def draw(figure: Figure) -> None:
    grid = figure.subplots(len(shown), len(_COLUMNS), squeeze=False)
    for axes, one in zip(grid, shown, strict=True):
      _draw_row(axes, one, depths, errors)
    for axes, title in zip(grid[0], _COLUMNS, strict=True):
      axes.set_title(title, pad=6)
    _draw_bar(figure, grid[:, 1:3], depths, "depth, metres")
    _draw_bar(figure, grid[:, 3:], errors, "error, metres")

  return figures.render((14, 2.8 * len(shown) + 1), draw)


def colored(values: np.ndarray, valid: np.ndarray, scale: Scale) -> np.ndarray:
  """Gives each number of float [h, w] its colour, uint8 [h, w, 3].

  Numbers beyond the scale have the colours of its ends. Where `valid`, bool
  [h, w], is false, the colour is `INVALID`.
  """
  shares = np.clip((values - scale.low) / (scale.high - scale.low), 0, 1)
  found = colormaps[scale.colormap](shares, bytes=True)[..., :3]
  return np.where(valid[..., None], found, np.array(INVALID, np.uint8))


def _draw_row(
  axes: Sequence[Axes], shown: Depths, depths: Scale, errors: Scale
) -> None:
  """Draws the four maps of an image."""
  valid = shown.depth > 0
  maps = (
    shown.image,
    colored(shown.depth, valid, depths),
    colored(shown.found, np.ones_like(valid), depths),
    colored(shown.found - shown.depth, valid, errors),
  )
  for one, pixels in zip(axes, maps, strict=True):
    one.imshow(pixels, interpolation="nearest")
    one.axis("off")


def _draw_bar(
  figure: Figure, axes: np.ndarray, scale: Scale, label: str
) -> None:
  """Draws the bar of a scale below the panels that have it."""
  numbers = colors.Normalize(scale.low, scale.high)
  figure.colorbar(
    cm.ScalarMappable(numbers, scale.colormap),
    ax=axes,
    label=label,
    location="bottom",
    aspect=40,
  )


def _largest_error(shown: Depths) -> float:
  """Of the valid pixels of an image, metres; 0 if there are none."""
  valid = shown.depth > 0
  return float(np.abs(shown.found - shown.depth)[valid].max(initial=0))
