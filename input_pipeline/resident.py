"""Loads a whole data set as one array, for the memory of the devices."""

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np

from input_pipeline import augment, chunk_draws, in_order, loading, sources


@dataclasses.dataclass(frozen=True)
class Resident:
  """All images of a source.

  An image that does not fit upright is stored transposed, so that portraits
  among landscapes do not add to the padding.

  Attributes:
    images: uint8 [N, H, W, 3], each in the upper left corner, zero elsewhere.
    turned: bool [N], whether an image is stored transposed.
    sizes: int32 [N, 2], height and width before transposing.
    label: int32 [N].
    unreadable: int64 [N], see `sources.ReadableSource`.
  """

  images: np.ndarray
  turned: np.ndarray
  sizes: np.ndarray
  label: np.ndarray
  unreadable: np.ndarray

  def __len__(self) -> int:
    return len(self.label)


def load(
  source: sources.ReadableSource,
  check: Callable[[tuple[int, ...]], None] = lambda shape: None,
) -> Resident:
  """Decodes all of `source`, on all cores, into one array.

  `check` is that of `shape_of`.
  """
  images = np.zeros(shape_of(source, check), np.uint8)
  height, width = images.shape[1:3]

  def put(i: int) -> tuple[bool, tuple[int, int], int, int]:
    example = source[i]
    image = example["image"]
    turned = image.shape[0] > height or image.shape[1] > width
    stored = image.swapaxes(0, 1) if turned else image
    images[i, : stored.shape[0], : stored.shape[1]] = stored
    return turned, image.shape[:2], example["label"], example["unreadable"]

  rest = zip(*in_order.of_every(source, put), strict=True)
  turned, sizes, label, unreadable = map(np.array, rest)
  return Resident(
    images=images,
    turned=turned,
    sizes=sizes.astype(np.int32),
    label=label.astype(np.int32),
    unreadable=unreadable,
  )


def shape_of(
  source: sources.ReadableSource,
  check: Callable[[tuple[int, ...]], None] = lambda shape: None,
) -> tuple[int, ...]:
  """Shape of `Resident.images`, [N, H, W, 3]; nothing is decoded.

  `check` is given the shape needed so far whenever that grows, so that it can
  raise as early as the images allow.
  """
  shape: tuple[int, ...] = (len(source), 0, 0, 3)
  upright, sorted_sides = np.zeros(2, int), np.zeros(2, int)
  with contextlib.closing(in_order.of_every(source, source.size_of)) as sizes:
    for size in sizes:
      upright = np.maximum(upright, size)
      sorted_sides = np.maximum(sorted_sides, sorted(size))
      # If both shapes take equal memory, the upright one transposes no image.
      turns = upright.prod() > sorted_sides.prod()
      needed = sorted_sides if turns else upright
      grown = (len(source), int(needed[0]), int(needed[1]), 3)
      if grown != shape:
        shape = grown
        check(shape)
  return shape


class DrawStream(loading.RowStream):
  """`pipeline.view_stream` without pixels: the same examples and draws.

  A row is all that the host tells the devices about an example: "index" and
  "label" int32, "turned" bool, "unreadable" int64, and "draw", float32 [2,
  DRAW_SIZE] (`augment.pack`).
  """

  def __init__(
    self, resident: Resident, transform: augment.TwoDraws, seed: int
  ) -> None:
    """Takes all of `resident` but its images.

    Raises:
      RunError: this version of Grain orders or draws in another way.
    """
    super().__init__()
    self._seed = seed
    self._key = chunk_draws.generator_key(seed + 1)
    self._views = np.stack(
      [
        chunk_draws.settings(view)
        for view in (transform.view1, transform.view2)
      ]
    )
    self._sizes = resident.sizes
    self._known = {
      name: getattr(resident, name)
      for name in ("turned", "label", "unreadable")
    }
    chunk_draws.check_grain(seed, seed + 1)

  def rows(self, first: int, count: int) -> loading.Batch:
    """See `loading.RowStream.rows`."""
    index = self.order(first, count)
    return {
      "index": index.astype(np.int32),
      **{name: part[index] for name, part in self._known.items()},
      "draw": self.draw(first, self._sizes[index]),
    }

  def order(self, first: int, count: int) -> np.ndarray:
    """The images at positions first, first + 1, ...: int64 [count]."""
    length = len(self._sizes)
    return chunk_draws.order(first, count, length=length, seed=self._seed)

  def draw(self, first: int, sizes: np.ndarray) -> np.ndarray:
    """Draws for images of `sizes` [n, 2] at these positions; see "draw"."""
    return chunk_draws.draw(first, sizes, self._key, self._views)
