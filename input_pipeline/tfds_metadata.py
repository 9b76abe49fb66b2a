"""Reads and writes the metadata that make a folder of shards a set of TFDS."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from input_pipeline import whole_files
from input_pipeline.errors import RunError, UsageError

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def check_names(name: str, version: str, split: str) -> None:
  """Raises UsageError for names that TFDS would not accept."""
  if not _NAME.fullmatch(name) or not re.fullmatch(r"\d+\.\d+\.\d+", version):
    raise UsageError(
      "TFDS needs a name of small letters, digits and _, such as my_photos, "
      f"and a version such as 1.0.0; {name!r} and {version!r} came. Give "
      "others with --name and --version."
    )
  if not _NAME.fullmatch(split) or split == "all":
    raise UsageError(
      f"A split is called {split!r}; its name must be of small letters, digits "
      'and _, such as train. It cannot be "all", which means all splits to '
      "TFDS."
    )


def shard_name(name: str, split: str, index: int, count: int) -> str:
  """File name of a shard, as TFDS looks for it."""
  return f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def classes_of(folder: str) -> list[str] | None:
  """Classes of the data set in `folder`, [] if it has none.

  Returns:
    None if no split was finished there.
  """
  builder = _builder(folder)
  if builder is None:
    return None
  features = builder.info.features
  return list(features["label"].names) if "label" in features else []


def features_of(folder: str) -> Mapping[str, Any]:
  """TFDS's features of the data set in `folder`; none if none is there."""
  builder = _builder(folder)
  return builder.info.features if builder else {}


def splits_of(folder: str) -> list[str]:
  """Finished splits of the data set in `folder`."""
  builder = _builder(folder)
  return list(builder.info.splits) if builder else []


def check_shards(folder: str, name: str, split: str) -> None:
  """Raises UsageError if shards of a finished split are gone or cut short."""
  info = _builder(folder).info.splits[split]
  count = info.num_shards
  paths = [
    os.path.join(folder, shard_name(name, split, k, count))
    for k in range(count)
  ]
  sizes = [os.path.getsize(path) for path in paths if os.path.exists(path)]
  if len(sizes) < count or sum(sizes) != info.num_bytes:
    raise UsageError(
      f"The {count} shard(s) of split {split} in {folder} should hold "
      f"{info.num_bytes:,} bytes; {len(sizes)} are there, with "
      f"{sum(sizes):,}. Remove the folder and prepare it again."
    )


def check_ours(folder: str) -> None:
  """Raises UsageError if somebody else's data set is there."""
  for split in splits_of(folder):
    if facts_of(folder, split) is None:
      raise UsageError(
        f"{folder} holds a data set that `byol prepare` did not write (its "
        f"split {split} has no prepared-{split}.json); give another --name, "
        "--version or OUT."
      )


def add_split(
  folder: str,
  name: str,
  split: str,
  *,
  lengths: Sequence[int],
  num_bytes: int,
  classes: Sequence[str],
  facts: dict[str, Any],
) -> None:
  """Declares the shards of a split; other splits stay declared.

  Args:
    folder: DATA_DIR/NAME/VERSION.
    name: of the data set.
    split: of the shards.
    lengths: how many examples each shard has.
    num_bytes: of all shards.
    classes: in the order of the labels; none leaves labels out.
    facts: what else to record about the split, with its "fingerprint".
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import folder_dataset

  template = tfds.core.ShardedFileTemplate(
    data_dir=folder,
    template=_TEMPLATE,
    dataset_name=name,
    filetype_suffix="array_record",
  )
  builder = _builder(folder)
  splits = (
    {info.name: info for info in builder.info.splits.values()}
    if builder
    else {}
  )
  splits[split] = tfds.core.SplitInfo(
    name=split,
    shard_lengths=list(lengths),
    num_bytes=num_bytes,
    filename_template=template.replace(split=split),
  )
  features = {
    "file_name": tfds.features.Text(),
    "image": tfds.features.Image(encoding_format=None),
  }
  if classes:
    features["label"] = tfds.features.ClassLabel(names=list(classes))
  # Before TFDS's own files, which say that the split is finished.
  whole_files.write_text(
    _facts_path(folder, split), json.dumps(facts, indent=2) + "\n"
  )
  folder_dataset.write_metadata(
    data_dir=folder,
    features=features,
    split_infos=list(splits.values()),
    filename_template=template,
    check_data=False,
    description=f"{name}, prepared by byol-flax.",
  )


def facts_of(folder: str, split: str) -> dict[str, Any] | None:
  """What `add_split` was told of a split, or None; `folder` may be gs://."""
  path = epath.Path(_facts_path(folder, split))
  if not path.exists():
    return None
  try:
    return whole_files.read_object(path)
  except UsageError as error:
    # Who looks for a split would take this to mean that there is none.
    raise RunError(str(error)) from None


def _facts_path(folder: str, split: str) -> str:
  return os.path.join(folder, f"prepared-{split}.json")


def _builder(folder: str) -> Any:
  import tensorflow_datasets as tfds

  if not os.path.exists(os.path.join(folder, "dataset_info.json")):
    return None
  return tfds.builder_from_directory(folder)
