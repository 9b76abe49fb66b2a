"""Measures of the paper's tables: how well scores find the true classes.

All are computed on the host, from scores [N, K], one column a class. If scores
are equal, the measure is the lowest that any order of them would give. So a
network that scores everything alike is not flattered, and the result does not
depend on how a sort breaks ties.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

# Recalls at which precision is looked up (VOC2007): tenths, 0 to 10.
_TENTHS = 10


@dataclasses.dataclass(frozen=True)
class Mean:
  """A mean over classes, and the classes that it leaves out.

  Attributes:
    value: in [0, 1]; NaN if no class counts.
    left_out: numbers of the classes without a value of their own.
  """

  value: float
  left_out: tuple[int, ...]


def hits(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
  """Whether the true class is among the k highest scores of each row.

  A class whose score equals that of the true one is ranked above it.

  Args:
    scores: float [N, K].
    labels: int [N], from 0 to K - 1.
    k: how many may be named.

  Returns:
    bool [N]; False if the score of the true class is NaN.
  """
  true = np.take_along_axis(scores, labels[:, None], axis=1)
  # Counts from below, so that a NaN elsewhere ranks above the true class too.
  below = np.sum(scores < true, axis=1)
  return below >= scores.shape[1] - k


def top_k(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
  """Share of labelled rows whose class is among the k highest, in [0, 1].

  Shapes as in `hits`; rows with label -1 do not count.
  """
  labelled = labels >= 0
  return float(np.mean(hits(scores[labelled], labels[labelled], k)))


def guesses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """The class that each row is taken for, int [N], so that `hits` are right.

  Shapes are as in `hits`. If the true class shares the highest score, another
  class of this score counts as the guess; the first of them if there are more.
  """
  others = np.where(
    labels[:, None] == np.arange(scores.shape[1]), -np.inf, scores
  )
  return np.where(hits(scores, labels), labels, others.argmax(axis=1))


def mean_per_class(scores: np.ndarray, labels: np.ndarray) -> Mean:
  """Top-1 among the rows of each class, averaged over classes.

  Shapes are as in `hits`; rows with label -1 do not count. A class without rows
  has no accuracy, so it is left out of the mean.
  """
  labelled = labels >= 0
  found, true = hits(scores[labelled], labels[labelled]), labels[labelled]
  classes = scores.shape[1]
  rows = np.bincount(true, minlength=classes)
  right = np.bincount(true, weights=found, minlength=classes)
  present = rows > 0
  return _mean(right[present] / rows[present], present)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
  """Precision at eleven recalls, interpolated and averaged (VOC2007).

  It is (1/11) Σ_r max_{r' ≥ r} precision(r') for r = 0, 0.1, …, 1. Examples of
  equal score are counted together, which gives the same as their worst order:
  if the negatives come first, precision rises from positive to positive and is
  highest when all are counted.

  Args:
    scores: float [N]; NaN, of a network that diverged, ranks last.
    truth: int [N]; 1 is positive, 0 negative, and -1 does not count.

  Returns:
    In [0, 1]; NaN without positives, since there is nothing to find.
  """
  counted = truth >= 0
  scores = np.where(np.isnan(scores), -np.inf, scores)[counted]
  truth = truth[counted]
  positives = int(truth.sum())
  if not positives:
    return float("nan")
  order = np.argsort(-scores, kind="stable")
  ranked = scores[order]
  ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
  found = np.cumsum(truth[order])[ends]
  precision = found / (ends + 1)
  return eleven_points(found, precision, positives)


def eleven_points(
  found: np.ndarray, precision: np.ndarray, positives: int
) -> float:
  """(1/11) Σ_r max_{r' ≥ r} precision(r') for r = 0, 0.1, …, 1.

  Args:
    found: int [n], how many positives are found at each place of a curve,
      never falling.
    precision: float [n].
    positives: how many there are to find, more than 0. A recall that is never
      reached has precision 0.
  """
  # The best from here on, and 0 beyond the last.
  best = np.maximum.accumulate(np.append(precision, 0.0)[::-1])[::-1]
  # Recalls are compared as whole numbers, because 0.1 is not exact in binary.
  tenths = np.arange(_TENTHS + 1)
  first = np.searchsorted(_TENTHS * found, tenths * positives)
  return float(np.mean(best[first]))


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> Mean:
  """`average_precision` of scores and truth [N, K], averaged over classes.

  A class without positives is left out of the mean.
  """
  found = np.array(
    [average_precision(*pair) for pair in zip(scores.T, truth.T, strict=True)]
  )
  present = ~np.isnan(found)
  return _mean(found[present], present)


def _mean(values: np.ndarray, present: np.ndarray) -> Mean:
  """Averages the values of the classes that are `present`, bool [K]."""
  return Mean(
    value=float(np.mean(values)) if len(values) else float("nan"),
    left_out=tuple(int(k) for k in np.flatnonzero(~present)),
  )


# By the name that a config gives it: (scores [N, K], labels) -> value.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], Mean]] = {
  "top1": lambda s, y: Mean(top_k(s, y), left_out=()),
  "mean_per_class": mean_per_class,
  "map11": mean_average_precision,
}
