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
  """Who does how much; what travels to the devices follows from it."""

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
        "augment.scaled_decoding decodes an image for each draw anew, and with "
        "augment.cache=device it is decoded once. Leave out one of the two; "
        "`byol prepare --longest-side=N` makes images smaller for good."
      )
    return Place.RESIDENT
  return Place.ACCELERATOR if settings.device == "accelerator" else Place.HOST
