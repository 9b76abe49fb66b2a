"""What the dense tasks share: rates, updates, what moves, and spread."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.commands import protocol_bounds
from byol_flax.evaluation import dense, dense_splits
from byol_flax.pretrain import schedules
from configs import common
from input_pipeline.errors import UsageError
from tests.evaluation import settings


def test_rates_fall_in_steps():
  def rate(step):
    return float(
      schedules.stepwise(
        step, peak=0.5, warmup_steps=4, warmup_factor=0.2, drops=(10, 13)
      )
    )

  expected = {
    0: 0.1,
    1: 0.2,
    3: 0.4,
    4: 0.5,
    9: 0.5,
    10: 0.05,
    12: 0.05,
    13: 0.005,
    20: 0.005,
  }
  for step, value in expected.items():
    assert rate(step) == pytest.approx(value, rel=1e-6), step
  constant = schedules.stepwise(
    0, peak=0.5, warmup_steps=0, warmup_factor=0.2, drops=()
  )
  assert float(constant) == 0.5


class Scales(nn.Module):
  """The least network that has an encoder with a BatchNorm, and a head."""

  @nn.compact
  def __call__(self, x, *, train):
    del train

    class Part(nn.Module):
      @nn.compact
      def __call__(self, x):
        w = self.param("kernel", nn.initializers.ones, (3,))
        s = self.param("scale", nn.initializers.ones, (3,))
        self.variable("batch_stats", "mean", jnp.zeros, (3,))
        return x * w.reshape(1, 3) * s.reshape(1, 3)

    return Part(name="head")(Part(name="encoder")(x))


def made(**changes):
  config = common.trained_protocol("dense")
  config.batch_norm, config.batch_size = "synchronised", 4
  config.update(changes)
  return settings.setting(config, "unused", opened=object())


def loss(params, batch_stats, batch, key):
  sums = sum(
    jnp.sum(batch["x"] * x.reshape(1, 3) ** 2) for x in jax.tree.leaves(params)
  )
  return sums, (batch_stats, {"noise": jax.random.uniform(key)})


def sgd(**changes):
  values = {
    "peak": 0.01,
    "warmup_steps": 0,
    "warmup_factor": 1.0,
    "drops": (2,),
    "momentum": 0.9,
    "weight_decay": 0.5,
    "seed": 3,
  }
  return dense.Sgd(**{**values, **changes})


def state_of(rng):
  def leaf():
    return jnp.asarray(rng.normal(size=3), jnp.float32)

  params = {
    name: {"kernel": leaf(), "norm": {"scale": leaf()}}
    for name in ("encoder", "head")
  }
  return dense.DenseState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats={},
    momentum=jax.tree.map(jnp.zeros_like, params),
  )


@pytest.mark.parametrize(
  ("chosen", "still"),
  [
    ({"batch_norm": "synchronised"}, set()),
    ({"batch_norm": "frozen"}, {"['encoder']['norm']['scale']"}),
    (
      {"batch_norm": "synchronised", "encoder": "frozen"},
      {"['encoder']['kernel']", "['encoder']['norm']['scale']"},
    ),
  ],
)
def test_updates_against_numpy(chosen, still):
  rng = np.random.default_rng(5)
  state = state_of(rng)
  before = jax.device_get(state.params)
  update = dense.make_update(
    loss,
    made(),
    moves=dense.trained_parts(**chosen),
    decays=lambda names: not dense.is_norm(names),
  )
  batches = rng.normal(size=(3, 4, 3)).astype(np.float32)
  for x in batches:
    state, report = update(state, {"x": x}, sgd())
  assert float(report["train/learning_rate"]) == pytest.approx(0.001)

  paths = jax.tree_util.tree_leaves_with_path(before)
  found = jax.tree.leaves(state.params)
  for (path, w), new in zip(paths, found, strict=True):
    name = jax.tree_util.keystr(path)
    v = np.zeros(3)
    decay = 0.0 if name.endswith("['scale']") else 0.5
    if name not in still:
      for x, rate in zip(batches, (0.01, 0.01, 0.001), strict=True):
        v = 0.9 * v + 2 * x.sum(0) * w + decay * w
        w = w - rate * v
    np.testing.assert_allclose(new, w, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_is_drawn_depends_on_seed_and_step():
  update = dense.make_update(
    loss, made(), moves=lambda names: True, decays=lambda names: True
  )
  x = np.zeros((4, 3), np.float32)

  config = common.dense_protocol("dense")
  config.update({"steps": 9, "weight_decay": 0.5})

  def noises(seed):
    state, found = state_of(np.random.default_rng(0)), []
    for _ in range(2):
      how = dense.sgd_of(config, learning_rate=0.01, seed=seed)
      state, report = update(state, {"x": x}, how)
      found.append(float(report["noise"]))
    return found

  assert noises(1) == noises(1)
  assert len({*noises(1), *noises(protocol_bounds.SEED.most)}) == 4


def test_a_state_begins_with_the_encoder():
  class Opened:
    variables = {  # noqa: RUF012
      "params": {"kernel": jnp.full(3, 7.0), "scale": jnp.full(3, 8.0)},
      "batch_stats": {"mean": jnp.full(3, 9.0)},
    }

  config = common.trained_protocol("dense")
  setting = settings.setting(config, "unused", opened=Opened())
  create = dense.make_creator(Scales(), lambda: (jnp.ones((1, 3)),), setting)
  state = create(protocol_bounds.SEED.most)
  assert state.step == 0
  np.testing.assert_array_equal(state.params["encoder"]["kernel"], 7.0)
  np.testing.assert_array_equal(state.batch_stats["encoder"]["mean"], 9.0)
  np.testing.assert_array_equal(state.params["head"]["scale"], 1.0)
  np.testing.assert_array_equal(state.batch_stats["head"]["mean"], 0.0)
  np.testing.assert_array_equal(state.momentum["encoder"]["kernel"], 0.0)


class Split:
  name, split = "voc:x", "train"

  def __init__(self, count):
    self.count = count

  def __len__(self):
    return self.count


@pytest.mark.parametrize(
  ("changes", "averages", "count", "says"),
  [
    ({"batch_size": 5}, True, 9, "must be a multiple of 2, such as 4 or 6"),
    ({}, True, 3, "more than the 3 images of train"),
    ({"batch_norm": "frozen"}, False, 9, "an untrained encoder has none"),
    ({"encoder": "frozen"}, False, 9, "^encoder=frozen: then BatchNorm keeps"),
  ],
)
def test_what_cannot_be_trained_is_told(changes, averages, count, says):
  setting = made(**changes)
  opened = type("Opened", (), {"has_averages": averages})
  object.__setattr__(setting, "encoder", opened)
  with pytest.raises(UsageError, match=says):
    dense_splits.check(setting, Split(count))


def test_spread_of_trials():
  values = [0.5, 0.75, 0.1]
  found = dense.spread(values)
  assert found["mean"] == pytest.approx(0.45)
  assert found["deviation"] == pytest.approx(
    np.sqrt(((np.array(values) - 0.45) ** 2).sum() / 2)
  )
  assert dense.spread([0.5])["deviation"] is None
