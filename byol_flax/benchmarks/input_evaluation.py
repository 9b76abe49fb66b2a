"""`byol benchmark input --evaluation`: how fast an evaluation reads."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, TextIO

from byol_flax import sharding
from byol_flax.benchmarks import photographs
from byol_flax.pretrain import inputs, places
from byol_flax.pretrain.places import Place
from byol_flax.runs import data_sets
from input_pipeline import augment, loading, pipeline, sources
from input_pipeline.unreadable import UnreadableImages

_ROUNDS = 3
_SETTLING = 2.0  # seconds in which every worker gets to work
_SECONDS = 5.0
_CHUNKS = 4  # in a batch; few, so that many batches come in _SECONDS


@dataclasses.dataclass(frozen=True)
class Rates:
  """Images per second that arrive in this process.

  Attributes:
    threads: from a few threads of this process.
    one_worker: from one worker process.
    all_workers: from as many workers as the config asks for.
    num_workers: how many these are.
    training: from training's input with as many workers; None if the images of
      training lie on the devices.
    start_seconds: until the first batch comes from all workers.
  """

  threads: float
  one_worker: float
  all_workers: float
  num_workers: int
  training: float | None
  start_seconds: float


def benchmark(config: Any, *, stream: TextIO) -> dict[str, Any]:
  """Measures the training images of a config as an evaluation reads them.

  All ways to read take turns, so that other work of the machine slows down each
  of them.

  Args:
    config: as made by configs/byol.py.
    stream: console.

  Returns:
    Rates, and a phrase that says who would read the training split.

  Raises:
    UsageError: there are no such images.
  """
  source, what = photographs.open_images(config)
  crop = augment.EvalCrop(
    size=config.augment.size, ratio=config.evaluation.crop_ratio
  )
  reader = pipeline.EvalReader(
    transform=crop,
    batch_size=config.evaluation.batch_size,
    num_workers=config.loader.num_workers,
    num_threads=data_sets.num_threads(config),
    process_index=0,
    process_count=1,
  )
  chosen = reader.describe(source)
  stream.write(
    f"{what}, {len(source):,} of them; crops of {crop.size} pixels\n"
  )
  stream.write(f"an evaluation would read {chosen}\n")
  rates = measure(source, config, reader)
  most = rates.num_workers
  lines = {
    "threads of this process": rates.threads,
    "1 worker": rates.one_worker,
  }
  if most > 1:
    lines[f"{most} workers"] = rates.all_workers
  if rates.training:
    lines[f"training, {most} worker(s)"] = rates.training
  stream.write(f"{'':26}{'ms/image':>10}{'images/s':>12}\n")
  for name, rate in lines.items():
    stream.write(f"{name:26}{1000 / rate:10.4f}{rate:12,.0f}\n")
  if most > 1:
    ratio = rates.all_workers / rates.one_worker
    stream.write(f"{most} workers / 1 worker: {ratio:.2f}\n")
  if rates.training:
    ratio = rates.all_workers / rates.training
    stream.write(f"evaluation / training: {ratio:.2f}\n")
  stream.write(f"first batch after {rates.start_seconds:.1f} s\n")
  return {
    "images": what,
    "cores": loading.available_cores(),
    "chosen": chosen,
    "rates": dataclasses.asdict(rates),
  }


def measure(
  source: sources.Source, config: Any, reader: pipeline.EvalReader
) -> Rates:
  """Opens one way to read after another, in rounds; only one is open."""
  most = config.loader.num_workers
  most = loading.available_cores() if most < 0 else max(1, most)
  readable = sources.ReadableSource(source)
  ways: dict[str, Callable[[], _Way]] = {
    "threads": lambda: _open_evaluation(source, reader, 0),
    "one": lambda: _open_evaluation(source, reader, 1),
  }
  if most > 1:
    ways["all"] = lambda: _open_evaluation(source, reader, most)
  if places.place_of(config.augment) is not Place.RESIDENT:
    ways["training"] = lambda: _open_training(config, readable, most)
  rates: dict[str, list[float]] = {name: [] for name in ways}
  starts: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(_ROUNDS):
    for name, open_way in ways.items():
      rate, start = _rate(open_way)
      rates[name].append(rate)
      starts[name].append(start)
  found = {name: statistics.median(values) for name, values in rates.items()}
  every = "all" if most > 1 else "one"
  return Rates(
    threads=found["threads"],
    one_worker=found["one"],
    all_workers=found[every],
    num_workers=most,
    training=found.get("training"),
    start_seconds=statistics.median(starts[every]),
  )


# Batches, and a function that says how many images of a batch count.
_Way = tuple[loading.Batches, Callable[[loading.Batch], int]]


def _open_evaluation(
  source: sources.Source, reader: pipeline.EvalReader, num_workers: int
) -> _Way:
  how = dataclasses.replace(reader, num_workers=num_workers).how(source)
  if num_workers:  # workers, even if the reader would choose threads
    how = dataclasses.replace(
      how, num_workers=num_workers, num_threads=reader.num_threads
    )
  rows = min(reader.batch_size, _CHUNKS * how.chunk_rows)
  chunks = loading.ProcessChunks(
    reader.stream(source).repeat(None),
    rows=rows,
    chunk_rows=how.chunk_rows,
    process_index=0,
    process_count=1,
    start_step=0,
  )
  batches = loading.Batches(chunks, how, rows=rows)
  return batches, lambda batch: int(batch["mask"].sum())


def _open_training(
  config: Any, readable: sources.ReadableSource, num_workers: int
) -> _Way:
  read = inputs.open_inputs(config, readable, sharding.make_mesh())
  read = dataclasses.replace(
    read,
    how=dataclasses.replace(read.how, num_workers=num_workers),
    rows=min(read.rows, _CHUNKS * read.how.chunk_rows),
  )
  unreadable = UnreadableImages(readable, "/dev/null", 1)
  return read.open_batches(0, unreadable), lambda batch: len(batch["label"])


def _rate(open_way: Callable[[], _Way]) -> tuple[float, float]:
  """Images per second of a way to read, and seconds until its first batch."""
  opened = time.monotonic()
  batches, count = open_way()
  with contextlib.closing(batches):
    next(batches)
    started = time.monotonic()
    while time.monotonic() < started + _SETTLING:
      next(batches)
    begun, done = time.monotonic(), 0
    while time.monotonic() < begun + _SECONDS:
      done += count(next(batches))
    return done / (time.monotonic() - begun), started - opened
