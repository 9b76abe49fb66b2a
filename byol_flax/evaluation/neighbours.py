"""Exact nearest neighbours by cosine, in a bank that is never gathered.

Every device looks through its own rows of the bank, tile by tile, and keeps the
best k that it has met; then the best k of all devices are merged. So only the
queries and k candidates for each move between devices, never the bank, and the
table of similarities is bounded whatever the bank holds.

If similarities are equal, the row that comes first in its split counts as the
nearer one, whatever the number of devices.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from byol_flax.evaluation.rows import SPLIT, Rows
from byol_flax.pretrain import losses

# A tile of the bank, and its similarities to the queries, have at most so many
# numbers each, 128 MiB of float32.
_MOST_NUMBERS = 2**25


class Nearest(NamedTuple):
  """The k rows that are nearest to each of Q queries, nearest first.

  Attributes:
    similarity: float32 [Q, k], cosines; -inf if the bank has no row left, NaN
      for a query that is not finite.
    label: int32 [Q, k]; -1 if there is no row.
    place: int32 [Q, k], the row's place in the split; -1 if there is none.
  """

  similarity: jax.Array
  label: jax.Array
  place: jax.Array


@dataclasses.dataclass(frozen=True)
class Bank:
  """Rows to look among; those without a label are never found.

  Attributes:
    rows: their values have length one.
    size: how many have a label.
    broken: how many of these are not finite; if any, all neighbours are in
      doubt.
    mesh: where the rows lie.
  """

  rows: Rows
  size: int
  broken: int
  mesh: Mesh

  def nearest(self, queries: jax.Array, k: int) -> Nearest:
    """Finds the k nearest rows of each query, for every process.

    Args:
      queries: float [Q, F], on the devices of the mesh in any way. Only their
        directions count.
      k: may be more than the bank holds.
    """
    return nearest(self.rows, queries, k=k, mesh=self.mesh)


def make_bank(rows: Rows, mesh: Mesh) -> Bank:
  """Makes `rows` a bank; they are consumed, so that memory holds them once."""
  size, broken = (int(count) for count in _count(rows))
  return Bank(scale(rows), size, broken, mesh)


@jax.jit
def _count(rows: Rows) -> tuple[jax.Array, jax.Array]:
  """Rows that have a label, and how many of these are not finite."""
  labelled = rows.label >= 0
  finite = jnp.all(jnp.isfinite(rows.values), axis=1)
  return jnp.sum(labelled), jnp.sum(labelled & ~finite)


@functools.partial(jax.jit, donate_argnums=0)
def scale(rows: Rows) -> Rows:
  """Makes the values directions, of length one; `rows` is consumed."""
  return rows._replace(values=losses.unit_length(rows.values))


@functools.partial(jax.jit, static_argnames=("k", "mesh", "most_numbers"))
def nearest(
  rows: Rows,
  queries: jax.Array,
  *,
  k: int,
  mesh: Mesh,
  most_numbers: int = _MOST_NUMBERS,
) -> Nearest:
  """See `Bank.nearest`; the values of `rows` have length one."""

  def search(rows: Rows, queries: jax.Array) -> Nearest:
    tiles = count_tiles(len(rows.label), queries.shape, most_numbers)
    best = _search_own_rows(rows, queries, k, tiles)
    for axis in mesh.axis_names[::-1]:  # neighbouring devices first
      best = _merge(best, axis, k)
    found = best.similarity > -jnp.inf
    return best._replace(
      label=jnp.where(found, best.label, -1),
      place=jnp.where(found, best.place, -1),
    )

  queries = losses.unit_length(queries.astype(jnp.float32))
  everywhere = PartitionSpec()
  found = jax.shard_map(
    search,
    mesh=mesh,
    in_specs=(SPLIT, everywhere),
    out_specs=everywhere,
    check_vma=False,  # it cannot tell that all gather the same candidates
  )(rows, queries)
  finite = jnp.all(jnp.isfinite(queries), axis=1, keepdims=True)
  return found._replace(similarity=jnp.where(finite, found.similarity, jnp.nan))


def count_tiles(
  rows: int, queries: tuple[int, ...], most_numbers: int = _MOST_NUMBERS
) -> int:
  """How many tiles a device cuts its rows into, for queries of shape [Q, F]."""
  return -(-rows // max(1, most_numbers // max(queries)))


def _search_own_rows(
  rows: Rows, queries: jax.Array, k: int, tiles: int
) -> Nearest:
  """The k best rows of one device: a running best, merged tile by tile."""
  count = len(rows.label)
  tile = -(-count // tiles)  # all alike, so that hardly a row is seen twice

  def look(i: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple:
    similarity, position = best
    # The last tile reaches back into the one before, and the rows they share
    # are left out this time: filling up the bank would copy it.
    start = jnp.minimum(i * tile, count - tile)
    values, label = (
      jax.lax.dynamic_slice_in_dim(x, start, tile)
      for x in (rows.values, rows.label)
    )
    # By default TPUs would round both to bfloat16.
    cosine = jnp.matmul(queries, values.T, precision="highest")
    new = start + jnp.arange(tile, dtype=jnp.int32) >= i * tile
    cosine = jnp.where((new & (label >= 0))[None], cosine, -jnp.inf)
    # Among equal values top_k takes the first. That is the lower index, because
    # earlier tiles stand before this one.
    cosine, column = jax.lax.top_k(cosine, min(k, tile))
    similarity = jnp.concatenate([similarity, cosine], axis=1)
    position = jnp.concatenate([position, start + column], axis=1)
    similarity, column = jax.lax.top_k(similarity, k)
    return similarity, jnp.take_along_axis(position, column, axis=1)

  shape = (len(queries), k)
  none = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
  similarity, position = jax.lax.fori_loop(0, tiles, look, none)
  return Nearest(similarity, rows.label[position], rows.place[position])


def _merge(best: Nearest, axis: str, k: int) -> Nearest:
  """The k best of all devices along an axis of the mesh."""
  candidates = jax.tree.map(
    lambda x: jax.lax.all_gather(x, axis, axis=1, tiled=True), best
  )
  # top_k will not do: a later device may hold the row with the lower index.
  farness, place, label = jax.lax.sort(
    (-candidates.similarity, candidates.place, candidates.label),
    dimension=1,
    num_keys=2,
  )
  return Nearest(-farness[:, :k], label[:, :k], place[:, :k])
