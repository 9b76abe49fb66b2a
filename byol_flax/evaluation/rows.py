"""Features of a whole split that stay on the devices which computed them.

ImageNet's 1.28 million representations are 10 GB and more, which neither one
device nor one host can be expected to hold. Here each device keeps the rows of
its own part of every batch, and nothing is gathered.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from byol_flax import sharding

_ALL = ("group", "member")
# Axis 0 is cut among all devices, as `sharding.split` cuts it.
SPLIT = PartitionSpec(_ALL)


class Rows(NamedTuple):
  """N' rows, cut among the devices: N, and those that fill the last batch.

  Attributes:
    values: float32 [N', F].
    label: int32 [N'], -1 for a row that does not count.
    place: int32 [N'], the row's place in the split. It rises along the rows of
      a device, but not along the whole array.
  """

  values: jax.Array
  label: jax.Array
  place: jax.Array


def collect(
  batches: Iterable[Mapping[str, jax.Array]], count: int, mesh: Mesh
) -> Rows:
  """Keeps the "representation" of all batches of a split.

  The rows are written into one buffer that is never copied, so that a device
  need not hold them twice.

  Args:
    batches: as `features.of_batches` yields them, all of one size.
    count: how many batches there are, at least one.
    mesh: where they lie.
  """
  rows = None
  for step, batch in enumerate(batches):
    if rows is None:
      size, width = batch["representation"].shape
      rows = zeros(size=count * size, width=width, mesh=mesh)
    rows = write(
      rows,
      batch["representation"],
      batch["label"],
      batch["mask"],
      np.int32(step),
      mesh=mesh,
    )
  assert rows is not None
  return rows


@functools.partial(jax.jit, static_argnames=("size", "width", "mesh"))
def zeros(*, size: int, width: int, mesh: Mesh) -> Rows:
  """N' = `size` rows of F = `width` zeros, to be written into."""
  rows = Rows(
    jnp.zeros((size, width), jnp.float32),
    jnp.zeros(size, jnp.int32),
    jnp.zeros(size, jnp.int32),
  )
  return jax.lax.with_sharding_constraint(rows, sharding.split(mesh))


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def write(
  rows: Rows,
  values: jax.Array,
  label: jax.Array,
  mask: jax.Array,
  step: jax.Array,
  *,
  mesh: Mesh,
) -> Rows:
  """Writes batch number `step`; each device appends its part to its rows."""
  batch_size = len(label)
  part = Rows(
    values.astype(jnp.float32),
    jnp.where(mask, label, -1),
    step * batch_size + jnp.arange(batch_size, dtype=jnp.int32),
  )

  def write_part(rows: Rows, part: Rows, step: jax.Array) -> Rows:
    return jax.tree.map(
      lambda all_, new: jax.lax.dynamic_update_slice_in_dim(
        all_, new, step * len(new), axis=0
      ),
      rows,
      part,
    )

  return jax.shard_map(
    write_part,
    mesh=mesh,
    in_specs=(SPLIT, SPLIT, PartitionSpec()),
    out_specs=SPLIT,
  )(rows, part, step)


def put(values: np.ndarray, label: np.ndarray, mesh: Mesh) -> Rows:
  """Cuts features that every process has whole among the devices.

  Args:
    values: float [N, F].
    label: int [N].
    mesh: where they will lie.
  """
  count = len(values)
  filled = -(-count // mesh.size) * mesh.size
  part = filled // jax.process_count()
  start = jax.process_index() * part
  end = min(start + part, count)
  empty = part - max(end - start, 0)
  mine = slice(start, max(end, start))
  placed = sharding.put_batch(
    mesh,
    {
      "values": _filled(values[mine].astype(np.float32), empty, 0),
      "label": _filled(label[mine].astype(np.int32), empty, -1),
      "place": np.arange(start, start + part, dtype=np.int32),
    },
  )
  return Rows(**placed)


def _filled(array: np.ndarray, count: int, value: int) -> np.ndarray:
  widths = [(0, count)] + [(0, 0)] * (array.ndim - 1)
  return np.pad(array, widths, constant_values=value)
