"""Opens the images that a config names; no other module looks them up."""

import os
from collections.abc import Mapping
from typing import Any, Protocol

from byol_flax.runs import buckets
from input_pipeline import paths, sources, staging

# A core prepares about 450 photographs in a second (BUILD_NOTES.md). So many
# requests at a time keep it busy if a bucket answers after 35 ms, which is an
# assumption.
_THREADS_OF_BUCKET = 16
_DIR_OF_TFDS = "~/tensorflow_datasets"  # where it looks if nothing is given


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

  It is read from `loader.stage_dir` if a complete copy is there.

  `began_with` and the errors are those of `sources.open_source`.
  """
  split = split or config.data.split
  place = place_of(config, split)
  staged = place is not None and place.complete()
  return sources.open_source(
    config.data.name,
    split,
    place.data_dir if place and staged else config.loader.data_dir,
    began_with,
  )


def place_of(config: Names, *splits: str) -> staging.Place | None:
  """What of these splits shall be copied where; None if nothing shall.

  The errors are those of `sources.place_of`.
  """
  if not config.loader.stage_dir:
    return None
  return sources.place_of(
    config.data.name, splits, config.loader.data_dir, config.loader.stage_dir
  )


def size_of(config: Names) -> tuple[int, int]:
  """Numbers of training images and of classes; see `sources.size_of`."""
  return sources.size_of(
    config.data.name, config.data.split, config.loader.data_dir
  )


def num_threads(config: Names) -> int:
  """How many threads read training images in each worker."""
  if config.loader.num_threads or config.loader.stage_dir:
    return config.loader.num_threads or 1
  return threads_for(config.data.name, config.loader.data_dir, local=1)


def threads_for(name: str, data_dir: str | None, *, local: int) -> int:
  """How many threads read a data set in each worker, by where it lies.

  Args:
    name: see `sources.open_source`.
    data_dir: TFDS's directory; None: TFDS_DATA_DIR or ~/tensorflow_datasets.
    local: how many do if it is not in a bucket.
  """
  kind, _, path = name.partition(":")
  if not paths.has_path(kind, path):  # TFDS finds its data sets by these
    path = data_dir or os.environ.get("TFDS_DATA_DIR") or _DIR_OF_TFDS
  remote = buckets.holds(paths.absolute(path), buckets.mounts())
  return _THREADS_OF_BUCKET if remote else local
