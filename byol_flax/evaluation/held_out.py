"""A validation split for data sets that bring none.

Protocols choose on `valid` and train on `train_without_valid`. The sets of the
paper have these two (`known_sets.KNOWN`); any other gets them here.
"""

from collections.abc import Mapping

import numpy as np

from input_pipeline import known_sets, sources
from input_pipeline.errors import UsageError

TRAIN, VALID = "train_without_valid", "valid"
# What a split to choose on may be called. TFDS says "validation".
_NAMES = (VALID, "validation", "val")
_EVERY = 10  # image of train that is held out


def open_split(
  name: str,
  split: str,
  data_dir: str | None,
  began_with: Mapping[str, int] | None = None,
) -> sources.Source:
  """Opens a split as `sources.open_source` does, or makes it of `train`.

  If the set has no `train_without_valid` and `valid`, they are `train` and the
  set's own validation split. If it has none either, every tenth image of
  `train` is `valid`, and the others are `train_without_valid`. A folder has its
  images in the order of their classes, so a tenth of each class is held out.

  Args:
    name: see `sources.open_source`.
    split: see above.
    data_dir: see `sources.open_source`.
    began_with: the same, for the folder in which the split lies.

  Raises:
    UsageError: there is no such data set or split.
  """
  try:
    return sources.open_source(name, split, data_dir, began_with)
  except UsageError:
    facts = known_sets.known_facts(name)
    if split not in (TRAIN, VALID) or (facts and split in facts.splits):
      raise
  given = _given(name, data_dir, began_with if split == VALID else None)
  if split == VALID and given:
    return given
  train = sources.open_source(name, "train", data_dir, began_with)
  if given:
    return train
  numbers = np.arange(len(train))
  is_held = numbers % _EVERY == _EVERY - 1
  if split == VALID:
    if not is_held.any():
      raise UsageError(
        f"{name} has {len(train)} images in train, of which every tenth would "
        "be held out to choose on; name another split by "
        "--config.valid_split, and one to train on by --config.train_split."
      )
    return sources.Part(train, "valid, every tenth of train", numbers[is_held])
  return sources.Part(train, "train without every tenth", numbers[~is_held])


def size_of(name: str, split: str, data_dir: str | None) -> tuple[int, int]:
  """Numbers of images and of classes that `open_split` would give.

  It needs no data if both are known; its errors are those of `open_split`.
  """
  try:
    return sources.size_of(name, split, data_dir)
  except UsageError:
    source = open_split(name, split, data_dir)
  return len(source), source.num_classes


def _given(
  name: str, data_dir: str | None, began_with: Mapping[str, int] | None
) -> sources.Source | None:
  """The validation split that a set has by itself."""
  for split in _NAMES:
    try:
      return sources.open_source(name, split, data_dir, began_with)
    except UsageError:
      continue
  return None
