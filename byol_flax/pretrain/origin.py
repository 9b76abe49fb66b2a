"""Where the first weights of a run come from: another run, or a weight file."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from byol_flax.runs import address, checkpoint
from byol_flax.weights import opening
from input_pipeline.errors import UsageError

Networks = Mapping[str, Mapping[str, Any]]

ENCODER, NETWORKS, EVERYTHING = "encoder", "networks", "everything"
# What is taken -> the flag that asks for it.
FLAGS = {
  NETWORKS: "--init",
  ENCODER: "--init-encoder",
  EVERYTHING: "--continue",
}


@dataclasses.dataclass(frozen=True)
class Origin:
  """What one of the flags asks for.

  Attributes:
    where: workdir of another run, an absolute path or gs://BUCKET/PATH, or a
      weight file or its folder.
    step: which of a run's checkpoints, None for the newest.
    takes: a key of `FLAGS`. ENCODER is the online encoder alone, and the rest
      begins anew. NETWORKS are both networks with their heads. EVERYTHING is
      momentum and step as well.
  """

  where: str
  step: int | None
  takes: str

  @property
  def flag(self) -> str:
    """The flag that asks for it."""
    return FLAGS[self.takes]

  @property
  def address(self) -> address.Address:
    """The address of the checkpoint, if it is one of a run."""
    return address.Address(self.where, self.step)

  def __str__(self) -> str:
    return f"{self.flag}={self.address}"


@dataclasses.dataclass(frozen=True)
class Taken:
  """Weights that were read; all arrays lie as those of a state do.

  Attributes:
    networks: "online", and "target" if there is one, each with "params" and
      "batch_stats".
    momentum: as the online network's "params"; None if there is none.
  """

  networks: Networks
  momentum: Any


@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights that were found: their shapes now, the arrays when asked for.

  Attributes:
    shapes: as `Taken.networks`, with leaves that have a shape.
    has_momentum: whether `read` gives it.
    step: completed updates; None if a file does not tell.
    model: the section `model` of a config with such networks; heads that a file
      lacks are left out.
    config: of the run that the weights are of; None if a file does not tell.
    what: a phrase that names them, for the user.
    read: reads the arrays.
    record: what the new run's record says about them, a JSON object.
  """

  shapes: Networks
  has_momentum: bool
  step: int | None
  model: Mapping[str, Any]
  config: Mapping[str, Any] | None
  what: str
  read: Callable[[], Taken]
  record: checkpoint.Record


def parse(text: str, takes: str) -> Origin:
  """Reads "WORKDIR", "WORKDIR@STEP" or "FILE"; the path is absolute already."""
  if file := opening.file_of(text):
    return Origin(file, None, takes)
  named = address.Address.parse(text)
  return Origin(named.workdir, named.step, takes)


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
    whence = Origin(began["workdir"], began["step"], _takes(began))
    step = whence.step if origin.step is None else origin.step
    # A folder stands for the file in it, also when it is gone.
    names = (os.path.join(origin.where, name) for name in opening.IN_FOLDERS)
    where = whence.where if whence.where in names else origin.where
    if dataclasses.replace(origin, where=where, step=step) == whence:
      return f"This run began with {whence}; it goes on from its own state."
  how = str(whence) if began else "random weights"
  raise UsageError(
    f"The run in {workdir} began with {how}, so {origin} does not apply to it. "
    "Leave that out to go on with the run, or give another --workdir, or "
    "--restart to set the run aside."
  )


def _takes(began: checkpoint.Record) -> str:
  """What a run took; older records only tell two of the three apart."""
  older = ENCODER if began["encoder_only"] else NETWORKS
  takes: str = began.get("takes", older)
  return takes
