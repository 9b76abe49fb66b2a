"""Which classes a detector takes for which others, and what it does not see.

A certain detection stands for the true box that it overlaps most and that no
more certain one has taken, of whatever class. This is no measure of Pascal VOC,
where a detection is never compared with boxes of other classes.
"""

from collections.abc import Sequence

import numpy as np

from byol_flax.evaluation import average_precision
from byol_flax.evaluation.average_precision import Boxes

# A detection counts if its score is at least this, and stands for a box if
# both overlap as much.
SCORE = OVERLAP = 0.5
# Name of the last row, for boxes that are found where none is, and of the last
# column, for boxes that are not found.
NOTHING = "nothing"


def count(boxes: Boxes, num_classes: int) -> np.ndarray:
  """Counts the boxes of a split, int [K + 1, K + 1], rows true, columns found.

  Difficult boxes, and detections that stand for one, count nowhere.
  """
  counts = np.zeros((num_classes + 1,) * 2, np.int64)
  for one in zip(*boxes, strict=True):
    pairs = np.array(_pairs(Boxes(*one), num_classes), int).reshape(-1, 2)
    np.add.at(counts, tuple(pairs.T), 1)
  return counts


def _pairs(image: Boxes, nothing: int) -> Sequence[tuple[int, int]]:
  """(true class, found class) of all that counts in one image."""
  known = image.label >= 0
  true, label, difficult = (
    x[known] for x in (image.true, image.label, image.difficult)
  )
  certain = np.flatnonzero((image.found_label >= 0) & (image.scores >= SCORE))
  order = certain[np.argsort(-image.scores[certain], kind="stable")]
  free = np.ones(len(true), bool)
  found = []
  for box, k in zip(image.found[order], image.found_label[order], strict=True):
    shares = np.where(
      free, average_precision.overlaps_of(box[None], true)[0], -1
    )
    if shares.max(initial=0) < OVERLAP:
      found.append((nothing, int(k)))
      continue
    best = int(shares.argmax())
    # Any number of detections may stand for a difficult box, as in VOC.
    free[best] = difficult[best]
    if not difficult[best]:
      found.append((int(label[best]), int(k)))
  missed = label[free & ~difficult]
  return [*found, *((int(k), nothing) for k in missed)]
