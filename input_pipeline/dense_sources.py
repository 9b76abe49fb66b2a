"""Opens data sets for dense tasks: boxes, a class for each pixel, or depth.

Sources are those of `parts.Source`. "label" is what the task predicts: boxes
float32 [M, 6], classes uint8 [H, W], or depth float32 [H, W].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import numpy as np

from input_pipeline import (
  depth_folders,
  nyu,
  parts,
  paths,
  retries,
  split_slices,
  subsets,
  tfds_dense,
  voc,
  voc_masks,
)
from input_pipeline.errors import UnreadableError, UsageError

_KINDS = {
  "voc": "voc:PATH, a folder laid out as VOC's development kit",
  "nyu": "nyu:PATH, a folder with NYU's labelled .mat and splits.mat",
  "depth": "depth:PATH, a folder of frames with NAME.depth.png beside each",
}

_NONE: Mapping[str, int] = {}
_TRAINVAL = "trainval"  # VOC's own name, which TFDS does not have


class DenseSource(parts.Source, Protocol):
  """A `parts.Source` that also tells sizes and faults.

  Attributes:
    sizes: int32 [N, 2], height and width of each upright image.
    faults: kind of fault in words -> names of the examples of the whole split
      that have it, one name for each time.
    most_boxes: the most that an image of the whole split has; 0 for masks and
      depth.
  """

  most_boxes: int
  sizes: np.ndarray
  faults: Mapping[str, Sequence[str]]


class DensePart(parts.Part):
  """A part of a `DenseSource`, which is such a source itself.

  `faults` and `ignored` are those of the whole split.
  """

  def __init__(
    self,
    source: DenseSource,
    split: str,
    examples: Sequence[int] | np.ndarray,
  ) -> None:
    """Takes what `parts.Part` takes."""
    super().__init__(source, split, examples)
    self.faults = source.faults
    self.most_boxes = source.most_boxes
    self.sizes = source.sizes[np.asarray(examples)]


class DenseJoined(subsets.Joined):
  """Two splits of a data set, one after the other, as a `DenseSource`."""

  def __init__(self, first: DenseSource, second: DenseSource) -> None:
    """Takes both."""
    super().__init__(first, second)
    texts = (f"{x.split}: {x.ignored}" for x in (first, second) if x.ignored)
    self.ignored = "; ".join(texts)
    self.most_boxes = max(first.most_boxes, second.most_boxes)
    self.sizes = np.concatenate([first.sizes, second.sizes])
    self.faults: Mapping[str, Sequence[str]] = {
      kind: (*first.faults.get(kind, ()), *second.faults.get(kind, ()))
      for kind in {**first.faults, **second.faults}
    }


def open_boxes(
  name: str,
  split: str,
  data_dir: str | None = None,
  classes_file: str = "",
  began_with: Mapping[str, int] = _NONE,
) -> DensePart:
  """Opens a data set with boxes.

  Args:
    name: `voc:PATH`, or a TFDS set with the features of `voc`.
    split: a list in `ImageSets/Main`, or one of TFDS's splits, where
      `trainval` is train and validation together; or a slice, as in
      `sources.open_source`.
    data_dir: TFDS's directory; None: TFDS_DATA_DIR or ~/tensorflow_datasets.
    classes_file: see `voc.open_boxes`; only for `voc:PATH`.
    began_with: image files that a training could not read, and their bytes when
      it began. Their parts of the fingerprint stay, even if they were mended
      since; one that was removed leaves no gap, as its size is not known.

  Raises:
    UsageError: there is no such data set, split or slice, or none is usable.
    StorageError: for a minute nothing could be read.
  """
  kind, path = _kind_of(name, ["voc"], "boxes")

  def open_whole(whole: str) -> DenseSource:
    if kind == "voc":
      return voc.open_boxes(name, path, whole, classes_file, began_with)
    _no_file(name, classes_file)
    if whole != _TRAINVAL:
      return tfds_dense.open_tfds_boxes(name, whole, data_dir)
    train, valid = (
      tfds_dense.open_tfds_boxes(name, part, data_dir)
      for part in ("train", "validation")
    )
    return DenseJoined(train, valid)

  return _part(name, split, open_whole)


def open_classes(
  name: str,
  split: str,
  data_dir: str | None = None,
  classes_file: str = "",
  began_with: Mapping[str, int] = _NONE,
) -> DensePart:
  """Opens a data set with a class for each pixel.

  Args:
    name: `voc:PATH`.
    split: a list in `ImageSets/Segmentation`, `train_aug` (train with SBD's
      masks), or a slice.
    data_dir: not used, because TFDS has no such set.
    classes_file: see `voc_masks.open_masks`.
    began_with: see `open_boxes`.

  Raises:
    UsageError: as in `open_boxes`.
    StorageError: for a minute nothing could be read.
  """
  del data_dir
  kind, path = _kind_of(name, ["voc"], "masks")
  if kind != "voc":
    raise UsageError(
      f"A data set with masks should be {_KINDS['voc']}, but {name!r} came. "
      "TFDS's sets, such as voc, have no masks here."
    )
  return _part(
    name,
    split,
    lambda whole: voc_masks.open_masks(
      name, path, whole, classes_file, began_with
    ),
  )


def open_depth(
  name: str,
  split: str,
  data_dir: str | None = None,
  began_with: Mapping[str, int] = _NONE,
) -> DensePart:
  """Opens a data set with depth.

  Args:
    name: `nyu:PATH`, `depth:PATH`, or a TFDS set with the features of
      `nyu_depth_v2`.
    split: `train` or `test` of NYU, a folder in PATH, one of TFDS's splits, or
      a slice.
    data_dir: TFDS's directory; None: TFDS_DATA_DIR or ~/tensorflow_datasets.
    began_with: see `open_boxes`.

  Raises:
    UsageError: as in `open_boxes`.
    StorageError: for a minute nothing could be read.
  """
  kind, path = _kind_of(name, ["nyu", "depth"], "depth")

  def open_whole(whole: str) -> DenseSource:
    if kind == "nyu":
      return nyu.open_nyu(name, path, whole)
    if kind == "depth":
      return depth_folders.open_depth_folder(name, path, whole, began_with)
    return tfds_dense.open_tfds_depth(name, whole, data_dir)

  return _part(name, split, open_whole)


def _kind_of(name: str, known: Sequence[str], what: str) -> tuple[str, str]:
  """The kind of folder and its path; two empty texts for a set of TFDS."""
  kind, colon, path = name.partition(":")
  if not colon or not paths.has_path(kind, path):
    return "", ""
  if kind in known:
    return kind, path
  raise UsageError(
    f"A data set with {what} should be "
    f"{' or '.join(_KINDS[kind] for kind in known)}, or the name of a set of "
    f"TFDS, but {name!r} came."
  )


def _part(
  name: str, split: str, open_whole: Callable[[str], DenseSource]
) -> DensePart:
  whole, first, last = split_slices.parse(split)
  try:
    source = retries.patiently(
      lambda: open_whole(whole), f"the images of {name}"
    )
  except UnreadableError as error:
    raise UsageError(f"{name} cannot be opened: {error}.") from error
  examples = split_slices.examples(name, split, first, last, len(source))
  return DensePart(source, split, examples)


def _no_file(name: str, classes_file: str) -> None:
  if classes_file:
    raise UsageError(
      f"A file of classes, {classes_file}, came for {name}, whose classes TFDS "
      "tells. Leave classes_file empty."
    )


def shared_files(one: DensePart, other: DensePart) -> list[str]:
  """The images, by their names, that are in two splits of one data set.

  They may come from different lists of one folder.
  """
  known = {one.example_name(i) for i in range(len(one))}
  return [
    name
    for name in (other.example_name(i) for i in range(len(other)))
    if name in known
  ]


def old_fingerprint(source: parts.Source) -> str:
  """What older versions recorded as the fingerprint of any source."""
  old: str = getattr(_whole(source), "old_fingerprint", source.fingerprint)
  return old


def is_dense(source: parts.Source) -> bool:
  """Whether a source is a `DenseSource` or a part of one."""
  return hasattr(_whole(source), "sizes")


def _whole(source: parts.Source) -> parts.Source:
  """What a source is a part of, or the source itself."""
  while isinstance(source, parts.Part):
    source = source.source
  return source


def sizes_of(source: parts.Source) -> np.ndarray:
  """Height and width of each upright image, int32 [N, 2].

  Args:
    source: a `DenseSource`, or any `parts.Part` of one.
  """
  if isinstance(source, parts.Part) and not isinstance(source, DensePart):
    return sizes_of(source.source)[np.asarray(source.examples)]
  return cast(DenseSource, source).sizes
