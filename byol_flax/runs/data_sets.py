"""Opens the images that a config names; no other module looks them up."""

from collections.abc import Mapping
from typing import Any, Protocol

from input_pipeline import sources


class Names(Protocol):
  """The sections of a config that say where images lie; see configs/byol.py."""

  data: Any
  loader: Any


def open_split(
  config: Names,
  split: str | None = None,
  *,
  began_with: Mapping[str, int] | None = None,
) -> sources.Source:
  """Opens a split of a config's data set, by default the training split.

  `began_with` and the errors are those of `sources.open_source`.
  """
  return sources.open_source(
    config.data.name,
    split or config.data.split,
    config.loader.data_dir,
    began_with,
  )


def size_of(config: Names) -> tuple[int, int]:
  """Numbers of training images and of classes; see `sources.size_of`."""
  return sources.size_of(
    config.data.name, config.data.split, config.loader.data_dir
  )
