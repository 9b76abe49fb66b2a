"""Memory in which workers leave chunks for the trainer, used again and again.

Grain makes new shared memory for each chunk. That costs more than to copy the
chunk, because the kernel finds and clears every page. Here each worker has a
few slots of its own in one anonymous file, which the kernel frees with the last
process that has it open, however that process ends. A worker fills a free slot
and sends its number through Grain; the trainer copies the rows out and frees
the slot. If there is no free slot, the chunk itself is sent through Grain.
"""

import dataclasses
import math
import mmap
import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

_ALIGNMENT = 64
_FREE, _TAKEN = 0, 1


@dataclasses.dataclass(frozen=True)
class Filled:
  """Where a chunk lies.

  Attributes:
    worker: whose slot it is.
    slot: which of the worker's slots.
    fields: for each array its name, dtype, shape and offset in the slot.
  """

  worker: int
  slot: int
  fields: tuple[tuple[str, str, tuple[int, ...], int], ...]


@dataclasses.dataclass(frozen=True)
class Shape:
  """How the memory is divided.

  Attributes:
    workers: how many have slots.
    slots: of each worker.
    slot_bytes: of each slot.
  """

  workers: int
  slots: int
  slot_bytes: int

  @property
  def flags(self) -> int:
    """Bytes before the first slot: a flag for each, whether it is taken."""
    return _aligned(self.workers * self.slots, mmap.PAGESIZE)

  @property
  def total(self) -> int:
    """Bytes in all."""
    return self.flags + self.workers * self.slots * self.slot_bytes


class Memory:
  """All slots, as the trainer or one worker sees them."""

  def __init__(self, descriptor: int, shape: Shape) -> None:
    """Maps an open file of `shape.total` bytes."""
    self._shape = shape
    self._bytes = np.frombuffer(
      mmap.mmap(descriptor, shape.total), np.uint8, count=shape.total
    )
    flags = self._bytes[: shape.workers * shape.slots]
    self._flags = flags.reshape(shape.workers, shape.slots)
    self._lock = threading.Lock()

  def _slot(self, worker: int, slot: int) -> np.ndarray:
    number = worker * self._shape.slots + slot
    start = self._shape.flags + number * self._shape.slot_bytes
    return self._bytes[start : start + self._shape.slot_bytes]

  def reserve(
    self, worker: int, example: Mapping[str, Any], rows: int
  ) -> tuple[Filled, dict[str, np.ndarray]] | None:
    """A free slot of `worker`, as arrays for `rows` rows like `example`.

    Returns:
      None if no slot is free, or if the rows do not fit into one.
    """
    fields, offset = [], 0
    for name, value in example.items():
      value = np.asarray(value)
      shape = (rows, *value.shape)
      fields.append((name, value.dtype.str, shape, offset))
      offset = _aligned(offset + rows * value.nbytes, _ALIGNMENT)
    if offset > self._shape.slot_bytes:
      return None
    with self._lock:  # between this worker's threads; others have other slots
      free = np.flatnonzero(self._flags[worker] == _FREE)
      if not len(free):
        return None
      self._flags[worker, free[0]] = _TAKEN
    filled = Filled(worker, int(free[0]), tuple(fields))
    return filled, self.arrays(filled)

  def arrays(self, filled: Filled) -> dict[str, np.ndarray]:
    """The arrays of a chunk in its slot, not copied."""
    slot = self._slot(filled.worker, filled.slot)
    return {
      name: slot[offset : offset + math.prod(shape) * np.dtype(dtype).itemsize]
      .view(dtype)
      .reshape(shape)
      for name, dtype, shape, offset in filled.fields
    }

  def free(self, filled: Filled) -> None:
    """Lets the worker fill the slot anew."""
    self._flags[filled.worker, filled.slot] = _FREE


@dataclasses.dataclass(frozen=True)
class Address:
  """Where a worker finds the memory of its trainer."""

  process: int
  descriptor: int
  shape: Shape


class Owner:
  """The trainer's side: makes the memory and gives it back."""

  def __init__(self, shape: Shape) -> None:
    """Makes the file; the kernel gives a page when it is first written to."""
    self._descriptor = os.memfd_create("byol-input")
    os.ftruncate(self._descriptor, shape.total)
    self.memory = Memory(self._descriptor, shape)
    self.address = Address(os.getpid(), self._descriptor, shape)

  def close(self) -> None:
    """Closes the file to new workers; its memory goes with its last user."""
    os.close(self._descriptor)


# Set once in each worker process; nothing else there knows its number.
_worker: tuple[Memory, int] | None = None


def attach(address: Address, worker: int) -> None:
  """In a worker: opens the slots that `reserve` will give out."""
  global _worker
  path = f"/proc/{address.process}/fd/{address.descriptor}"
  descriptor = os.open(path, os.O_RDWR)
  try:
    _worker = Memory(descriptor, address.shape), worker
  finally:
    os.close(descriptor)


def reserve(
  example: Mapping[str, Any], rows: int
) -> tuple[Filled, dict[str, np.ndarray]] | None:
  """In a worker: see `Memory.reserve`. None in the trainer itself."""
  if _worker is None:
    return None
  memory, worker = _worker
  return memory.reserve(worker, example, rows)


def _aligned(size: int, alignment: int) -> int:
  return -(-size // alignment) * alignment
