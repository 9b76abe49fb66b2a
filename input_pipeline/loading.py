"""Makes batches with many workers and threads, from chunks.

A chunk is some consecutive rows of a batch, made by one thread of one worker
process. The trainer puts a batch together from its chunks as they come. So a
worker's memory does not grow with the batch size, and as all workers share the
first batch of a host, it is ready sooner than if one worker made all of it.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import pathlib
import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import grain
import numpy as np

from input_pipeline import handover, parents, workers

Batch = dict[str, np.ndarray]

# A chunk is large enough that handing it over costs little, and small enough
# that a dozen of them in each of a hundred workers are no burden.
_CHUNK_BYTES = 8 * 2**20
_BUFFERED_CHUNKS = 2  # may wait in each worker
_OTHER_BYTES = 512  # in a row, beside its images: label, draws and so on
_BATCHES_AHEAD = 2  # may wait in the trainer

# For images that are read once, see `choose_once`.
_WORTH_WORKERS = 5.0  # seconds of one core
_SECONDS_OF_ROW = 150e-6
_SECONDS_OF_BYTE = 5e-9  # of a crop, mostly to decode what it is cut from
_FEW_THREADS = 4
_CHUNKS_EACH = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loading:
  """Who makes the batches of a process.

  Attributes:
    num_workers: processes; 0 leaves the work to threads of the trainer.
    num_threads: in each worker, or in the trainer.
    chunk_rows: rows made by one thread at a time; divides a process's rows.
    row_bytes: of the images of a row.
  """

  num_workers: int
  num_threads: int
  chunk_rows: int
  row_bytes: int

  @property
  def read_ahead(self) -> int:
    """The most chunks that a worker has begun."""
    return self.num_threads + 1

  @property
  def slots(self) -> handover.Shape:
    """The memory in which chunks are handed over."""
    return handover.Shape(
      workers=max(1, self.num_workers),
      # A chunk is being filled, waits, is on its way or is being copied out.
      slots=self.read_ahead + _BUFFERED_CHUNKS + 3,
      slot_bytes=self.chunk_rows * (self.row_bytes + _OTHER_BYTES),
    )

  def __str__(self) -> str:
    size = f"{self.chunk_rows} images at a time"
    if not self.num_workers:
      return f"{self.num_threads} thread(s) of this process, {size}"
    slots = self.slots
    most = slots.slots * slots.slot_bytes / 2**20
    return (
      f"{self.num_workers} worker(s) with {self.num_threads} thread(s) each, "
      f"{size}; at most {math.ceil(most)} MiB of finished images in each"
    )


def choose_loading(
  *, num_workers: int, num_threads: int, rows: int, row_bytes: int
) -> Loading:
  """Settles what a config leaves open.

  Args:
    num_workers: of the config; -1 is one for each core.
    num_threads: of the config, at least 1.
    rows: how many rows of a batch each process reads.
    row_bytes: of one row.
  """
  most = max(1, _CHUNK_BYTES // row_bytes)
  return Loading(
    num_workers=available_cores() if num_workers < 0 else num_workers,
    num_threads=num_threads,
    chunk_rows=max(n for n in range(1, min(rows, most) + 1) if rows % n == 0),
    row_bytes=row_bytes,
  )


def choose_once(
  *,
  num_workers: int,
  num_threads: int,
  batches: int,
  rows: int,
  row_bytes: int,
) -> Loading:
  """Settles who reads some batches once, as evaluations do.

  Workers take seconds to start, so they are started only if the images would
  keep one core busy for longer than `_WORTH_WORKERS`. This is estimated from a
  least cost for each image and a cost for each byte of its crop. Otherwise a
  few threads of this process read; more would only wait for each other, because
  the images are small.

  Args:
    num_workers: of the config; -1 is one for each core, 0 means threads.
    num_threads: of the config, in each worker.
    batches: how many are read.
    rows: how many rows of a batch each process reads.
    row_bytes: of one row.
  """
  cores = available_cores()
  wanted = choose_loading(
    num_workers=num_workers,
    num_threads=num_threads,
    rows=rows,
    row_bytes=row_bytes,
  )
  seconds = batches * rows * (_SECONDS_OF_ROW + _SECONDS_OF_BYTE * row_bytes)
  workers = wanted.num_workers if seconds > _WORTH_WORKERS else 0
  hands = workers * num_threads or min(cores, _FEW_THREADS)
  # A chunk is so small that each has several and the first batch comes soon.
  share = max(1, batches * rows // (_CHUNKS_EACH * hands))
  most = min(wanted.chunk_rows, share)
  chunk_rows = max(n for n in range(1, most + 1) if rows % n == 0)
  return dataclasses.replace(
    wanted,
    num_workers=min(workers, batches * rows // chunk_rows),
    num_threads=num_threads if workers else hands,
    chunk_rows=chunk_rows,
  )


def available_cores() -> int:
  """How many cores this process may use; in a container not all of them."""
  cores = len(os.sched_getaffinity(0))
  try:
    quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
    return max(1, min(cores, math.ceil(int(quota) / int(period))))
  except (OSError, ValueError):  # no control groups, or "max"
    return cores


class RowStream(grain.MapDataset):
  """An endless stream whose examples are made many at a time.

  That costs so little that the thread which puts batches together makes them
  itself, without Grain's threads and workers.
  """

  def __init__(self) -> None:
    """Begins a pipeline, so it has no parent."""
    super().__init__()

  def rows(self, first: int, count: int) -> Batch:
    """Arrays [count, ...] of the examples at first, ..., first + count - 1."""
    raise NotImplementedError

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    return {name: part[0] for name, part in self.rows(index, 1).items()}


class ProcessChunks(grain.MapDataset):
  """A process's chunks of a stream of examples, batch after batch.

  Process p reads the p-th block of consecutive rows of each global batch. A
  chunk is a dict of arrays [chunk_rows, ...], or says where these lie.
  """

  def __init__(
    self,
    parent: grain.MapDataset,
    *,
    rows: int,
    chunk_rows: int,
    process_index: int,
    process_count: int,
    start_step: int,
  ) -> None:
    """Takes the examples of all processes.

    Args:
      parent: the examples.
      rows: how many rows of a batch each process reads.
      chunk_rows: how many rows a chunk has; divides `rows`.
      process_index: of this process.
      process_count: of all.
      start_step: the batch that comes first.
    """
    super().__init__(parent)
    self._rows = rows
    self._chunk_rows = chunk_rows
    self._process_index = process_index
    self._process_count = process_count
    self._start_step = start_step

  @property
  def of_rows(self) -> bool:
    """Whether the examples are made a chunk at a time."""
    return isinstance(self._parent, RowStream)

  def __len__(self) -> int:
    blocks = len(self._parent) // (self._rows * self._process_count)
    return blocks * (self._rows // self._chunk_rows)

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    batch, chunk = divmod(index, self._rows // self._chunk_rows)
    block = (self._start_step + batch) * self._process_count
    block += self._process_index
    first = block * self._rows + chunk * self._chunk_rows
    if self.of_rows:
      return self._parent.rows(first, self._chunk_rows)
    example = self._parent[first]
    place = handover.reserve(example, self._chunk_rows)
    filled, arrays = place or (None, _empty(example, self._chunk_rows))
    for row in range(self._chunk_rows):
      if row:
        example = self._parent[first + row]
      for name, value in example.items():
        arrays[name][row] = value
    return filled or arrays


def _empty(like: Mapping[str, Any], rows: int) -> Batch:
  """Arrays for `rows` rows."""
  return {
    name: np.empty((rows, *np.shape(value)), np.asarray(value).dtype)
    for name, value in like.items()
  }


def _iterator(
  chunks: ProcessChunks, loading: Loading, slots: handover.Address
) -> Any:
  """Yields chunks in order; the first starts the threads and workers."""
  if chunks.of_rows:
    return (chunks[k] for k in itertools.count())
  dataset = chunks.to_iter_dataset(
    grain.ReadOptions(
      num_threads=loading.num_threads,
      prefetch_buffer_size=loading.read_ahead,
    )
  )
  if loading.num_workers:
    dataset = dataset.mp_prefetch(
      grain.multiprocessing.MultiprocessingOptions(
        num_workers=loading.num_workers,
        per_worker_buffer_size=_BUFFERED_CHUNKS,
      ),
      worker_init_fn=functools.partial(workers.start, slots),
    )
  return iter(dataset)


def _assembled(
  chunks: ProcessChunks, loading: Loading, rows: int
) -> Generator[Batch, None, None]:
  """Puts batches together from their chunks, in the thread that asks."""
  slots = handover.Owner(loading.slots)
  iterator = _iterator(chunks, loading, slots.address)
  try:
    with parents.born_deaf(*workers.UNHEARD):
      chunk = next(iterator, None)  # starts the workers
    while chunk is not None:
      batch: Batch = {}
      for start in range(0, rows, loading.chunk_rows):
        chunk = next(iterator) if start else chunk
        filled = isinstance(chunk, handover.Filled)
        parts = slots.memory.arrays(chunk) if filled else chunk
        # New memory for each batch: the devices may still read the last one.
        batch = batch or {
          name: np.empty((rows, *part.shape[1:]), part.dtype)
          for name, part in parts.items()
        }
        for name, part in parts.items():
          batch[name][start : start + loading.chunk_rows] = part
        if filled:
          slots.memory.free(chunk)
      yield batch
      chunk = next(iterator, None)
  finally:
    iterator.close()
    slots.close()


class Batches(Iterator[Batch]):
  """The batches of a process, in the order of their chunks.

  A thread starts to read ahead at once, so that workers start while the trainer
  restores and compiles. `close` ends the thread and the workers.
  """

  def __init__(
    self,
    chunks: ProcessChunks,
    loading: Loading,
    *,
    rows: int,
    finish: Callable[[Batch], Batch] = lambda batch: batch,
  ) -> None:
    """Takes the chunks of batches of `rows`.

    `finish` may change a batch when it is taken, not when it is read ahead.
    """
    self._finish = finish
    self._ready: queue.Queue[Batch | _End] = queue.Queue(_BATCHES_AHEAD)
    self._stopping = threading.Event()
    # A daemon, so that storage that hangs cannot keep the trainer from ending.
    self._thread = threading.Thread(
      target=self._work,
      args=(chunks, loading, rows),
      daemon=True,
      name="input",
    )
    self._thread.start()

  def __next__(self) -> Batch:
    item = self._ready.get()
    if not isinstance(item, _End):
      return self._finish(item)
    self._ready.put(item)  # for whoever asks again
    raise item.reason

  def close(self) -> None:
    """Ends the thread and the workers; a second call does nothing."""
    self._stopping.set()
    self._thread.join(timeout=30)

  def _work(
    self,
    chunks: ProcessChunks,
    loading: Loading,
    rows: int,
  ) -> None:
    end = _End(StopIteration())
    try:
      with contextlib.closing(_assembled(chunks, loading, rows)) as batches:
        for batch in batches:
          self._put(batch)
          if self._stopping.is_set():
            break
    except BaseException as error:  # `__next__` raises it
      end = _End(error)
    self._put(end)

  def _put(self, item: "Batch | _End") -> None:
    while not self._stopping.is_set():
      with contextlib.suppress(queue.Full):
        return self._ready.put(item, timeout=0.1)


@dataclasses.dataclass(frozen=True)
class _End:
  """What comes after the last batch; StopIteration if it was the last."""

  reason: BaseException
