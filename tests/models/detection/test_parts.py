"""Boxes, anchors, matching, sampling, suppression and RoIAlign, with loops.

`test_against_torchvision` compares the same functions with another library.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.models.detection import (
  anchors,
  boxes,
  matching,
  nms,
  roi_align,
  sampling,
)
from tests.models.detection import made


def overlap(one, other):
  """Of two boxes, in float64."""
  one, other = one.astype(np.float64), other.astype(np.float64)
  sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
  common = np.prod(np.maximum(sides, 0))
  union = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common
  return common / union if union else 0.0


def test_overlaps_of_boxes_with_and_without_area():
  some, others = made.boxes(12, seed=0), made.boxes(9, seed=1)
  others[3] = some[5]
  expected = [[overlap(one, other) for other in others] for one in some]
  found = boxes.pairwise_overlaps(some, others)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert found[5, 3] == 1
  np.testing.assert_allclose(
    boxes.areas(some), np.prod(some[:, 2:] - some[:, :2], axis=1), rtol=1e-6
  )


def test_deltas_of_a_box_by_hand_and_back():
  weights = (10.0, 10.0, 5.0, 5.0)
  reference = jnp.array([10.0, 20.0, 30.0, 60.0])  # 20 × 40 around (20, 40)
  box = jnp.array([21.0, 30.0, 31.0, 110.0])  # 10 × 80 around (26, 70)
  deltas = boxes.encode(reference, box, weights)
  expected = [10 * 6 / 20, 10 * 30 / 40, -5 * np.log(2), 5 * np.log(2)]
  np.testing.assert_allclose(deltas, expected, rtol=1e-6)
  np.testing.assert_allclose(
    boxes.decode(reference, deltas, weights), box, rtol=1e-5
  )
  # However large the delta, a box grows to 62.5 times its reference.
  grown = boxes.decode(reference, jnp.array([0.0, 0, 1e9, -1e9]), weights)
  np.testing.assert_allclose(grown, [-605, 40, 645, 40], rtol=1e-5)


def test_boxes_are_cut_at_the_edges_of_an_image():
  some = jnp.array([[-5.0, -6, 7, 8], [30, 90, 200, 300], [80, 80, 90, 90]])
  found = boxes.clip(some, jnp.array([100, 50]))
  np.testing.assert_array_equal(
    found, [[0, 0, 7, 8], [30, 90, 50, 100], [50, 80, 50, 90]]
  )


def test_anchors_by_hand():
  found = anchors.make_anchors((2, 3), stride=16, sizes=(32, 64), ratios=(4, 1))
  assert found.shape == (2 * 3 * 2 * 2, 4)
  # Area 32², height 4 times the width: 16 × 64.
  np.testing.assert_array_equal(found[0], [-8, -32, 8, 32])
  np.testing.assert_array_equal(found[1], [-16, -16, 16, 16])
  np.testing.assert_array_equal(found[2], [-16, -64, 16, 64])
  # Row 1, column 2, size 64, square: around (32, 16).
  np.testing.assert_array_equal(found[5 * 4 + 3], [0, -16, 64, 48])


def test_anchors_in_the_padding_are_those_that_the_image_would_not_have():
  parts = {"stride": 16, "sizes": (32,), "ratios": (0.5, 1.0)}
  size = (33, 64)  # its own map has 3 × 4 places
  padded = anchors.make_anchors((5, 6), **parts)
  own = anchors.make_anchors((3, 4), **parts)
  kept = np.asarray(anchors.inside(padded, jnp.array(size)))
  np.testing.assert_array_equal(padded[kept], own)


def matched(overlaps, *, true=None, counts=None, best_too=True):
  overlaps = jnp.asarray(overlaps, jnp.float32)
  found = matching.match(
    overlaps,
    true=jnp.ones(len(overlaps), bool) if true is None else jnp.array(true),
    counts=(
      jnp.ones(overlaps.shape[1], bool) if counts is None else jnp.array(counts)
    ),
    positive=0.7,
    negative=0.3,
    best_too=best_too,
  )
  return found.truth.tolist(), found.kind.tolist()


def test_matches_by_hand():
  overlaps = [[0.8, 0.7, 0.5, 0.3, 0.2, 0.0], [0.1, 0.0, 0.1, 0.4, 0.4, 0.0]]
  truth, kind = matched(overlaps, best_too=False)
  assert kind == [1, 1, -1, -1, -1, 0]
  assert truth[:3] == [0, 0, 0]
  # The second true box has two best ones of 0.4.
  truth, kind = matched(overlaps)
  assert kind == [1, 1, -1, 1, 1, 0]
  assert truth[:5] == [0, 0, 0, 1, 1]


def test_a_true_box_that_nothing_overlaps_matches_nothing():
  assert matched([[0.0, 0.0, 0.0]])[1] == [0, 0, 0]


def test_padding_neither_matches_nor_is_matched():
  overlaps = [[0.8, 0.2, 0.6], [0.9, 0.9, 0.9]]
  assert matched(overlaps, true=[True, False]) == ([0, 0, 0], [1, 0, -1])
  assert matched(overlaps, true=[False, False])[1] == [0, 0, 0]
  # The best of those that count is another one.
  _, kind = matched(overlaps, true=[True, False], counts=[False, True, True])
  assert kind == [-1, 0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("positives", "negatives", "expected"),
  [
    (30, 60, (5, 15)),  # enough of both: a quarter of 20
    (3, 60, (3, 17)),
    (30, 4, (5, 4)),
    (0, 60, (0, 20)),
    (0, 0, (0, 0)),
  ],
)
def test_a_sample_has_its_share_of_positives(positives, negatives, expected):
  rng = np.random.default_rng(0)
  kind = np.full(100, matching.NEITHER)
  places = rng.permutation(100)
  kind[places[:positives]] = matching.POSITIVE
  kind[places[positives : positives + negatives]] = matching.NEGATIVE
  draw = functools.partial(sampling.sample, number=20, positive_share=0.25)
  found = draw(jax.random.key(1), jnp.asarray(kind))
  index, drawn = np.asarray(found.place), np.asarray(found.kind)
  assert ((drawn == 1).sum(), (drawn == 0).sum()) == expected
  counts = drawn >= 0
  np.testing.assert_array_equal(kind[index[counts]], drawn[counts])
  assert len(set(index[counts])) == counts.sum()
  assert (np.diff(drawn) <= 0).all()


@pytest.mark.slow
def test_all_of_a_kind_are_drawn_equally_often():
  kind = jnp.array([1] * 10 + [0] * 30)
  draw = functools.partial(sampling.sample, number=8, positive_share=0.5)
  keys = jax.random.split(jax.random.key(0), 2000)
  found = jax.vmap(draw, (0, None))(keys, kind)
  often = np.bincount(np.asarray(found.place).ravel(), minlength=40) / 2000
  # 4 of 10 and 4 of 30; a deviation of 5 sigma would be 0.055.
  np.testing.assert_allclose(often[:10], 0.4, atol=0.055)
  np.testing.assert_allclose(often[10:], 4 / 30, atol=0.04)


@pytest.mark.slow
def test_fewer_boxes_than_places():
  found = sampling.sample(
    jax.random.key(0), jnp.array([1, 0, -1]), number=9, positive_share=1.0
  )
  assert found.place.tolist() == [0, 1, 0]  # the last one repeats the first
  assert found.kind.tolist() == [1, 0, -1]


def suppressed(some, scores, threshold, label):
  """Greedy suppression with loops; numbers of the kept boxes, best first."""
  kept = []
  for i in np.argsort(-scores, kind="stable"):
    if scores[i] > -np.inf and all(
      label[i] != label[j] or overlap(some[i], some[j]) <= threshold
      for j in kept
    ):
      kept.append(i)
  return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("shift", [0, -300])
def test_suppression_at_any_threshold_and_place(threshold, classes, shift):
  some = made.boxes(60, seed=2) + np.float32(shift)
  rng = np.random.default_rng(3)
  scores = (rng.integers(0, 9, 60) / 9).astype(np.float32)
  scores[rng.integers(0, 60, 10)] = -np.inf
  label = rng.integers(0, classes, 60)
  expected = suppressed(some, scores, threshold, label)
  index, found = jax.jit(
    functools.partial(nms.suppress, threshold=threshold, number=70)
  )(some, scores, label=label)
  assert np.asarray(index)[np.asarray(found)].tolist() == expected
  # Fewer places hold the best of them.
  index, found = nms.suppress(
    jnp.asarray(some),
    jnp.asarray(scores),
    label=jnp.asarray(label),
    threshold=threshold,
    number=5,
  )
  assert found.all()
  assert index.tolist() == expected[:5]


def interpolated(image, y, x):
  """Value [C] of a map [h, w, C] at a point, as torchvision defines it."""
  h, w, _ = image.shape
  if not (-1 <= y <= h and -1 <= x <= w):
    return np.zeros(image.shape[-1])
  y, x = np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)
  top, left = int(y), int(x)
  down, right = min(top + 1, h - 1), min(left + 1, w - 1)
  a, b = y - top, x - left
  return (1 - a) * ((1 - b) * image[top, left] + b * image[top, right]) + a * (
    (1 - b) * image[down, left] + b * image[down, right]
  )


@pytest.mark.slow
def test_roi_align_of_boxes_inside_and_outside_and_tiny():
  rng = np.random.default_rng(4)
  maps = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
  # The map covers 28 × 20 pixels.
  rois = np.array([made.boxes(6, seed=5), made.boxes(6, seed=6)]) / 3 - 8
  rois[1, 0] = [9, 9, 9.001, 9.001]
  stride, size, samples = 4, 3, 2
  expected = np.zeros((2, 6, size, size, 3))
  for b, r, p, q in np.ndindex(2, 6, size, size):
    x0, y0, x1, y1 = rois[b, r].astype(np.float64) / stride
    values = [
      interpolated(
        maps[b],
        y0 + (y1 - y0) * (p + (i + 0.5) / samples) / size - 0.5,
        x0 + (x1 - x0) * (q + (j + 0.5) / samples) / size - 0.5,
      )
      for i, j in np.ndindex(samples, samples)
    ]
    expected[b, r, p, q] = np.mean(values, axis=0)
  found = roi_align.roi_align(
    jnp.asarray(maps),
    jnp.asarray(rois),
    stride=stride,
    size=size,
    samples=samples,
  )
  assert np.abs(expected).sum(axis=(2, 3, 4)).min() == 0  # one lies outside
  np.testing.assert_allclose(found, expected, atol=1e-5)
