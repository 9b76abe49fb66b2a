"""Boxes and depth of TFDS's sets, as its `voc` and `nyu_depth_v2` have them.

Nothing here downloads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import (
  decoding,
  faults,
  tfds_metadata,
  tfds_sources,
  voc_annotations,
)
from input_pipeline.decoding import ImageError
from input_pipeline.errors import UnreadableError, UsageError
from input_pipeline.faults import Found, Kind
from input_pipeline.nyu import HEIGHT, WIDTH
from input_pipeline.tfds_sources import TfdsSource

_OBJECTS, _DEPTH = "objects", "depth"


class TfdsDense:
  """A TFDS split whose labels a subclass reads; see `parts.Source`."""

  most_boxes = 0

  def __init__(
    self,
    source: TfdsSource,
    class_names: Sequence[str],
    records: Sequence[int] | np.ndarray,
    sizes: np.ndarray,
    found: Found,
  ) -> None:
    """Takes the numbers of the N records that are kept.

    `sizes` is int32 [N, 2], their heights and widths.
    """
    self.name = source.name
    self.split = source.split
    self.num_classes = len(class_names)
    self.class_names = tuple(class_names)
    self.ignored = str(found)
    self.faults: Mapping[str, Sequence[str]] = found.by_kind()
    self.fingerprint = source.fingerprint
    self.sizes = sizes
    self._source = source
    self._records = np.asarray(records)

  def label_of(self, i: int, record: Mapping[str, Any]) -> np.ndarray:
    """What the task predicts for example `i`."""
    raise NotImplementedError

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, i: int) -> dict[str, Any]:
    record = self._source.record(int(self._records[i]))
    image = record["image"]
    if image is None:  # the shard was cut while it was open
      raise OSError(f"{self.example_name(i)} is empty")
    return {"image": image, "label": self.label_of(i, record)}

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Says so of the source."""
    self._source.ahead(self._records[np.asarray(numbers)])

  def example_name(self, i: int) -> str:
    """The place of record `i` in the data set."""
    return self._source.example_name(int(self._records[i]))

  def file_name(self, i: int) -> str:
    """The example's name; TFDS's `voc` has the file's."""
    name = self._source.record(int(self._records[i])).get("image/filename")
    if name is None:
      return self.example_name(i)
    return name.decode() if isinstance(name, bytes) else name

  def file_of(self, i: int) -> None:
    """None, because a file holds many examples."""

  def unlabelled(self) -> np.ndarray:
    """None."""
    return np.arange(0)


class TfdsBoxes(TfdsDense):
  """Images with boxes; "label" is float32 [M, 6] as in `BoxFiles`."""

  def label_of(self, i: int, record: Mapping[str, Any]) -> np.ndarray:
    """The boxes of image `i` within it."""
    return boxes_of(record, tuple(self.sizes[i]))[0]


class TfdsDepth(TfdsDense):
  """Frames with their depth; "label" is float32 [480, 640] in metres."""

  def label_of(self, i: int, record: Mapping[str, Any]) -> np.ndarray:
    """The depth of frame `i`, which TFDS keeps as float16."""
    depth = np.asarray(record[_DEPTH], np.float32)
    if depth.shape != (HEIGHT, WIDTH):
      raise UnreadableError(f"its depth has the shape {list(depth.shape)}")
    valid = np.isfinite(depth) & (depth > 0)
    return np.where(valid, depth, np.float32(0))


def boxes_of(
  record: Mapping[str, Any], size: tuple[int, int]
) -> tuple[np.ndarray, list[Kind]]:
  """The boxes of a record whose image has a height and a width.

  TFDS divides VOC's edges (y_min, x_min, y_max, x_max) by the sides and leaves
  out that they count from one. So what is multiplied here is one pixel off in
  its first two, which is undone as in `voc_annotations`.

  Returns:
    float32 [M, 6] and a kind for each fault.
  """
  height, width = size
  objects = record[_OBJECTS]
  rows, kinds = [], []
  for (top, left, bottom, right), label, difficult in zip(
    np.asarray(objects["bbox"], float).reshape(-1, 4),
    objects["label"],
    objects["is_difficult"],
    strict=True,
  ):
    if right <= left or bottom <= top:
      kinds.append(Kind.BOX_WITHOUT_AREA)
      continue
    # Float32 shares of a side tell whole pixels, which all of VOC's edges are
    # but a few, to within a thousandth.
    edges = np.round(
      [left * width - 1, top * height - 1, right * width, bottom * height], 3
    )
    kept, found = voc_annotations.clipped(
      (edges[0], edges[1], edges[2], edges[3]), size
    )
    kinds += found
    if kept is not None:
      rows.append((*kept, label, bool(difficult)))
      kinds += [Kind.DIFFICULT] * bool(difficult)
  if not rows:
    kinds.append(Kind.NO_OBJECTS)
  return np.array(rows, np.float32).reshape(-1, 6), kinds


def open_tfds_boxes(name: str, split: str, data_dir: str | None) -> TfdsBoxes:
  """A split of a TFDS set with the features of its `voc`.

  Arguments and errors are those of `tfds_sources.open_tfds`; it is a UsageError
  too if the set has no boxes. Every record is read once.
  """
  source = tfds_sources.open_tfds(name, split, data_dir)
  features = tfds_metadata.features_of(source.folder)
  if _OBJECTS not in features:
    raise _lacks(name, "boxes (a feature objects, as voc has)", features)

  def check(i: int) -> tuple[tuple[int, ...] | None, list[Kind]]:
    record = source.record(i)
    try:
      size = decoding.image_size(record["image"])
    except ImageError:
      return None, [Kind.IMAGE_DAMAGED]
    boxes, kinds = boxes_of(record, size)
    return (i, len(boxes), *size), kinds

  kept, found = faults.look_through(
    range(len(source)), check, source.example_name
  )
  if not kept:
    raise UsageError(f"No image of {name} ({split}) can be read: {found}.")
  records, counts, height, width = np.array(kept, np.int32).T
  names = features[_OBJECTS]["label"].names
  sizes = np.stack([height, width], axis=1)
  boxes = TfdsBoxes(source, names, records, sizes, found)
  boxes.most_boxes = int(counts.max())
  return boxes


def open_tfds_depth(name: str, split: str, data_dir: str | None) -> TfdsDepth:
  """A split of a TFDS set with the features of its `nyu_depth_v2`.

  Arguments and errors are those of `tfds_sources.open_tfds`; it is a UsageError
  too if the set has no depth of 480 × 640 pixels.
  """
  source = tfds_sources.open_tfds(name, split, data_dir)
  features = tfds_metadata.features_of(source.folder)
  if _DEPTH not in features or tuple(features[_DEPTH].shape) != (HEIGHT, WIDTH):
    raise _lacks(name, f"depth of {HEIGHT} × {WIDTH} pixels", features)
  sizes = np.full((len(source), 2), (HEIGHT, WIDTH), np.int32)
  return TfdsDepth(source, (), range(len(source)), sizes, Found())


def _lacks(name: str, what: str, features: Mapping[str, Any]) -> UsageError:
  return UsageError(
    f"{name} should have {what}, but its features are "
    f"{', '.join(sorted(features))}. Name another data set."
  )
