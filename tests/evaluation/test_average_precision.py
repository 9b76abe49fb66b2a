"""VOC's average precision: a published example, and a version with loops."""

import numpy as np
import pytest

from byol_flax.evaluation import average_precision

# samples/sample_2 of github.com/rafaelpadilla/Object-Detection-Metrics (MIT
# licence), one class: for each image its true boxes, and the found ones with
# scores in percent. A box is left, top, width, height.
EXAMPLE = (
  (
    [(25, 16, 38, 56), (129, 123, 41, 62)],
    [(88, 5, 67, 31, 48), (70, 119, 111, 40, 67), (80, 124, 9, 49, 67)],
  ),
  (
    [(123, 11, 43, 55), (38, 132, 59, 45)],
    [(71, 64, 111, 64, 58), (54, 26, 140, 60, 47), (74, 19, 18, 43, 35)],
  ),
  (
    [(16, 14, 35, 48), (123, 30, 49, 44), (99, 139, 47, 47)],
    [
      (18, 109, 15, 77, 39),
      (67, 86, 63, 46, 45),
      (38, 160, 62, 36, 53),
      (91, 105, 131, 47, 47),
      (44, 18, 148, 40, 44),
    ],
  ),
  (
    [(53, 42, 40, 52), (154, 43, 31, 34)],
    [
      (35, 83, 28, 28, 26),
      (78, 28, 68, 42, 67),
      (45, 87, 89, 25, 39),
      (14, 10, 155, 60, 26),
    ],
  ),
  (
    [(59, 31, 44, 51), (48, 128, 34, 52)],
    [
      (62, 50, 38, 28, 46),
      (44, 95, 11, 53, 28),
      (95, 29, 131, 72, 29),
      (23, 29, 163, 72, 29),
    ],
  ),
  (
    [(36, 89, 52, 76), (62, 58, 44, 67)],
    [(45, 43, 48, 74, 38), (84, 17, 155, 29, 35), (43, 95, 110, 25, 42)],
  ),
  (
    [(28, 31, 55, 63), (58, 67, 50, 58)],
    [(48, 16, 20, 101, 88), (95, 33, 116, 37, 49)],
  ),
)
# Of its README, at an overlap of 0.3: 26.84 % and 24.56 %, which it works out
# as (1 + 0.6666 + 3 · 0.4285) / 11 and as a sum of four areas.
ELEVEN_POINTS, AREA = 0.2684, 0.2456
RIGHT = "RJBPEXG"  # of the detections that the README calls A, B, … Y


def padded(rows, width, fill):
  return np.array([list(row) + [fill] * (width - len(row)) for row in rows])


def example():
  def edges(box):
    # Its overlaps count the pixels from left to left + width, both included.
    left, top, width, height = box
    return (left, top, left + width + 1, top + height + 1)

  none = (0, 0, 0, 0)
  true = [[edges(box) for box in boxes] for boxes, _ in EXAMPLE]
  found = [[edges(box[1:]) for box in boxes] for _, boxes in EXAMPLE]
  return average_precision.Boxes(
    true=padded(true, 3, none),
    label=padded([[0] * len(row) for row in true], 3, -1),
    difficult=np.zeros((7, 3), bool),
    found=padded(found, 5, none),
    scores=padded([[box[0] / 100 for box in row] for _, row in EXAMPLE], 5, 0),
    found_label=padded([[0] * len(row) for row in found], 5, -1),
  )


def test_published_example():
  ((curve,),) = average_precision.curves_of(example(), 1, [30])
  # It rounds each precision to four places before it adds them up.
  assert curve.eleven_points == pytest.approx(ELEVEN_POINTS, abs=1e-4)
  assert curve.area == pytest.approx(AREA, abs=1e-4)
  assert curve.positives == 15
  assert len(curve.right) == 24
  # By its table, in the order of the scores: R, Y, J, A, U, C, M, F, D, B, …
  order = "RYJAUCMFDBHPEXNTKQVILSGO"
  right = np.diff(curve.right, prepend=0)
  assert "".join(np.array(list(order))[right == 1]) == RIGHT


def box_overlap(one, other):
  width = min(one[2], other[2]) - max(one[0], other[0])
  height = min(one[3], other[3]) - max(one[1], other[1])
  if width <= 0 or height <= 0:
    return 0.0
  areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
  return width * height / (areas[0] + areas[1] - width * height)


def by_loops(boxes, k, least):
  """(eleven points, area) of class k as VOCevaldet.m goes about it."""
  positives = 0
  for label, difficult in zip(boxes.label, boxes.difficult, strict=True):
    positives += sum(
      one == k and not hard for one, hard in zip(label, difficult, strict=True)
    )
  if not positives:
    return np.nan, np.nan
  places = [
    (-boxes.scores[i, j], i, j)
    for i, j in np.ndindex(boxes.scores.shape)
    if boxes.found_label[i, j] == k
  ]
  taken, rights, wrongs, points = set(), 0, 0, []
  for _, i, j in sorted(places):
    most, best = -np.inf, None
    for m, label in enumerate(boxes.label[i]):
      if label == k:
        overlap = box_overlap(boxes.found[i, j], boxes.true[i, m])
        if overlap > most:
          most, best = overlap, m
    if most >= least:
      if boxes.difficult[i, best]:
        continue
      if (i, best) in taken:
        wrongs += 1
      else:
        taken.add((i, best))
        rights += 1
    else:
      wrongs += 1
    points.append((rights / positives, rights / (rights + wrongs)))
  eleven = 0.0
  for t in range(11):
    reached = [p for recall, p in points if recall >= t / 10 - 1e-12]
    eleven += max(reached, default=0) / 11
  area, before = 0.0, 0.0
  for n, (recall, _) in enumerate(points):
    area += (recall - before) * max(p for _, p in points[n:])
    before = recall
  return eleven, area


def random_boxes(seed, images=25, true=6, found=4, classes=4):
  """Detections of which many overlap; class 3 has no true boxes."""
  rng = np.random.default_rng(seed)

  def corners(count):
    # Whole tens, so that overlaps and scores are often equal.
    start = 10 * rng.integers(0, 4, (images, count, 2))
    size = 10 * rng.integers(1, 4, (images, count, 2))
    return np.concatenate([start, start + size], axis=-1).astype(np.float32)

  boxes, label = corners(true), rng.integers(-1, classes - 1, (images, true))
  # Two detections of each true box, often of its class, and others.
  near = np.repeat(boxes, 2, axis=1)
  near[..., 2:] += rng.integers(0, 3, (images, 2 * true, 1))
  guess = rng.integers(-1, classes, (images, 2 * true))
  guess = np.where(rng.random(guess.shape) < 0.6, label.repeat(2, 1), guess)
  others = rng.integers(-1, classes, (images, found))
  scores = rng.integers(0, 30, (images, found + 2 * true)) / 30
  return average_precision.Boxes(
    true=boxes,
    label=label,
    difficult=rng.random((images, true)) < 0.3,
    found=np.concatenate([corners(found), near], axis=1),
    scores=scores.astype(np.float32),
    found_label=np.concatenate([others, guess], axis=1),
  )


@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed):
  boxes, classes = random_boxes(seed), 4
  found = average_precision.summarise(boxes, classes)
  expected = np.array(
    [
      [by_loops(boxes, k, least / 100) for k in range(classes)]
      for least in range(50, 100, 5)
    ]
  )  # [overlaps, classes, 2]
  np.testing.assert_allclose(found.per_class, expected[0, :, 0], atol=1e-12)
  assert np.isnan(found.per_class[3])
  assert found.ap50 == pytest.approx(np.nanmean(expected[0, :, 0]))
  assert found.ap50_area == pytest.approx(np.nanmean(expected[0, :, 1]))
  assert found.ap50_95 == pytest.approx(np.nanmean(expected[..., 1]))
  assert 0.01 < found.ap50_95 < found.ap50_area < 1


def one_image(true, difficult, found, scores):
  """One class; the boxes are given by their left and right edges."""

  def tall(edges):
    return np.array([[(left, 0, right, 10) for left, right in edges]], float)

  return average_precision.Boxes(
    true=tall(true),
    label=np.zeros((1, len(true)), int),
    difficult=np.array([difficult]),
    found=tall(found),
    scores=np.array([scores]),
    found_label=np.zeros((1, len(found)), int),
  )


def test_each_true_box_is_found_once_and_difficult_ones_do_not_count():
  boxes = one_image(
    true=[(0, 10), (50, 60)],
    difficult=[False, True],
    found=[(0, 10), (50, 60), (0, 9), (50, 59), (80, 90)],
    scores=[0.5, 0.9, 0.6, 0.8, 0.4],
  )
  (curve,) = average_precision.summarise(boxes, 1).curves
  # The better score is right, though the other one overlaps more; then a
  # second one of the same box, and one of none.
  assert curve.positives == 1
  assert curve.right.tolist() == [1, 1, 1]
  assert curve.precision.tolist() == [1, 1 / 2, 1 / 3]


def test_half_an_overlap_is_enough():
  # 10 of 20 pixels, and 10 of 21.
  for right, area in ((20, 1), (21, 0)):
    boxes = one_image([(0, 10)], [False], [(0, right)], [1.0])
    assert average_precision.summarise(boxes, 1).ap50_area == area


def test_nothing_found_and_nothing_to_find():
  boxes = one_image([(0, 10)], [False], [(0, 10)], [1.0])
  missed = boxes._replace(found_label=np.array([[-1]]))
  found = average_precision.summarise(missed, 1)
  assert (found.ap50, found.ap50_area, found.ap50_95) == (0, 0, 0)
  empty = boxes._replace(label=np.array([[-1]]))
  assert np.isnan(average_precision.summarise(empty, 1).ap50)
