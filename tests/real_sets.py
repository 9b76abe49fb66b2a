"""Finds small real data sets, which lie beside the repository if at all."""

import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_PLACE = "shared/data"


def folder(name: str) -> str:
  """The path of a real data set; skips the test that asks if it is absent."""
  for above in (_ROOT, *_ROOT.parents):
    if (found := above / _PLACE / name).is_dir():
      return str(found)
  pytest.skip(
    f"The real data set {name} is not here: there is no {_PLACE}/{name} in the "
    "repository or in a folder above it."
  )
