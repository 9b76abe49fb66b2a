"""Counting operations: loops, gradients, what padding and strides leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.benchmarks import operations
from byol_flax.preflight import shallow
from byol_flax.pretrain import build
from configs import byol_digits

RNG = np.random.default_rng(0)


def convolution(strides, padding, groups=1):
  def convolve(image, kernel):
    return jax.lax.conv_general_dilated(
      image,
      kernel,
      strides,
      padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=groups,
    )

  return convolve


@pytest.mark.parametrize(
  ("strides", "padding", "groups"),
  [((1, 1), "SAME", 1), ((2, 1), "SAME", 2), ((2, 3), "VALID", 1)],
)
def test_convolutions_and_their_gradients(strides, padding, groups):
  convolve = convolution(strides, padding, groups)
  image = RNG.normal(size=(2, 7, 6, 4)).astype(np.float32)
  kernel = RNG.normal(size=(3, 2, 4 // groups, 6)).astype(np.float32)
  # Each product of a pixel and a weight, counted by doing it with ones.
  ones = convolve(np.ones_like(image), np.ones_like(kernel))
  once = 2 * int(ones.sum())
  assert operations.count(convolve, image, kernel) == once
  # Both gradients hold the same products.
  squared = jax.value_and_grad(
    lambda *a: jnp.sum(convolve(*a) ** 2), argnums=(0, 1)
  )
  assert operations.count(squared, image, kernel) == 3 * once


def test_products_in_loops_and_in_what_is_computed_again():
  a, b = np.ones((5, 7), np.float32), np.ones((7, 3), np.float32)
  once = 2 * 5 * 7 * 3
  assert operations.count(jnp.matmul, a, b) == once
  batched = jax.jit(jax.vmap(jnp.matmul, (0, None)))
  assert operations.count(batched, np.stack(4 * [a]), b) == 4 * once

  def loop(a, b):
    return jax.lax.scan(lambda x, _: (x + jnp.sum(a @ b), x), 0.0, None, 6)[0]

  assert operations.count(loop, a, b) == 6 * once
  again = jax.grad(lambda a: jnp.sum(jax.checkpoint(jnp.matmul)(a, b) ** 2))
  # The product, and the gradient of `a`; that of `b` is not asked for.
  assert operations.count(again, a) in (2 * once, 3 * once)


@pytest.mark.slow
def test_an_update_is_eight_forward_passes():
  """Two views of the target network, and thrice as much of the online one."""
  config = byol_digits.get_config()
  config.accumulation_steps = 2
  mesh = sharding.make_mesh()
  built = build.build(config, mesh, num_examples=1437, num_classes=10)
  update = operations.count(
    built.step_fn, built.abstract_state, built.abstract_batch
  )
  once = shallow.forward_operations(built.network, config.augment.size)
  covariance = 2 * 32 * 32  # of the projections of view1, for the metrics
  assert update == 64 * (8 * once + covariance)
