"""Measures how fast batches come: workers, hand-over, transfer to devices."""

import contextlib
import dataclasses
import multiprocessing
import statistics
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.benchmarks import memory
from byol_flax.pretrain import inputs
from input_pipeline import loading, pipeline, sources
from input_pipeline.unreadable import UnreadableImages

_WARM_UP_SECONDS = 3.0  # from the first batch on
_SECONDS = 8.0
_TRANSFERS = 20
_CHUNKS = 4  # in a batch; enough to see what joining them costs


@dataclasses.dataclass(frozen=True)
class Rates:
  """Images per second of each part of the input, and what it takes.

  Attributes:
    one_worker: of one worker process, handed over; if there are no workers, of
      a thread of the trainer.
    all_workers: of as many workers as the config asks for.
    num_workers: how many these are.
    hand_over: of one worker that only hands over; if there are no workers, the
      same as `one_worker`.
    transfer: from the host to the devices.
    chunk_rows: images handed over at a time.
    worker_bytes: memory of the largest worker, including what it hands over.
  """

  one_worker: float
  all_workers: float
  num_workers: int
  hand_over: float
  transfer: float
  chunk_rows: int
  worker_bytes: int


def measure(source: sources.Source, config: Any, mesh: Mesh) -> Rates:
  """Measures the input of a config, from a source to the devices."""
  readable = sources.ReadableSource(source)
  read = inputs.open_inputs(config, readable, mesh)
  chunk = read.how.chunk_rows
  rows = min(_CHUNKS * chunk, config.batch_size // jax.process_count())

  def rate(stream: Any, num_workers: int) -> tuple[float, int]:
    changed = dataclasses.replace(
      read,
      stream=stream,
      how=dataclasses.replace(read.how, num_workers=num_workers),
      rows=rows,
    )
    unreadable = UnreadableImages(readable, "/dev/null", 1)
    with contextlib.closing(changed.open_batches(0, unreadable)) as batches:
      return _rate(batches, rows), _largest_worker()

  most = read.how.num_workers
  one, worker_bytes = rate(read.stream, min(most, 1))
  every = rate(read.stream, most)[0] if most > 1 else one
  return Rates(
    one_worker=one,
    all_workers=every,
    num_workers=most,
    hand_over=rate(pipeline.idle_stream(read.stream[0]), 1)[0] if most else one,
    transfer=_transfer_rate(mesh, read.stream[0], mesh.size * chunk),
    chunk_rows=chunk,
    worker_bytes=worker_bytes,
  )


def _rate(batches: loading.Batches, rows: int) -> float:
  """Images per second, once all workers are at work."""
  next(batches)
  warm = time.monotonic() + _WARM_UP_SECONDS
  while time.monotonic() < warm:
    next(batches)
  begun, done = time.monotonic(), 0
  while time.monotonic() < begun + _SECONDS:
    next(batches)
    done += rows
  return done / (time.monotonic() - begun)


def _largest_worker() -> int:
  """Bytes that the largest child of this process uses; 0 if it has none."""
  children = multiprocessing.active_children()
  return max(
    (memory.of_process("VmRSS", child.pid) for child in children), default=0
  )


def _transfer_rate(
  mesh: Mesh, example: dict[str, np.ndarray], rows: int
) -> float:
  """Images per second from the host's memory to that of the devices."""
  batch = {
    name: np.stack(rows * [np.asarray(value)])
    for name, value in example.items()
    if name != "unreadable"
  }
  times = []
  for _ in range(_TRANSFERS):
    begun = time.perf_counter()
    jax.block_until_ready(sharding.put_batch(mesh, batch))
    times.append(time.perf_counter() - begun)
  return rows / statistics.median(times)
