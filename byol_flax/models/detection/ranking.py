"""The largest of many numbers."""

import jax
import jax.numpy as jnp


def largest(values: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
  """The largest of float [N], and their places int32, both [number].

  This is what `jax.lax.top_k` gives. But where the images of a batch lie on
  several devices, XLA divides a sort among them, while it sends all rows to all
  devices for `top_k`.
  """
  ranked, places = jax.lax.sort(
    (-values, jnp.arange(len(values), dtype=jnp.int32)), num_keys=1
  )
  return -ranked[:number], places[:number]
