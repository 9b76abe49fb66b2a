"""What is known of slices by their names, and which one a config takes."""

from __future__ import annotations

import pathlib

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


def row_of(config: str) -> tuple[str, str]:
  """(slice, zone) of a config in launch/slices.tsv, ("", "") if absent."""
  for line in _TABLE.read_text().splitlines():
    fields = line.split("\t")
    if fields[0] == config and len(fields) > 2:
      return fields[1], fields[2]
  return "", ""


def generation(slice_: str) -> str:
  """The part before the dash; "" for a slice that is not known."""
  name, _, number = slice_.partition("-")
  return name if name in _GENERATIONS and number.isdigit() else ""


def runtime_version(slice_: str) -> str:
  """The machine image of a slice that is known."""
  return _GENERATIONS[generation(slice_)][0]


def devices(slice_: str) -> int:
  """How many devices JAX shows on a slice that is known."""
  number = int(slice_.partition("-")[2])
  return max(1, number // _GENERATIONS[generation(slice_)][1])
