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
  # Beside what a gradient of the row's length can be: one row is tiny, so that
  # its gradient is large, and where vectors are parallel it is rounding alone.
  scale = 1 / (len(p) * np.linalg.norm(p, axis=-1, keepdims=True))
  assert np.max(np.abs(grad - expected) / scale) < 1e-6


def test_one_direction_is_two_minus_two_cosines():
  expected = [2 - 2 * cosine(p, z) for p, z in zip(P, Z, strict=True)]
  np.testing.assert_allclose(losses.byol_loss(P, Z), expected, rtol=1e-5)


def test_only_directions_count():
  np.testing.assert_allclose(
    losses.byol_loss(7 * P, Z / 3), losses.byol_loss(P, Z), rtol=1e-5
  )


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


def normalized(x, name):
  """[B, D] in plain NumPy, as paper.md §9.7 writes it."""
  d = x.shape[1]
  if name == "l2":
    return x / np.sqrt((x * x).sum(axis=1, keepdims=True))
  if name == "layer_norm":
    mean, std = x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    return (x - mean) / (std * np.sqrt(d))
  if name == "batch_norm":
    mean, std = x.mean(axis=0, keepdims=True), x.std(axis=0, keepdims=True)
    return (x - mean) / (std * np.sqrt(d))
  return x


@pytest.mark.parametrize("name", losses.NORMALIZATIONS)
def test_normalizations_against_their_definition(name):
  p, z = RNG.normal(2, 3, size=(2, 6, 2, 5))
  ours = losses.symmetric_byol_loss(p, z, losses.NORMALIZATIONS[name])
  expected = sum(
    ((normalized(p[:, v], name) - normalized(z[:, 1 - v], name)) ** 2).sum(1)
    for v in (0, 1)
  )
  np.testing.assert_allclose(ours, expected, rtol=1e-5)


def infonce(p, z, alpha, beta):
  """App. F.4 written out for both directions, pair by pair: [B]."""
  total = np.zeros(len(p))
  for view in (0, 1):
    for i in range(len(p)):
      own = cosine(p[i, view], z[i, 1 - view])
      among = [
        np.exp(cosine(p[i, view], z[j, w]) / alpha)
        for j in range(len(p))
        for w in (0, 1)
        if (j, w) != (i, view)
      ]
      assert len(among) == 2 * len(p) - 1
      total[i] += 2 * own - beta * 2 * alpha * np.log(sum(among))
  return total


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 1.0), (0.7, 0.4), (10, 0)])
def test_infonce_against_its_definition(alpha, beta):
  p, z = RNG.normal(size=(2, 5, 2, 4))
  ours = losses.symmetric_byol_loss(p, z)
  ours += beta * losses.repulsion(p, z, alpha)
  # What is maximised there is 4 less than what is minimised here.
  np.testing.assert_allclose(ours, 4 - infonce(p, z, alpha, beta), rtol=1e-5)


def test_infonce_is_simclrs_loss():
  """SimCLR's objective.py: softmax among 2B - 1 candidates, rows [a; b]."""
  alpha, (count, size) = 0.3, (4, 6)
  z = RNG.normal(size=(count, 2, size))
  rows = np.concatenate([z[:, 0], z[:, 1]])
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  logits = rows @ rows.T / alpha
  np.fill_diagonal(logits, -np.inf)
  partner = np.roll(np.arange(2 * count), count)
  log_sums = np.log(np.exp(logits).sum(axis=1))
  simclr = log_sums - logits[np.arange(2 * count), partner]
  expected = 2 * alpha * (simclr[:count] + simclr[count:]) + 4
  ours = losses.symmetric_byol_loss(z, z) + losses.repulsion(z, z, alpha)
  np.testing.assert_allclose(ours, expected, rtol=1e-5)
