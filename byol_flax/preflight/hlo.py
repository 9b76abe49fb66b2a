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


def cycles(text: str, loops: int = 1) -> int:
  """Sum of the cycles that libtpu writes beside each operation.

  Collectives and a few other operations have none. The arguments are those of
  `collectives`.
  """
  return sum(
    times * int(found)
    for line, times in _lines(text, loops)
    for found in _CYCLES.findall(line)
  )


def _lines(text: str, loops: int) -> Iterator[tuple[str, int]]:
  """Every line, and how often it runs."""
  computations: list[tuple[str, list[str]]] = [("", [])]
  for line in text.splitlines():
    if begins := _COMPUTATION.match(line):
      computations.append((begins[1], []))
    computations[-1][1].append(line)
  times: dict[str, int] = {}
  for name, lines in reversed(computations):
    here = times.get(name, 1)
    for line in lines:
      inside = here * (loops if _OUR_LOOP.search(line) else 1)
      times |= dict.fromkeys(_CALLED.findall(line), inside)
      yield line, here


def _size(kind: str, bits: str, shape: str) -> int:
  """Bytes of an array such as bf16[16,256]; `pred` takes one each."""
  each = 1 if kind == "pred" else max(1, int(bits) // 8)
  for side in filter(None, shape.split(",")):
    each *= int(side)
  return each
