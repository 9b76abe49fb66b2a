"""Anchors: boxes of fixed sizes and shapes around each place of a map.

They are those of detectron2's `DefaultAnchorGenerator` with offset 0. The
torchvision ones differ in two ways: their edges are rounded to whole pixels,
and at each place the shapes come before the sizes.
"""

from collections.abc import Sequence

import jax
import numpy as np


def make_anchors(
  places: tuple[int, int],
  *,
  stride: int,
  sizes: Sequence[float],
  ratios: Sequence[float],
) -> np.ndarray:
  """Anchors of a map, row by row, and at each place size by size.

  Args:
    places: height h and width w of the map.
    stride: pixels from one place to the next.
    sizes: square roots of the areas, in pixels.
    ratios: heights divided by widths.

  Returns:
    float32 [h * w * A, 4], A = len(sizes) * len(ratios). The centres of the
    first A lie on the image's top left corner.
  """
  size, ratio = (x.ravel() for x in np.meshgrid(sizes, ratios, indexing="ij"))
  w, h = size / np.sqrt(ratio), size * np.sqrt(ratio)
  around = np.stack([-w, -h, w, h], axis=-1) / 2  # [A, 4]
  y, x = np.meshgrid(*(stride * np.arange(n) for n in places), indexing="ij")
  centres = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
  return (centres + around[None]).reshape(-1, 4).astype(np.float32)


def inside(anchors: np.ndarray, size: jax.Array) -> jax.Array:
  """Which anchors [N, 4] have their centre in an image: bool [N].

  The others lie in the padding of its canvas. Those that remain are the anchors
  which the image would have without padding.

  Args:
    anchors: float [N, 4].
    size: height and width of the image, int [2].
  """
  x, y = ((anchors[:, i] + anchors[:, i + 2]) / 2 for i in (0, 1))
  return (y < size[0]) & (x < size[1])
