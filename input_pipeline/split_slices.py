"""Reads the name of a split and the bounds of its slice, as TFDS writes them.

`train`, `train[:90%]`, `train[100:200]` and `train[-10%:]` are such names.
"""

import re

from input_pipeline.errors import UsageError

_SPLIT = re.compile(r"([^\[\]/.][^\[\]/]*)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def parse(split: str) -> tuple[str, str | None, str | None]:
  """Returns the whole split's name, and both bounds if they were given.

  Raises:
    UsageError: it is neither a name nor a slice.
  """
  parts = _SPLIT.fullmatch(split)
  if not parts:
    raise UsageError(
      f"A split is a name, or a slice such as train[:90%] or train[100:200], "
      f"but {split!r} came."
    )
  return parts[1], parts[2], parts[3]


def examples(
  name: str, split: str, first: str | None, last: str | None, length: int
) -> range:
  """The examples of a slice of a split with `length` examples.

  `name` is that of the data set, `split` and the bounds are those of `parse`.

  Raises:
    UsageError: the slice is empty or reaches past the end.
  """
  start = _position(first or "0", length)
  stop = _position(last or "100%", length)
  if not 0 <= start < stop <= length:
    raise UsageError(
      f"Split {split!r} of {name} holds no examples or reaches past the end: "
      f"the whole has {length} examples."
    )
  return range(start, stop)


def _position(bound: str, length: int) -> int:
  """Reads `12`, `-12`, `12%` or `-12%` as TFDS does."""
  if bound.endswith("%"):
    position = round(int(bound[:-1]) * length / 100)
  else:
    position = int(bound)
  return position + length if bound.startswith("-") else position
