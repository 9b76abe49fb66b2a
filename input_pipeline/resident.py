"""A whole data set as one array, to lie in the memory of the devices."""

import concurrent.futures
import dataclasses
from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from input_pipeline import augment, loading, sources


@dataclasses.dataclass(frozen=True)
class Resident:
  """All images of a source.

  Portraits are stored transposed, so that the padding is that of the longest
  side and not of both.

  Attributes:
    images: uint8 [N, H, W, 3], each in the upper left corner, zero elsewhere.
    turned: bool [N], whether an image is stored transposed.
    sizes: int32 [N, 2], height and width as they were.
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

  def __getitem__(self, i: int) -> dict[str, Any]:
    """What the host needs of example `i`: all but the pixels."""
    return {
      "index": np.int32(i),
      "turned": self.turned[i],
      "height": int(self.sizes[i, 0]),
      "width": int(self.sizes[i, 1]),
      "label": self.label[i],
      "unreadable": self.unreadable[i],
    }


def load(
  source: sources.ReadableSource,
  check: Callable[[tuple[int, ...]], None] = lambda shape: None,
) -> Resident:
  """Reads and decodes all of `source`, on all cores.

  `check` gets the shape of `images` before there is memory for them.
  """
  with concurrent.futures.ThreadPoolExecutor(
    loading.available_cores()
  ) as threads:
    examples = list(threads.map(source.__getitem__, range(len(source))))
  sizes = np.array([example["image"].shape[:2] for example in examples])
  turned = sizes[:, 0] > sizes[:, 1]
  if len(np.unique(sizes, axis=0)) == 1:
    turned[:] = False
  stored = np.where(turned[:, None], sizes[:, ::-1], sizes)
  shape = (len(examples), *map(int, stored.max(axis=0)), 3)
  check(shape)
  images = np.zeros(shape, np.uint8)
  for slot, example, turn in zip(images, examples, turned, strict=True):
    image = example["image"]
    image = image.swapaxes(0, 1) if turn else image
    slot[: image.shape[0], : image.shape[1]] = image
  return Resident(
    images=images,
    turned=turned,
    sizes=sizes.astype(np.int32),
    label=np.array([example["label"] for example in examples], np.int32),
    unreadable=np.array([example["unreadable"] for example in examples]),
  )


def draw_stream(
  resident: Resident, transform: augment.TwoDraws, seed: int
) -> grain.MapDataset:
  """`pipeline.view_stream` without pixels: the same examples and draws."""
  dataset = grain.MapDataset.source(_WithoutImages(resident))
  stream = dataset.shuffle(seed=seed).repeat(None)
  return stream.random_map(transform, seed=seed + 1)


class _WithoutImages:
  """What travels to the workers of a resident data set."""

  def __init__(self, resident: Resident) -> None:
    none = np.zeros((0, 0, 0, 3), np.uint8)
    self._rest = dataclasses.replace(resident, images=none)

  def __len__(self) -> int:
    return len(self._rest)

  def __getitem__(self, i: int) -> dict[str, Any]:
    return self._rest[i]
