"""From a source to batches of NumPy arrays. Nothing here touches a device.

Training batch: {"view1", "view2": uint8 [B, S, S, 3], "label": int32 [B]}.
Evaluation batch: {"image": uint8 [B, S, S, 3], "label": int32 [B], "mask":
bool [B]}; only rows with mask True count. Label -1 means no label.

Data position: the global batch of update k is a pure function of the seed and
k. Order and augmentation are drawn per example of an endless stream, before
that stream is cut into rows of processes, so the number of processes, workers
and restarts cannot change them. Process p reads the p-th block of consecutive
rows of each global batch.
"""

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any, SupportsIndex

import grain
import numpy as np
from etils import epath

from input_pipeline import augment, decoding, sources
from input_pipeline.errors import UsageError

Batch = dict[str, np.ndarray]


def example_stream(
  source: sources.ReadableSource, seed: int
) -> grain.MapDataset:
  """Endless stream of decoded examples, shuffled anew in every epoch."""
  dataset = grain.MapDataset.source(source)
  return dataset.shuffle(seed=seed).repeat(None)


def view_stream(
  source: sources.ReadableSource, transform: augment.TwoViews, seed: int
) -> grain.MapDataset:
  """Endless stream of two-view examples; element i is fixed by (seed, i)."""
  # A seed of its own keeps the draws when a stage is added before this one.
  return example_stream(source, seed).random_map(transform, seed=seed + 1)


def train_iterator(
  source: sources.ReadableSource,
  transform: augment.TwoViews,
  *,
  seed: int,
  batch_size: int,
  start_step: int,
  process_index: int,
  process_count: int,
  num_workers: int,
  num_threads: int,
  unreadable: "UnreadableImages",
) -> Generator[Batch, None, None]:
  """Yields this process's rows of the batches of updates start_step, ...

  Args:
    source: decoded examples.
    transform: makes the two views.
    seed: of order and augmentation.
    batch_size: global.
    start_step: completed updates, that is the first batch's update.
    process_index: of this process, from 0.
    process_count: must divide `batch_size`.
    num_workers: subprocesses that read and augment; 0 uses threads only.
    num_threads: reading threads in each worker (or in this process).
    unreadable: told of every image that could not be read.

  Yields:
    Batches of `batch_size // process_count` rows, without end.
  """
  rows = batch_size // process_count
  dataset = view_stream(source, transform, seed).batch(
    rows, drop_remainder=True
  )
  first = start_step * process_count + process_index
  batches = dataset[first::process_count].to_iter_dataset(
    grain.ReadOptions(
      num_threads=num_threads, prefetch_buffer_size=max(2, num_threads)
    )
  )
  if num_workers:
    batches = batches.mp_prefetch(
      grain.multiprocessing.MultiprocessingOptions(
        num_workers=num_workers, per_worker_buffer_size=2
      ),
      worker_init_fn=_start_worker,
    )
  iterator = iter(batches)
  try:
    with _born_deaf():
      batch = next(iterator)  # starts the workers
    while True:
      unreadable.see(batch.pop("unreadable"))
      yield batch
      batch = next(iterator)
  finally:
    iterator.close()


def eval_iterator(
  source: sources.Source,
  transform: augment.EvalCrop,
  *,
  batch_size: int,
  process_index: int,
  process_count: int,
) -> Generator[Batch, None, None]:
  """Yields this process's rows of every example of `source`, once, in order.

  The last batch is filled up with rows whose mask is False; so is the place of
  an image that cannot be read. All processes yield the same number of batches.
  """
  rows = batch_size // process_count
  padded = _PaddedExamples(source, transform, batch_size)
  dataset = grain.MapDataset.source(padded).batch(rows)
  threads = os.cpu_count() or 1
  iterator = iter(
    dataset[process_index::process_count].to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )
  )
  try:
    yield from iterator
  finally:
    iterator.close()


class _PaddedExamples:
  """Evaluation examples, then empty ones up to a whole number of batches."""

  def __init__(
    self,
    source: sources.Source,
    transform: augment.EvalCrop,
    batch_size: int,
  ) -> None:
    self._source = source
    self._transform = transform
    self._length = -(-len(source) // batch_size) * batch_size

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = int(index)
    size = self._transform.size
    empty = {
      "image": np.zeros((size, size, 3), np.uint8),
      "label": np.int32(-1),
      "mask": np.bool_(False),
    }
    if index >= len(self._source):
      return empty
    try:
      example = self._source[index]
      if isinstance(example["image"], bytes):
        image = decoding.decode_image(example["image"])
        example = {**example, "image": image}
    except (decoding.ImageError, OSError):
      return empty
    example = self._transform.map(example)
    return {
      "image": example["image"],
      "label": np.int32(example["label"]),
      "mask": np.bool_(True),
    }


class UnreadableImages:
  """Counts and names the images that could not be read.

  Attributes:
    report: text file with one line, index and name, per image.
    indices: of the images found so far, those of earlier starts included.
  """

  def __init__(
    self, source: sources.ReadableSource, report: str, max_share: float
  ) -> None:
    """Fails past `max_share` of all images, in [0, 1]."""
    if not 0 <= max_share <= 1:
      raise UsageError(
        f"loader.max_unreadable_share is {max_share}; it is a share of all "
        "images, from 0 to 1."
      )
    self._source = source
    self._max_share = max_share
    self.report = epath.Path(report)
    self.indices: set[int] = set()
    if self.report.exists():
      for line in self.report.read_text().splitlines():
        index = line.split("\t")[0]
        if index.isdigit():
          self.indices.add(int(index))

  def sentence(self) -> str:
    """How many there are, and where their names stand."""
    return (
      f"{len(self.indices)} image(s) could not be read; their names are in "
      f"{self.report}"
    )

  def see(self, unreadable: np.ndarray) -> None:
    """Takes a batch's "unreadable" [B] int64: index of an image, or -1.

    Raises:
      UsageError: more than the allowed share could not be read.
    """
    found = {int(i) for i in unreadable[unreadable >= 0]} - self.indices
    if not found:
      return
    with self.report.open("a") as file:
      for index in sorted(found):
        file.write(f"{index}\t{self._source.example_name(index)}\n")
    self.indices |= found
    allowed = self._max_share * len(self._source)
    if len(self.indices) > allowed:
      raise UsageError(
        f"{len(self.indices)} of {len(self._source)} images could not be read, "
        f"more than the allowed share of {self._max_share:g}; their names are "
        f"in {self.report}. Mend or remove them, or raise "
        "loader.max_unreadable_share."
      )


def batch_digest(batch: Batch, first_row: int) -> int:
  """64-bit digest of a training batch that adds up over processes.

  Args:
    batch: the rows of one process.
    first_row: position of the first of them in the global batch.

  Returns:
    Sum over rows, modulo 2^64, of a hash of position and content. Summed over
    processes it is the digest of the global batch, however it was divided.
  """
  total = 0
  for row in range(len(batch["label"])):
    digest = hashlib.blake2b(
      (first_row + row).to_bytes(8, "little"), digest_size=8
    )
    for name in ("view1", "view2", "label"):
      digest.update(np.ascontiguousarray(batch[name][row]).tobytes())
    total += int.from_bytes(digest.digest(), "little")
  return total % 2**64


@contextlib.contextmanager
def _born_deaf() -> Iterator[None]:
  """Processes started within do not hear SIGTERM before `_start_worker`.

  They inherit the mask of signals from the thread that starts them. In this
  process other threads go on hearing it, JAX's among them.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker_index: int, worker_count: int) -> None:
  """Set-up of a Grain worker process."""
  del worker_index, worker_count
  # A preemption signals the whole process group. The trainer decides when to
  # stop, and closes its workers itself; a worker that dies first would take it
  # down before the last save (tpu_practice 3.5).
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  os.environ["JAX_PLATFORMS"] = "cpu"  # workers must never take the device
  threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
  """Ends this process once `parent` is gone; a SIGKILL leaves it no farewell.

  Not the kernel's parent-death signal: it comes when the *thread* that started
  the worker ends.
  """
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)
