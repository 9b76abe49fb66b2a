"""A fingerprint of a state, computed where its arrays are."""

import functools
import hashlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_PART = 3  # how many names make a part, such as online/params/encoder


class LeafSum(NamedTuple):
  """A sum over one array of a tree.

  Attributes:
    key: its place as JAX writes it, such as ".online.params['encoder']".
    names: the same as plain names, however the tree is held.
    sums: eight bytes that depend on every bit of the array.
  """

  key: str
  names: tuple[str, ...]
  sums: bytes


def leaf_sums(tree: Any) -> list[LeafSum]:
  """Sums over the bits of every array of `tree`, in the order of the tree.

  The arrays are summed one after another. One program for all would need the
  memory of two more states. If several programs ran at once, each of which
  waits for other devices, they could wait for each other for ever on a CPU.
  """
  return [
    LeafSum(
      jax.tree_util.keystr(path),
      tuple(map(_name, path)),
      jax.device_get(_program(_kind(leaf))(leaf)).tobytes(),
    )
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  ]


def whole(sums: Sequence[LeafSum]) -> str:
  """Hexadecimal digest of all arrays and their places."""
  total = hashlib.blake2b(
    repr([leaf.key for leaf in sums]).encode(), digest_size=16
  )
  for leaf in sums:
    total.update(leaf.sums)
  return total.hexdigest()


def parts(sums: Sequence[LeafSum]) -> dict[str, str]:
  """Digest of each part of a state, such as "online/params/encoder".

  So a part can be read and checked without the rest.
  """
  totals: dict[str, Any] = {}
  for leaf in sums:
    part = "/".join(leaf.names[:_PART])
    total = totals.setdefault(part, hashlib.blake2b(digest_size=16))
    total.update(repr(leaf.names).encode() + leaf.sums)
  return {part: total.hexdigest() for part, total in totals.items()}


def tree_digest(tree: Any) -> str:
  """`whole` of a tree."""
  return whole(leaf_sums(tree))


def compile_ahead(abstract_tree: Any) -> threading.Thread:
  """Compiles in a thread what `leaf_sums` of such a tree needs.

  Otherwise the first save would wait for the compilation.

  Args:
    abstract_tree: of `jax.ShapeDtypeStruct` with shardings.

  Returns:
    The thread, which was started.
  """
  kinds = dict.fromkeys(map(_kind, jax.tree.leaves(abstract_tree)))

  def compile_all() -> None:
    for kind in kinds:
      if not threading.main_thread().is_alive():  # the process ends early
        return
      _program(kind)

  # No daemon: an interpreter that ended while XLA compiles would crash.
  thread = threading.Thread(target=compile_all, name="digest")
  thread.start()
  return thread


_Kind = tuple[tuple[int, ...], Any, Any]


def _kind(leaf: Any) -> _Kind:
  """What two arrays must have in common to share a program."""
  return leaf.shape, leaf.dtype, getattr(leaf, "sharding", None)


def _name(key: Any) -> str:
  """One step of a path: an attribute, a key or an index."""
  for kind in ("name", "key", "idx"):
    if hasattr(key, kind):
      return str(getattr(key, kind))
  return str(key)


# One lock, so that a save does not compile what the thread is compiling.
_compiling = threading.Lock()


def _program(kind: _Kind) -> Any:
  """`_sums`, compiled for such arrays."""
  with _compiling:
    return _compiled(kind)


@functools.cache
def _compiled(kind: _Kind) -> Any:
  shape, dtype, how = kind
  leaf = jax.ShapeDtypeStruct(shape, dtype, sharding=how)
  return jax.jit(_sums).lower(leaf).compile()


def _sums(leaf: jax.Array) -> jax.Array:
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

  A `reshape` would be shorter, but it would gather an array that is cut among
  devices.
  """
  position, stride = jnp.zeros(shape, jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    position += index * jnp.uint32(stride % 2**32)
    stride *= shape[axis]
  return position
