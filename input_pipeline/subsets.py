"""Parts of a data set that are chosen example by example."""

import collections
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline import in_order, sources
from input_pipeline.errors import UsageError


class Numbered(sources.Part):
  """All examples of a source, with their numbers for labels.

  After a reading that leaves out what is unreadable they tell what is left.
  """

  def __init__(self, source: sources.Source) -> None:
    """Takes the source."""
    super().__init__(source, source.split, range(len(source)))

  def __getitem__(self, i: int) -> dict[str, Any]:
    return {**super().__getitem__(i), "label": np.int32(i)}


class SeveralClasses(sources.Part):
  """A source whose images may have several classes, to train on.

  "label" is what "classes" is in the source, int8 [K]; see `sources.Source`.
  """

  def __init__(self, source: sources.Source, num_classes: int) -> None:
    """Takes the source, and K."""
    super().__init__(source, source.split, range(len(source)))
    self.num_classes = num_classes

  def __getitem__(self, i: int) -> dict[str, Any]:
    example = super().__getitem__(i)
    return {"image": example["image"], "label": example["classes"]}


class Joined:
  """Two sources of the same classes, one after the other, as a `Source`.

  Attributes:
    first: the one whose examples come first.
    second: the other.
  """

  def __init__(self, first: sources.Source, second: sources.Source) -> None:
    """Takes both."""
    self.name = first.name
    self.split = f"{first.split}+{second.split}"
    self.num_classes = first.num_classes
    self.ignored = first.ignored
    self.class_names = first.class_names
    self.first, self.second = first, second

  def __len__(self) -> int:
    return len(self.first) + len(self.second)

  def _at(self, i: int) -> tuple[sources.Source, int]:
    """The source that example `i` is of, and its number there."""
    if i < len(self.first):
      return self.first, i
    return self.second, i - len(self.first)

  def __getitem__(self, i: int) -> dict[str, Any]:
    source, number = self._at(i)
    return source[number]

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Says so of both sources."""
    numbers = np.asarray(numbers)
    second = numbers >= len(self.first)
    self.first.ahead(numbers[~second])
    self.second.ahead(numbers[second] - len(self.first))

  @property
  def fingerprint(self) -> str:
    """Those of both."""
    return f"{self.first.fingerprint}+{self.second.fingerprint}"

  def example_name(self, i: int) -> str:
    """The source's name of the example."""
    source, number = self._at(i)
    return source.example_name(number)

  def file_name(self, i: int) -> str:
    """The source's name of the file."""
    source, number = self._at(i)
    return source.file_name(number)

  def file_of(self, i: int) -> tuple[str, int] | None:
    """The source's file of the example."""
    source, number = self._at(i)
    return source.file_of(number)

  def unlabelled(self) -> np.ndarray:
    """Those of both sources."""
    second = self.second.unlabelled() + len(self.first)
    return np.concatenate([self.first.unlabelled(), second])


def labels_of(source: sources.Source) -> np.ndarray:
  """Labels of all examples, int [N]; every record is read, none decoded.

  Where an image may have several classes they are "classes" of `Source`,
  int [N, K].
  """

  def label_of(i: int) -> np.ndarray:
    example = source[i]
    return example.get("classes", example["label"])

  return np.stack([*in_order.of_every(source, label_of)]).astype(int)


def balanced(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
  """Draws a share of every class, at least one example of each.

  A smaller share of the same seed is a part of a larger one.

  Args:
    labels: int [N]; an example with -1 is never drawn.
    share: in (0, 1]; of each class it is rounded to the nearest number.
    seed: of the draw.

  Returns:
    int [M], in rising order.
  """
  drawn = []
  for label in np.unique(labels[labels >= 0]):
    members = np.flatnonzero(labels == label)
    order = np.random.default_rng([seed, int(label)]).permutation(members)
    drawn.append(order[: max(1, math.floor(share * len(members) + 0.5))])
  return np.sort(np.concatenate(drawn))


def hold_out(
  labels: np.ndarray, per_class: Sequence[int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a number of examples of each class, without return.

  Args:
    labels: int [N]; an example with -1 is in neither part.
    per_class: how many of each of the K classes are held out; none of a class
      that is declared and has no example.
    seed: of the draw.

  Returns:
    What is left and what is held out, int [.] each, in rising order.

  Raises:
    UsageError: nothing would be left of a class.
  """
  drawn = []
  for label, count in enumerate(per_class):
    members = np.flatnonzero(labels == label)
    if 0 < len(members) <= count:
      raise UsageError(
        f"Class number {label} has {len(members)} images, from which {count} "
        "should be held out; expected more, so that some are left to train on."
      )
    order = np.random.default_rng([seed, label]).permutation(members)
    drawn.append(order[:count])
  held = np.sort(np.concatenate(drawn))
  return np.setdiff1d(np.flatnonzero(labels >= 0), held), held


def names_in(file: str) -> set[str]:
  """The file names in a list, without their folders.

  Raises:
    UsageError: the list cannot be read.
  """
  try:
    lines = pathlib.Path(file).read_text().split("\n")
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(
      f"The list of images {file} cannot be read ({error}); expected a text "
      "file with one file name a line."
    ) from None
  return {os.path.basename(line.strip()) for line in lines if line.strip()}


def names_of(source: sources.Source) -> list[str]:
  """The file names of all examples; every record is read, none decoded."""
  return [*in_order.of_every(source, source.file_name)]


def listed(
  source: sources.Source, held_out: sources.Source, wanted: set[str], of: str
) -> tuple[np.ndarray, int]:
  """Finds the examples with the file names of a list.

  Names are compared without their folders, so that a list fits the set however
  it was prepared.

  Args:
    source: where they are looked for.
    held_out: examples of the same set that are not taken.
    wanted: the names.
    of: names the list.

  Returns:
    Their numbers in `source`, int [M], in rising order, and how many of
    `wanted` are in `held_out`.

  Raises:
    UsageError: the list is empty, names what neither has, or has a name that
      several images bear.
  """
  names, others = names_of(source), names_of(held_out)
  bearers = collections.Counter(names) + collections.Counter(others)
  if several := sorted(name for name in wanted if bearers[name] > 1):
    raise UsageError(
      f"{len(several)} of the {len(wanted)} names of {of} are those of several "
      f"images of {source.name}, such as {several[0]}; expected file names "
      "that tell images apart, whatever folders they are in."
    )
  shared = wanted.intersection(others)
  found = {name: i for i, name in enumerate(names)}
  if missing := sorted(wanted - shared - found.keys()):
    raise UsageError(
      f"{len(missing)} of the {len(wanted)} images of {of} are not in "
      f"{source.split} of {source.name}: {', '.join(missing[:3])}. Name the "
      "split that has them, or another list."
    )
  if not wanted - shared:
    raise UsageError(
      f"{of} names no image to train on; expected one file name a line."
    )
  numbers = np.array([found[name] for name in wanted - shared])
  return np.sort(numbers), len(shared)


def write_list(source: sources.Source, indices: np.ndarray) -> str:
  """The text of a list that `names_in` reads, with folders where there are."""

  def name(i: int) -> str:
    file = source.file_of(i)
    return file[0] if file else source.file_name(i)

  return "".join(f"{name(int(i))}\n" for i in indices)
