"""What a compiled program's text tells: collectives, cycles."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator

_KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# `%name = RESULT kind(` or `kind-start(`, where kind runs asynchronously.
_LINE = re.compile(rf" = (.+?) ({'|'.join(_KINDS)})(-start)?\(")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ARRAY = re.compile(r"\b(pred|[a-z]+?(\d+))(?:e\d\w*)?\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Collectives of one kind.

  Attributes:
    count: of instructions; one may move many arrays.
    size: bytes of their results on one device.
  """

  count: int
  size: int


def collectives(text: str) -> dict[str, Traffic]:
  """Kind of collective -> how many and how much, of an HLO module's text."""
  counts: Counter[str] = Counter()
  sizes: Counter[str] = Counter()
  for kind, size in _found(text):
    counts[kind] += 1
    sizes[kind] += size
  return {kind: Traffic(counts[kind], sizes[kind]) for kind in sorted(counts)}


def cycles(text: str) -> int:
  """Sum of the cycles that libtpu writes beside each operation.

  The body of a loop counts once. Collectives and a few others have none.
  """
  return sum(map(int, _CYCLES.findall(text)))


def _found(text: str) -> Iterator[tuple[str, int]]:
  for line in text.splitlines():
    if match := _LINE.search(line):
      result, kind, starts = match.groups()
      sizes = [_size(*array) for array in _ARRAY.findall(result)]
      # What starts a gather returns its operand beside its result.
      together = (
        sum(sizes) if kind == "all-reduce" or not starts else max(sizes)
      )
      yield kind, together


def _size(kind: str, bits: str, shape: str) -> int:
  """Bytes of an array such as bf16[16,256]; `pred` takes one each."""
  each = 1 if kind == "pred" else max(1, int(bits) // 8)
  for side in filter(None, shape.split(",")):
    each *= int(side)
  return each
