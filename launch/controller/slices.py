"""What is known of slices by their names, and which one a config takes."""

from __future__ import annotations

import pathlib
import re

_TABLE = pathlib.Path(__file__).parents[1] / "slices.tsv"

# Generation -> (runtime version, how much a device adds to the number in the
# name). Versions: https://cloud.google.com/tpu/docs/runtimes.
_GENERATIONS = {
  "v2": ("tpu-ubuntu2204-base", 1),
  "v3": ("tpu-ubuntu2204-base", 1),
  "v4": ("tpu-ubuntu2204-base", 2),
  "v5litepod": ("v2-alpha-tpuv5-lite", 1),
  "v5p": ("v2-alpha-tpuv5", 2),
  "v6e": ("v2-alpha-tpuv6e", 1),
}
# GB of memory of a host, by its chips: cloud.google.com/tpu/docs/v5e. Google's
# pages on the other generations do not tell.
_MEMORY = {"v5litepod": {1: 48, 4: 192, 8: 384}}


def full_name(slice_: str) -> str:
  """The name that gcloud takes; Google's pages also call v5litepod v5e."""
  return re.sub("^v5e(?=-|$)", "v5litepod", slice_)


def row_of(config: str, kind: str = "") -> tuple[str, str]:
  """(slice, zone) of a config in launch/slices.tsv, ("", "") if absent.

  Args:
    config: name of a file of configs/.
    kind: the generation that it must be of; "" for the first row.
  """
  for line in _TABLE.read_text().splitlines():
    fields = line.split("\t")
    if fields[0] != config or len(fields) < 3:
      continue
    if not kind or generation(fields[1]) == kind:
      return fields[1], fields[2]
  return "", ""


def zones_of(config: str) -> list[str]:
  """The zones of all rows of a config in launch/slices.tsv."""
  rows = [line.split("\t") for line in _TABLE.read_text().splitlines()]
  return list(dict.fromkeys(row[2] for row in rows if row[0] == config))


def is_generation(word: str) -> bool:
  """Whether it names a generation, and no slice of it."""
  return word in _GENERATIONS


def generation(slice_: str) -> str:
  """The part before the dash; "" for a slice that is not known."""
  name, _, number = slice_.partition("-")
  known = name in _GENERATIONS and re.fullmatch("[1-9][0-9]*", number)
  return name if known else ""


def runtime_version(slice_: str) -> str:
  """The machine image of a slice that is known."""
  return _GENERATIONS[generation(slice_)][0]


def devices(slice_: str) -> int:
  """How many devices JAX shows on a slice that is known."""
  number = int(slice_.partition("-")[2])
  return max(1, number // _GENERATIONS[generation(slice_)][1])


def host_memory(slice_: str) -> int | None:
  """Bytes of memory of a host of a slice that is known; None if unknown.

  A slice of one or eight chips of v5e is one host; others have four on each.
  """
  chips = int(slice_.partition("-")[2])
  gigabytes = _MEMORY.get(generation(slice_), {}).get(
    chips if chips in (1, 8) else 4
  )
  return None if gigabytes is None else gigabytes * 10**9
