"""What is wrong with real annotations, and what becomes of each such example.

Annotations of real sets have faults, and no fault may end a run or go unseen.
Every kind is counted, and the examples that have it are named. A few kinds are
no faults, but a reader of results must know of them too.
"""

import collections
import concurrent.futures
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

Checked = TypeVar("Checked")
Item = TypeVar("Item")

_THREADS = 4  # mostly wait for storage; each holds one example at a time
_AT_A_TIME = 1024  # examples handed to them, so that few results wait
_TOLD = 3  # examples that a sentence names


class Kind(enum.Enum):
  """A kind of fault: what is counted, and what is done about it."""

  IMAGE_MISSING = "images whose file is missing", "left out"
  IMAGE_DAMAGED = (
    "images that cannot be read, as far as their headers tell",
    "left out",
  )
  ANNOTATION_MISSING = "images without an annotation file", "left out"
  ANNOTATION_MALFORMED = (
    "images whose annotation cannot be read, is no sound XML, or declares "
    "entities",
    "left out",
  )
  SIZE_DISAGREES = (
    "images whose annotation states another size than the upright image has",
    "left out, because nothing tells in which pixels the boxes are",
  )
  BOX_MALFORMED = "objects without four numbers for a box", "objects left out"
  BOX_WITHOUT_AREA = "boxes without area", "boxes left out"
  BOX_OUTSIDE = "boxes wholly outside the image", "boxes left out"
  BOX_REACHES_OUTSIDE = "boxes that reach outside the image", "clipped"
  CLASS_UNDECLARED = "objects of a class nobody declared", "objects left out"
  NO_OBJECTS = "images without objects", "kept"
  DIFFICULT = (
    "objects marked difficult",
    "kept with their mark; a metric counts them neither way",
  )
  MASK_MISSING = "images without a mask", "left out"
  MASK_DAMAGED = "masks that cannot be read", "left out"
  MASK_SIZE = "masks of another size than their upright image", "left out"
  MASK_MODE = (
    "masks that are neither of classes nor in the colours of VOC",
    "left out",
  )
  MASK_UNDECLARED = (
    "masks with classes nobody declared",
    "those pixels are void",
  )
  MASK_VOID = "masks with void pixels", "those pixels count nowhere"
  FRAME_SIZE = "frames of another size than 640 × 480", "left out"
  DEPTH_MISSING = "frames without a depth file", "left out"
  DEPTH_DAMAGED = (
    "depth files that are no 16-bit grey PNG of the frame's size",
    "left out",
  )
  DEPTH_INVALID = "frames without a valid depth", "kept; they count nowhere"

  @property
  def what(self) -> str:
    """What is counted, in the plural."""
    return self.value[0]

  @property
  def then(self) -> str:
    """What is done about it."""
    return self.value[1]


class Found:
  """Faults found so far, with the names of their examples."""

  def __init__(self) -> None:
    self._names: dict[Kind, list[str]] = collections.defaultdict(list)

  def add(self, name: str, kinds: Iterable[Kind]) -> None:
    """Counts the faults of an example; a kind may come several times."""
    for kind in kinds:
      self._names[kind].append(name)

  def by_kind(self) -> Mapping[str, Sequence[str]]:
    """What is counted -> examples; one with two such faults is named twice."""
    return {
      kind.what: tuple(self._names[kind]) for kind in Kind if self._names[kind]
    }

  def __str__(self) -> str:
    """Says "boxes without area: 2 (boxes left out; a, b)"; "" for none."""
    return "; ".join(
      f"{kind.what}: {len(names):,} ({kind.then}; {_told(names)})"
      for kind in Kind
      if (names := self._names[kind])
    )


def _told(names: Sequence[str]) -> str:
  first = [*dict.fromkeys(names)]
  return ", ".join(first[:_TOLD]) + (", …" if len(first) > _TOLD else "")


def look_through(
  items: Sequence[Item],
  check: Callable[[Item], tuple[Checked | None, Sequence[Kind]]],
  name_of: Callable[[Item], str],
) -> tuple[list[Checked], Found]:
  """Checks all items by a few threads.

  Args:
    items: what there should be.
    check: returns what is kept of an item, or None to leave it out, and its
      faults. What it returns should be small.
    name_of: names an item in reports.

  Returns:
    What was kept, and the faults, both in the order of the items.
  """
  kept: list[Checked] = []
  found = Found()
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    for start in range(0, len(items), _AT_A_TIME):
      some = items[start : start + _AT_A_TIME]
      for item, (result, kinds) in zip(
        some, threads.map(check, some), strict=True
      ):
        found.add(name_of(item), kinds)
        if result is not None:
          kept.append(result)
  return kept, found
