"""A fingerprint of a state, computed where its arrays are."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp


@jax.jit
def _leaf_digest(leaf: jax.Array) -> jax.Array:
  """Two 32-bit sums over the bits of an array, uint32 [2]."""
  # A value of 64 bits becomes two words, on an axis of their own.
  size = min(leaf.dtype.itemsize, 4)
  bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * size}"))
  words = bits.astype(jnp.uint32)
  position = _positions(words.shape)
  # Odd multipliers that depend on the position: a changed, moved or missing
  # value changes the sum. Integer sums do not depend on their order, so the
  # digest is the same on every number of devices.
  mixed = (words ^ (position * jnp.uint32(0x9E3779B1))) * (
    position * jnp.uint32(0x85EBCA6B) | jnp.uint32(1)
  )
  return jnp.stack([jnp.sum(x, dtype=jnp.uint32) for x in (words, mixed)])


def _positions(shape: tuple[int, ...]) -> jax.Array:
  """0, 1, 2, ... in the order of memory, uint32, modulo 2^32.

  Not by `reshape`, which would gather an array that is cut among devices.
  """
  position, stride = jnp.zeros(shape, jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    position += index * jnp.uint32(stride % 2**32)
    stride *= shape[axis]
  return position


def tree_digest(tree: Any) -> str:
  """Hexadecimal digest of all leaves and paths."""
  paths = [
    jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
  ]
  total = hashlib.blake2b(repr(paths).encode(), digest_size=16)
  # One array after the other: all in one program would need the memory of two
  # more states, and several programs at once, each of which waits for other
  # devices, can wait for each other on a CPU.
  for leaf in jax.tree.leaves(tree):
    total.update(jax.device_get(_leaf_digest(leaf)).tobytes())
  return total.hexdigest()
