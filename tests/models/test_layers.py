"""Layers: Flax's values and gradients, but for the type of the gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax.models import initializers, layers

RNG = np.random.default_rng(0)


def pair(shape, dtype=jnp.float32, padding="same", **options):
  """Our layer and Flax's; PyTorch pads symmetrically by half a kernel."""
  types = {"dtype": dtype, "param_dtype": jnp.float32}
  shared = {"kernel_init": initializers.fan_in, **types}
  if "strides" in options:
    half = [(size // 2, size // 2) for size in options["kernel_size"]]
    if not isinstance(padding, str):
      half = padding
    given = {k: x for k, x in options.items() if k != "dilation"}
    theirs = nn.Conv(
      5,
      **{"use_bias": False, **given},
      kernel_dilation=options.get("dilation", 1),
      padding="SAME" if padding == "same" else half,
      **shared,
    )
    return layers.Conv(5, padding=padding, **options, **shared), theirs
  options = {"use_bias": True, **shared}
  return layers.Linear(5, **options), nn.Dense(5, **options)


def gradients(layer, variables, x):
  def loss(variables, x):
    return jnp.sum(jnp.sin(layer.apply(variables, x).astype(jnp.float32)))

  return jax.grad(loss, argnums=(0, 1))(variables, x)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("shape", "options"),
  [
    ((3, 2, 7, 8, 4), {"kernel_size": (3, 3), "strides": 1}),
    ((3, 2, 7, 8, 4), {"kernel_size": (3, 3), "strides": 2}),
    ((3, 2, 8, 9, 4), {"kernel_size": (7, 7), "strides": 2}),
    ((3, 2, 8, 9, 4), {"kernel_size": (1, 1), "strides": 2}),
    (
      (3, 2, 8, 9, 4),
      {"kernel_size": (7, 7), "strides": 2, "padding": "symmetric"},
    ),
    (
      (3, 2, 8, 7, 4),
      {"kernel_size": (3, 3), "strides": 2, "padding": "symmetric"},
    ),
    (
      (3, 2, 9, 8, 4),
      {"kernel_size": (3, 3), "strides": 1, "dilation": 2},
    ),
    (
      (2, 2, 7, 9, 4),
      {"kernel_size": (3, 3), "strides": 1, "dilation": 6},
    ),
    (
      (2, 2, 5, 6, 4),
      {
        "kernel_size": (2, 3),
        "strides": 1,
        "padding": ((1, 0), (1, 1)),
        "use_bias": True,
      },
    ),
    ((3, 2, 6), {}),
  ],
)
def test_values_and_gradients_are_those_of_flax(shape, options):
  ours, theirs = pair(shape, **options)
  x = RNG.normal(size=shape).astype(np.float32)
  variables = ours.init(jax.random.key(0), x)
  jax.tree.map(
    np.testing.assert_array_equal, variables, theirs.init(jax.random.key(0), x)
  )
  np.testing.assert_array_equal(
    ours.apply(variables, x), theirs.apply(variables, x)
  )
  found, expected = (gradients(x_, variables, x) for x_ in (ours, theirs))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    found,
    expected,
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ("shape", "options"),
  [((64, 2, 5, 5, 4), {"kernel_size": (3, 3), "strides": 2}), ((64, 2, 6), {})],
)
def test_gradients_have_the_type_of_the_weights(shape, options):
  ours, theirs = pair(shape, dtype=jnp.bfloat16, **options)
  x = RNG.normal(size=shape).astype(np.float32)
  variables = jax.tree.map(
    # Of values that bfloat16 has, so that both types give the same outputs.
    lambda v: v.astype(jnp.bfloat16).astype(jnp.float32),
    ours.init(jax.random.key(0), x),
  )
  narrow = jax.tree.map(lambda v: v.astype(jnp.bfloat16), variables)
  np.testing.assert_array_equal(
    ours.apply(variables, x), theirs.apply(variables, x)
  )
  wide = gradients(ours, variables, x)[0]["params"]
  for name, rounded in gradients(ours, narrow, x)[0]["params"].items():
    assert (wide[name].dtype, rounded.dtype) == (jnp.float32, jnp.bfloat16)
    # The same sums, before they are rounded; that of a bias while it grows.
    np.testing.assert_allclose(
      wide[name], rounded.astype(jnp.float32), rtol=0.02, atol=1e-3
    )
    assert np.any(wide[name] != wide[name].astype(jnp.bfloat16))
