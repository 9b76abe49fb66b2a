"""Images to measure with: those of a config, or synthetic photographs."""

from typing import Any

import cv2
import numpy as np

from input_pipeline import sources
from input_pipeline.errors import UsageError

_PHOTOGRAPHS = 16
_LENGTH = 50_000  # they come again and again: Grain shuffles short sets slowly
# The mean image of ImageNet: 500 × 375 pixels in 110 KB.
_SIZE = (375, 500)
_QUALITY = 92


def open_images(config: Any) -> tuple[sources.Source, str]:
  """The training images of a config, or others where they are not at hand.

  Returns:
    The images, and what they are.

  Raises:
    UsageError: there is no such folder.
  """
  name = config.data.name
  try:
    source = sources.open_source(
      name, config.data.split, config.loader.data_dir
    )
  except UsageError:  # They need not be on the machine that asks.
    if name.startswith(("folder:", "unlabelled:")):
      raise  # unless they are named by their place on it
    return (
      Photographs(),
      f"synthetic photographs of {_SIZE[1]} × {_SIZE[0]}",
    )
  return source, f"images of {name}"


class Photographs:
  """JPEG files as heavy as ImageNet's; see `sources.Source`."""

  name = split = fingerprint = "synthetic"
  num_classes = 0
  ignored = ""
  class_names: tuple[str, ...] = ()

  def __init__(self) -> None:
    rng = np.random.default_rng(0)
    self._files = []
    for _ in range(_PHOTOGRAPHS):
      image = np.zeros((*_SIZE, 3), np.float32)
      # Equal contrast at every scale, as in photographs.
      for cells in (4, 16, 64, 256):
        noise = rng.normal(0, 25, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, _SIZE[::-1], interpolation=cv2.INTER_CUBIC)
      pixels = np.clip(image + 128, 0, 255).astype(np.uint8)
      quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
      self._files.append(cv2.imencode(".jpg", pixels, quality)[1].tobytes())

  def __len__(self) -> int:
    return _LENGTH

  def __getitem__(self, i: int) -> dict[str, Any]:
    return {"image": self._files[i % _PHOTOGRAPHS], "label": np.int32(-1)}

  def example_name(self, i: int) -> str:
    """A number."""
    return f"synthetic photograph {i}"

  def file_of(self, i: int) -> None:
    """None: they are made here."""

  def unlabelled(self) -> np.ndarray:
    """All."""
    return np.arange(len(self))
