"""Boxes are counted by their true and their found class, each once."""

import numpy as np

from byol_flax.evaluation import box_confusion
from byol_flax.evaluation.average_precision import Boxes

A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


def test_a_detection_stands_for_one_box_and_the_rest_is_nothing():
  counts = box_confusion.count(
    Boxes(
      true=np.array([[A, B, C, C], [B, A, A, A]], float),
      label=np.array([[0, 1, 1, -1], [0, -1, -1, -1]]),
      difficult=np.array([[False, False, True, False], [False] * 4]),
      # Of the first image: A with the wrong class, but most certain; A again;
      # the difficult one, twice; B, but uncertain. Of the second: nothing of B.
      found=np.array([[A, A, C, C, B], [A, B, B, B, B]], float),
      scores=np.array([[0.8, 0.9, 0.7, 0.6, 0.4], [0.5, 0.9, 0.9, 0.9, 0.9]]),
      found_label=np.array([[0, 1, 1, 0, 1], [1, -1, -1, -1, -1]]),
    ),
    num_classes=2,
  )
  #                found: 0  1  nothing
  assert counts.tolist() == [
    [0, 1, 1],  # A of the first image, B of the second
    [0, 0, 1],  # B, whose detection is uncertain
    [1, 1, 0],  # A again, and A of the second image
  ]


def test_every_certain_detection_and_every_box_counts_once():
  random = np.random.default_rng(5)

  def some(*shape):
    low = random.uniform(0, 12, (*shape, 2))
    return np.concatenate([low, low + random.uniform(5, 20, (*shape, 2))], -1)

  boxes = Boxes(
    true=some(30, 6),
    label=random.integers(-1, 3, (30, 6)),
    difficult=np.zeros((30, 6), bool),
    found=some(30, 9),
    scores=random.uniform(0, 1, (30, 9)),
    found_label=random.integers(-1, 3, (30, 9)),
  )
  counts = box_confusion.count(boxes, num_classes=3)
  certain = (boxes.scores >= 0.5) & (boxes.found_label >= 0)
  for k in range(3):
    assert counts[k].sum() == (boxes.label == k).sum()
    assert counts[:, k].sum() == (certain & (boxes.found_label == k)).sum()
  assert counts[3, 3] == 0
  assert 10 < counts[:3, :3].sum() < counts.sum()  # some of both
