"""Batches of images with boxes on canvases of a few sizes.

A compiled program has one shape, so images lie on canvases. Landscape images
would leave most of a square canvas empty, and so would small ones on a canvas
for large ones. So all images of a batch have one orientation and one short
edge, and short edges are grouped: each group (a bucket) has one landscape and
one portrait canvas. An update then has one of twice as many shapes as there are
buckets.

Data position: what example i is follows from the seed and i alone, for any
number of processes, workers and restarts. It belongs to batch i // batch_size.
The batch's orientation comes from a fixed cycle, in which landscape and
portrait have their shares of the images; its short edge is drawn by the seed
and the batch. Examples of one orientation come each once an epoch, in an order
that is shuffled anew, and which of them is next follows from how many batches
of that orientation came before.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from input_pipeline import dense_sources, sources
from input_pipeline.canvases import rounded_up
from input_pipeline.dense_boxes import Canvas, TrainBoxes
from input_pipeline.dense_sources import DensePart

_LANDSCAPE, _PORTRAIT, _DRAWS, _EDGES = range(4)  # stages, each with a seed


def canvas_of(
  short_edge: int, most: int, longest_edge: int, portrait: bool
) -> Canvas:
  """The canvas of a bucket whose largest short edge is `short_edge`.

  `longest_edge` belongs to the largest short edge of all, `most`. A smaller
  bucket keeps that proportion, so an image that is longer than it, 5 : 3 for
  1333 and 800, is scaled by less than its short edge asks for, in each bucket.
  """
  longest = max(short_edge, round(longest_edge * short_edge / most))
  short, long = rounded_up(short_edge), rounded_up(longest)
  if portrait:
    return Canvas(height=long, width=short, longest=longest)
  return Canvas(height=short, width=long, longest=longest)


def grouped(short_edges: Sequence[int], count: int) -> list[list[int]]:
  """Divides short edges into at most `count` groups of neighbours."""
  edges = np.unique(short_edges)
  groups = np.array_split(edges, min(count, len(edges)))
  return [group.tolist() for group in groups]


def is_portrait(sizes: np.ndarray) -> np.ndarray:
  """Which of int [N, 2] heights and widths are higher than wide, bool [N]."""
  return sizes[:, 0] > sizes[:, 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucketed:
  """The training stream of a detector; see above.

  Attributes:
    batch_size: images of a batch, on all processes together.
    seed: of orders and draws.
    short_edges: drawn from uniformly, one for each batch.
    longest_edge: see `canvas_of`.
    buckets: how many pairs of canvases, at most.
    transform: what is done to an example.
  """

  batch_size: int
  seed: int
  short_edges: Sequence[int]
  longest_edge: int
  buckets: int
  transform: TrainBoxes

  def canvas(self, short_edge: int, portrait: bool) -> Canvas:
    """The canvas of a batch."""
    groups = grouped(self.short_edges, self.buckets)
    largest = next(max(group) for group in groups if short_edge in group)
    most = max(self.short_edges)
    return canvas_of(largest, most, self.longest_edge, portrait)

  def canvases(self, sizes: np.ndarray) -> list[Canvas]:
    """All canvases that batches of images with these sizes may have.

    `sizes` is int [N, 2], heights and widths.
    """
    return [
      self.canvas(max(group), bool(portrait))
      for group in grouped(self.short_edges, self.buckets)
      for portrait in np.unique(is_portrait(sizes))
    ]

  @property
  def row_bytes(self) -> int:
    """Bytes of the arrays of a row on the largest canvas."""
    return self.transform.row_bytes(self.canvas(max(self.short_edges), False))

  def seed_of(self, stage: int) -> int:
    """A seed for a stage, in 32 bits, that no other stage or seed shares."""
    return int(np.random.SeedSequence([self.seed, stage]).generate_state(1)[0])

  def stream(
    self, source: sources.ReadableSource, sizes: np.ndarray
  ) -> grain.MapDataset:
    """The endless stream of examples as `TrainBoxes` makes them.

    Args:
      source: images with boxes.
      sizes: int [N, 2], height and width of each upright image of it.
    """
    examples = _Examples(source, is_portrait(sizes), self)
    return examples.random_map(self.transform, seed=self.seed_of(_DRAWS))

  def short_edge(self, batch: int) -> int:
    """The short edge of a batch."""
    rng = np.random.default_rng([self.seed, _EDGES, batch])
    return self.short_edges[int(rng.integers(len(self.short_edges)))]


class _Examples(grain.MapDataset):
  """Examples with "short_edge" and "canvas", before they are transformed."""

  def __init__(
    self,
    source: sources.ReadableSource,
    portrait: np.ndarray,
    how: Bucketed,
  ) -> None:
    """Takes bool [N]: whether each image of the source is a portrait."""
    self._counts = int((~portrait).sum()), int(portrait.sum())
    # A dataset must not be empty, and one that is never asked need not be apt.
    super().__init__(
      [
        grain.MapDataset.range(max(count, 1))
        .shuffle(seed=how.seed_of(stage))
        .repeat(None)
        for count, stage in zip(
          self._counts, (_LANDSCAPE, _PORTRAIT), strict=True
        )
      ]
    )
    self._numbers = np.flatnonzero(~portrait), np.flatnonzero(portrait)
    self._source = source
    self._how = how

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    how = self._how
    batch, row = divmod(index, how.batch_size)
    portrait, before = orientation(batch, *self._counts)
    position = before * how.batch_size + row
    number = self._numbers[portrait][self._parents[portrait][position]]
    short_edge = how.short_edge(batch)
    return {
      **self._source[int(number)],
      "short_edge": short_edge,
      "canvas": how.canvas(short_edge, bool(portrait)),
    }


def orientation(batch: int, landscape: int, portrait: int) -> tuple[int, int]:
  """The orientation of a batch, and how many of the same came before.

  Args:
    batch: its number.
    landscape: how many images are.
    portrait: how many images are.

  Returns:
    1 for portrait and 0 for landscape, and the number of batches before this
    one that have the same. After any number of batches each orientation has had
    its share of them to within one.
  """
  total = landscape + portrait
  before = batch * portrait // total
  if (batch + 1) * portrait // total > before:
    return 1, before
  return 0, batch - before


def evaluated(
  source: DensePart, short_edge: int, longest_edge: int
) -> list[tuple[DensePart, Canvas]]:
  """The images of an evaluation in an order in which few canvases are needed.

  Args:
    source: images with boxes.
    short_edge: of all images, where the long edge allows it.
    longest_edge: the most that a long edge may have.

  Returns:
    The landscape images and the portrait ones, each with its canvas, if there
    are such.
  """
  portrait = is_portrait(dense_sources.sizes_of(source))
  return [
    (
      DensePart(source, source.split, np.flatnonzero(portrait == side)),
      canvas_of(short_edge, short_edge, longest_edge, side),
    )
    for side in (False, True)
    if (portrait == side).any()
  ]
