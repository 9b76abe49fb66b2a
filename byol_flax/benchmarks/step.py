"""`byol benchmark step`: how long an update takes on the devices at hand."""

import dataclasses
import importlib.util
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

import jax
import numpy as np

from byol_flax import sharding, slices
from byol_flax.benchmarks import operations, opponent
from byol_flax.pretrain import build, inputs, places
from byol_flax.pretrain.places import Place
from byol_flax.runs import data_sets
from input_pipeline import augment, sources
from input_pipeline import resident as resident_lib
from input_pipeline.errors import UsageError

_WARM_UP = 2  # updates before the clock starts; PyTorch compiles in the first
# Operations per second in bfloat16, without sparsity, by NVIDIA's data sheets.
_PEAKS_OF_GPUS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}


def benchmark(
  config: Any,
  *,
  updates: int,
  stream: TextIO,
  against: opponent.MakeUpdate | None = None,
  measured: "Measured | None" = None,
) -> dict[str, Any]:
  """Times updates on random images that lie on the devices already.

  An opponent runs in a process of its own. Updates of both take turns, so that
  other work of the machine slows down both, unless it was `measured` before. If
  the opponent fails, the console says so, and our own figures stand.

  Args:
    config: as made by configs/byol.py.
    updates: timed updates, at least 1.
    stream: console.
    against: (config, batch, number of classes) -> a function that does one
      update, such as `torch_update`.
    measured: what `measure_alone` found of an opponent that had to be alone.

  Returns:
    Seconds of an update (median and quartiles), images per second, and so on.
  """
  data = _facts_of(config)
  shape = None if data.images is None else data.images.shape
  batch = random_batch(config, data.classes, shape)
  ours, facts = _ours(config, batch, data)
  times, failure = take_turns(
    ours, _WARM_UP + updates, against, (config, batch, data.classes)
  )
  if measured:
    times |= {"pytorch": measured.seconds} if measured.seconds else {}
    failure = measured.failure
  found: dict[str, Any] = {**facts, "batch_size": config.batch_size}
  stream.write(f"{facts['devices']}; batches of {config.batch_size}\n")
  for name, timed in times.items():
    found[name] = _summary(timed, config.batch_size)
    stream.write(f"{name:10} {_words(found[name])}\n")
  median = found["byol_flax"]["median_seconds"]
  if peak := peak_of(jax.devices()[0].device_kind):
    found["share_of_peak"] = facts["flops_of_a_device"] / median / peak
    stream.write(f"{found['share_of_peak']:.0%} of the peak\n")
  if failure:
    found["pytorch"] = {"failed": failure}
    stream.write(f"pytorch    failed: {failure}\n")
  elif "pytorch" in found:
    found["speed_up"] = found["pytorch"]["median_seconds"] / median
    stream.write(f"{found['speed_up']:.2f} times as fast as PyTorch\n")
  return found


class Measured(NamedTuple):
  """Seconds of each update of an opponent, and why it failed, or ""."""

  seconds: list[float]
  failure: str


def measure_alone(
  config: Any, *, updates: int, against: opponent.MakeUpdate
) -> Measured:
  """Times an opponent before this process has opened any device.

  Arguments are those of `benchmark`.
  """
  data = _facts_of(config)
  batch = random_batch(config, data.classes)
  theirs = opponent.Opponent(against, config, batch, data.classes)
  try:
    seconds = [theirs.update() for _ in range(_WARM_UP + updates)]
  except opponent.OpponentError as error:
    return Measured([], str(error))
  finally:
    theirs.close()
  return Measured(seconds, "")


def torch_has_a_gpu() -> bool:
  """Whether PyTorch is installed and would compute on a GPU."""
  if importlib.util.find_spec("torch") is None:
    return False
  from byol_flax.benchmarks import torch_byol

  return torch_byol.has_a_gpu()


def take_turns(
  ours: Callable[[], None],
  updates: int,
  against: opponent.MakeUpdate | None,
  arguments: tuple[Any, ...],
) -> tuple[dict[str, list[float]], str]:
  """Does updates of ours and, in turns with them, of an opponent.

  Args:
    ours: does one update and waits for it.
    updates: how many of each.
    against: called with `arguments` in another process, it returns a function
      like `ours`.
    arguments: of `against`.

  Returns:
    Name -> seconds of each update, and why the opponent failed, or "".
  """
  times: dict[str, list[float]] = {"byol_flax": []}
  failure, theirs = "", None
  try:
    for _ in range(updates):
      times["byol_flax"].append(opponent.seconds(ours))
      if against and not failure:
        try:
          # It starts only after ours has taken the memory that it needs.
          theirs = theirs or opponent.Opponent(against, *arguments)
          times.setdefault("pytorch", []).append(theirs.update())
        except opponent.OpponentError as error:
          failure = str(error)
          times.pop("pytorch", None)
  finally:
    if theirs:
      theirs.close()
  return times, failure


def torch_update(
  config: Any, batch: dict[str, np.ndarray], num_classes: int
) -> Callable[[], None]:
  """An opponent: `torch_byol.make_update`, where PyTorch is installed."""
  if importlib.util.find_spec("torch") is None:
    raise UsageError(
      "--against-torch needs PyTorch, which is not installed: pip install "
      "'byol-flax[bench]'"
    )
  from byol_flax.benchmarks import torch_byol

  return torch_byol.make_update(config, batch, num_classes)


@dataclasses.dataclass(frozen=True)
class _Facts:
  """What the step depends on; `images` are those that lie on the devices."""

  examples: int
  classes: int
  images: np.ndarray | None


def _facts_of(config: Any) -> _Facts:
  examples, classes = data_sets.size_of(config)
  images = None
  if places.place_of(config.augment) is Place.RESIDENT:
    source = sources.ReadableSource(data_sets.open_split(config))
    images = resident_lib.load(source).images
  return _Facts(examples, classes, images)


def random_batch(
  config: Any, num_classes: int, resident: tuple[int, ...] | None = None
) -> dict[str, np.ndarray]:
  """A training batch of noise, of the size and kind that the config asks for.

  Images that lie on the devices are not part of it; `resident` is their shape.
  """
  rng = np.random.default_rng(0)
  size, count = config.augment.size, config.batch_size
  batch = {
    "label": rng.integers(0, max(num_classes, 1), count).astype(np.int32)
  }
  if resident:
    batch["index"] = rng.integers(0, resident[0], count).astype(np.int32)
    batch["turned"] = np.zeros(count, bool)
  else:
    for name in ("view1", "view2"):
      batch[name] = rng.integers(0, 256, (count, size, size, 3), np.uint8)
  if places.place_of(config.augment) is not Place.HOST:
    views = inputs.make_two_views(config.augment)
    height, width = resident[1:3] if resident else (size, size)
    draws = [views.draw(height, width, rng) for _ in range(count)]
    batch["draw"] = np.stack(
      [np.stack([augment.pack(draw) for draw in pair]) for pair in draws]
    )
  return batch


def _ours(
  config: Any, batch: dict[str, np.ndarray], facts: _Facts
) -> tuple[Callable[[], None], dict[str, Any]]:
  mesh = sharding.make_mesh()
  shape = None if facts.images is None else facts.images.shape
  built = build.build(
    config,
    mesh,
    num_examples=facts.examples,
    num_classes=facts.classes,
    resident=shape,
  )
  there = sharding.put_batch(mesh, batch)
  if facts.images is not None:
    there["images"] = sharding.put_everywhere(mesh, facts.images)
  flops = operations.count(
    built.step_fn, built.abstract_state, built.abstract_batch
  )
  compiled = built.compile_step()
  state = built.create_state()

  def update() -> None:
    nonlocal state
    state, metrics = compiled(state, there)
    jax.block_until_ready(metrics)

  return update, {
    "devices": sharding.describe(mesh),
    "kind": jax.devices()[0].device_kind,
    "flops_of_a_device": flops / mesh.size,
  }


def _summary(times: list[float], batch_size: int) -> dict[str, float]:
  seconds = times[_WARM_UP:]
  median = statistics.median(seconds)
  low, high = np.quantile(seconds, [0.25, 0.75])
  return {
    "median_seconds": median,
    "first_quartile_seconds": float(low),
    "third_quartile_seconds": float(high),
    "images_per_second": batch_size / median,
    "updates": len(seconds),
    "first_update_seconds": times[0],
  }


def _words(summary: dict[str, float]) -> str:
  return (
    f"{1e3 * summary['median_seconds']:9.1f} ms an update "
    f"({1e3 * summary['first_quartile_seconds']:.1f} to "
    f"{1e3 * summary['third_quartile_seconds']:.1f}), "
    f"{summary['images_per_second']:,.0f} images/s"
  )


def peak_of(kind: str) -> float | None:
  """Operations per second of a device of that kind; None if not known."""
  for name, generation in slices.GENERATIONS.items():
    # JAX calls v5e and v6e "TPU v5 lite" and "TPU v6 lite", and v5p "TPU v5" or
    # "TPU v5p".
    told = name.replace("5e", "5 lite").replace("6e", "6 lite")
    if kind in (f"TPU {told}", f"TPU {told.removesuffix('p')}"):
      return generation.peak_tflops * 1e12
  for name, peak in _PEAKS_OF_GPUS.items():
    if name in kind:
      return peak
  return None
