"""What is known of slices by their names, and which one a config takes."""

from __future__ import annotations

import pathlib

_TABLE = pathlib.Path(__file__).parents[1] / "slices.tsv"

# Runtime versions: https://cloud.google.com/tpu/docs/runtimes.
_VERSIONS = {
  "v2": "tpu-ubuntu2204-base",
  "v3": "tpu-ubuntu2204-base",
  "v4": "tpu-ubuntu2204-base",
  "v5litepod": "v2-alpha-tpuv5-lite",
  "v5p": "v2-alpha-tpuv5",
  "v6e": "v2-alpha-tpuv6e",
}


def row_of(config: str) -> tuple[str, str]:
  """(slice, zone) of a config in launch/slices.tsv, ("", "") if absent."""
  for line in _TABLE.read_text().splitlines():
    fields = line.split("\t")
    if fields[0] == config and len(fields) > 2:
      return fields[1], fields[2]
  return "", ""


def runtime_version(slice_: str) -> str:
  """The machine image of a slice; "" for a slice that is not known."""
  generation, dash, _ = slice_.partition("-")
  return _VERSIONS.get(generation, "") if dash else ""
