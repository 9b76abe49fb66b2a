"""What each stage of the input costs one core, and all of them together."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from byol_flax.pretrain import inputs, places
from byol_flax.pretrain.places import AugmentConfig, Place
from input_pipeline import (
  augment,
  decoding,
  image_ops,
  resident,
  scaled,
  sources,
)

_IMAGES = 48
_PIXELS = 100_000_000  # of all images together, decoded in memory
_ROUNDS = 7


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage of the input, on one core.

  Attributes:
    name: of the stage.
    milliseconds: for an image, on average; of both views together.
  """

  name: str
  milliseconds: float

  @property
  def images_per_second(self) -> float:
    """The rate of one core that does nothing else."""
    return 1000 / self.milliseconds if self.milliseconds else float("inf")


def one_core(
  source: sources.Source, settings: AugmentConfig, batch_size: int
) -> list[Stage]:
  """The stages of a config's input in their order, then "whole".

  Args:
    source: images; the first few are used.
    settings: the `augment` section of a config.
    batch_size: of training; if only draws are made, a batch is drawn at once.

  Returns:
    The stages that occur. "whole" is all that a worker does for an example,
    measured by itself.
  """
  place = places.place_of(settings)
  readable = sources.ReadableSource(source)
  rng = np.random.default_rng(0)
  height, width = readable.size_of(0)
  count = min(_IMAGES, len(source), max(1, _PIXELS // (height * width or 1)))
  encoded = [source[i]["image"] for i in range(count)]
  images = [readable[i]["image"] for i in range(count)]
  sizes = [image.shape[:2] for image in images]
  if place is Place.RESIDENT:
    draws_only = inputs.make_two_draws(settings)
    times = _draw_times(sizes, len(source), draws_only, batch_size)
    return [Stage(name, seconds) for name, seconds in times.items()]
  image_ops.compile_all()
  transform = inputs.make_transform(settings)

  def draw(i: int) -> tuple[augment.ViewDraw, augment.ViewDraw]:
    height, width = sizes[i]
    return transform.draw(height, width, rng)

  def decode(i: int) -> np.ndarray:
    return decoding.decode_image(encoded[i], lambda *size: factors[i])

  def example(i: int) -> Any:
    if settings.scaled_decoding:
      return scaled.ScaledViews(readable, transform).random_map(i, rng)
    return transform.random_map(readable[i], rng)

  draws = [draw(i) for i in range(count)]
  factors = count * [1]
  if settings.scaled_decoding:
    factors = [scaled.allowed(pair, settings.size) for pair in draws]
    images = [
      decode(i) if isinstance(encoded[i], bytes) else images[i]
      for i in range(count)
    ]
    draws = [
      scaled.on_reduced(pair, size, image.shape[:2])
      for pair, size, image in zip(draws, sizes, images, strict=True)
    ]
  work: dict[str, Callable[[int], Any]] = {"read": lambda i: source[i]}
  if isinstance(encoded[0], bytes):
    work["decode"] = decode
  work["draw"] = draw
  work |= _pixel_work(images, draws, settings.size)
  work["whole"] = example
  times = _measure(work, count)
  if place is Place.HOST:
    times |= _color_times(images, draws, settings)
  whole = times.pop("whole")
  return [
    *(Stage(name, seconds) for name, seconds in times.items()),
    Stage("whole", whole),
  ]


class Drawn(Protocol):
  """A transform that draws; see `grain.transforms.RandomMap`."""

  def random_map(self, example: Any, rng: np.random.Generator) -> Any:
    """What becomes of an example."""


def one_core_rate(
  source: sources.Source, prepare: Drawn | augment.EvalCrop
) -> float:
  """Images per second that one core reads, decodes and prepares.

  Args:
    source: images; the first few are used.
    prepare: what is done with each.
  """
  image_ops.compile_all()
  readable = sources.ReadableSource(source)
  rng = np.random.default_rng(0)

  def example(i: int) -> Any:
    if isinstance(prepare, augment.EvalCrop):
      return prepare.map(readable[i])
    return prepare.random_map(readable[i], rng)

  times = _measure({"whole": example}, min(_IMAGES, len(source)))
  return 1000 / times["whole"]


def _draw_times(
  shapes: list[tuple[int, int]],
  length: int,
  transform: augment.TwoDraws,
  rows: int,
) -> dict[str, float]:
  """Milliseconds for an image if draws are made for `rows` images at a time.

  Args:
    shapes: heights and widths; they repeat until there are `length`.
    length: of the set of images.
    transform: as made from a config.
    rows: of a batch.
  """
  sizes = np.resize(np.array(shapes, np.int32), (length, 2))
  zeros = np.zeros(length, np.int32)
  stream = resident.DrawStream(
    resident.Resident(
      images=np.zeros((0, 0, 0, 3), np.uint8),
      turned=zeros > 0,
      sizes=sizes,
      label=zeros,
      unreadable=zeros.astype(np.int64),
    ),
    transform,
    seed=0,
  )
  work = {
    "order": lambda i: stream.order(i * rows, rows),
    "draw": lambda i: stream.draw(i * rows, sizes[:rows]),
    "whole": lambda i: stream.rows(i * rows, rows),
  }
  for function in work.values():
    function(0)  # compiles
  return {name: time / rows for name, time in _measure(work, _IMAGES).items()}


def _pixel_work(
  images: list[np.ndarray],
  draws: list[tuple[augment.ViewDraw, augment.ViewDraw]],
  size: int,
) -> dict[str, Callable[[int], Any]]:
  """The operations that both views of every image undergo."""
  planes = image_ops.crop_planes(images[0], draws[0][0].box, size)

  def crop(i: int) -> None:
    for draw in draws[i]:
      image_ops.crop_planes(images[i], draw.box, size, mirrored=draw.flip)

  def finish(i: int) -> None:
    del i
    image_ops.to_image(planes)
    image_ops.to_image(planes)

  return {"crop, resize, flip": crop, "round": finish}


def _color_times(
  images: list[np.ndarray],
  draws: list[tuple[augment.ViewDraw, augment.ViewDraw]],
  settings: AugmentConfig,
) -> dict[str, float]:
  """Milliseconds of the operations that only some views undergo."""
  size = settings.size
  views = (settings.view1, settings.view2)
  planes = [
    image_ops.crop_planes(image, draw[0].box, size)
    for image, draw in zip(images, draws, strict=True)
  ]
  grays = [plane[:1].copy() for plane in planes]
  times = {}
  ops: dict[str, tuple[Callable[[int], Any], str]] = {
    name: (_jitter(planes, op, draws, name), "jitter_probability")
    for name, op, _ in (
      augment.JITTER_OPS[k] for k in sorted(draws[0][0].order)
    )
  }
  ops["grayscale"] = (
    lambda i: image_ops.to_grayscale(planes[i]),
    "grayscale_probability",
  )
  found = _measure({name: op for name, (op, _) in ops.items()}, len(images))
  for name, (_, probability) in ops.items():
    times[name] = found[name] * sum(view[probability] for view in views)
  # After the grayscale operation a grey view has only one plane.
  for name, probability in (
    ("blur", "blur_probability"),
    ("solarize", "solarize_probability"),
  ):
    work = {
      kind: _late(name, which, draws)
      for kind, which in (("color", planes), ("gray", grays))
    }
    found = _measure(work, len(images))
    times[name] = sum(
      view[probability]
      * (
        view.grayscale_probability * found["gray"]
        + (1 - view.grayscale_probability) * found["color"]
      )
      for view in views
    )
  return times


def _jitter(
  planes: list[np.ndarray], op: Callable[..., None], draws: Any, name: str
) -> Callable[[int], Any]:
  return lambda i: op(planes[i], getattr(draws[i][0], name))


def _late(
  name: str, planes: list[np.ndarray], draws: Any
) -> Callable[[int], Any]:
  if name == "blur":
    return lambda i: image_ops.gaussian_blur(planes[i], draws[i][0].sigma)
  return lambda i: image_ops.solarize(planes[i], draws[i][0].threshold)


def _measure(
  work: dict[str, Callable[[int], Any]], count: int
) -> dict[str, float]:
  """Milliseconds that each function takes for one image; they take turns."""
  rounds: dict[str, list[float]] = {name: [] for name in work}
  for _ in range(_ROUNDS):
    for name, function in work.items():
      begun = time.perf_counter()
      for i in range(count):
        function(i)
      rounds[name].append((time.perf_counter() - begun) / count)
  return {
    name: 1000 * statistics.median(times) for name, times in rounds.items()
  }
