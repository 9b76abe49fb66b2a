"""Feature maps of an encoder, by group, and with a dilated last group."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.models import byol, grouping, resnet
from tests import tiny

TYPES = {"dtype": jnp.float32, "param_dtype": jnp.float32}


def make(architecture="basic:1-1-1:8-16-24:8", stem="imagenet", **options):
  return byol.make_encoder(
    architecture=architecture,
    width=1,
    stem=stem,
    shortcut="identity",
    padding="same",
    zero_init_last=False,
    recompute=False,
    initializer="fan_in",
    input_scaling="imagenet",
    norm=resnet.make_norm(decay=0.9, epsilon=1e-5, **TYPES),
    **TYPES,
  ).clone(**options)


def images(*shape):
  rng = np.random.default_rng(3)
  return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def variables():
  x = jnp.zeros((2, 1, 32, 32, 3), jnp.uint8)
  return tiny.init(make(), x)


def maps_of(module, variables, x, **options):
  return module.apply(
    variables, x, train=False, method=module.feature_maps, **options
  )


@pytest.mark.slow
def test_a_representation_is_the_mean_of_the_last_map(variables):
  x = images(3, 2, 40, 56)
  maps = maps_of(make(), variables, x)
  shapes = [(3, 2, 10, 14, 8), (3, 2, 5, 7, 16), (3, 2, 3, 4, 24)]
  assert [found.shape for found in maps] == shapes
  y = make().apply(variables, x, train=False)
  np.testing.assert_array_equal(y, jnp.mean(maps[-1], axis=(2, 3)))


@pytest.mark.slow
def test_groups_follow_each_other(variables):
  x = images(2, 1, 33, 47)
  whole = maps_of(make(), variables, x)
  first = maps_of(make(), variables, x, groups=range(2))
  rest = maps_of(make(), variables, first[-1], groups=range(2, 3))
  assert len(first) == 2
  for found, expected in zip([*first, *rest], whole, strict=True):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_a_dilated_last_group_has_the_same_weights(variables):
  x = images(2, 1, 64, 80)
  dilated = make(dilate_last=True)
  maps = maps_of(dilated, variables, x)
  assert [found.shape[2:] for found in maps] == [
    (16, 20, 8),
    (8, 10, 16),
    (8, 10, 24),
  ]
  both = (
    jax.eval_shape(
      functools.partial(module.init, train=True), jax.random.key(0), x
    )
    for module in (make(), dilated)
  )
  assert next(both) == next(both)


def test_the_dilated_group_against_plain_convolutions(variables):
  """Its only block, by JAX's own convolution and the averages of BatchNorm."""
  module = make(dilate_last=True)
  before = maps_of(module, variables, images(2, 1, 64, 80), groups=range(2))[-1]
  found = maps_of(module, variables, before, groups=range(2, 3))[-1]
  params = variables["params"]["group2_block0"]

  def conv(x, name, dilation=1):
    return jax.lax.conv_general_dilated(
      x,
      params[name]["kernel"],
      (1, 1),
      "SAME",
      rhs_dilation=(dilation, dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ) / np.sqrt(1 + 1e-5, dtype=np.float32)  # averages are still 0 and 1

  x = before[:, 0]
  y = conv(jax.nn.relu(conv(x, "conv0", 2)), "conv1", 2)
  expected = jax.nn.relu(y + conv(x, "shortcut_conv"))
  np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_groups_of_images_have_their_own_statistics(variables):
  x = images(4, 32, 32)
  once = functools.partial(
    make().apply, variables, train=True, mutable=["batch_stats"]
  )
  together, _ = once(grouping.grouped(x, 2))
  apart = [once(x[rows, None])[0] for rows in (slice(2), slice(2, 4))]
  np.testing.assert_allclose(
    grouping.ungrouped(together),
    np.concatenate(apart)[:, 0],
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_grouping_is_undone(groups):
  x = np.arange(12 * 5).reshape(12, 5)
  parts = grouping.grouped(x, groups)
  np.testing.assert_array_equal(parts[:, -1], x[-(12 // groups) :])
  np.testing.assert_array_equal(grouping.ungrouped(parts), x)
