"""A proof passes what is equal, and refuses everything else."""

import dataclasses

import numpy as np
import pytest

from byol_flax.weights import arrays, npz, proof
from byol_flax.weights.arrays import Stored
from byol_flax.weights.errors import WeightsError
from tests.weights import made

IMAGES = proof.fixed_images(16)


@pytest.fixture(scope="module")
def found():
  return made.weights(modules=("encoder",))


def test_the_images_are_fixed_and_differ():
  assert IMAGES.shape == (4, 16, 16, 3)
  assert IMAGES.dtype == np.uint8
  np.testing.assert_array_equal(IMAGES, proof.fixed_images(16))
  assert IMAGES.std((1, 2, 3)).min() > 10
  assert len({image.mean().round() for image in IMAGES}) == 4
  for size in (1, 7, 224):
    assert proof.fixed_images(size).shape == (4, size, size, 3)


def changed(found, name, change):
  leaves = npz.leaves(found)
  array = change(leaves[name].load().copy())
  tree = arrays.nested(leaves | {name: Stored.of(array)})
  return dataclasses.replace(found, networks={"online": tree["online"]})


def sides_of(features, name="theirs 1.0"):
  return {"theirs": lambda: (name, lambda images: features)}


def test_features_that_agree_pass(found):
  ours = proof.our_features(found, IMAGES)
  scale = np.abs(ours).max()
  (same,) = proof.compare(ours, IMAGES, sides_of(ours + 0.5e-4 * scale))
  assert 0.4e-4 < same.difference < 0.6e-4
  assert "through theirs 1.0 differ by 5.0e-05" in str(same)


@pytest.mark.parametrize(
  "change",
  [
    lambda y: y * (1 + 3e-4),
    lambda y: np.full_like(y, np.nan),
    lambda y: y[:, :-1],
    lambda y: y[::-1],
  ],
)
def test_features_that_differ_are_refused(found, change):
  ours = proof.our_features(found, IMAGES)
  with pytest.raises(WeightsError, match=r"theirs 1\.0 .*Nothing was wr"):
    proof.compare(ours, IMAGES, sides_of(change(ours)))


def test_a_program_that_is_not_installed_is_named(found):
  def absent():
    raise ImportError

  (told,) = proof.compare(np.ones((4, 2)), IMAGES, {"torch": absent})
  assert str(told) == "features: not compared, for want of torch"


def test_one_swapped_array_moves_the_features_beyond_the_limit(found):
  """The limit would find what other conversions got wrong."""
  ours = proof.our_features(found, IMAGES)
  encoder = found.model["encoder"]
  wrong = {
    "padding": dataclasses.replace(
      found,
      model={
        **found.model,
        "encoder": {**encoder, "padding": "symmetric"},
      },
    ),
    "epsilon": dataclasses.replace(
      found,
      model={**found.model, "batch_norm": {"decay": 0.9, "epsilon": 1e-3}},
    ),
    "average": changed(
      found,
      "online/batch_stats/encoder/group1_block0/norm1/variance",
      lambda x: x * 0.9,
    ),
    "channels": changed(
      found,
      "online/params/encoder/stem_conv/kernel",
      lambda x: x[:, :, ::-1],
    ),
  }
  for name, other in wrong.items():
    theirs = proof.our_features(other, IMAGES)
    with pytest.raises(WeightsError, match="differ from ours"):
      proof.compare(ours, IMAGES, sides_of(theirs, name))


def test_weights_that_lead_nowhere_are_refused(found):
  broken = changed(
    found,
    "online/params/encoder/group1_block0/norm1/scale",
    lambda x: np.full_like(x, 1e38),
  )
  with pytest.raises(WeightsError, match="not finite, or all zero"):
    proof.our_features(broken, IMAGES)


def test_arrays_are_compared_bit_for_bit(found):
  leaves = npz.leaves(found)
  assert proof.check_equal(leaves, dict(leaves)) == len(leaves)
  name = "online/params/encoder/stem_norm/offset"
  negative = {name: Stored.of(-np.zeros(4, np.float32))}
  zero = {name: Stored.of(np.zeros(4, np.float32))}
  with pytest.raises(WeightsError, match="offset is not the same"):
    proof.check_equal(leaves | negative, leaves | zero)
  fewer = {k: v for k, v in leaves.items() if k != name}
  with pytest.raises(WeightsError, match="offset is missing"):
    proof.check_equal(fewer, leaves)
  with pytest.raises(WeightsError, match="offset is left over"):
    proof.check_equal(leaves, fewer)
