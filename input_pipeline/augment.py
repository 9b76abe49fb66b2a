"""The augmentation T and T' of BYOL (paper, App. B) as Grain transforms.

Sampling and applying are separate. `sample_view` draws every random number of
one view into a `ViewDraw`; `apply_view` has no randomness left. So the same
draw gives the same view wherever it is applied: on the host, on an accelerator
or in a test.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from input_pipeline import image_ops, retried_crops
from input_pipeline.rand_augment import RandAugment

# (field of ViewDraw, op, the number that changes nothing). `ViewDraw.order` has
# four positions in this tuple, one of which is that of either brightness.
JITTER_OPS = (
  ("brightness", image_ops.adjust_brightness, 0.0),
  ("contrast", image_ops.adjust_contrast, 1.0),
  ("saturation", image_ops.adjust_saturation, 1.0),
  ("hue", image_ops.adjust_hue, 0.0),
  ("brightness", image_ops.multiply_brightness, 1.0),
)
ADD, MULTIPLY = 0, 4  # positions of the two

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
  """The distribution of one view: a row of Table 6, without defaults.

  Attributes:
    crop_area: range of the window's share of the image, uniform.
    crop_aspect: range of the window's width / height, log-uniform.
    crop_sampling: "clamped" cuts a window to the image; "retried" draws another
      (`retried_crops`), where height and aspect are uniform instead.
    flip_probability: of mirroring left and right.
    jitter_probability: of all four colour ops, in random order.
    brightness: most that is added or subtracted.
    brightness_mode: "add", or "multiply" by a factor that differs from one by
      `brightness` at most.
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
  crop_sampling: str
  flip_probability: float
  jitter_probability: float
  brightness: float
  brightness_mode: str
  contrast: float
  saturation: float
  hue: float
  grayscale_probability: float
  blur_probability: float
  blur_sigma: Range
  solarize_probability: float
  solarize_threshold: float


class ViewDraw(NamedTuple):
  """Every number drawn for one view of one image."""

  box: image_ops.Box  # (y, x, h, w) of the crop.
  flip: bool
  jitter: bool
  order: tuple[int, ...]  # Positions in JITTER_OPS.
  brightness: float  # Added, or a factor; the order tells.
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

  It always takes 18 uniform numbers in the same order, whatever the view and
  the image. So no setting changes the random numbers of another.
  """
  u = rng.random(18).tolist()
  multiplies = view.brightness_mode == "multiply"

  def around(center: float, most: float, uniform: float) -> float:
    return center + most * (2 * uniform - 1)

  low, high = view.blur_sigma
  return ViewDraw(
    box=_sample_box(view, height, width, (u[0], u[1], u[2], u[3])),
    flip=u[4] < view.flip_probability,
    jitter=u[5] < view.jitter_probability,
    order=tuple(
      MULTIPLY if multiplies and k == ADD else k
      for k in sorted(range(4), key=u[6:10].__getitem__)
    ),
    brightness=around(float(multiplies), view.brightness, u[10]),
    contrast=around(1.0, view.contrast, u[11]),
    saturation=around(1.0, view.saturation, u[12]),
    hue=around(0.0, view.hue, u[13]),
    grayscale=u[14] < view.grayscale_probability,
    blur=u[15] < view.blur_probability,
    sigma=low + (high - low) * u[16],
    solarize=u[17] < view.solarize_probability,
    threshold=view.solarize_threshold,
  )


def _sample_box(
  view: View,
  height: int,
  width: int,
  uniform: tuple[float, float, float, float],
) -> image_ops.Box:
  """The window of a view, by four numbers from 0 to 1."""
  if view.crop_sampling == "clamped":
    return image_ops.sample_crop(
      height, width, uniform, view.crop_area, view.crop_aspect
    )
  box: image_ops.Box = retried_crops.sample(
    height, width, *uniform, *view.crop_area, *view.crop_aspect
  )
  return box


def apply_view(image: np.ndarray, draw: ViewDraw, size: int) -> np.ndarray:
  """One view: uint8 [H, W, 3] -> uint8 [size, size, 3].

  The order of the ops is the authors' (augmentations.py). They work in floating
  point; only the result is rounded, to the nearest integer.
  """
  planes = image_ops.crop_planes(image, draw.box, size, mirrored=draw.flip)
  return image_ops.to_image(change_colors(planes, draw))


def change_colors(planes: image_ops.Planes, draw: ViewDraw) -> image_ops.Planes:
  """Applies all of a view's ops but the crop to planes [3, W, H], in place.

  Returns:
    [3, W, H], or [1, W, H] where all channels are equal. A jitter whose number
    changes nothing is left out.
  """
  if draw.jitter:
    for k in draw.order:
      name, op, identity = JITTER_OPS[k]
      value = getattr(draw, name)
      if value != identity:
        op(planes, value)
  if draw.grayscale:
    planes = image_ops.to_grayscale(planes)
  if draw.blur:
    image_ops.gaussian_blur(planes, draw.sigma)
  if draw.solarize:
    image_ops.solarize(planes, draw.threshold)
  return planes


DRAW_SIZE = 19  # numbers of a packed draw


def pack(draw: ViewDraw) -> np.ndarray:
  """A draw as float32 [DRAW_SIZE], to be sent to an accelerator."""
  rest = draw[4:]  # after box, flip, jitter and order
  return np.array(
    [*draw.box, draw.flip, draw.jitter, *draw.order, *rest], np.float32
  )


def unpack(packed: Any) -> ViewDraw:
  """The fields of packed draws [..., DRAW_SIZE], in any kind of array.

  A field that is one number in a draw is [...] here; box and order are tuples
  of such arrays.
  """
  field = [packed[..., i] for i in range(DRAW_SIZE)]
  chosen = [field[i] > 0.5 for i in (4, 5, 14, 15, 17)]
  flip, jitter, grayscale, blur, solarize = chosen
  return ViewDraw(
    box=(field[0], field[1], field[2], field[3]),
    flip=flip,
    jitter=jitter,
    order=tuple(field[6:10]),
    brightness=field[10],
    contrast=field[11],
    saturation=field[12],
    hue=field[13],
    grayscale=grayscale,
    blur=blur,
    sigma=field[16],
    solarize=solarize,
    threshold=field[18],
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Two:
  """Draws two views of an example; the subclasses say how far they are made."""

  size: int
  view1: View
  view2: View

  def draw(
    self, height: int, width: int, rng: np.random.Generator
  ) -> tuple[ViewDraw, ViewDraw]:
    """Draws view1, then view2."""
    first = sample_view(self.view1, height, width, rng)
    return first, sample_view(self.view2, height, width, rng)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoViews(_Two, grain.transforms.RandomMap):
  """Replaces "image" uint8 [H, W, 3] by two independent views of it.

  "view1" and "view2" are uint8 [size, size, 3]; every other entry stays.
  """

  @property
  def row_bytes(self) -> int:
    """Bytes of one example."""
    return 2 * 3 * self.size**2

  def make(
    self, image: np.ndarray, draws: Sequence[ViewDraw]
  ) -> dict[str, Any]:
    """The two views of uint8 [H, W, 3] by the two draws."""
    view1, view2 = (apply_view(image, draw, self.size) for draw in draws)
    return {"view1": view1, "view2": view2}

  def random_map(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """Draws and applies view1, then view2."""
    rest = dict(example)
    image = rest.pop("image")
    height, width = image.shape[:2]
    draws = self.draw(height, width, rng)
    return {**self.make(image, draws), **rest}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoCrops(_Two, grain.transforms.RandomMap):
  """Only crops and mirrors; the colours are left to an accelerator.

  "image" is replaced by "view1" and "view2", uint8 [size, size, 3], and by
  "draw", float32 [2, DRAW_SIZE]; every other entry stays.
  """

  @property
  def row_bytes(self) -> int:
    """Bytes of one example."""
    return 2 * (3 * self.size**2 + 4 * DRAW_SIZE)

  def make(
    self, image: np.ndarray, draws: Sequence[ViewDraw]
  ) -> dict[str, Any]:
    """The two crops of uint8 [H, W, 3] by the two draws, and the draws."""
    view1, view2 = (
      image_ops.to_image(
        image_ops.crop_planes(image, draw.box, self.size, mirrored=draw.flip)
      )
      for draw in draws
    )
    draw = np.stack([pack(draw) for draw in draws])
    return {"view1": view1, "view2": view2, "draw": draw}

  def random_map(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """Draws both views and crops them."""
    rest = dict(example)
    image = rest.pop("image")
    height, width = image.shape[:2]
    draws = self.draw(height, width, rng)
    return {**self.make(image, draws), **rest}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoDraws(_Two):
  """Only draws; the images lie on the accelerator (`resident.DrawStream`)."""

  @property
  def row_bytes(self) -> int:
    """Bytes of one example."""
    return 2 * 4 * DRAW_SIZE


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneView(grain.transforms.RandomMap):
  """Replaces "image" uint8 [H, W, 3] by one view of it, [size, size, 3].

  `policy`, if there is one, then changes the view; its draws come after those
  of the view, which stay as they are without it.
  """

  size: int
  view: View
  policy: RandAugment | None = None

  @property
  def row_bytes(self) -> int:
    """Bytes of one example."""
    return 3 * self.size**2

  def random_map(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """Draws and applies the view; every other entry stays."""
    image = example["image"]
    height, width = image.shape[:2]
    draw = sample_view(self.view, height, width, rng)
    made = apply_view(image, draw, self.size)
    if self.policy:
      made = self.policy.apply(made, self.policy.sample(rng))
    return {**example, "image": made}


def crop_and_flip(view: View) -> View:
  """Returns `view` with only its random resized crop and mirroring."""
  return dataclasses.replace(
    view,
    jitter_probability=0.0,
    grayscale_probability=0.0,
    blur_probability=0.0,
    solarize_probability=0.0,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalCrop(grain.transforms.Map):
  """The evaluation's "image": the middle of it, uint8 [size, size, 3].

  `ratio` is the share of the shorter side that stays: 0.875 at size 224
  (paper, C.1).
  """

  size: int
  ratio: float

  @property
  def row_bytes(self) -> int:
    """Bytes of one example."""
    return 3 * self.size**2

  def empty(self) -> dict[str, Any]:
    """A row that fills up a batch, of the shapes and types of all rows."""
    return {
      "image": np.zeros((self.size, self.size, 3), np.uint8),
      "label": np.int32(-1),
    }

  def map(self, example: dict[str, Any]) -> dict[str, Any]:
    """Crops and resizes "image"; every other entry stays."""
    image = example["image"]
    height, width = image.shape[:2]
    box = image_ops.center_crop(height, width, self.ratio)
    planes = image_ops.crop_planes(image, box, self.size)
    return {**example, "image": image_ops.to_image(planes)}
