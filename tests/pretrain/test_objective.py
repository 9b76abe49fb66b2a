"""The family of losses: who receives a gradient, and what it is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.pretrain import objective
from configs import byol_digits, simclr
from input_pipeline.errors import UsageError
from tests import tiny

NETWORK = tiny.make_network(0, jnp.float64)
STEP = 1e-6


@pytest.fixture(scope="module", autouse=True)
def in_float64():
  with jax.enable_x64(True):
    yield


@functools.cache
def case():
  """Variables of two networks, images, and a direction for the parameters."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (6, 2, tiny.SIZE, tiny.SIZE, 3), np.uint8)
  online = tiny.init(NETWORK, images)
  draw = lambda x: jnp.asarray(x + 0.1 * rng.normal(size=x.shape))  # noqa: E731
  target = {**online, "params": jax.tree.map(draw, online["params"])}
  direction = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape)), online["params"]
  )
  return online, target, images, direction


@functools.partial(jax.jit, static_argnums=0)
def loss(settings, online, target):
  """The loss of the two networks' parameters."""
  variables, _, images, _ = case()
  stats = dict.fromkeys(("online", "target"), variables["batch_stats"])
  labels = np.full(len(images), -1)
  return objective.objective(
    NETWORK, settings, online, target, stats, images, labels
  )[0]


gradients = functools.partial(jax.jit, static_argnums=0)(
  jax.grad(loss, argnums=(1, 2))
)


def along(gradient, direction):
  parts = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
  return sum(jax.tree.leaves(parts))


def slope(value, params, direction):
  """Derivative of `value` in a direction, by finite differences."""

  def moved(step):
    return jax.tree.map(lambda x, d: x + step * d, params, direction)

  return (value(moved(STEP)) - value(moved(-STEP))) / (2 * STEP)


@pytest.mark.slow
@pytest.mark.parametrize("negatives_weight", [0.0, 0.6])
def test_who_receives_a_gradient(negatives_weight):
  online, target, _, direction = case()
  a, b = online["params"], target["params"]
  average = dataclasses.replace(tiny.BYOL, negatives_weight=negatives_weight)
  of_online, of_target = gradients(average, a, b)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_target))
  np.testing.assert_allclose(
    along(of_online, direction),
    slope(lambda x: loss(average, x, b), a, direction),
    rtol=1e-6,
  )
  # With the online network's own projections as targets:
  for target_is, value in (
    ("online_stopped", lambda x: loss(average, x, a)),
    ("online", lambda x: loss(average, x, x)),
  ):
    settings = dataclasses.replace(average, target=target_is)
    of_online, of_target = gradients(settings, a, b)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_target))
    np.testing.assert_allclose(
      loss(settings, a, b), loss(average, a, a), rtol=1e-12
    )
    np.testing.assert_allclose(
      along(of_online, direction), slope(value, a, direction), rtol=1e-6
    )


@pytest.mark.slow
def test_at_the_optimal_predictor_the_gradient_is_that_of_the_variance():
  """Paper §3.2 and App. H: what regression leaves unexplained must fall."""
  online, target, images, direction = case()
  settings = dataclasses.replace(
    tiny.BYOL, optimal_predictor=True, ridge=0.0, normalization="none"
  )

  def project(variables, params):
    outputs, _ = NETWORK.apply(
      {**variables, "params": params},
      images,
      train=True,
      mutable=["batch_stats"],
    )
    return np.asarray(outputs.projection)

  targets = project(target, target["params"])[:, ::-1].reshape(12, -1)

  def unexplained(params):
    z = project(online, params).reshape(12, -1)
    _, left, rank, _ = np.linalg.lstsq(z, targets, rcond=None)
    assert rank == 8
    return left.sum() / len(images)

  found, expected = (
    loss(settings, online["params"], target["params"]),
    unexplained(online["params"]),
  )
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  of_online, _ = gradients(settings, online["params"], target["params"])
  np.testing.assert_allclose(
    along(of_online, direction),
    slope(unexplained, online["params"], direction),
    rtol=1e-5,
  )
  # A predictor that learns receives none, because it is not asked.
  assert not any(np.any(x) for x in jax.tree.leaves(of_online["predictor"]))


@pytest.mark.slow
def test_the_loss_of_simclr_is_its_authors():
  """google-research/simclr, objective.py: add_contrastive_loss, in NumPy."""
  online, target, images, _ = case()
  settings = objective.Objective(**simclr.get_config().objective)
  network = NETWORK.clone(predictor=NETWORK.predictor.clone(layers=0))
  stats = dict.fromkeys(("online", "target"), online["batch_stats"])

  @jax.jit
  def ours(params):
    labels = np.full(len(images), -1)
    return objective.objective(
      network, settings, params, params, stats, images, labels
    )[0]

  @jax.jit
  def project(params):
    return network.apply(
      {**online, "params": params}, images, train=True, mutable=["batch_stats"]
    )[0].projection

  def theirs(params):
    hidden = np.asarray(project(params))
    hidden = hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)
    total, rows = 0.0, np.arange(len(images))
    for one, two in (hidden.swapaxes(0, 1), hidden[:, ::-1].swapaxes(0, 1)):
      same = one @ one.T / 0.1 - 1e9 * np.eye(len(one))
      logits = np.concatenate([one @ two.T / 0.1, same], axis=1)
      shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
      total -= np.log(shares[rows, rows]).mean()
    return total

  for params in (online["params"], target["params"]):
    kept = {name: params[name] for name in ("encoder", "projector")}
    # They differ by BYOL's loss of vectors at right angles, 4, times 1 / 2α.
    np.testing.assert_allclose(ours(kept) - theirs(kept), 20, rtol=1e-9)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"objective.negatives_weight": 1.0, "objective.normalization": "none"},
      "needs objective.normalization=l2, which is none",
    ),
    (
      {"objective.optimal_predictor": True},
      "has 2 layers; add --config.model.predictor.layers=0",
    ),
    (
      {
        "objective.optimal_predictor": True,
        "objective.ridge": 0.0,
        "model.predictor.layers": 0,
        "batch_size": 15,
      },
      "15 images gives 30 equations. Take a batch_size of at least 16",
    ),
    (
      {
        "objective.optimal_predictor": True,
        "objective.ridge": 0.0,
        "model.predictor.layers": 0,
        "model.projector.hidden_size": 16,
      },
      "32 outputs of 16, so .*hidden_size to at least 32, or objective.ridge",
    ),
    (
      {"optimizer.predictor_multiplier": 10.0, "model.predictor.layers": 0},
      "predictor_multiplier is 10, but there is no predictor",
    ),
  ],
)
def test_settings_that_mean_nothing_together(changes, message):
  config = byol_digits.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(UsageError, match=message):
    objective.check(config)
