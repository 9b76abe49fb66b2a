"""Opens data sets as random-access sources of encoded bytes or pixels.

Sources hold paths and small arrays, never open files, so that they are cheap to
send to Grain's worker processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import (
  decoding,
  paths,
  retries,
  split_slices,
  staging,
  tfds_order,
)
from input_pipeline.decoding import ImageError, Reduction, image_size
from input_pipeline.digits import DigitsSource
from input_pipeline.errors import UnreadableError, UsageError
from input_pipeline.folders import open_folder
from input_pipeline.known_sets import known_facts
from input_pipeline.parts import ByName
from input_pipeline.parts import Part as Part
from input_pipeline.parts import Source as Source
from input_pipeline.tfds_sources import TfdsSource, open_tfds, shards_of

# Splits of `known_sets.KNOWN` that train is cut into.
_CUT_FROM_TRAIN = ("train_without_valid", "valid")

MAX_TRIES = 32  # images tried for one place, the first and its neighbours


def open_source(
  name: str,
  split: str,
  data_dir: str | None = None,
  began_with: Mapping[str, int] | None = None,
) -> Source:
  """Opens a data set.

  Args:
    name: one of
      `digits`: scikit-learn's 8x8 digits, 1,437 `train` and 360 `test`;
      `folder:PATH`: a folder of images, whose top folders are classes; it may
        have a subfolder for each split, and split `all` is the whole folder;
      `unlabelled:PATH`: the same without labels;
      any other: a TFDS data set prepared as ArrayRecord, `name[/config]`.
    split: name of a split (for the data sets in `known_sets.KNOWN`: `train`,
      `train_without_valid`, `valid`, `test`), or a slice of it written as in
      TFDS: `train[:90%]`, `train[100:200]`, `train[-10%:]`.
    data_dir: TFDS's directory; None: TFDS_DATA_DIR or ~/tensorflow_datasets.
    began_with: files that a run could not read, and their bytes when it began.
      They keep their places and their parts of the fingerprint, even if they
      were mended or removed since. For folders only.

  Raises:
    UsageError: there is no such data set, split or slice, or it is not ready.
    StorageError: for a minute nothing could be read.
  """
  whole, first, last = split_slices.parse(split)
  kind, _, path = name.partition(":")

  def open_whole() -> Source:
    if name == "digits":
      return DigitsSource(whole)
    if kind in paths.FOLDERS:
      labelled = kind == "folder"
      return open_folder(name, path, whole, labelled, began_with)
    return _open_tfds(name, whole, data_dir)

  try:
    source = retries.patiently(open_whole, f"the images of {name}")
  except UnreadableError as error:
    raise UsageError(f"{name} cannot be opened: {error}.") from error
  examples = split_slices.examples(name, split, first, last, len(source))
  return Part(source, split, examples)


def place_of(
  name: str, splits: Sequence[str], data_dir: str | None, stage_dir: str
) -> staging.Place | None:
  """Where the shards of these splits lie, and where their copy shall.

  Arguments and errors are those of `open_source`.

  Returns:
    The place, or None for images that are in no files.

  Raises:
    UsageError: the images are not in shards, or `stage_dir` is a bucket.
  """
  if stage_dir.startswith("gs://"):
    raise UsageError(
      f"loader.stage_dir is {stage_dir}; it should be a local folder, such as "
      "/dev/shm/byol."
    )
  if name == "digits":
    return None
  if name.partition(":")[0] in paths.FOLDERS:
    raise UsageError(
      f"loader.stage_dir is for data sets in ArrayRecord files, and {name} is "
      "a folder of images. Make such files with `byol prepare`, or leave out "
      "loader.stage_dir."
    )
  whole = [split_slices.parse(split)[0] for split in splits]
  try:
    folder, inner, shards = retries.patiently(
      lambda: shards_of(name, whole, data_dir), f"the images of {name}"
    )
  except UnreadableError as error:
    raise UsageError(f"{name} cannot be opened: {error}.") from error
  return staging.Place(folder, inner, shards, stage_dir)


def _open_tfds(name: str, split: str, data_dir: str | None) -> Source:
  """A split of TFDS, or of a set that was prepared for it by `byol prepare`.

  The latter has another order. If it is ImageNet, valid is found by names.
  """
  facts = known_facts(name)
  if _is_imagenet(name) and facts and split in _CUT_FROM_TRAIN:
    train = open_tfds(name, "train", data_dir)
    total, count = facts.splits["train"][1], facts.splits["valid"][1]
    is_last = tfds_order.last(train.folder, total, count)
    if is_last is not None:
      numbers = np.flatnonzero(is_last if split == "valid" else ~is_last)
      return ByName(train, split, numbers)
  return open_tfds(name, split, data_dir)


def _is_imagenet(name: str) -> bool:
  return name.partition(":")[0] == "imagenet2012"


def how_held_out(source: Source) -> str:
  """How `valid` was cut from train, if `source` is one of the two parts.

  It is a sentence, or empty for any other split.
  """
  while isinstance(source, Part) and not isinstance(source, ByName):
    source = source.source
  if isinstance(source, ByName):
    return (
      "valid is what TFDS's order has last, as in the paper (App. C.1); the "
      "names of all images tell it."
    )
  if not isinstance(source, TfdsSource) or source.split not in _CUT_FROM_TRAIN:
    return ""
  imagenet = _is_imagenet(source.name)
  if not source.is_ours:
    return "valid is the end of TFDS's order" + (
      ", as in the paper (App. C.1)."
      if imagenet
      else "; the paper does not say which images it took."
    )
  return "valid is the end of the order of `byol prepare`, a fair sample" + (
    ", but not the paper's, because not all official names are there."
    if imagenet
    else "; the paper does not say which images it took."
  )


def size_of(
  name: str, split: str, data_dir: str | None = None
) -> tuple[int, int]:
  """Number of examples and of classes; needs no data if both are known.

  Arguments and errors are those of `open_source`.
  """
  whole, first, last = split_slices.parse(split)
  facts = known_facts(name)
  if facts and whole in facts.splits:
    total = facts.splits[whole][1]
    return len(
      split_slices.examples(name, split, first, last, total)
    ), facts.num_classes
  source = open_source(name, split, data_dir)
  return len(source), source.num_classes


def shared_examples(one: Source, other: Source) -> int:
  """How many images two splits of `open_source` share, by their positions."""
  (whole, first), (second_whole, second) = _place(one), _place(other)
  if (one.name, whole) != (other.name, second_whole):
    return 0
  return len(np.intersect1d(first, second))


def _place(source: Source) -> tuple[str, np.ndarray]:
  """The split that all examples of `source` lie in, and their numbers there."""
  examples = np.arange(len(source))
  while isinstance(source, Part):
    examples, source = np.asarray(source.examples)[examples], source.source
  facts = known_facts(source.name)
  if not facts or source.split not in facts.splits:
    return source.split, examples
  # Ours may be a part of one of TFDS's, as valid is of train.
  theirs, _ = facts.splits[source.split]
  base, first, _ = split_slices.parse(theirs)
  return base, examples + int(first or 0)


def read_example(
  source: Source,
  i: int,
  delays: Sequence[float] | None = None,
  reduction: Reduction = decoding.whole,
) -> dict[str, Any]:
  """Example `i` of a source with its image decoded, uint8 [H, W, 3].

  It waits for storage that fails for a while. `delays` is as in
  `retries.patiently`, and `reduction` as in `decoding.decode_image`; an image
  that the source gives as pixels is never reduced.

  Raises:
    UnreadableError: the image is at fault: absent, forbidden or damaged.
    StorageError: nothing can be read at all.
  """
  example = _patiently(source, i, delays)
  if not isinstance(example["image"], bytes):
    reduction(*example["image"].shape[:2])
    return example
  try:
    image = decoding.decode_image(example["image"], reduction)
    return {**example, "image": image}
  except ImageError as error:
    raise UnreadableError(str(error)) from error


def _patiently(
  source: Source, i: int, delays: Sequence[float] | None
) -> dict[str, Any]:
  return retries.patiently(
    lambda: source[i], f"the images of {source.name}", delays
  )


def summary(source: Source) -> str:
  """Says "9 images of folder:x (train), 2 classes; ignored 1 file: ..."."""
  text = (
    f"{len(source):,} images of {source.name} ({source.split}), "
    f"{source.num_classes or 'no'} classes"
  )
  return f"{text}; {source.ignored}" if source.ignored else text


class NoneReadableError(UsageError):
  """All images tried for one place are unreadable; `indices` names them."""

  def __init__(self, sentence: str, indices: Sequence[int] = ()) -> None:
    super().__init__(sentence)
    self.indices = indices


class ReadableSource:
  """Decoded examples of a source; neighbours stand in for unreadable ones.

  Example i is {"image": uint8 [H, W, 3], "label": int32, "unreadable": int64}.
  If image i cannot be read or decoded, the next readable example stands in for
  it, and "unreadable" is i; otherwise "unreadable" is -1. So an example depends
  on the files and i alone, whoever reads it and in whatever order.
  """

  def __init__(
    self, source: Source, delays: Sequence[float] | None = None
  ) -> None:
    """Wraps `source` and takes over its attributes; see `read_example`."""
    self._delays = delays
    self.name = source.name
    self.split = source.split
    self.num_classes = source.num_classes
    self.class_names = source.class_names
    self.ignored = source.ignored
    self._source = source

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, i: int) -> dict[str, Any]:
    return self.read(i, decoding.whole)

  def read(self, i: int, reduction: Reduction) -> dict[str, Any]:
    """Reads example `i`, decoded no larger than `reduction` wants it.

    Args:
      i: its number.
      reduction: see `decoding.decode_image`; it is asked again for every
        neighbour that is tried.
    """
    tried = []
    for step in range(min(MAX_TRIES, len(self))):
      # The first step must not wrap around: an i out of range is an IndexError.
      index = (i + step) % len(self) if step else i
      try:
        example = read_example(self._source, index, self._delays, reduction)
      except UnreadableError as error:
        tried.append((index, f"{self.example_name(index)} ({error})"))
        continue
      return {
        "image": example["image"],
        "label": example["label"],
        "unreadable": np.int64(i if step else -1),
      }
    raise NoneReadableError(
      f"Of {len(tried)} neighbouring images of {self.name} not one is "
      "readable. Restore them and give the command again. They are: "
      + ", ".join(sentence for _, sentence in tried),
      indices=[index for index, _ in tried],
    )

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Says so of the source."""
    self._source.ahead(numbers)

  def readable(self, i: int) -> bool:
    """Whether image `i` itself can be read and decoded."""
    try:
      read_example(self._source, i, self._delays)
    except UnreadableError:
      return False
    return True

  def size_of(self, i: int) -> tuple[int, int]:
    """Height and width of image `i` by its headers; (0, 0) if unreadable.

    In the decoded example an EXIF orientation may exchange the two.
    """
    try:
      image = _patiently(self._source, i, self._delays)["image"]
      return image_size(image) if isinstance(image, bytes) else image.shape[:2]
    except (ImageError, UnreadableError):
      return 0, 0

  @property
  def fingerprint(self) -> str:
    """The source's."""
    return self._source.fingerprint

  def example_name(self, i: int) -> str:
    """The source's name of the example."""
    return self._source.example_name(i)

  def file_name(self, i: int) -> str:
    """The source's name of the file."""
    return self._source.file_name(i)

  def file_of(self, i: int) -> tuple[str, int] | None:
    """The source's file of the example."""
    return self._source.file_of(i)

  def unlabelled(self) -> np.ndarray:
    """The source's."""
    return self._source.unlabelled()
