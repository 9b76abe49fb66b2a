"""Images with true and found masks, in the colours of Pascal VOC."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from byol_flax.reports import panels

VOID = 255  # a pixel that has no class
# No colour of the palette has as much blue.
VOID_COLOR: panels.Color = (224, 224, 224)


class Masks(NamedTuple):
  """An image with its masks.

  Attributes:
    image: uint8 [H, W, 3].
    classes: uint8 [H, W], the true ones; 255 is void.
    found: uint8 [H, W].
  """

  image: np.ndarray
  classes: np.ndarray
  found: np.ndarray


def palette() -> np.ndarray:
  """The colours of Pascal VOC's masks, uint8 [256, 3].

  Bits 0, 3 and 6 of a class are the highest bits of red, from the highest on;
  bits 1, 4 and 7 those of green; bits 2 and 5 those of blue. Source: VOClabel-
  colormap.m in the development kit of VOC2012. Void is grey here.
  """
  classes = np.arange(256)
  colors = np.zeros((256, 3), np.uint8)
  for bit in range(8):
    colors[:, bit % 3] |= ((classes >> bit & 1) << (7 - bit // 3)).astype(
      np.uint8
    )
  colors[VOID] = VOID_COLOR
  return colors


def picture(shown: Sequence[Masks], class_names: Sequence[str]) -> np.ndarray:
  """Draws each image beside its true and its found mask.

  Args:
    shown: the images; at least one.
    class_names: of all classes.

  Returns:
    uint8 [H, W, 3]. The legend has the classes that occur in any mask.
  """
  colors = palette()
  occurring = np.unique(
    np.concatenate([x.ravel() for one in shown for x in one[1:]])
  )
  legend = [
    (_color(colors[k]), "void" if k == VOID else class_names[k])
    for k in occurring
  ]
  return panels.sheet(
    [_row(one, colors) for one in shown], legend, ("image", "true", "found")
  )


def _row(shown: Masks, colors: np.ndarray) -> list[np.ndarray]:
  """Panels of an image and of its masks."""
  scale = panels.scale_of(shown.image)
  return [
    panels.fitted(shown.image, scale),
    *(panels.fitted(colors[x], scale, smooth=False) for x in shown[1:]),
  ]


def _color(rgb: np.ndarray) -> panels.Color:
  red, green, blue = rgb.tolist()
  return red, green, blue
