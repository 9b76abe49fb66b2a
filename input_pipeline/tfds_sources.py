"""TFDS data sets in ArrayRecord files as random-access sources.

`tensorflow_datasets` is imported on first use, because that takes a second.
Nothing here downloads.
"""

import difflib
import functools
import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import known_sets, open_files, read_ahead, tfds_metadata
from input_pipeline.errors import UsageError

_SAMPLE = 8  # records that tell whether a split's labels were published

# data_set[/config][:version]. This is stricter than TFDS, which asks the
# network for names with a namespace ("huggingface:mnist").
_NAME = re.compile(r"(\w+)((?:/[\w.+-]+)?)((?::[\d.*]+)?)")


# Features of VOC: the classes of all objects in an image, and of those that are
# not difficult.
_ALL, _NOT_DIFFICULT = "labels", "labels_no_difficult"


# Feature of ImageNet and its subsets, and of what `byol prepare` writes.
_FILE_NAME = "file_name"


class TfdsSource:
  """One split of a TFDS data set; see `sources.Source`.

  Images are the encoded bytes of the record. Each process opens the files
  itself, on first use.
  """

  ignored = ""

  def __init__(
    self,
    name: str,
    split: str,
    records: read_ahead.ReadAhead,
    image_key: str,
    label_key: str | None,
    class_names: Sequence[str],
    fingerprint: str,
    folder: str,
    several: int,
  ) -> None:
    """Takes `records` as TFDS decodes them, and the keys to read in each.

    `folder` is DATA_DIR/NAME/VERSION.
    `several` is the number of classes of which an image may have several, as in
    VOC, and 0 for other data sets. Then there are no `class_names`.
    """
    self.fingerprint = fingerprint
    self.folder = folder
    self.name = name
    self.split = split
    self.num_classes = len(class_names)
    self.class_names = tuple(class_names)
    self._records = records
    self._image_key = image_key
    self._label_key = label_key
    self._several = several

  def __len__(self) -> int:
    return len(self._records)

  @property
  def is_ours(self) -> bool:
    """Whether `byol prepare` wrote it, whose order is not TFDS's."""
    return tfds_metadata.facts_of(self.folder, "train") is not None

  def __getitem__(self, i: int) -> dict[str, Any]:
    record = self._records[i]
    image = record[self._image_key]
    label = -1 if self._label_key is None else record[self._label_key]
    if image is None or label is None:  # the shard was cut while it was open
      raise OSError(f"{self.example_name(i)} is empty")
    if not -1 <= label < self.num_classes:
      raise UsageError(
        f"Labels of {self.name} should be -1 (none) or from 0 to "
        f"{self.num_classes - 1}, but {self.example_name(i)} has {label}. Was "
        "the data set prepared with other classes?"
      )
    if not self._several:
      return {"image": image, "label": np.int32(label)}
    # A class whose objects are all difficult does not count: it may be found
    # and need not be (VOC2007).
    classes = np.zeros(self._several, np.int8)
    classes[record[_ALL]] = -1
    classes[record[_NOT_DIFFICULT]] = 1
    return {"image": image, "label": np.int32(label), "classes": classes}

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """See `read_ahead.ReadAhead`."""
    self._records.ahead(numbers)

  def record(self, i: int) -> Mapping[str, Any]:
    """All of example `i` as TFDS decodes it, but images as their bytes."""
    return self._records[i]

  def example_name(self, i: int) -> str:
    """The place of record `i` in the data set."""
    return f"{self.name} {self.split} record {i}"

  def file_name(self, i: int) -> str:
    """What the record says, as ImageNet's do and those of `byol prepare`."""
    name = self._records[i].get(_FILE_NAME)
    if name is None:
      return self.example_name(i)
    return os.path.basename(name.decode() if isinstance(name, bytes) else name)

  def file_of(self, i: int) -> None:
    """None, because a file holds many examples."""

  def unlabelled(self) -> np.ndarray:
    """All examples if the set has no classes, or a sample has no labels.

    Otherwise none.
    """
    sample = np.unique(np.linspace(0, len(self) - 1, _SAMPLE).astype(int))
    labelled = self._label_key is not None and any(
      self._records[i][self._label_key] != -1 for i in sample
    )
    return np.arange(0 if labelled else len(self))


def open_tfds(name: str, split: str, data_dir: str | None) -> TfdsSource:
  """Opens one split of a prepared data set.

  Args:
    name: `data_set[/config][:version]`. Without a version the newest on disk.
    split: our name, where `known_sets.KNOWN` lists the data set; otherwise
      TFDS's name.
    data_dir: TFDS's directory; None: TFDS_DATA_DIR or ~/tensorflow_datasets.

  Raises:
    UsageError: the data set is unknown, not prepared as ArrayRecord, lacks the
      split, or has not one image per example.
  """
  import tensorflow_datasets as tfds

  builder = _prepared_builder(name, data_dir)
  features = builder.info.features
  image_key = _feature(name, features, tfds.features.Image, "image")
  label_key = _feature(name, features, tfds.features.ClassLabel, "label")
  if image_key is None:
    raise UsageError(
      f"{name} should have an image per example, but its features are "
      f"{', '.join(sorted(features))}."
    )
  names = _split_names(builder)
  if split not in names:
    raise _no_split(name, split, names)
  try:
    records = builder.as_data_source(
      split=names[split],
      decoders={
        key: tfds.decode.SkipDecoding()  # `decode_image` decodes one of them
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
      },
      file_format="array_record",
    )
  except ValueError as error:  # Fewer images than the split's slice asks for.
    raise UsageError(
      f"Split {split!r} of {name} is {names[split]!r} of TFDS, which "
      f"{builder.data_dir} does not hold: {_one_line(error)}"
    ) from error
  whole = builder.info.splits[_whole(names[split])]
  open_files.make_room(whole.num_shards, f"The shards of {name}")
  class_names = features[label_key].names if label_key else ()
  return TfdsSource(
    name,
    split,
    read_ahead.ReadAhead(
      records,
      [
        read_ahead.Shard(str(part.filename), part.skip, part.take)
        for part in builder.info.splits[names[split]].file_instructions
      ],
      functools.partial(_decode, records),
      whole.num_bytes // max(1, whole.num_examples),
    ),
    image_key,
    label_key,
    class_names,
    _fingerprint(builder, names[split]),
    folder=str(builder.data_dir),
    several=features[_ALL].num_classes if _NOT_DIFFICULT in features else 0,
  )


def _decode(records: Any, record: bytes) -> Mapping[str, Any]:
  """What TFDS's `records` make of the bytes of a record."""
  features = records.dataset_info.features
  return features.deserialize_example_np(record, decoders=records.decoders)


def shards_of(
  name: str, splits: Sequence[str], data_dir: str | None
) -> tuple[str, str, frozenset[str]]:
  """Where the files of some splits lie; arguments and errors as `open_tfds`.

  Returns:
    DATA_DIR/NAME/VERSION, NAME/VERSION, and the names of the shards.
  """
  builder = _prepared_builder(name, data_dir)
  names = _split_names(builder)
  shards: set[str] = set()
  for split in splits:
    if split not in names:
      raise _no_split(name, split, names)
    shards |= set(builder.info.splits[_whole(names[split])].filenames)
  return str(builder.data_dir), builder.info.full_name, frozenset(shards)


def _fingerprint(builder: Any, split: str) -> str:
  """The fingerprint that `byol prepare` made, else one of sizes and shards."""
  whole = _whole(split)
  if facts := tfds_metadata.facts_of(str(builder.data_dir), whole):
    return facts["fingerprint"]
  info = builder.info.splits[whole]
  told = f"{builder.info.full_name} {info.shard_lengths} {info.num_bytes}"
  return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _prepared_builder(name: str, data_dir: str | None) -> Any:
  """The `tfds.core.DatasetBuilder` of a data set on disk, as ArrayRecord."""
  import tensorflow_datasets as tfds

  parts = _NAME.fullmatch(name)
  if not parts:
    raise _unknown(name, data_dir)
  # With a version TFDS looks for files before it looks for code. So it also
  # reads data sets that an older TFDS prepared or whose code is not installed.
  version = {} if parts[3] else {"version": "*.*.*"}
  try:
    builder = tfds.builder(name, data_dir=data_dir, **version)
  except tfds.core.DatasetNotFoundError:
    raise _unknown(name, data_dir) from None
  except (AssertionError, ValueError) as error:  # Unknown config or version.
    raise UsageError(f"TFDS has no {name!r}: {_one_line(error)}") from error
  if not builder.is_prepared():
    raise UsageError(
      f"{name} should be prepared, but {builder.data_dir} holds nothing. "
      f"Prepare it first: {_prepare_command(name, data_dir)}"
    )
  formats = [form.value for form in builder.info.available_file_formats()]
  if "array_record" not in formats:
    root = builder.data_dir.removesuffix(f"/{builder.info.full_name}")
    other = f"{root}_array_record"
    command = _prepare_command(name, other, download_dir=f"{root}/downloads")
    raise UsageError(
      f"{name} should be in ArrayRecord files, for random access, but "
      f"{builder.data_dir} holds {' and '.join(formats)}. Prepare it in "
      f"another directory and read it with data_dir={other}: {command}"
    )
  return builder


def _prepare_command(
  name: str, data_dir: str | None, download_dir: str | None = None
) -> str:
  """A shell command that downloads and prepares a data set."""
  where = f", data_dir={json.dumps(data_dir)}" if data_dir else ""
  cache = f"download_dir={json.dumps(download_dir)}" if download_dir else ""
  code = (
    f"import tensorflow_datasets as tfds; tfds.builder({json.dumps(name)}, "
    f'file_format="array_record"{where}).download_and_prepare({cache})'
  )
  return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def _split_names(builder: Any) -> dict[str, str]:
  """Names of the splits of a data set: ours -> TFDS's."""
  variant = builder.info.full_name.rsplit("/", 1)[0]  # Without the version.
  if facts := known_sets.known_facts(variant):
    return {ours: theirs for ours, (theirs, _) in facts.splits.items()}
  return {split: split for split in builder.info.splits}


def _no_split(name: str, split: str, names: Iterable[str]) -> UsageError:
  return UsageError(
    f"{name} has no split {split!r}; it has: {', '.join(names)}."
  )


def _whole(split: str) -> str:
  """The split that a slice such as "train[:90]" is taken of."""
  return split.partition("[")[0]


def _feature(
  name: str, features: Mapping[str, Any], kind: type, usual: str
) -> str | None:
  """The feature of a kind: the one with its usual name, or the only one."""
  keys = [key for key in features if isinstance(features[key], kind)]
  if usual in keys:
    return usual
  if len(keys) > 1:
    raise UsageError(
      f"{name} has several features of kind {kind.__name__} and none is called "
      f"{usual!r}; its features are {', '.join(sorted(features))}."
    )
  return keys[0] if keys else None


def _unknown(name: str, data_dir: str | None) -> UsageError:
  import tensorflow_datasets as tfds

  known = ["digits", "folder:PATH", "unlabelled:PATH", *known_sets.KNOWN]
  others = tfds.list_builders(with_community_datasets=False)
  near = difflib.get_close_matches(
    re.split("[:/]", name)[0].lower(),
    ["digits", "folder", "unlabelled", *others],
    n=1,
  )
  hint = f" Did you mean {near[0]}?" if near else ""
  return UsageError(
    f"Unknown data set {name!r}; known are {', '.join(known)}, the names of "
    "TFDS, and what `byol prepare` made in loader.data_dir, which is "
    f"{data_dir or 'not given'}.{hint}"
  )


def _one_line(error: Exception) -> str:
  return " ".join(str(error).split())[:300]
