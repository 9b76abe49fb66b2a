"""The weights that a new run takes from a checkpoint of another run."""

from typing import Any

import jax
import optax
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.pretrain import origin, train_state
from byol_flax.runs import address, checkpoint, records, way_back
from byol_flax.runs.distributed import Processes
from input_pipeline.errors import RunError, StorageError, UsageError


def open_run(
  begins_with: origin.Origin,
  like: train_state.ByolState,
  mesh: Mesh,
  processes: Processes,
) -> origin.Weights:
  """Finds the checkpoint that `begins_with` names; reads no array yet.

  Args:
    begins_with: which run.
    like: a state of the new run, or its shapes, for the optimizer.
    mesh: where the arrays will lie.
    processes: all that take part; each calls this, and `read`.

  Raises:
    UsageError: there is no such checkpoint.
  """
  step, steps = begins_with.address.find(begins_with.flag)
  checkpoints = checkpoint.Checkpoints.reader(begins_with.where, processes)
  try:
    record = records.completed(checkpoints.record(step))
    abstract = _abstract(checkpoints.shapes(step), like, mesh)
  except UsageError as error:
    raise UsageError(f"{begins_with}: {error}") from None
  except StorageError:
    raise
  # A damaged file can raise any error in the storage layer.
  except Exception as error:
    problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    sentence = f"Checkpoint {step} is damaged ({problem})."
    raise _damaged(begins_with, sentence, step, steps) from None
  finally:
    checkpoints.close()

  rolled_back = way_back.known(record, begins_with.where)
  changed = _changed(record["config"], rolled_back) if rolled_back else ""

  def read() -> origin.Taken:
    checkpoints = checkpoint.Checkpoints.reader(begins_with.where, processes)
    try:
      restored = checkpoints.restore(abstract, step)
    except checkpoint.DamagedError as error:
      raise _damaged(begins_with, str(error), step, steps) from None
    finally:
      checkpoints.close()
    assert restored  # a step that is asked for is restored, or it is damaged
    online = restored.state.online
    return origin.Taken(
      _networks(restored.state),
      optax.tree_utils.tree_get(online.opt_state, "trace"),
    )

  return origin.Weights(
    shapes=_networks(abstract),
    has_momentum=True,
    step=step,
    model=record["config"]["model"],
    config=way_back.config_of(record["config"], rolled_back),
    what=f"{begins_with.where} after update {step:,}{changed}",
    read=read,
    record={
      "workdir": begins_with.where,
      "step": step,
      "encoder_only": begins_with.takes == origin.ENCODER,
      "takes": begins_with.takes,
      "code_version": record["code_version"],
      "digest": record["digest"],
    },
  )


def _damaged(
  begins_with: origin.Origin, sentence: str, step: int, steps: list[int]
) -> RunError:
  """An error that says `sentence` and which other checkpoints there are."""
  return RunError(f"{begins_with}: {sentence} {address.others(step, steps)}")


def _changed(config: dict[str, Any], rolled_back: checkpoint.Record) -> str:
  """Tells by which settings a run went on that had been rolled back."""
  changes = way_back.changes(config, rolled_back)
  flags = (f"--config.{key}={value}" for key, value in changes.items())
  return f", which had been rolled back and goes on with {' '.join(flags)}"


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


def _networks(state: train_state.ByolState) -> origin.Networks:
  return {"online": state.online.variables, "target": state.target.variables}
