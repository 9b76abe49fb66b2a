"""The classes of Pascal VOC, its palette, and files of class names."""

import pathlib
from collections.abc import Iterable

import numpy as np

from input_pipeline.errors import UsageError

VOID = 255  # a pixel that counts nowhere

# In the order of the development kit (VOCinit.m).
OBJECTS = (
  *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
  *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person"),
  *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
OF_MASKS = ("background", *OBJECTS)


def palette() -> np.ndarray:
  """The colours of VOC's masks, uint8 [256, 3]; number 255 is void.

  Bits 0, 1, 2 of a number are the highest bits of red, green and blue, bits 3,
  4, 5 the next ones, and so on (VOClabelcolormap.m of the development kit).
  """
  numbers = np.arange(256)
  colors = np.zeros((256, 3), np.uint8)
  for bit in range(8):
    on = (numbers >> bit & 1) << 7 - bit // 3
    colors[:, bit % 3] |= on.astype(np.uint8)
  return colors


def of_names(names: Iterable[str]) -> tuple[str, ...]:
  """Classes by names that were found: VOC's own in its order, others sorted."""
  found = set(names)
  return OBJECTS if found <= {*OBJECTS} else tuple(sorted(found))


def read(file: str) -> tuple[str, ...]:
  """The classes in a file, one a line, in the order of their numbers.

  Raises:
    UsageError: the file cannot be read, is empty, or names a class twice.
  """
  try:
    text = pathlib.Path(file).read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(
      f"The file of classes {file} cannot be read ({error}); expected a text "
      "file with the name of one class a line."
    ) from None
  names = [line.strip() for line in text.splitlines() if line.strip()]
  repeated = sorted({name for name in names if names.count(name) > 1})
  if not names or repeated:
    came = f"{repeated[0]!r} comes twice" if repeated else "it is empty"
    raise UsageError(
      f"The file of classes {file} should name each class once, one a line, "
      f"but {came}."
    )
  if len(names) > VOID:
    raise UsageError(
      f"The file of classes {file} names {len(names)}; at most {VOID} are "
      "possible, because masks have a byte for each pixel and 255 is void."
    )
  return tuple(names)
