"""Where the two views of an example are made: decided here and nowhere else."""

import enum
from typing import Any, Protocol

from input_pipeline.errors import UsageError


class AugmentConfig(Protocol):
  """The `augment` section of a config; see configs/byol.py."""

  size: int
  device: str
  cache: str
  scaled_decoding: bool
  view1: Any
  view2: Any


class Place(enum.Enum):
  """Who does what; it decides what is sent to the devices."""

  HOST = "the host finishes both views"
  ACCELERATOR = "the host crops, and sends draws for colours and blur"
  RESIDENT = "images lie on the devices, and the host only sends draws"


def place_of(settings: AugmentConfig) -> Place:
  """The place that a config asks for.

  Raises:
    UsageError: settings that contradict each other.
  """
  if settings.cache == "device":
    if settings.scaled_decoding:
      raise UsageError(
        "augment.scaled_decoding decodes an image anew for each draw, but "
        "augment.cache=device decodes it only once. Leave out one of the two; "
        "`byol prepare --longest-side=N` makes images smaller for good."
      )
    return Place.RESIDENT
  return Place.ACCELERATOR if settings.device == "accelerator" else Place.HOST
