"""What a data set is to all that read one, and a part of it."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Source(Protocol):
  """Examples by index.

  Attributes:
    name: of the data set, as `open_source` takes it.
    split: as `open_source` takes it.
    num_classes: number of classes K; 0 for an unlabelled data set.
    ignored: which files were left out, in words; empty if none were.
    class_names: of the classes, in the order of the labels.
    fingerprint: changes when the data set does, as far as can be told without
      reading every image.
  """

  name: str
  split: str
  num_classes: int
  ignored: str
  class_names: tuple[str, ...]

  @property
  def fingerprint(self) -> str:
    """See above."""

  def __len__(self) -> int:
    """Number of examples N."""

  def __getitem__(self, i: int) -> dict[str, Any]:
    """Example `i`, 0 <= i < N.

    {"image": bytes of an image file or uint8 [H, W, 3] RGB, "label": int32,
    from 0 to K - 1, or -1 for none}. Where an image may have several classes,
    its label is -1, and there is "classes", int8 [K]: 1 has the class, 0 has it
    not, and -1 does not count.
    """

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Says which examples this thread asks for next, in this order.

    It is only a hint. Where many records lie in one file, those that lie
    together then come by one request; elsewhere nothing happens.
    """

  def example_name(self, i: int) -> str:
    """File path or record name of example `i`, for reports."""

  def file_name(self, i: int) -> str:
    """Name of the image's file as whoever published it named it.

    It has no folder. Where nothing tells it, it is the example's name.
    """

  def file_of(self, i: int) -> tuple[str, int] | None:
    """The file that holds example `i` alone, if there is one.

    Returns:
      Its name within the split, the same wherever the set lies, and its size in
      bytes.
    """

  def unlabelled(self) -> np.ndarray:
    """Numbers of the examples without a label, as far as known unread."""


class Part:
  """Some examples of a source, in the order given, as a `Source`.

  Attributes:
    source: what it is a part of.
    examples: their numbers in `source`.
  """

  def __init__(
    self, source: Source, split: str, examples: Sequence[int] | np.ndarray
  ) -> None:
    """Takes a range, or an int array [N]; `split` is the name of the part."""
    self.name = source.name
    self.split = split
    self.num_classes = source.num_classes
    self.ignored = source.ignored
    self.class_names = source.class_names
    self.source = source
    self.examples = examples

  def __len__(self) -> int:
    return len(self.examples)

  def __getitem__(self, i: int) -> dict[str, Any]:
    return self.source[int(self.examples[i])]

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Says so of the source."""
    self.source.ahead([int(self.examples[i]) for i in numbers])

  @property
  def fingerprint(self) -> str:
    """The source's."""
    return self.source.fingerprint

  def example_name(self, i: int) -> str:
    """The source's name of the example."""
    return self.source.example_name(int(self.examples[i]))

  def file_name(self, i: int) -> str:
    """The source's name of the file."""
    return self.source.file_name(int(self.examples[i]))

  def file_of(self, i: int) -> tuple[str, int] | None:
    """The source's file of the example."""
    return self.source.file_of(int(self.examples[i]))

  def unlabelled(self) -> np.ndarray:
    """Those examples without a label that lie in this part."""
    return np.flatnonzero(np.isin(self.examples, self.source.unlabelled()))


class ByName(Part):
  """A part of train that the names of its images tell, not their places."""

  @property
  def fingerprint(self) -> str:
    """Differs from that of the part by places, which has the same split."""
    return f"{self.source.fingerprint} by names"
