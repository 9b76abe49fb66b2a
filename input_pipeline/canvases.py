"""Puts images and what belongs to their pixels on canvases of fixed sizes.

Batches have static shapes, so an image lies in the top left corner of a canvas
and the rest is padding.
"""

import cv2
import numpy as np

# As in `image_ops`: threads of one image would compete with other images.
cv2.setNumThreads(0)

# ImageNet's mean (byol_flax.models.pixels) in bytes, so that padding is about 0
# once an image is normalised.
MEAN_COLOR = (124, 116, 104)
MULTIPLE = 32  # of which sides are, as the strides of networks divide it


def on_canvas(
  pixels: np.ndarray, height: int, width: int, fill: int | tuple[int, ...]
) -> np.ndarray:
  """Puts [h, w, ...] into the top left corner of [height, width, ...].

  What does not fit is cut off at the bottom and right; the rest is `fill`.
  """
  canvas = np.empty((height, width, *pixels.shape[2:]), pixels.dtype)
  canvas[:] = fill
  kept = pixels[:height, :width]
  canvas[: len(kept), : kept.shape[1]] = kept
  return canvas


def rounded_up(side: float) -> int:
  """The least multiple of `MULTIPLE` that is no smaller than `side`."""
  return MULTIPLE * -int(-side // MULTIPLE)


def covering(sizes: np.ndarray) -> tuple[int, int]:
  """Height and width of a canvas on which images of all sizes fit whole.

  `sizes` is int [N, 2], as `dense_sources.sizes_of` gives them.
  """
  height, width = sizes.max(axis=0).tolist()
  return rounded_up(height), rounded_up(width)
