"""From a source to batches of NumPy arrays. Nothing here touches a device.

Training batch: {"view1", "view2": uint8 [B, S, S, 3], "label": int32 [B]}.
Evaluation batch: {"image": uint8 [B, S, S, 3], "label": int32 [B], "mask":
bool [B], "unreadable": int64 [B]}; only rows with mask True count. Label -1
means no label. "unreadable" is the number of an image that could not be read,
or -1. Dense tasks have other arrays in place of the label; `dense` says which.

Data position: the global batch of update k is a pure function of the seed and
k. Order and augmentation are drawn per example of an endless stream, before
that stream is cut into rows of processes, so the number of processes, workers
and restarts cannot change them. Process p reads the p-th block of consecutive
rows of each global batch.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Generator
from typing import Any, Protocol, SupportsIndex

import grain
import numpy as np

from input_pipeline import augment, loading, scaled, sources
from input_pipeline.errors import UnreadableError
from input_pipeline.loading import Batch
from input_pipeline.unreadable import UnreadableImages

# Of examples, ready to be batched.
Stream = grain.MapDataset


def example_stream(
  source: sources.ReadableSource, seed: int
) -> grain.MapDataset:
  """Endless stream of decoded examples, shuffled anew in every epoch."""
  dataset = grain.MapDataset.source(source)
  return dataset.shuffle(seed=seed).repeat(None)


def view_stream(
  source: sources.ReadableSource,
  transform: augment.TwoViews | augment.TwoCrops,
  seed: int,
  *,
  scaled_decoding: bool = False,
) -> grain.MapDataset:
  """Endless stream of two-view examples; element i is fixed by (seed, i).

  With `scaled_decoding` the draws are the same, but images are decoded no
  larger than the draws need; see `scaled.ScaledViews`.
  """
  # With its own seed this stage keeps its draws if one is added before it.
  if scaled_decoding:
    numbers = grain.MapDataset.range(len(source)).shuffle(seed=seed)
    views = scaled.ScaledViews(source, transform)
    return numbers.repeat(None).random_map(views, seed=seed + 1)
  return example_stream(source, seed).random_map(transform, seed=seed + 1)


def labelled_stream(
  source: sources.ReadableSource,
  transform: grain.transforms.RandomMap,
  seed: int,
) -> grain.MapDataset:
  """Endless stream of what `transform` makes of an example and its label.

  It is for probes and networks that learn from labels. Element i is fixed by
  (seed, i), as in `view_stream`.
  """
  return example_stream(source, seed).random_map(transform, seed=seed + 1)


def idle_stream(example: Batch) -> grain.MapDataset:
  """Endless stream of one example, which is no work to make."""
  return grain.MapDataset.source([example]).repeat(None)


def train_iterator(
  stream: grain.MapDataset,
  how: loading.Loading,
  *,
  rows: int,
  start_step: int,
  process_index: int,
  process_count: int,
  unreadable: UnreadableImages,
) -> loading.Batches:
  """This process's rows of every batch from update `start_step` on, for ever.

  It begins to read at once, and must be closed.

  Args:
    stream: of examples that are ready to be batched, such as `view_stream`.
    how: workers and threads.
    rows: how many rows of a batch each process reads.
    start_step: completed updates, which is the number of the first batch.
    process_index: of this process, from 0.
    process_count: how many there are.
    unreadable: is told of every image that could not be read.
  """

  def count_unreadable(batch: Batch) -> Batch:
    unreadable.see(batch.pop("unreadable"))
    return batch

  return loading.Batches(
    loading.ProcessChunks(
      stream,
      rows=rows,
      chunk_rows=how.chunk_rows,
      process_index=process_index,
      process_count=process_count,
      start_step=start_step,
    ),
    how,
    rows=rows,
    finish=count_unreadable,
  )


class RowTransform(Protocol):
  """Makes an example of an evaluation's batch from one of a source."""

  @property
  def row_bytes(self) -> int:
    """Bytes of the arrays of a row."""

  def map(self, example: dict[str, Any]) -> dict[str, Any]:
    """What a row holds of an example {"image": uint8 [H, W, 3], "label"}."""

  def empty(self) -> dict[str, Any]:
    """A row that fills up a batch, of the shapes and types of all rows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalReader:
  """How an evaluation reads: every example once, in order.

  The last batch of a split is filled up with rows whose mask is False. Such a
  row also stands in for an image that cannot be read.

  Attributes:
    transform: what is done to an example, such as `augment.EvalCrop`.
    batch_size: global.
    num_workers: how many to use at most; -1 is one for each core.
    num_threads: in each worker.
    process_index: of this process, which reads its rows of each batch.
    process_count: how many there are; all read the same number of batches.
  """

  transform: RowTransform
  batch_size: int
  num_workers: int
  num_threads: int
  process_index: int
  process_count: int

  def how(self, *splits: sources.Source) -> loading.Loading:
    """Who reads these splits, one after another."""
    return loading.choose_once(
      num_workers=self.num_workers,
      num_threads=self.num_threads,
      batches=sum(map(self.count_batches, splits)),
      rows=self.batch_size // self.process_count,
      row_bytes=self.transform.row_bytes,
    )

  def describe(self, *splits: sources.Source) -> str:
    """Who reads these splits, in words."""
    how = self.how(*splits)
    text = f"{sum(map(len, splits)):,} images by {how}"
    if self.num_workers and not how.num_workers:
      text += "; workers would take longer to start than these take to read"
    return text

  def count_batches(self, split: sources.Source) -> int:
    """The number of batches of one split."""
    return -(-len(split) // self.batch_size)

  def stream(self, *splits: sources.Source) -> grain.MapDataset:
    """The rows of all processes, a whole number of batches of each split."""
    chunk_rows = self.how(*splits).chunk_rows
    return grain.MapDataset.concatenate(
      [
        grain.MapDataset.source(
          _PaddedExamples(split, self.transform, self.batch_size, chunk_rows)
        )
        for split in splits
      ]
    )

  def read(self, *splits: sources.Source) -> Generator[Batch, None, None]:
    """Yields the batches of each split in turn.

    Workers start with the first batch and end with the last one, or when the
    generator is closed.
    """
    how = self.how(*splits)
    rows = self.batch_size // self.process_count
    batches = loading.Batches(
      loading.ProcessChunks(
        self.stream(*splits),
        rows=rows,
        chunk_rows=how.chunk_rows,
        process_index=self.process_index,
        process_count=self.process_count,
        start_step=0,
      ),
      how,
      rows=rows,
    )
    with contextlib.closing(batches):
      yield from batches


class _PaddedExamples:
  """Evaluation examples, then empty ones up to a whole number of batches."""

  def __init__(
    self,
    source: sources.Source,
    transform: RowTransform,
    batch_size: int,
    chunk_rows: int,
  ) -> None:
    self._source = source
    self._chunk_rows = chunk_rows
    self._transform = transform
    self._length = -(-len(source) // batch_size) * batch_size

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = int(index)
    empty = self._transform.empty()
    none = {**empty, "mask": np.bool_(False), "unreadable": np.int64(-1)}
    if index >= len(self._source):
      return none
    if index % self._chunk_rows == 0:  # the thread goes on to its end
      end = min(index + self._chunk_rows, len(self._source))
      self._source.ahead(range(index, end))
    try:
      example = sources.read_example(self._source, index)
    except UnreadableError:
      return {**none, "unreadable": np.int64(index)}
    made = self._transform.map(example)
    row = {k: np.asarray(made[k], value.dtype) for k, value in empty.items()}
    return {**none, **row, "mask": np.bool_(True)}


# What the views of a row depend on, wherever they are made.
_DIGESTED = ("view1", "view2", "index", "draw", "label")


def batch_digest(batch: Batch, first_row: int) -> int:
  """64-bit digest of a training batch that adds up over processes.

  It covers what the host puts into the batch: finished views, or crops and
  draws, or numbers of images and draws. So equal views have equal digests if
  they are made in the same place.

  Args:
    batch: the rows of one process.
    first_row: position of the first of them in the global batch.

  Returns:
    Sum over rows, modulo 2^64, of a hash of position and content. The sum over
    processes is the digest of the global batch, however that was divided.
  """
  total = 0
  for row in range(len(batch["label"])):
    digest = hashlib.blake2b(
      (first_row + row).to_bytes(8, "little"), digest_size=8
    )
    for name in _DIGESTED:
      if name in batch:
        digest.update(np.ascontiguousarray(batch[name][row]).tobytes())
    total += int.from_bytes(digest.digest(), "little")
  return total % 2**64
