"""Decodes images no larger than the crops cut from them need.

To decode at 1/2, 1/4 or 1/8 of the size, libjpeg leaves out what is too fine in
every block, which saves all but the decoding of its codes; at 1/8 `jpeg_eighth`
saves much of that too. This antialiases, unlike the paper's resize, so views
differ from those of whole images.
"""

import dataclasses
import math
import statistics
from typing import Any

import grain
import numpy as np

from input_pipeline import augment, sources
from input_pipeline.augment import View, ViewDraw
from input_pipeline.jpeg import REDUCTIONS

Pair = tuple[ViewDraw, ViewDraw]  # of an example's two views


@dataclasses.dataclass(frozen=True)
class ScaledViews(grain.transforms.RandomMap):
  """Reads example i, an int, as `transform` makes it from a reduced image.

  The draws are those of the whole image. An image is divided only as far as
  both crops keep at least as many pixels as their views; one of ImageNet's
  size, 500 × 375, is never divided for views of 224.
  """

  source: sources.ReadableSource
  transform: augment.TwoViews | augment.TwoCrops

  def random_map(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
    """Both views of example `i`."""
    drawn: list[tuple[int, int, Pair]] = []
    before = rng.bit_generator.state

    def reduction(height: int, width: int) -> int:
      rng.bit_generator.state = before  # a neighbour gets the same draws
      draws = self.transform.draw(height, width, rng)
      drawn.append((height, width, draws))
      return allowed(draws, self.transform.size)

    rest = self.source.read(int(i), reduction)
    image = rest.pop("image")
    height, width, draws = drawn[-1]  # the last image tried was returned
    draws = on_reduced(draws, (height, width), image.shape[:2])
    return {**self.transform.make(image, draws), **rest}


def allowed(draws: Pair, size: int) -> int:
  """By how much an image may be divided: 1, 2, 4 or 8."""
  least = min(min(draw.box[2:]) for draw in draws)
  return max((f for f in REDUCTIONS if f * size <= least), default=1)


def on_reduced(
  draws: Pair, whole: tuple[int, ...], reduced: tuple[int, ...]
) -> Pair:
  """Turns draws for a whole image into draws for the same image, reduced.

  Their windows move to the nearest pixels. `whole` and `reduced` are the sizes,
  (height, width).
  """
  if whole == reduced:
    return draws
  return _moved(draws[0], whole, reduced), _moved(draws[1], whole, reduced)


def _moved(
  draw: ViewDraw, whole: tuple[int, ...], reduced: tuple[int, ...]
) -> ViewDraw:
  y, x, h, w = draw.box
  scale_y, scale_x = reduced[0] / whole[0], reduced[1] / whole[1]
  h, w = max(1, round(h * scale_y)), max(1, round(w * scale_x))
  top = min(round(y * scale_y), reduced[0] - h)
  left = min(round(x * scale_x), reduced[1] - w)
  return draw._replace(box=(top, left, h, w))


_LOOKED_AT = 16  # images
_FAR = 2.0  # an image is large if a side has so many times the pixels needed


def advice(source: sources.ReadableSource, views: augment.TwoViews) -> str:
  """What to do if images are far larger than their views; "" if they are not.

  It looks at the headers of a few images, spread over all.
  """
  step = max(1, len(source) // _LOOKED_AT)
  sizes = [source.size_of(i) for i in range(0, len(source), step)[:_LOOKED_AT]]
  sizes = [size for size in sizes if min(size)]
  if not sizes:
    return ""
  times = [
    min(least_side(v, *size) for v in (views.view1, views.view2)) / views.size
    for size in sizes
  ]
  if statistics.median(times) < _FAR:
    return ""
  height, width = sorted(sizes, key=math.prod)[len(sizes) // 2]
  enough = max(height, width) / statistics.median(times)
  return (
    f"Images are large, {width} × {height} pixels for example, and views have "
    f"{views.size}: decoding takes most of the time. `byol prepare "
    f"--longest-side={64 * math.ceil(enough / 64)}` makes them smaller once "
    "for all, or --config.augment.scaled_decoding=true decodes JPEGs at a "
    "fraction of their size. Either changes pixels, so begin a new run with it."
  )


def least_side(view: View, height: int, width: int) -> float:
  """The shortest side, in pixels, that a crop of an image can have."""
  area = view.crop_area[0] * height * width
  low, high = view.crop_aspect
  return math.sqrt(area * min(low, 1 / high))
