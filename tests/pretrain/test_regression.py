"""The optimal linear predictor against least squares."""

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.pretrain import regression

RNG = np.random.default_rng(3)
# As unequal as projections are: directions differ a thousandfold in size.
Z = RNG.normal(size=(40, 2, 6)) @ np.diag(10.0 ** np.arange(-2, 4) / 10)
T = RNG.normal(1, 2, size=(40, 2, 6)) + Z[..., ::-1]


def rows(x):
  return x.reshape(-1, x.shape[-1])


def test_without_ridge_it_is_least_squares():
  with jax.enable_x64(True):
    ours = regression.optimal_predictor(regression.moments(Z, T), 0.0)
  expected = np.linalg.lstsq(rows(Z), rows(T), rcond=None)[0]
  np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-10)


def test_the_ridge_is_relative_to_the_size_of_projections():
  expected = []
  for scale in (1.0, 50.0):
    z = rows(Z) * scale
    # Least squares with a penalty, as rows that pull the solution to 0.
    added = np.sqrt(0.03 * np.trace(z.T @ z) / 6) * np.eye(6)
    whole = np.concatenate([z, added]), np.concatenate([rows(T), 0 * added])
    expected.append(np.linalg.lstsq(*whole, rcond=None)[0] * scale)
    with jax.enable_x64(True):
      ours = regression.optimal_predictor(
        regression.moments(Z * scale, T), 0.03
      )
    ours = np.asarray(ours) * scale
    np.testing.assert_allclose(ours, expected[-1], rtol=1e-8)
  np.testing.assert_allclose(*expected, rtol=1e-8)


def test_moments_of_parts_add_up():
  whole = regression.moments(jnp.asarray(Z), jnp.asarray(T))
  parts = [regression.moments(Z[i::4], T[i::4]) for i in range(4)]
  summed = jax.tree.map(lambda *x: sum(x), *parts)
  for a, b in zip(whole, summed, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3)


def test_projections_of_one_direction_stay_finite():
  collapsed = np.ones((8, 2, 6), np.float32)
  found = regression.optimal_predictor(
    regression.moments(collapsed, T[:8].astype(np.float32)), 1e-4
  )
  assert np.all(np.isfinite(found))
  assert np.abs(np.ones(6) @ found - rows(T[:8]).mean(axis=0)).max() < 0.01
