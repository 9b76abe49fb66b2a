"""How Orbax keeps checkpoints here: when, which, and whole at one moment."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import orbax.checkpoint as ocp

from byol_flax.runs import buckets


class Manager(ocp.CheckpointManager):
  """Saves when it is told to, and leaves preemption to `Processes`.

  Orbax would ask JAX about preemption too, with the number of the update. JAX
  expects one rising sequence of numbers. If two callers mix theirs, a process
  can miss the point at which all have agreed to stop.
  """

  def reached_preemption(self, step: int) -> bool:
    """Never."""
    del step
    return False


@dataclasses.dataclass(frozen=True)
class FirstOfEvery:
  """Preserves the first checkpoint at or after each multiple of `updates`.

  Orbax's own preserves the multiples themselves, which saves by time miss.
  """

  updates: int

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    """One answer for each of `checkpoints`."""
    del context
    passed = [found.step // self.updates for found in checkpoints]
    return [
      now > before for before, now in zip([0, *passed], passed, strict=False)
    ]


def atomicity_mode(path: str, mounts: str) -> ocp.options.AtomicityMode:
  """How a checkpoint under `path` becomes whole at one moment.

  A local folder is renamed when it is complete. An object store cannot rename,
  so there a file that is written last says that the folder is complete.

  Args:
    path: absolute path or gs://BUCKET/PATH.
    mounts: see `buckets.holds`.
  """
  modes = ocp.options.AtomicityMode
  if buckets.holds(path, mounts):
    return modes.COMMIT_FILE
  return modes.ATOMIC_RENAME
