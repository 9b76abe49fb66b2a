"""Projector and predictor of any depth, against NumPy and paper.md §2.5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import trees
from byol_flax.models import heads, initializers, resnet
from tests import tiny
from tests.models import test_models

TYPES = {"dtype": jnp.float32, "param_dtype": jnp.float32}


def make(**changes):
  norm = resnet.make_norm(**test_models.NORM, **TYPES)
  kernel_init = initializers.fan_in
  sizes = {**test_models.MLP, **changes}
  return heads.MLP(**sizes, kernel_init=kernel_init, norm=norm, **TYPES)


def shapes_of(head, width):
  x = jax.ShapeDtypeStruct((1, 1, width), jnp.float32)
  init = jax.eval_shape(
    lambda x: head.init(jax.random.key(0), x, train=True), x
  )
  return init.get("params", {})


@pytest.mark.parametrize(
  ("features", "count"),
  [
    (512, 3_158_016),
    (2048, 9_449_472),
    (8192, 34_615_296),
    (256, 2_109_440),  # the predictor
  ],
)
def test_counts_are_the_papers(features, count):
  assert trees.count(shapes_of(make(), features)) == count


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize(
  ("layers", "names"),
  [
    (1, ["linear0"]),
    (2, ["linear0", "linear1", "norm"]),  # those of older checkpoints
    (3, ["linear0", "linear1", "linear2", "norm", "norm1"]),
  ],
)
def test_each_layer_adds_its_parameters(layers, names, final_norm):
  f, h, d = 7, 5, 3
  head = make(
    layers=layers, hidden_size=h, output_size=d, final_norm=final_norm
  )
  found = shapes_of(head, f)
  assert sorted(found) == sorted(names + ["final_norm"] * final_norm)
  first = (f + 1) * h + 2 * h  # weights, bias, scale and offset
  hidden = (h + 1) * h + 2 * h
  counts = {1: f * d, 2: first + h * d, 3: first + hidden + h * d}
  assert trees.count(found) == counts[layers] + d * final_norm
  assert all(set(found[name]) == {"scale"} for name in {*found} - {*names})


@pytest.mark.slow
@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_output_is_numpys(layers, final_norm):
  head = make(
    layers=layers,
    hidden_size=6,
    output_size=4,
    final_bias=not final_norm,
    final_norm=final_norm,
  )
  rng = np.random.default_rng(layers)
  x = rng.normal(1, 2, (9, 2, 5)).astype(np.float32)
  variables = tiny.init(head, x)
  params = jax.tree.map(
    lambda p: rng.normal(1, 1, p.shape).astype(np.float32), variables["params"]
  )
  found, _ = head.apply(
    {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
  )

  def normalised(x, norm):
    mean, variance = x.mean(0, keepdims=True), x.var(0, keepdims=True)
    scaled = (x - mean) / np.sqrt(variance + 1e-5) * norm["scale"]
    return scaled + norm.get("offset", 0)

  y = x.astype(np.float64)
  for i in range(layers):
    linear = params[f"linear{i}"]
    y = y @ linear["kernel"] + linear.get("bias", 0)
    if i < layers - 1:
      y = np.maximum(normalised(y, params[f"norm{i}" if i else "norm"]), 0)
  if final_norm:
    y = normalised(y, params["final_norm"])
  np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-4)


def test_without_layers_nothing_is_done_and_nothing_kept():
  x = np.random.default_rng(0).normal(size=(3, 2, 256)).astype(np.float32)
  head = make(layers=0)
  variables = head.init(jax.random.key(0), x, train=True)
  assert not jax.tree.leaves(variables)
  np.testing.assert_array_equal(head.apply(variables, x, train=True), x)


def test_a_network_without_predictor_has_no_parameters_of_one():
  network = test_models.make()
  network = network.clone(predictor=network.predictor.clone(layers=0))
  images = jax.ShapeDtypeStruct((2, 2, 16, 16, 3), jnp.uint8)

  def init(images):
    return network.init_with_output(jax.random.key(0), images, train=True)

  outputs, variables = jax.eval_shape(init, images)
  assert set(variables["params"]) == {"encoder", "projector", "classifier"}
  assert outputs.prediction.shape == outputs.projection.shape == (2, 2, 16)
