"""`byol benchmark input --evaluation`: how fast an evaluation reads."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, TextIO

from byol_flax import inputs, sharding
from byol_flax.benchmarks import photographs
from input_pipeline import augment, loading, pipeline, sources
from input_pipeline.unreadable import UnreadableImages

_ROUNDS = 5
_SETTLING = 1.5  # seconds in which what was finished beforehand is used up
_SECONDS = 3.0
_CHUNKS = 4  # in a batch: few, so that many batches come in that time


@dataclasses.dataclass(frozen=True)
class Rates:
  """Images per second that arrive in this process.

  Attributes:
    threads: of few threads of this process.
    one_worker: of one worker process.
    all_workers: of as many as the config asks for.
    num_workers: how many these are.
    training: of training's input with as many workers; None where the images
      of training lie on the devices.
    start_seconds: until the first batch of all workers.
  """

  threads: float
  one_worker: float
  all_workers: float
  num_workers: int
  training: float | None
  start_seconds: float


def benchmark(config: Any, *, stream: TextIO) -> dict[str, Any]:
  """Measures the training images of a config as an evaluation reads them.

  All ways to read take turns, so that what else the machine does hits each.

  Args:
    config: as made by configs/byol.py.
    stream: console.

  Returns:
    Rates, and who would read the training split.

  Raises:
    UsageError: there are no such images.
  """
  source, what = photographs.open_images(config)
  crop = augment.EvalCrop(
    size=config.augment.size, ratio=config.evaluation.crop_ratio
  )
  reader = pipeline.EvalReader(
    crop=crop,
    batch_size=config.evaluation.batch_size,
    num_workers=config.loader.num_workers,
    num_threads=config.loader.num_threads,
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
  """Opens every way to read, and measures them in turns."""
  most = config.loader.num_workers
  most = loading.available_cores() if most < 0 else max(1, most)
  readable = sources.ReadableSource(source)
  with contextlib.ExitStack() as opened:

    def open_eval(num_workers: int) -> Callable[[], int]:
      how = dataclasses.replace(reader, num_workers=num_workers).how(source)
      if num_workers:  # even where the rule would rather have threads
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
      opened.callback(batches.close)
      return lambda: int(next(batches)["mask"].sum())

    ways = {"threads": open_eval(0)}
    start_seconds = 0.0
    for name, workers in [("one", 1), ("all", most)][: min(most, 2)]:
      begun = time.monotonic()
      ways[name] = open_eval(workers)
      ways[name]()
      start_seconds = time.monotonic() - begun
    if config.augment.cache == "none":
      ways["training"] = _open_training(config, readable, most, opened)
    rates = _in_turns(ways)
  return Rates(
    threads=rates["threads"],
    one_worker=rates["one"],
    all_workers=rates.get("all", rates["one"]),
    num_workers=most,
    training=rates.get("training"),
    start_seconds=start_seconds,
  )


def _open_training(
  config: Any,
  readable: sources.ReadableSource,
  num_workers: int,
  opened: contextlib.ExitStack,
) -> Callable[[], int]:
  read = inputs.open_inputs(config, readable, sharding.make_mesh())
  read = dataclasses.replace(
    read,
    how=dataclasses.replace(read.how, num_workers=num_workers),
    rows=min(read.rows, _CHUNKS * read.how.chunk_rows),
  )
  unreadable = UnreadableImages(readable, "/dev/null", 1)
  batches = read.open_batches(0, unreadable)
  opened.callback(batches.close)
  return lambda: len(next(batches)["label"])


def _in_turns(ways: dict[str, Callable[[], int]]) -> dict[str, float]:
  """Images per second of each, the median of some rounds."""
  rates: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(_ROUNDS):
    for name, take in ways.items():
      settled = time.monotonic() + _SETTLING
      while time.monotonic() < settled:
        take()
      begun, done = time.monotonic(), 0
      while time.monotonic() < begun + _SECONDS:
        done += take()
      rates[name].append(done / (time.monotonic() - begun))
  return {name: statistics.median(found) for name, found in rates.items()}
