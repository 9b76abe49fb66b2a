"""Images to measure with: those of a config, or synthetic photographs."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from byol_flax.runs import data_sets
from input_pipeline import image_limits, sources
from input_pipeline.errors import UsageError

_PHOTOGRAPHS = 16
_LENGTH = 50_000  # with repetitions, because Grain shuffles short sets slowly
_IMAGENET = (500, 375)  # the mean size of its images, which take 110 KB
_QUALITY = 92


def parse_size(text: str) -> tuple[int, int]:
  """Width and height of "4000x3000".

  Raises:
    UsageError: it is no size, or one of more pixels than are decoded.
  """
  width, x, height = text.partition("x")
  if not (x and width.isdecimal() and height.isdecimal()):
    raise UsageError(
      f"--image-size is {text!r}; expected width and height, such as 4000x3000."
    )
  size = int(width), int(height)
  if not 1 <= size[0] * size[1] <= image_limits.MAX_PIXELS:
    raise UsageError(
      f"--image-size is {text}; expected 1 to {image_limits.MAX_PIXELS} pixels."
    )
  return size


def open_images(
  config: Any, size: tuple[int, int] | None = None
) -> tuple[sources.Source, str]:
  """The training images of a config, or synthetic ones if they are not here.

  Args:
    config: as made by configs/byol.py.
    size: width and height; if given, synthetic photographs in any case.

  Returns:
    The images, and a phrase that says what they are.

  Raises:
    UsageError: there is no such folder.
  """
  if size:
    return _synthetic(size)
  name = config.data.name
  return or_synthetic(name, lambda: data_sets.open_split(config))


def or_synthetic(
  name: str, open_split: Callable[[], sources.Source]
) -> tuple[sources.Source, str]:
  """What `open_split` opens of the data set `name`; else as `open_images`."""
  try:
    return open_split(), f"images of {name}"
  except UsageError:  # the set need not be on this machine
    if name.startswith(("folder:", "unlabelled:")):
      raise  # but a folder must be
    return _synthetic(_IMAGENET)


def _synthetic(size: tuple[int, int]) -> tuple[sources.Source, str]:
  width, height = size
  return Photographs(size), f"synthetic photographs of {width} × {height}"


class Photographs:
  """JPEG files as large as ImageNet's; see `sources.Source`.

  If they have more pixels, they take as many bytes a pixel as a camera's files.
  """

  name = split = fingerprint = "synthetic"
  num_classes = 0
  ignored = ""
  class_names: tuple[str, ...] = ()

  def __init__(self, size: tuple[int, int] = _IMAGENET) -> None:
    """Takes width and height."""
    rng = np.random.default_rng(0)
    self._files = []
    # As in photographs, contrast is equal at every scale down to two pixels.
    scales = [4]
    while 4 * scales[-1] <= max(size):
      scales.append(4 * scales[-1])
    for _ in range(_PHOTOGRAPHS if size == _IMAGENET else _PHOTOGRAPHS // 4):
      image = np.zeros((*size[::-1], 3), np.float32)
      for cells in scales:
        noise = rng.normal(0, 25, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
      pixels = np.clip(image + 128, 0, 255).astype(np.uint8)
      quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
      self._files.append(cv2.imencode(".jpg", pixels, quality)[1].tobytes())

  def __len__(self) -> int:
    return _LENGTH

  def __getitem__(self, i: int) -> dict[str, Any]:
    return {"image": self._files[i % len(self._files)], "label": np.int32(-1)}

  def ahead(self, numbers: Sequence[int] | np.ndarray) -> None:
    """Does nothing: the photographs are in memory."""

  def example_name(self, i: int) -> str:
    """Names a photograph by its number."""
    return f"synthetic photograph {i}"

  def file_name(self, i: int) -> str:
    """The example's name."""
    return self.example_name(i)

  def file_of(self, i: int) -> None:
    """None, because the photographs are made here."""

  def unlabelled(self) -> np.ndarray:
    """The numbers of all photographs: none has a label."""
    return np.arange(len(self))
