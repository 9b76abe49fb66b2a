"""The augmentation T and T' of BYOL (paper, App. B) as Grain transforms.

Sampling and applying are separate: `sample_view` draws every random number of
one view into a `ViewDraw`, `apply_view` has no randomness left. Whoever applies
the same draw elsewhere (on an accelerator, in a test) gets the same view.
"""

import dataclasses
from typing import Any, NamedTuple

import grain
import numpy as np

from input_pipeline import image_ops
from input_pipeline.errors import UsageError

# (field of ViewDraw, op, the number that changes nothing); `ViewDraw.order`
# counts in this tuple.
JITTER_OPS = (
  ("brightness", image_ops.adjust_brightness, 0.0),
  ("contrast", image_ops.adjust_contrast, 1.0),
  ("saturation", image_ops.adjust_saturation, 1.0),
  ("hue", image_ops.adjust_hue, 0.0),
)

Range = tuple[float, float]
_RANGES = {"crop_area": 1.0, "crop_aspect": np.inf, "blur_sigma": np.inf}


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
  """The distribution of one view: a row of Table 6, without defaults.

  Attributes:
    crop_area: range of the window's share of the image, uniform.
    crop_aspect: range of the window's width / height, log-uniform.
    flip_probability: of mirroring left and right.
    jitter_probability: of all four colour ops, in random order.
    brightness: most that is added or subtracted.
    contrast: most by which the factor differs from one.
    saturation: most by which the factor differs from one.
    hue: most that is turned either way, in turns.
    grayscale_probability: independent of the jitter.
    blur_probability: of the Gaussian blur.
    blur_sigma: range of its standard deviation in pixels, uniform.
    solarize_probability: of inverting bright values.
    solarize_threshold: the least value inverted.
  """

  crop_area: Range
  crop_aspect: Range
  flip_probability: float
  jitter_probability: float
  brightness: float
  contrast: float
  saturation: float
  hue: float
  grayscale_probability: float
  blur_probability: float
  blur_sigma: Range
  solarize_probability: float
  solarize_threshold: float

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if name in _RANGES:
        top = _RANGES[name]
        expected = f"a tuple (lo, hi) with 0 < lo <= hi <= {top}"
        valid = isinstance(value, tuple) and len(value) == 2
        valid = valid and 0 < value[0] <= value[1] <= top
      else:
        top = 0.5 if name == "hue" else 1.0
        expected = f"a number from 0 to {top}"
        valid = 0 <= value <= top
      if not valid:
        raise UsageError(
          f"View.{name} is {value}: expected {expected}. Mend it in the "
          "config's section `augment`."
        )


class ViewDraw(NamedTuple):
  """Every number drawn for one view of one image."""

  box: image_ops.Box  # (y, x, h, w) of the crop.
  flip: bool
  jitter: bool
  order: tuple[int, ...]  # Permutation of JITTER_OPS.
  brightness: float  # Added.
  contrast: float  # Factor.
  saturation: float  # Factor.
  hue: float  # Turns.
  grayscale: bool
  blur: bool
  sigma: float
  solarize: bool
  threshold: float


def sample_view(
  view: View, height: int, width: int, rng: np.random.Generator
) -> ViewDraw:
  """Draws one view of an image of `height` and `width`.

  It always takes the same 18 uniform numbers in the same order, whatever the
  view and the image, so no setting moves another one's randomness.
  """

  def chance(probability: float) -> bool:
    return bool(rng.random() < probability)

  def around(center: float, most: float) -> float:
    return center + most * (2 * rng.random() - 1)

  # The order of these lines is the order of the stream.
  return ViewDraw(
    box=image_ops.sample_crop(
      height, width, rng, view.crop_area, view.crop_aspect
    ),
    flip=chance(view.flip_probability),
    jitter=chance(view.jitter_probability),
    order=tuple(np.argsort(rng.random(len(JITTER_OPS))).tolist()),
    brightness=around(0.0, view.brightness),
    contrast=around(1.0, view.contrast),
    saturation=around(1.0, view.saturation),
    hue=around(0.0, view.hue),
    grayscale=chance(view.grayscale_probability),
    blur=chance(view.blur_probability),
    sigma=float(rng.uniform(*view.blur_sigma)),
    solarize=chance(view.solarize_probability),
    threshold=view.solarize_threshold,
  )


def jitter_colors(image: np.ndarray, draw: ViewDraw) -> np.ndarray:
  """The four colour ops in the order drawn, clipped after each.

  Float32 [H, W, 3] in [0, 1] in and out. An op whose number changes nothing is
  left out.
  """
  for k in draw.order:
    name, op, identity = JITTER_OPS[k]
    value = getattr(draw, name)
    if value != identity:
      image = op(image, value)
  return image


def apply_view(image: np.ndarray, draw: ViewDraw, size: int) -> np.ndarray:
  """One view: uint8 [H, W, 3] -> uint8 [size, size, 3].

  The order of the ops is the authors' (augmentations.py). Inside it is
  floating point; the one rounding, to the nearest integer, is at the end.
  """
  out = _resized_crop(image, draw.box, size)
  if draw.flip:
    out = image_ops.flip(out)
  if draw.jitter:
    out = jitter_colors(out, draw)
  if draw.grayscale:
    out = image_ops.to_grayscale(out)
  if draw.blur:
    out = image_ops.gaussian_blur(out, draw.sigma)
  if draw.solarize:
    out = image_ops.solarize(out, draw.threshold)
  return _to_uint8(out)


def _resized_crop(
  image: np.ndarray, box: image_ops.Box, size: int
) -> np.ndarray:
  y, x, h, w = box
  return image_ops.resize_bicubic(image[y : y + h, x : x + w], size, size)


def _to_uint8(image: np.ndarray) -> np.ndarray:
  return np.rint(image * 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoViews(grain.transforms.RandomMap):
  """Replaces "image" uint8 [H, W, 3] by two independent views of it.

  "view1" and "view2" are uint8 [size, size, 3]; every other entry of the
  example stays. Grain gives each example its own generator.
  """

  size: int
  view1: View
  view2: View

  def random_map(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """Draws and applies view1, then view2."""
    rest = dict(example)
    image = rest.pop("image")
    height, width = image.shape[:2]
    draws = [
      sample_view(view, height, width, rng) for view in (self.view1, self.view2)
    ]
    view1, view2 = (apply_view(image, draw, self.size) for draw in draws)
    return {"view1": view1, "view2": view2, **rest}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalCrop(grain.transforms.Map):
  """The evaluation's "image": the middle of it, uint8 [size, size, 3].

  `ratio` is the share of the shorter side that stays: 0.875 at size 224
  (paper, C.1).
  """

  size: int
  ratio: float

  def __post_init__(self):
    if not 0 < self.ratio <= 1:
      raise UsageError(
        f"EvalCrop.ratio is {self.ratio}: expected a number above 0, at most "
        "1, such as 0.875. Mend it in the config."
      )

  def map(self, example: dict[str, Any]) -> dict[str, Any]:
    """Crops and resizes "image"; every other entry stays."""
    image = example["image"]
    height, width = image.shape[:2]
    box = image_ops.center_crop(height, width, self.ratio)
    crop = _resized_crop(image, box, self.size)
    return {**example, "image": _to_uint8(crop)}
