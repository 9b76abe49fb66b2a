"""How many images one core of this machine augments in a second."""

import time
from typing import Any

import cv2
import numpy as np

from input_pipeline import augment, sources
from input_pipeline.errors import UsageError

_SECONDS = 3.0
_PHOTOGRAPHS = 16
# The mean image of ImageNet: 500 × 375 pixels in 110 KB.
_SIZE = (375, 500)
_QUALITY = 92


def images_per_second(
  name: str, split: str, data_dir: str | None, two_views: augment.TwoViews
) -> tuple[float, str]:
  """Decodes and augments for a few seconds, in this thread.

  Args:
    name: of the data set, as the next two an argument of `open_source`.
    split: of it.
    data_dir: TFDS's directory.
    two_views: the transform.

  Returns:
    Images per second, two views of each; and what images they were.
  """
  source: Any
  try:
    source = sources.open_source(name, split, data_dir)
    what = f"images of {name}"
  except UsageError:  # It need not be on the machine that asks for the price.
    source = _Photographs()
    what = f"synthetic photographs of {_SIZE[1]} × {_SIZE[0]}"
  readable = sources.ReadableSource(source)
  rng = np.random.default_rng(0)

  def one(i: int) -> None:
    two_views.random_map(readable[i % len(readable)], rng)

  one(0)
  done, begun = 0, time.perf_counter()
  while time.perf_counter() - begun < _SECONDS:
    one(done)
    done += 1
  return done / (time.perf_counter() - begun), what


class _Photographs:
  """JPEG files as heavy as ImageNet's; see `sources.Source`."""

  name = split = "synthetic"
  num_classes = 0

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
    return len(self._files)

  def __getitem__(self, i: int) -> dict[str, Any]:
    return {"image": self._files[i], "label": np.int32(-1)}

  def example_name(self, i: int) -> str:
    """A number."""
    return f"synthetic photograph {i}"
