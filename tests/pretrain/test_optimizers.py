"""LARS against the authors' trajectory and a NumPy oracle."""

import pathlib

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_flax.pretrain import optimizers, schedules

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
SETTINGS = {"weight_decay": 1.5e-6, "momentum": 0.9, "trust_coefficient": 1e-3}


def leaves(golden, group):
  return {
    key.split("|", 1)[1]: golden[key]
    for key in golden.files
    if key.startswith(group + "|")
  }


@pytest.mark.slow
def test_twelve_updates_equal_the_authors():
  golden = np.load(GOLDENS / "lars.npz")
  rate = schedules.learning_rate_schedule(
    base_learning_rate=0.2, batch_size=512, warmup_steps=4, total_steps=12
  )
  tx = optimizers.lars(rate, **SETTINGS)
  params = {k: jnp.asarray(v) for k, v in leaves(golden, "param_0").items()}
  state = tx.init(params)
  for t in range(12):
    np.testing.assert_allclose(
      rate(t), golden[f"learning_rate_{t}"], rtol=1e-6, atol=1e-6
    )
    updates, state = tx.update(leaves(golden, f"grad_{t}"), state, params)
    params = optax.apply_updates(params, updates)
    for name, expected in leaves(golden, f"param_{t + 1}").items():
      np.testing.assert_allclose(
        params[name], expected, rtol=1e-6, atol=1e-6, err_msg=f"{t} {name}"
      )


def test_lars_against_its_definition():
  rng = np.random.default_rng(1)
  rates = [0.3, 0.7, 0.1]
  tx = optimizers.lars(
    lambda step: jnp.asarray(rates)[step],
    weight_decay=0.02,
    momentum=0.8,
    trust_coefficient=0.05,
  )
  w = rng.normal(size=(4, 5)).astype(np.float32)
  b = rng.normal(size=5).astype(np.float32)
  params = {"kernel": jnp.asarray(w), "bias": jnp.asarray(b)}
  state = tx.init(params)
  w, b, m_w, m_b = w.astype(np.float64), b.astype(np.float64), 0.0, 0.0
  for rate in rates:
    g_w, g_b = rng.normal(size=w.shape), rng.normal(size=b.shape)
    grads = {
      "kernel": jnp.asarray(g_w, jnp.float32),
      "bias": jnp.asarray(g_b, jnp.float32),
    }
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    u = g_w + 0.02 * w
    u *= 0.05 * np.linalg.norm(w) / np.linalg.norm(u)
    m_w = 0.8 * m_w + u
    m_b = 0.8 * m_b + g_b
    w, b = w - rate * m_w, b - rate * m_b
    np.testing.assert_allclose(params["kernel"], w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(params["bias"], b, rtol=1e-5, atol=1e-6)


def test_zero_norms_leave_the_update_as_it_is():
  tx = optimizers.lars(lambda _: 1.0, **(SETTINGS | {"weight_decay": 0.0}))
  params = {"zero": jnp.zeros((2, 2)), "still": jnp.ones((2, 2))}
  grads = {"zero": jnp.full((2, 2), 3.0), "still": jnp.zeros((2, 2))}
  updates, _ = tx.update(grads, tx.init(params), params)
  np.testing.assert_array_equal(updates["zero"], -3)
  np.testing.assert_array_equal(updates["still"], 0)


def test_multipliers_scale_the_updates_of_their_part_alone():
  rng = np.random.default_rng(2)
  parts = ("encoder", "projector", "predictor", "classifier")
  draw = lambda: {  # noqa: E731
    part: {
      "kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32),
      "bias": jnp.asarray(rng.normal(size=4), jnp.float32),
    }
    for part in parts
  }
  params, grads = draw(), [draw(), draw()]

  def updates(**multipliers):
    tx = optimizers.lars(lambda _: 0.5, **SETTINGS, **multipliers)
    state = tx.init(params)
    for grad in grads:
      found, state = tx.update(grad, state, params)
    return found

  plain = updates()
  changed = updates(projector_multiplier=1.5, predictor_multiplier=10.0)
  factors = {"projector": 1.5, "predictor": 10.0}
  for part in parts:
    for name, value in plain[part].items():
      np.testing.assert_allclose(
        changed[part][name], factors.get(part, 1) * value, rtol=1e-6
      )
  frozen = updates(predictor_multiplier=0.0)["predictor"]
  assert not any(np.any(leaf) for leaf in frozen.values())
