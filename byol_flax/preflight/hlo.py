"""Reads collectives and cycles from a compiled program's text."""

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
_COLLECTIVE = re.compile(rf" = (.+?) ({'|'.join(_KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+?(\d+))(?:e\d\w*)?\[([\d,]*)\]")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# A computation begins at the margin and comes before those that call it.
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
  r"\b(?:body|condition|calls|to_apply|called_computations)=\{?%([\w.\-]+)"
)
# Over the micro-batches of a step, or over the tiles of a bank of kNN.
_OUR_LOOP = re.compile(
  r' while\(.*op_name="jit\((train_step\)|nearest\)/shard_map)/while"'
)
# The condition of a loop over a scan: its number is less than a constant.
_CONDITION = re.compile(r"\bcondition=%([\w.\-]+)")
_BOUND = re.compile(r" = s32\[\]\S* constant\((\d+)\)$")
_LESS = re.compile(r"ROOT .* compare\(.*direction=LT")


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Collectives of one kind.

  Attributes:
    count: of instructions that run; one may move many arrays.
    size: bytes of their results on one device.
  """

  count: int
  size: int


def collectives(text: str, loops: int = 1) -> dict[str, Traffic]:
  """Kind of collective -> how many and how much.

  Args:
    text: of an HLO module.
    loops: how often the loop over micro-batches or tiles runs.
  """
  counts: Counter[str] = Counter()
  sizes: Counter[str] = Counter()
  for line, times in _lines(text, loops):
    if match := _COLLECTIVE.search(line):
      result, kind, starts = match.groups()
      arrays = [_size(*array) for array in _ARRAY.findall(result)]
      # The start of a gather returns the operand as well as the result.
      together = (
        sum(arrays) if kind == "all-reduce" or not starts else max(arrays)
      )
      counts[kind] += times
      sizes[kind] += times * together
  return {kind: Traffic(counts[kind], sizes[kind]) for kind in sorted(counts)}


def cycles(text: str, loops: int = 1, *, scans: bool = True) -> int:
  """Sum of the cycles that libtpu writes beside each operation.

  Collectives and a few other operations have none.

  Args:
    text: see `collectives`.
    loops: see `collectives`.
    scans: whether other loops count as often as they run, and not once.
  """
  return sum(
    times * int(found)
    for line, times in _lines(text, loops, scans)
    for found in _CYCLES.findall(line)
  )


def _lines(
  text: str, loops: int, scans: bool = True
) -> Iterator[tuple[str, int]]:
  """Every line, and how often it runs."""
  computations: list[tuple[str, list[str]]] = [("", [])]
  for line in text.splitlines():
    if begins := _COMPUTATION.match(line):
      computations.append((begins[1], []))
    computations[-1][1].append(line)
  bounds = _bounds(computations) if scans else {}
  times: dict[str, int] = {}
  for name, lines in reversed(computations):
    here = times.get(name, 1)
    for line in lines:
      inside = here
      if _OUR_LOOP.search(line):
        inside *= loops
      elif condition := _CONDITION.search(line):
        inside *= bounds.get(condition[1], 1)
      times |= dict.fromkeys(_CALLED.findall(line), inside)
      yield line, here


def _bounds(computations: list[tuple[str, list[str]]]) -> dict[str, int]:
  """Condition of a loop over a scan -> how often the loop runs.

  Other loops end by their data, so that nobody knows it.
  """
  found = {}
  for name, lines in computations:
    numbers = [match[1] for line in lines if (match := _BOUND.search(line))]
    if len(numbers) == 1 and any(map(_LESS.search, lines)):
      found[name] = int(numbers[0])
  return found


def _size(kind: str, bits: str, shape: str) -> int:
  """Bytes of an array such as bf16[16,256]; `pred` takes one each."""
  each = 1 if kind == "pred" else max(1, int(bits) // 8)
  for side in filter(None, shape.split(",")):
    each *= int(side)
  return each
