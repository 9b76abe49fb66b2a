"""Measures against their definitions, on random scores with many ties."""

import itertools

import numpy as np
import pytest

from byol_flax.evaluation import scores


def coarse(rng, *shape):
  """Scores of few different values, so that many are equal."""
  return rng.integers(0, 5, shape) / 4


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_the_worst_over_all_orders_of_ties(k):
  rng = np.random.default_rng(k)
  found, labels = coarse(rng, 60, 6), rng.integers(-1, 6, 60)
  worst = []
  for row, label in zip(found, labels, strict=True):
    if label < 0:
      continue
    orders = [
      order
      for order in itertools.permutations(range(6))
      if all(row[a] >= row[b] for a, b in itertools.pairwise(order))
    ]
    worst.append(min(label in order[:k] for order in orders))
  assert 0 < np.mean(worst) < 1
  assert scores.top_k(found, labels, k) == pytest.approx(np.mean(worst))


def test_a_score_that_is_no_number_finds_nothing():
  nan = float("nan")
  found = np.array([[nan, 1.0], [nan, 1.0], [nan, nan], [0.0, 1.0]])
  assert scores.hits(found, np.array([0, 1, 0, 1])).tolist() == [
    False,
    False,
    False,
    True,
  ]


def test_mean_per_class_counts_classes_alike_and_leaves_out_the_absent():
  rng = np.random.default_rng(3)
  labels = rng.choice([-1, 0, 1, 3], 200, p=[0.2, 0.6, 0.15, 0.05])
  found = rng.normal(size=(200, 5)) + 1.2 * np.eye(5)[labels]
  shares = [np.mean(found[labels == c].argmax(axis=1) == c) for c in (0, 1, 3)]
  mean = scores.mean_per_class(found, labels)
  assert mean.value == pytest.approx(np.mean(shares))
  assert mean.value != pytest.approx(scores.top_k(found, labels))
  assert mean.left_out == (2, 4)


def slow_average_precision(found, truth):
  """The definition of VOC2007, of the order that is worst for ties."""
  pairs = sorted((-s, t) for s, t in zip(found, truth, strict=True) if t >= 0)
  positives = sum(t for _, t in pairs)
  points, right = [], 0
  for rank, (_, t) in enumerate(pairs, 1):
    right += t
    points.append((right / positives, right / rank))
  eleven = [
    max(p for recall, p in points if recall >= r / 10 - 1e-12)
    for r in range(11)
  ]
  return sum(eleven) / 11


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_is_that_of_the_worst_order(seed):
  rng = np.random.default_rng(seed)
  size = int(rng.integers(3, 70))
  found = coarse(rng, size) if seed % 2 else rng.normal(size=size)
  truth = rng.choice([-1, 0, 1], size, p=[0.2, 0.5, 0.3])
  truth[:3] = 1, 0, -1
  got = scores.average_precision(found, truth)
  assert got == pytest.approx(slow_average_precision(found, truth), abs=1e-12)


def test_average_precision_at_its_ends():
  truth = np.array([1, 0, 0, 1])
  assert scores.average_precision(np.array([4.0, 2, 1, 3]), truth) == 1
  # All alike: the share of positives. None of ten tenths is rounded.
  assert scores.average_precision(np.ones(4), truth) == 0.5
  ten = np.tile([1, 0], 10)
  assert scores.average_precision(-np.arange(20.0), ten) == pytest.approx(
    slow_average_precision(-np.arange(20.0), ten)
  )


def test_a_class_without_positives_is_left_out_of_the_mean():
  rng = np.random.default_rng(4)
  found, truth = rng.normal(size=(50, 3)), rng.integers(0, 2, (50, 3))
  truth[:, 1] = np.where(truth[:, 1] == 1, -1, 0)
  mean = scores.mean_average_precision(found, truth)
  expected = [slow_average_precision(found[:, k], truth[:, k]) for k in (0, 2)]
  assert mean.value == pytest.approx(np.mean(expected))
  assert mean.left_out == (1,)
  nothing = scores.mean_average_precision(found, np.zeros((50, 3), int))
  assert np.isnan(nothing.value)
  assert nothing.left_out == (0, 1, 2)
