"""Mean IoU against NumPy, on one device and on eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.evaluation import mean_iou
from tests.evaluation import settings

RNG = np.random.default_rng(11)
CLASSES, VOID = 7, 255


def batch(rows):
  """Class 6 is nowhere, 5 is predicted only, 4 is true only."""
  true = RNG.choice(
    [0, 1, 2, 4, VOID], (rows, 9, 13), p=[0.5, 0.2, 0.1, 0.1, 0.1]
  ).astype(np.uint8)
  predicted = RNG.choice([0, 1, 3, 5], true.shape, p=[0.6, 0.2, 0.1, 0.1])
  agrees = (RNG.random(true.shape) < 0.4) & np.isin(true, (0, 1, 2))
  predicted = np.where(agrees, true, predicted).astype(np.int32)
  counted = RNG.random(rows) < 0.7
  return {"predicted": predicted, "true": true, "counted": counted}


def by_numpy(given):
  """Its histogram of pairs of classes."""
  some = given["counted"][:, None, None] & (given["true"] != VOID)
  found, _, _ = np.histogram2d(
    given["true"][some],
    given["predicted"][some],
    bins=[np.arange(CLASSES + 1)] * 2,
  )
  return found.astype(np.int64)


@pytest.mark.parametrize("devices", [1, 8])
def test_counts_are_those_of_numpy(devices):
  mesh = settings.mesh_of(devices)
  count = jax.jit(
    functools.partial(mean_iou.confusion, num_classes=CLASSES),
    out_shardings=sharding.replicated(mesh),
  )
  total, expected = np.zeros((CLASSES, CLASSES), np.int64), 0
  for _ in range(3):
    given = batch(16)
    total += np.asarray(count(**sharding.put_batch(mesh, given)))
    expected += by_numpy(given)
  np.testing.assert_array_equal(total, expected)


def test_measures_by_sets_of_pixels():
  given = batch(8)
  found = mean_iou.measures(by_numpy(given), list("abcdefg"))
  some = given["counted"][:, None, None] & (given["true"] != VOID)
  true, predicted = given["true"][some], given["predicted"][some]
  expected = {}
  for k, name in enumerate("abcdefg"):
    union = np.count_nonzero((true == k) | (predicted == k))
    both = np.count_nonzero((true == k) & (predicted == k))
    expected[name] = both / union if union else None
  assert found["per_class"] == pytest.approx(expected)
  assert expected["g"] is None
  assert expected["e"] == expected["f"] == 0
  assert found["mean_iou"] == pytest.approx(
    np.mean([x for x in expected.values() if x is not None])
  )
  assert found["pixel_accuracy"] == pytest.approx(np.mean(true == predicted))


def test_nothing_to_count_is_no_number():
  found = mean_iou.measures(np.zeros((2, 2), np.int64))
  assert np.isnan(found["mean_iou"])
  assert np.isnan(found["pixel_accuracy"])
  assert found["per_class"] == {"0": None, "1": None}


def test_the_largest_image_is_counted_exactly():
  side = 4096  # 2^24 pixels
  shape = jax.ShapeDtypeStruct((1, side, side + 1), jnp.uint8)
  with pytest.raises(ValueError, match="pixels"):
    jax.eval_shape(
      functools.partial(mean_iou.confusion, num_classes=2),
      shape,
      shape,
      jax.ShapeDtypeStruct((1,), jnp.bool_),
    )
  one = np.zeros((1, 3, side), np.uint8)
  found = mean_iou.confusion(one, one, jnp.ones(1, bool), 2)
  np.testing.assert_array_equal(found, [[3 * side, 0], [0, 0]])
