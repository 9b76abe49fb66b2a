"""Where the weights of a new run come from: a checkpoint of another run."""

import dataclasses
from collections.abc import Callable
from typing import Any

from byol_flax.runs import address, checkpoint
from input_pipeline.errors import UsageError

Networks = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Origin:
  """What --init or --init-encoder asks for.

  Attributes:
    workdir: of the other run, an absolute path or gs://BUCKET/PATH.
    step: which of its checkpoints, None for the newest.
    encoder_only: whether only the encoder is taken, and the rest begins anew.
  """

  workdir: str
  step: int | None
  encoder_only: bool

  @property
  def flag(self) -> str:
    """The flag that asks for it."""
    return "--init-encoder" if self.encoder_only else "--init"

  @property
  def address(self) -> address.Address:
    """The address of the checkpoint."""
    return address.Address(self.workdir, self.step)

  def __str__(self) -> str:
    return f"{self.flag}={self.address}"


@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights that were found: their shapes now, the arrays when asked for.

  Attributes:
    shapes: "online" and "target" -> "params" and "batch_stats" -> nested dict
      of `jax.ShapeDtypeStruct`, a module of the network at its top.
    read: () -> the same with arrays, which lie as those of a state do.
    record: what the new run's record says about them, a JSON object.
  """

  shapes: Networks
  read: Callable[[], Networks]
  record: checkpoint.Record


def parse(text: str, encoder_only: bool) -> Origin:
  """Reads "WORKDIR" or "WORKDIR@STEP"; the path is absolute already."""
  named = address.Address.parse(text)
  return Origin(named.workdir, named.step, encoder_only)


def check_resumes(
  origin: Origin, began: checkpoint.Record | None, workdir: str
) -> str:
  """What to say of `origin` when the run exists already.

  Args:
    origin: what the command line asks for.
    began: what the run recorded of its first weights, None if random.
    workdir: of the run.

  Raises:
    UsageError: the run began with something else.
  """
  if began:
    whence = Origin(began["workdir"], began["step"], began["encoder_only"])
    step = whence.step if origin.step is None else origin.step
    if dataclasses.replace(origin, step=step) == whence:
      return f"This run began with {whence}; it goes on from its own state."
  how = str(whence) if began else "random weights"
  raise UsageError(
    f"The run in {workdir} began with {how}, so {origin} does not apply to it. "
    "Leave that out to go on with the run, or give another --workdir, or "
    "--restart to set the run aside."
  )
