"""Reads annotations of Pascal VOC: XML files with the boxes of an image.

Boxes are float32 (x_min, y_min, x_max, y_max) in pixels, half-open, with the
origin at the image's top left corner. VOC counts pixels from one and includes
the last, so its (a, b, c, d) becomes (a - 1, b - 1, c, d).

An image that has an EXIF orientation is turned upright when it is decoded, and
its boxes count in the upright image, as a viewer shows it. If the annotation
states the size of the image before it was turned, the two disagree.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from input_pipeline.faults import Kind

_MOST_BYTES = 2**24  # of a file; VOC's largest have some thousands
# Declarations let a few bytes stand for gigabytes. A zero byte would hide them
# in UTF-16, the only encoding of the parser that is no superset of ASCII.
_REFUSED = (b"<!DOCTYPE", b"<!ENTITY", b"\0")
_EDGES = ("xmin", "ymin", "xmax", "ymax")


class MalformedError(ValueError):
  """The bytes are no sound annotation."""


class Object(NamedTuple):
  """An object as it is annotated; `edges` is None if a number is missing."""

  name: str
  edges: tuple[float, float, float, float] | None
  difficult: bool


class Annotation(NamedTuple):
  """An annotation; `size` is height and width, or None if not stated."""

  size: tuple[int, int] | None
  objects: Sequence[Object]


def parse(data: bytes) -> Annotation:
  """Reads an annotation without expanding entities.

  Raises:
    MalformedError: it is no sound XML, or declares a document type or entities.
  """
  if len(data) > _MOST_BYTES or any(refused in data for refused in _REFUSED):
    raise MalformedError("declarations, zero bytes or too many bytes")
  try:
    root = ElementTree.fromstring(data)
  except (ElementTree.ParseError, ValueError, LookupError) as error:
    raise MalformedError(str(error)) from error
  size = [_number(root, f"size/{side}") for side in ("height", "width")]
  return Annotation(
    size=(int(size[0]), int(size[1])) if min(size) >= 1 else None,
    objects=[_object(element) for element in root.findall("object")],
  )


def _object(element: ElementTree.Element) -> Object:
  edges = [_number(element, f"bndbox/{edge}") for edge in _EDGES]
  whole = all(edge > -math.inf for edge in edges)
  return Object(
    name=(element.findtext("name") or "").strip(),
    edges=(edges[0], edges[1], edges[2], edges[3]) if whole else None,
    difficult=(element.findtext("difficult") or "").strip() == "1",
  )


def _number(element: ElementTree.Element, path: str) -> float:
  """The number at a path; minus infinity for none, or for no finite one."""
  try:
    number = float(element.findtext(path) or "")
  except ValueError:
    return -math.inf
  return number if math.isfinite(number) else -math.inf


def boxes(
  annotation: Annotation,
  numbers: Mapping[str, int],
  size: tuple[int, int],
) -> tuple[np.ndarray, list[Kind]]:
  """The boxes that count in an image, and the faults of its objects.

  Args:
    annotation: of the image.
    numbers: name of a class -> its number.
    size: height and width of the upright image.

  Returns:
    float32 [M, 6]: four edges within the image, class, difficult; and a kind
    for each fault.
  """
  rows, kinds = [], []
  for name, edges, difficult in annotation.objects:
    if name not in numbers:
      kinds.append(Kind.CLASS_UNDECLARED)
      continue
    box = None
    if edges is not None:
      x_min, y_min, x_max, y_max = edges
      # A box of one pixel has equal edges in VOC. No object is that small, but
      # a click by mistake is.
      if x_max <= x_min or y_max <= y_min:
        kinds.append(Kind.BOX_WITHOUT_AREA)
        continue
      box = (x_min - 1, y_min - 1, x_max, y_max)
    kept, found = clipped(box, size)
    kinds += found
    if kept is not None:
      rows.append((*kept, numbers[name], difficult))
      kinds += [Kind.DIFFICULT] * difficult
  if not rows:
    kinds.append(Kind.NO_OBJECTS)
  return np.array(rows, np.float32).reshape(-1, 6), kinds


def clipped(
  box: tuple[float, float, float, float] | None, size: tuple[int, int]
) -> tuple[tuple[float, float, float, float] | None, list[Kind]]:
  """The part of a half-open box within an image, or None, and its faults."""
  if box is None:
    return None, [Kind.BOX_MALFORMED]
  height, width = size
  x_min, y_min, x_max, y_max = box
  if x_max <= x_min or y_max <= y_min:
    return None, [Kind.BOX_WITHOUT_AREA]
  if x_min >= width or y_min >= height or x_max <= 0 or y_max <= 0:
    return None, [Kind.BOX_OUTSIDE]
  kept = (max(x_min, 0), max(y_min, 0), min(x_max, width), min(y_max, height))
  return kept, [] if kept == box else [Kind.BOX_REACHES_OUTSIDE]
