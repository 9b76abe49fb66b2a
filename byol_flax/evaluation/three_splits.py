"""The three splits of a data set, their labels, and what is wrong with them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from byol_flax.evaluation import kept_pictures
from byol_flax.evaluation import scores as scores_lib
from byol_flax.evaluation.protocol import Setting
from input_pipeline import sources, subsets
from input_pipeline.errors import UsageError

CHOICE_OF_DIFFICULT = (
  "Classes whose objects in an image are all difficult do not count for that "
  "image, neither in losses nor in average precision."
)


@dataclasses.dataclass(frozen=True)
class Splits:
  """What is fitted on, chosen on and reported on.

  Attributes:
    train: to fit on.
    valid: to choose on.
    test: to report on.
    labels: of all examples, by "train", "valid" and "test"; int [N], or where
      an image may have several classes int [N, K].
    how_valid_is_made: a sentence.
  """

  train: sources.Source
  valid: sources.Source
  test: sources.Source
  labels: Mapping[str, np.ndarray]
  how_valid_is_made: str

  @property
  def named(self) -> dict[str, sources.Source]:
    """The splits by name, in the order in which they are used."""
    return {"train": self.train, "valid": self.valid, "test": self.test}

  @property
  def num_classes(self) -> int:
    """K."""
    train = self.labels["train"]
    return self.train.num_classes if train.ndim == 1 else train.shape[1]

  @property
  def choices(self) -> list[str]:
    """What the paper leaves open about splits and labels, and is done here."""
    several = self.labels["train"].ndim == 2
    return [self.how_valid_is_made, *([CHOICE_OF_DIFFICULT] if several else [])]

  def to_train_on(self, name: str) -> sources.Source:
    """A split whose examples have for "label" what `labels` has of them."""
    split = self.named[name]
    if self.labels[name].ndim == 1:
      return split
    return subsets.SeveralClasses(split, self.num_classes)

  def keep_guesses(
    self, workdir: str, scores: np.ndarray, labels: np.ndarray
  ) -> list[dict[str, Any]] | None:
    """Keeps for a picture what images of test were taken for.

    Args:
      workdir: of the evaluation.
      scores: float [N, K].
      labels: of the same images.

    Returns:
      The most frequent mistakes, see `kept_pictures.keep_guesses`; None where
      an image may have several classes.
    """
    if labels.ndim == 2:
      return None
    known = labels >= 0
    return kept_pictures.keep_guesses(
      workdir,
      "",
      labels[known],
      scores_lib.guesses(scores[known], labels[known]),
      self.train.class_names,
    )

  def class_name(self, k: int) -> str:
    """Of class k; sets of several classes an image have no names here."""
    return self.train.class_names[k] if self.train.class_names else f"class {k}"


def open_splits(setting: Setting) -> Splits:
  """The splits that the config names.

  Raises:
    UsageError: a split cannot be opened or has no labels, two share images,
      their classes differ, or sizes are not those that the config expects.
  """
  config = setting.config
  if bool(config.valid_split) == bool(config.valid_per_class):
    raise UsageError(
      f"valid_split is {config.valid_split!r} and valid_per_class "
      f"{config.valid_per_class}; expected one of the two: a split to choose "
      "on, or how many images of each class are held out of train_split."
    )
  try:
    train, test = (
      _open(setting, name) for name in ("train_split", "test_split")
    )
    given = _open(setting, "valid_split") if config.valid_split else None
  except UsageError as error:
    raise UsageError(
      " ".join(filter(None, [str(error), config.layout]))
    ) from error
  setting.check_splits(train, given, test)
  labels = {
    "train": subsets.labels_of(train),
    "test": subsets.labels_of(test),
  }
  if given:
    valid = given
    how = sources.how_held_out(given) or (
      f"valid is {given.split} of the data set."
    )
  else:
    counts = _counts(setting, train, labels["test"])
    kept, held = subsets.hold_out(labels["train"], counts, config.seed)
    whole, seed = train, config.seed
    train = sources.Part(whole, f"{whole.split} without valid", kept)
    valid = sources.Part(
      whole, f"{len(held):,} of {whole.split}, drawn with seed {seed}", held
    )
    labels["train"] = labels["train"][kept]
    how = f"valid is {valid.split}."
  labels["valid"] = subsets.labels_of(valid)
  splits = Splits(train, valid, test, labels, how)
  _check_sizes(setting, splits)
  _check_classes(splits)
  return splits


def _open(setting: Setting, name: str) -> sources.Source:
  """A split whose labels are such as the metric needs."""
  if setting.config.metric != "map11":
    return setting.open_split(name)
  source = setting.open_source(name)
  if "classes" not in source[0]:
    raise UsageError(
      f"metric is map11, for images that may have several classes; images of "
      f"{source.name} have one each. Give --config.metric=top1 or "
      "mean_per_class, or a set such as --config.data_name=voc/2007."
    )
  return source


def _counts(
  setting: Setting, train: sources.Source, test_labels: np.ndarray
) -> list[int]:
  """How many images of each class are held out."""
  count = setting.config.valid_per_class
  if setting.config.metric == "map11":
    raise UsageError(
      "valid_per_class is for images of one class each; where an image may "
      "have several, name a valid_split."
    )
  if count > 0:
    return [count] * train.num_classes
  known = test_labels[test_labels >= 0]
  return np.bincount(known, minlength=train.num_classes).tolist()


def _check_sizes(setting: Setting, splits: Splits) -> None:
  """Raises UsageError unless splits are as large as the config expects."""
  for name, split in splits.named.items():
    expected = setting.config[f"{name}_size"]
    if expected and len(split) != expected:
      raise UsageError(
        f"{name} has {len(split):,} images ({split.split} of {split.name}); "
        f"the paper's has {expected:,} (Table 10). Give the whole data set, or "
        f"--config.{name}_size=0 to go on with another one."
      )


def _check_classes(splits: Splits) -> None:
  """Raises UsageError if classes are looked for that train does not show."""
  present = {
    name: _present(labels, splits.num_classes)
    for name, labels in splits.labels.items()
  }
  if present["train"].sum() < 2:
    raise UsageError(
      f"{splits.train.split} of {splits.train.name} has images of "
      f"{present['train'].sum()} class(es); expected two or more."
    )
  for name in ("valid", "test"):
    unseen = np.flatnonzero(present[name] & ~present["train"])
    if len(unseen):
      raise UsageError(
        f"{name} has {len(unseen)} classes of which train has no image, such "
        f"as {splits.class_name(unseen[0])}. A slice of a folder has the "
        "classes in turn: mix them with `byol prepare`, or hold out "
        "valid_per_class."
      )


def _present(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Which classes have an image, bool [K]."""
  if labels.ndim == 2:
    return np.any(labels == 1, axis=0)
  return np.isin(np.arange(num_classes), labels)
