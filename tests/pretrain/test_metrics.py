"""Metrics and tree measures against NumPy oracles."""

import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import trees
from byol_flax.pretrain import metrics

RNG = np.random.default_rng(0)


def test_in_top_k_against_sorting():
  logits = RNG.normal(size=(50, 7)).astype(np.float32)
  labels = RNG.integers(-1, 7, 50)
  order = np.argsort(-logits, axis=1, kind="stable")
  for k in (1, 3, 5, 9):
    expected = [
      c >= 0 and c in row[:k] for row, c in zip(order, labels, strict=True)
    ]
    np.testing.assert_array_equal(metrics.in_top_k(logits, labels, k), expected)


def test_ties_are_broken_by_the_smaller_class():
  logits = jnp.zeros((3, 4))
  hits = metrics.in_top_k(logits, jnp.array([0, 1, 3]), 2)
  np.testing.assert_array_equal(hits, [1, 1, 0])


def test_labelled_mean_leaves_out_missing_labels():
  values = jnp.array([1.0, 20.0, 3.0])
  assert metrics.labelled_mean(values, jnp.array([4, -1, 0])) == 2
  assert metrics.labelled_mean(values, jnp.array([-1, -1, -1])) == 0


def unit(x):
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_projection_std_against_numpy():
  z = RNG.normal(size=(64, 8)) * RNG.uniform(0.1, 9, (64, 1))
  expected = unit(z).std(axis=0).mean()
  found = metrics.projection_std(jnp.asarray(z, jnp.float32))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_effective_rank_against_eigenvalues():
  z = RNG.normal(size=(64, 8)) * np.linspace(0.2, 3, 8)
  values = np.linalg.eigvalsh(np.cov(unit(z).T, bias=True))
  expected = values.sum() ** 2 / (values**2).sum()
  found = metrics.effective_rank(jnp.asarray(z, jnp.float32))
  np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_signals_of_collapse():
  spread = jnp.asarray(RNG.normal(size=(4000, 16)), jnp.float32)
  np.testing.assert_allclose(metrics.projection_std(spread), 0.25, rtol=0.02)
  assert metrics.effective_rank(spread) > 15
  point = jnp.tile(spread[:1], (4000, 1))
  assert metrics.projection_std(point) < 1e-6
  assert metrics.effective_rank(point) == 0
  views = jnp.stack([spread, spread[::-1]], axis=1)
  # Of unrelated directions: about 2, and about -4 if D were large.
  np.testing.assert_allclose(metrics.alignment(views), 2, rtol=0.02)
  assert -4 < metrics.uniformity(views) < -3.2
  same = jnp.stack([point, point], axis=1)
  assert metrics.alignment(same) == 0
  np.testing.assert_allclose(metrics.uniformity(same), 0, atol=1e-6)
  line = spread[:, :1] * spread[:1]
  np.testing.assert_allclose(metrics.effective_rank(line), 1, rtol=1e-4)


def unit_views(z):
  return z / np.linalg.norm(z, axis=-1, keepdims=True)


def test_alignment_against_a_loop():
  z = RNG.normal(size=(7, 2, 5)) * RNG.uniform(0.1, 9, (7, 2, 1))
  expected = np.mean([np.sum((a - b) ** 2) for a, b in unit_views(z)])
  found = metrics.alignment(jnp.asarray(z, jnp.float32))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_uniformity_against_a_loop_over_neighbours():
  z = RNG.normal(size=(7, 2, 5)) * RNG.uniform(0.1, 9, (7, 2, 1))
  u = unit_views(z)
  kernels = [
    np.exp(-2 * np.sum((a - b) ** 2))
    for i in (0, 2, 4)  # row 6 has no neighbour
    for a in u[i]
    for b in u[i + 1]
  ]
  found = metrics.uniformity(jnp.asarray(z, jnp.float32))
  np.testing.assert_allclose(found, np.log(np.mean(kernels)), rtol=1e-5)


def test_predictor_gain_against_cosines():
  q, z, target = (unit_views(RNG.normal(size=(6, 2, 5))) for _ in range(3))
  crossed = target[:, ::-1]
  expected = 2 * np.mean(np.sum((q - z) * crossed, axis=(1, 2)))
  found = metrics.predictor_gain(*map(jnp.asarray, (q, z, target)))
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert metrics.predictor_gain(*map(jnp.asarray, (z, z, target))) == 0


def test_tree_measures():
  a = {"x": jnp.array([3.0, 0.0]), "y": {"z": jnp.array([[4.0]])}}
  b = {"x": jnp.array([0.0, 0.0]), "y": {"z": jnp.array([[2.0]])}}
  assert trees.squared_norm(a) == 25
  np.testing.assert_allclose(
    trees.relative_distance(a, b), np.sqrt(9 + 4) / 2, rtol=1e-6
  )
  assert trees.count(a) == 3
  assert trees.is_matrix(a) == {"x": False, "y": {"z": True}}
