"""Limits of a value, to be tested and to be told.

`bound.fits(value)` tests a value, and `str(bound)` says in words what the bound
expects: it follows the word "expected" in a message.
"""

import dataclasses
import re
from typing import Any, Protocol

from input_pipeline.errors import UsageError

MOST_WHOLE = 2**31 - 1  # JAX counts in int32
MOST_REAL = 1e9  # nothing that is measured is sensibly larger


class Bound(Protocol):
  """A kind of value with its limits; `str` says what is expected."""

  def fits(self, value: Any) -> bool:
    """Whether `value` is of this kind and within the limits."""


def check(name: str, value: Any, bound: Bound) -> None:
  """Raises UsageError unless `value`, called `name`, fits."""
  if not bound.fits(value):
    raise UsageError(f"{name} is {value!r}; expected {bound}.")


@dataclasses.dataclass(frozen=True)
class Whole:
  """A whole number from `least` to `most`; no bool, and none of NumPy's."""

  least: int
  most: int = MOST_WHOLE
  meaning: str = ""

  def fits(self, value: Any) -> bool:
    """See `Bound`."""
    return type(value) is int and self.least <= value <= self.most

  def __str__(self) -> str:
    return f"a whole number from {self.least:,} to {self.most:,}{self.meaning}"


@dataclasses.dataclass(frozen=True)
class Real:
  """A finite number from `least` to `most`.

  `above` leaves out `least` itself, and `below` leaves out `most`. NaN and
  infinity do not fit, because they lie between no two limits.
  """

  least: float
  most: float = MOST_REAL
  above: bool = False
  below: bool = False

  def fits(self, value: Any) -> bool:
    """See `Bound`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
      return False
    enough = value > self.least if self.above else value >= self.least
    return enough and (value < self.most if self.below else value <= self.most)

  def __str__(self) -> str:
    low, high = f"{self.least:,.10g}", f"{self.most:,.10g}"
    if not (self.above or self.below):
      return f"a number from {low} to {high}"
    return (
      f"a number {'above' if self.above else 'of at least'} {low} and "
      f"{'below' if self.below else 'at most'} {high}"
    )


@dataclasses.dataclass(frozen=True)
class Interval:
  """A tuple (low, high) of numbers that each fit `of`, low <= high."""

  of: Real

  def fits(self, value: Any) -> bool:
    """See `Bound`."""
    return (
      isinstance(value, tuple)
      and len(value) == 2
      and all(map(self.of.fits, value))
      and value[0] <= value[1]
    )

  def __str__(self) -> str:
    return f"(low, high) with low <= high, each {self.of}"


@dataclasses.dataclass(frozen=True)
class Several:
  """A tuple of one or more values that each fit `of`.

  Attributes:
    of: of each.
    distinct: whether none may come twice.
  """

  of: Bound
  distinct: bool = False

  def fits(self, value: Any) -> bool:
    """See `Bound`."""
    return (
      isinstance(value, tuple)
      and bool(value)
      and all(map(self.of.fits, value))
      and not (self.distinct and len({*value}) < len(value))
    )

  def __str__(self) -> str:
    once = ", none of them twice" if self.distinct else ""
    return f"one or more in a tuple, each {self.of}{once}"


class OneOf:
  """One of some names, or of some numbers."""

  def __init__(self, *names: str | int) -> None:
    """Takes the names or numbers."""
    self.names = names

  def fits(self, value: Any) -> bool:
    """See `Bound`."""
    return type(value) in (str, int) and value in self.names

  def __str__(self) -> str:
    return f"one of {', '.join(map(str, self.names))}"


# The parts of a ResNet: the kind of its blocks, their numbers, their channels,
# and the stem's channels, such as basic:1-1-1-1:8-8-8-8:64.
ARCHITECTURE = re.compile(
  r"(?P<kind>basic|bottleneck):(?P<blocks>[1-9]\d{0,2}(-[1-9]\d{0,2}){0,7})"
  r":(?P<channels>[1-9]\d{0,4}(-[1-9]\d{0,4}){0,7}):(?P<stem>[1-9]\d{0,4})"
)


class Architecture(OneOf):
  """One of some names, or the parts of a ResNet as `ARCHITECTURE` has them."""

  def fits(self, value: Any) -> bool:
    """See `Bound`."""
    if super().fits(value):
      return True
    if not isinstance(value, str):
      return False
    found = ARCHITECTURE.fullmatch(value)
    if not found:
      return False
    return found["blocks"].count("-") == found["channels"].count("-")

  def __str__(self) -> str:
    return (
      f"{super().__str__()}, or kind, blocks, channels and stem of another "
      "ResNet, such as bottleneck:3-4-6-3:256-512-1024-2048:64"
    )


class Switch:
  """True or False."""

  def fits(self, value: Any) -> bool:
    """See `Bound`."""
    return isinstance(value, bool)

  def __str__(self) -> str:
    return "true or false"


@dataclasses.dataclass(frozen=True)
class Text:
  """A text; if it is `optional`, it may be empty or None."""

  optional: bool = False

  def fits(self, value: Any) -> bool:
    """See `Bound`."""
    if self.optional and value in (None, ""):
      return True
    return isinstance(value, str) and bool(value)

  def __str__(self) -> str:
    return "a text" if self.optional else "a text that is not empty"


class Path(Text):
  """The path of a file or folder."""

  def __str__(self) -> str:
    return "the path of a file or folder"


class DataSet(Text):
  """The name of a data set, which may hold the path of a folder."""

  def __str__(self) -> str:
    return "the name of a data set"
