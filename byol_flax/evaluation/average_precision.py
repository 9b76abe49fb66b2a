"""Average precision of detections, as Pascal VOC measures it.

The rules are those of the development kit (VOCevaldet.m): detections of a class
are taken by falling score, and each stands for the true box that it overlaps
most. It is right if the overlap suffices and no earlier one was right about the
same box. If that box is difficult, the detection does not count at all.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from byol_flax.evaluation import scores as scores_lib

# Least overlaps, in percent: the first is VOC's, and the mean of all is COCO's.
OVERLAPS = tuple(range(50, 100, 5))


class Boxes(NamedTuple):
  """True and found boxes of N images, in pixels of their files.

  Attributes:
    true: float [N, M, 4].
    label: int [N, M], classes of the true boxes; -1 pads.
    difficult: bool [N, M].
    found: float [N, D, 4].
    scores: float [N, D].
    found_label: int [N, D]; -1 pads.
  """

  true: np.ndarray
  label: np.ndarray
  difficult: np.ndarray
  found: np.ndarray
  scores: np.ndarray
  found_label: np.ndarray


class Curve(NamedTuple):
  """What is right of a class, after each detection that counts.

  Attributes:
    right: int [n], how many were right so far.
    positives: true boxes that are not difficult.
  """

  right: np.ndarray
  positives: int

  @property
  def recall(self) -> np.ndarray:
    """Share of the true boxes that are found, float [n]."""
    return self.right / max(self.positives, 1)

  @property
  def precision(self) -> np.ndarray:
    """Share of the detections that are right, float [n]."""
    return self.right / np.arange(1, len(self.right) + 1)

  @property
  def eleven_points(self) -> float:
    """VOC2007's average of the precision; NaN without positives."""
    if not self.positives:
      return float("nan")
    return scores_lib.eleven_points(self.right, self.precision, self.positives)

  @property
  def area(self) -> float:
    """Area below the curve that falls (VOC2010); NaN without positives."""
    if not self.positives:
      return float("nan")
    best = np.maximum.accumulate(self.precision[::-1])[::-1]
    return float(np.sum(best * np.diff(self.recall, prepend=0)))


@dataclasses.dataclass(frozen=True)
class Summary:
  """Average precisions in [0, 1]; classes without true boxes have NaN.

  Attributes:
    ap50: mean over classes of VOC2007's eleven points, at an overlap of 0.5.
    ap50_area: the same of VOC2010's area.
    ap50_95: mean over classes of the area, averaged over `OVERLAPS`.
    per_class: what `ap50` is the mean of, float [K].
    curves: of each class, at an overlap of 0.5.
  """

  ap50: float
  ap50_area: float
  ap50_95: float
  per_class: np.ndarray
  curves: list[Curve]


class _Ranked(NamedTuple):
  """Detections of one class by falling score.

  Attributes:
    overlap: float [n], with the true box of the class that is overlapped most.
    truth: int [n], number of that box in the split.
    difficult: bool [n], whether that box is.
    positives: see `Curve`.
  """

  overlap: np.ndarray
  truth: np.ndarray
  difficult: np.ndarray
  positives: int


def summarise(boxes: Boxes, num_classes: int) -> Summary:
  """Measures all detections of a split."""
  curves = curves_of(boxes, num_classes, OVERLAPS)
  per_class = np.array([curve.eleven_points for curve in curves[0]])
  areas = np.array([[curve.area for curve in row] for row in curves])
  return Summary(
    ap50=_mean(per_class),
    ap50_area=_mean(areas[0]),
    ap50_95=_mean(areas.ravel()),
    per_class=per_class,
    curves=curves[0],
  )


def curves_of(
  boxes: Boxes, num_classes: int, overlaps: Sequence[int]
) -> list[list[Curve]]:
  """The curves of all classes, for each of some least overlaps, in percent."""
  ranked = _rank(boxes, num_classes)
  return [[_curve(one, least) for one in ranked] for least in overlaps]


def _mean(values: np.ndarray) -> float:
  """Mean over those that are not NaN; NaN if all are."""
  known = values[~np.isnan(values)]
  return float(np.mean(known)) if len(known) else float("nan")


def _rank(boxes: Boxes, num_classes: int) -> list[_Ranked]:
  """Sorts the detections of each class; of equal scores the first is first."""
  most, best = _best_overlaps(boxes)
  numbers = np.arange(boxes.label.size).reshape(boxes.label.shape)
  truth = np.take_along_axis(numbers, best, axis=1)
  difficult = np.take_along_axis(boxes.difficult, best, axis=1)
  ranked = []
  for k in range(num_classes):
    own = boxes.found_label == k
    order = np.argsort(-boxes.scores[own], kind="stable")
    ranked.append(
      _Ranked(
        overlap=most[own][order],
        truth=truth[own][order],
        difficult=difficult[own][order],
        positives=int(np.sum((boxes.label == k) & ~boxes.difficult)),
      )
    )
  return ranked


def _best_overlaps(boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
  """Largest overlap with a true box of the same class, and its place.

  Returns:
    float [N, D], -1 where the image has no true box of the class; int [N, D].
  """
  most = np.zeros(boxes.scores.shape)
  best = np.zeros(boxes.scores.shape, int)
  for i, (true, found) in enumerate(zip(boxes.true, boxes.found, strict=True)):
    same = boxes.found_label[i][:, None] == boxes.label[i][None]
    overlaps = np.where(same, overlaps_of(found, true), -1)
    best[i] = np.argmax(overlaps, axis=1)
    most[i] = np.max(overlaps, axis=1)
  return most, best


def overlaps_of(some: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Intersection over union [D, M], float64; 0 if both have no area."""
  some, others = (x.astype(np.float64) for x in (some[:, None], others[None]))
  sides = np.minimum(some[..., 2:], others[..., 2:]) - np.maximum(
    some[..., :2], others[..., :2]
  )
  common = np.prod(np.maximum(sides, 0), axis=-1)
  areas = [np.prod(x[..., 2:] - x[..., :2], axis=-1) for x in (some, others)]
  union = areas[0] + areas[1] - common
  return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _curve(ranked: _Ranked, least: int) -> Curve:
  """What counts at an overlap of at least so many percent, and is right."""
  enough = ranked.overlap >= least / 100
  right = np.zeros(len(enough), bool)
  places = np.flatnonzero(enough & ~ranked.difficult)
  # Of all that stand for the same true box the first is right.
  _, first = np.unique(ranked.truth[places], return_index=True)
  right[places[first]] = True
  counts = ~(enough & ranked.difficult)
  return Curve(right=np.cumsum(right[counts]), positives=ranked.positives)
