"""Where the weights of a new run come from: a checkpoint of another run."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.pretrain import train_state
from byol_flax.runs import checkpoint, records
from byol_flax.runs.distributed import Processes
from input_pipeline.errors import RunError, StorageError, UsageError

_AT_STEP = re.compile(r"(?P<workdir>.+)@(?P<step>\d+)")

Networks = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Origin:
  """What --init or --init-encoder asks for.

  Attributes:
    workdir: of the other run, an absolute path or gs://BUCKET/PATH.
    step: which of its checkpoints, None for the newest.
    encoder_only: the encoder enters the new run, the rest begins anew.
  """

  workdir: str
  step: int | None
  encoder_only: bool

  def __str__(self) -> str:
    flag = "--init-encoder" if self.encoder_only else "--init"
    step = "" if self.step is None else f"@{self.step}"
    return f"{flag}={self.workdir}{step}"


@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights that were found: their shapes now, the arrays when asked for.

  Attributes:
    shapes: "online" and "target" -> "params" and "batch_stats" -> nested dict
      of `jax.ShapeDtypeStruct`, a module of the network at its top.
    read: () -> the same with arrays, which lie as those of a state do.
    record: what the new run keeps of it, a JSON object.
  """

  shapes: Networks
  read: Callable[[], Networks]
  record: checkpoint.Record


def parse(text: str, encoder_only: bool) -> Origin:
  """Reads "WORKDIR" or "WORKDIR@STEP"; the path is absolute already."""
  found = _AT_STEP.fullmatch(text)
  if found:
    return Origin(found["workdir"], int(found["step"]), encoder_only)
  return Origin(text, None, encoder_only)


def check_resumes(
  origin: Origin, began: checkpoint.Record | None, workdir: str
) -> str:
  """What to say of `origin` when the run exists already.

  Args:
    origin: what the command line asks for.
    began: what the run recorded of its first weights, None if random.
    workdir: of the run.

  Raises:
    UsageError: the run did not begin so.
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


def open_run(
  origin: Origin,
  like: train_state.ByolState,
  mesh: Mesh,
  processes: Processes,
) -> Weights:
  """Finds the checkpoint that `origin` names; reads no array yet.

  Args:
    origin: which run.
    like: a state of the new run, or its shapes, for the optimizer.
    mesh: where the arrays will lie.
    processes: all that take part; each calls this, and `read`.

  Raises:
    UsageError: there is no such checkpoint.
  """
  steps = checkpoint.steps_in(origin.workdir)
  if not steps:
    raise UsageError(
      f"{origin}: there is no checkpoint in {origin.workdir}; give the "
      "--workdir of a run, and @STEP after it for one that is not the newest."
    )
  if origin.step is not None and origin.step not in steps:
    raise UsageError(
      f"{origin}: that run has no checkpoint {origin.step}; it has "
      f"{', '.join(map(str, steps))}."
    )
  step = steps[-1] if origin.step is None else origin.step
  checkpoints = checkpoint.Checkpoints.reader(origin.workdir, processes)
  try:
    record = records.completed(checkpoints.record(step))
    abstract = _abstract(checkpoints.shapes(step), like, mesh)
  except UsageError as error:
    raise UsageError(f"{origin}: {error}") from None
  except StorageError:
    raise
  # Damage shows as whatever the storage layer stumbles over.
  except Exception as error:
    problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    sentence = f"Checkpoint {step} is damaged ({problem})."
    raise _damaged(origin, sentence, step, steps) from None
  finally:
    checkpoints.close()

  def read() -> Networks:
    checkpoints = checkpoint.Checkpoints.reader(origin.workdir, processes)
    try:
      restored = checkpoints.restore(abstract, step)
    except checkpoint.DamagedError as error:
      raise _damaged(origin, str(error), step, steps) from None
    finally:
      checkpoints.close()
    assert restored  # of a step that is asked for, or it is damaged
    return _networks(restored.state)

  return Weights(
    shapes=_networks(abstract),
    read=read,
    record={
      "workdir": origin.workdir,
      "step": step,
      "encoder_only": origin.encoder_only,
      "code_version": record["code_version"],
      "digest": record["digest"],
    },
  )


def _damaged(
  origin: Origin, sentence: str, step: int, steps: list[int]
) -> RunError:
  """`sentence` and the checkpoints that are there besides `step`."""
  others = [str(other) for other in steps if other != step]
  advice = (
    f"That run has {', '.join(others)} too; WORKDIR@STEP takes one of them."
    if others
    else "That run has no other."
  )
  return RunError(f"{origin}: {sentence} {advice}")


def _abstract(
  found: dict[str, Any], like: train_state.ByolState, mesh: Mesh
) -> train_state.ByolState:
  """The whole state that a checkpoint holds, the optimizer's part too.

  The digest that guards a checkpoint is that of the whole.
  """

  def network(
    like: train_state.TrainState, found: dict[str, Any]
  ) -> train_state.TrainState:
    return like.replace(
      params=found["params"],
      batch_stats=found["batch_stats"],
      opt_state=jax.eval_shape(like.tx.init, found["params"]),
    )

  whole = train_state.ByolState(
    online=network(like.online, found["online"]),
    target=network(like.target, found["target"]),
  )
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding.cut(mesh, x.shape)
    ),
    whole,
  )


def _networks(state: train_state.ByolState) -> Networks:
  return {"online": state.online.variables, "target": state.target.variables}
