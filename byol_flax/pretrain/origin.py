"""Where the weights of a new run come from: a checkpoint of another run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.pretrain import train_state
from byol_flax.runs import address, checkpoint, records
from byol_flax.runs.distributed import Processes
from input_pipeline.errors import RunError, StorageError, UsageError

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
  step, steps = origin.address.find(origin.flag)
  checkpoints = checkpoint.Checkpoints.reader(origin.workdir, processes)
  try:
    record = records.completed(checkpoints.record(step))
    abstract = _abstract(checkpoints.shapes(step), like, mesh)
  except UsageError as error:
    raise UsageError(f"{origin}: {error}") from None
  except StorageError:
    raise
  # A damaged file can raise any error in the storage layer.
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
    assert restored  # a step that is asked for is restored, or it is damaged
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
  """An error that says `sentence` and which other checkpoints there are."""
  return RunError(f"{origin}: {sentence} {address.others(step, steps)}")


def _abstract(
  found: dict[str, Any], like: train_state.ByolState, mesh: Mesh
) -> train_state.ByolState:
  """The whole state that a checkpoint holds, the optimizer's part too.

  All of it must be read, because the checkpoint's digest covers all of it.
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
