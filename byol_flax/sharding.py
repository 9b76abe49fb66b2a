"""How arrays lie on the devices: the batch is cut, and so are the weights.

The devices form groups of neighbours. The batch is cut among all devices.
Between updates each weight is cut among the members of a group, and every group
holds a copy. So a device updates only its part of the state, and gathering the
weights for the networks stays within a group.
"""

import collections
import functools
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.errors import UsageError

# With more members the parts become too small for TPUs to send them whole: with
# 512 members XLA gathered ResNet-200 ×2 by adding zeros, at 4.7 GB of memory
# traffic.
_MOST_MEMBERS = 32
_ROWS_OF_A_TILE = 8  # in a TPU's memory; a part must consist of whole tiles


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh over all devices (or those given), axes "group" and "member".

  `jax.make_mesh` would make its axes Explicit, on which plain code fails. The
  devices are sorted because a process holds one block of rows, so its devices
  must stand side by side; TPUs number them by place, across hosts.
  """
  ordered = sorted(
    devices or jax.devices(), key=lambda d: (d.process_index, d.id)
  )
  members = max(n for n in range(1, _MOST_MEMBERS + 1) if len(ordered) % n == 0)
  return Mesh(
    np.asarray(ordered).reshape(-1, members),
    ("group", "member"),
  )


def describe(mesh: Mesh) -> str:
  """Describes a mesh, such as "32 tpu devices of 4 processes"."""
  devices = list(mesh.devices.flat)
  processes = len({device.process_index for device in devices})
  text = f"{len(devices)} {devices[0].platform} device"
  text += "s" if len(devices) > 1 else ""
  return f"{text} of {processes} processes" if processes > 1 else text


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  """Axis 0 is cut into one part per device."""
  return NamedSharding(mesh, PartitionSpec(("group", "member")))


def cut(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
  """How an array of the state is kept: in equal parts where that is possible.

  A weight, which has two axes or more, is cut along the first axis that gives
  whole tiles to each member of a group. Any other array is whole on every
  device.
  """
  unit = mesh.shape["member"] * _ROWS_OF_A_TILE
  if len(shape) > 1:
    for axis, size in enumerate(shape):
      if size and size % unit == 0:
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "member"))
  return replicated(mesh)


def gather(mesh: Mesh, tree: Any) -> Any:
  """The same arrays, whole on every device; not copied if all are already."""
  whole = replicated(mesh)
  if all(
    isinstance(x, jax.Array) and x.sharding.is_equivalent_to(whole, x.ndim)
    for x in jax.tree.leaves(tree)
  ):
    return tree
  return _gatherer(mesh)(tree)


@functools.cache  # one compilation for all calls
def _gatherer(mesh: Mesh) -> Callable[[Any], Any]:
  return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Makes global arrays [B, ...] of the rows that this process read.

  Process p holds the p-th block of consecutive rows of the global batch.
  """
  # All in one call: a call costs tens of microseconds, whatever it carries.
  return jax.make_array_from_process_local_data(split(mesh), dict(batch))


def put_everywhere(mesh: Mesh, array: np.ndarray) -> jax.Array:
  """Puts an array that every process has whole on every device."""
  return jax.make_array_from_process_local_data(replicated(mesh), array)


def prefetch(
  mesh: Mesh,
  batches: Iterable[Mapping[str, np.ndarray]],
  resident: Mapping[str, jax.Array] | None = None,
  depth: int = 2,
) -> Generator[dict[str, Any], None, None]:
  """Yields global batches, `depth` transfers ahead of the one in use.

  Each gets the `resident` arrays, which lie on the devices already.
  """
  ahead: collections.deque[dict[str, Any]] = collections.deque()
  for batch in batches:
    ahead.append({**put_batch(mesh, batch), **(resident or {})})
    if len(ahead) > depth:
      yield ahead.popleft()
  yield from ahead


def check_batch_size(
  batch_size: int, *, devices: int, accumulation_steps: int
) -> None:
  """Raises UsageError unless all micro-batches are equal and normalisable.

  BatchNorm takes its statistics from a micro-batch on all devices, for each
  view by itself. If that were one image, normalising it would leave nothing in
  the heads but the offset: all projections would be equal, and the loss 0.
  """
  parts = devices * accumulation_steps
  if batch_size % parts:
    below = batch_size // parts * parts
    near = (below, below + parts, below + 2 * parts)
    choices = [str(size) for size in near if size > accumulation_steps][:2]
    raise UsageError(
      f"batch_size {batch_size} cannot be cut into {accumulation_steps} "
      f"micro-batch(es) on each of {devices} device(s); it must be a multiple "
      f"of {parts}, such as {' or '.join(choices)}."
    )
  if batch_size == accumulation_steps:
    fewer = [n for n in range(batch_size // 2, 0, -1) if batch_size % n == 0]
    other = f", or accumulation_steps {fewer[0]}" if fewer else ""
    raise UsageError(
      f"batch_size {batch_size} in {accumulation_steps} micro-batch(es) leaves "
      "one image to normalise at a time, and BatchNorm needs two or more: take "
      f"batch_size {2 * parts} or {3 * parts}, or another multiple of {parts}"
      f"{other}."
    )
