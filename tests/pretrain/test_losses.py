"""Losses against NumPy oracles and the authors' values."""

import pathlib

import jax
import numpy as np
import pytest

from byol_flax.pretrain import losses

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
RNG = np.random.default_rng(0)
P, Z = RNG.normal(size=(2, 5, 3)).astype(np.float32)


def cosine(p, z):
  return p @ z / np.sqrt((p @ p) * (z @ z))


def test_loss_and_gradient_equal_the_authors():
  golden = np.load(GOLDENS / "loss.npz")
  p, z = golden["prediction"], golden["projection"]
  ours = losses.byol_loss(p, z)
  np.testing.assert_allclose(ours, golden["per_example"], rtol=1e-6, atol=1e-6)
  grad = jax.grad(lambda p: losses.byol_loss(p, z).mean())(p)
  expected = golden["grad_of_mean_wrt_prediction"]
  # Relative to the row: one row is tiny, and its gradient is large.
  scale = np.abs(expected).max(axis=-1, keepdims=True)
  assert np.max(np.abs(grad - expected) / np.maximum(scale, 1e-12)) < 1e-6


def test_one_direction_is_two_minus_two_cosines():
  expected = [2 - 2 * cosine(p, z) for p, z in zip(P, Z, strict=True)]
  np.testing.assert_allclose(losses.byol_loss(P, Z), expected, rtol=1e-5)


def test_only_directions_count():
  np.testing.assert_allclose(
    losses.byol_loss(7 * P, Z / 3), losses.byol_loss(P, Z), rtol=1e-5
  )


def test_the_target_receives_no_gradient():
  grad_p, grad_z = jax.grad(lambda p, z: losses.byol_loss(p, z).sum(), (0, 1))(
    P, Z
  )
  assert not np.any(grad_z)
  assert np.all(np.any(grad_p != 0, axis=-1))


def test_sizes_must_agree():
  with pytest.raises(ValueError, match="output_size"):
    losses.byol_loss(P, Z[:, :2])


def test_both_directions_are_summed_and_crossed():
  p, z = RNG.normal(size=(2, 5, 2, 3)).astype(np.float32)
  expected = [
    (2 - 2 * cosine(a[0], b[1])) + (2 - 2 * cosine(a[1], b[0]))
    for a, b in zip(p, z, strict=True)
  ]
  np.testing.assert_allclose(
    losses.symmetric_byol_loss(p, z), expected, rtol=1e-5
  )


def test_cross_entropy_is_minus_log_softmax_and_skips_missing_labels():
  logits = RNG.normal(size=(4, 6)).astype(np.float32) * 3
  labels = np.array([2, -1, 0, 5])
  softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  expected = [
    0 if k < 0 else -np.log(row[k])
    for row, k in zip(softmax, labels, strict=True)
  ]
  np.testing.assert_allclose(
    losses.cross_entropy(logits, labels), expected, rtol=1e-5, atol=1e-7
  )
