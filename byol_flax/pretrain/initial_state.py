"""The state that a run begins with: random, or with weights from elsewhere.

Momentum, step and schedules of a new run begin at 0, unless it continues
another one. BatchNorm's running averages come with the parameters they belong
to.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from byol_flax.pretrain import (
  origin,
  origin_file,
  origin_run,
  train_state,
)
from byol_flax.runs import checkpoint, metrics_log, records
from byol_flax.runs import workdir as workdir_lib
from byol_flax.runs.distributed import Processes
from byol_flax.weights import opening
from input_pipeline.errors import UsageError

_SHOWN = 3  # differing arrays in a message

# Network of the new state -> the network of the other run whose weights it
# takes. If only the encoder is wanted, both take the online network's.
_WHOLE = {"online": "online", "target": "target"}
_ENCODER = {"online": "online", "target": "online"}

# Settings that change what a network computes, but no shape.
_UNSEEN = (
  "model.encoder.padding",
  "model.batch_norm.epsilon",
  "model.input_scaling",
)
# What may differ between a run and the one that it continues.
_MAY_CHANGE = (*workdir_lib.MAY_CHANGE, "data.", "seed.")


@dataclasses.dataclass(frozen=True)
class Beginning:
  """What a run begins, or began, with.

  Attributes:
    record: where the first weights came from, for the run's record; None if
      random.
    sentence: what to tell the user, or "".
    step: completed updates of the first state.
    enter: random state -> first state of the run.
  """

  record: checkpoint.Record | None = None
  sentence: str = ""
  step: int = 0
  enter: Callable[[train_state.ByolState], train_state.ByolState] = (
    lambda state: state
  )


class Run(Protocol):
  """What must be known of the new run, such as a `build.Built`."""

  @property
  def abstract_state(self) -> train_state.ByolState:
    """Shapes and shardings of its state."""

  @property
  def total_steps(self) -> int:
    """Its updates."""


def open_beginning(
  begins_with: origin.Origin | None,
  run: Run,
  mesh: Mesh,
  workdir: str,
  config: Mapping[str, Any],
  restart: bool,
  processes: Processes,
) -> Beginning:
  """Finds what `begins_with` names and checks that it fits; reads no array.

  If the run exists already, the same command resumes it: the weights it began
  with are neither looked for nor read again.

  Args:
    begins_with: where the weights come from, random if None.
    run: the new one.
    mesh: where its state lies.
    workdir: of the run.
    config: of the run, as it comes back from JSON.
    restart: whether what is in the workdir will be set aside.
    processes: all that take part; each calls this.

  Raises:
    UsageError: the weights are not there, do not fit, or are not those that
      the existing run began with.
  """
  if not restart and checkpoint.steps_in(workdir):
    return _began(begins_with, workdir)
  if begins_with is None:
    return Beginning()
  if begins_with.where == workdir:
    raise UsageError(
      f"{begins_with} names the workdir of this run itself; give the new run "
      "another --workdir."
    )
  if opening.file_of(begins_with.where):
    weights = origin_file.open_file(begins_with, mesh)
  else:
    weights = origin_run.open_run(
      begins_with, run.abstract_state, mesh, processes
    )
  names, anew = modules(begins_with, weights, run.abstract_state, config)
  _check_settings(begins_with, weights, config)
  kept = {
    origin.ENCODER: "the online encoder",
    origin.NETWORKS: "both networks",
    origin.EVERYTHING: "both networks and the momentum",
  }[begins_with.takes]
  step, unknown = 0, ""
  if begins_with.takes == origin.EVERYTHING:
    if weights.config is None:
      unknown = (
        "; that file does not tell its batch size and schedules, so make sure "
        "that this config has the same"
      )
    step = _step_to_go_on(begins_with, weights, config, run.total_steps)
  return Beginning(
    weights.record,
    f"weights: {kept} of {weights.what}{anew}{unknown}",
    step,
    lambda state: enter(begins_with, weights.read(), names, step, state),
  )


def _check_settings(
  begins_with: origin.Origin,
  weights: origin.Weights,
  config: Mapping[str, Any],
) -> None:
  """Raises UsageError if the networks differ where no shape tells."""
  there = metrics_log.flatten({"model": weights.model})
  here = metrics_log.flatten(config)
  flags = [
    f"--config.{key}={there[key]}"
    for key in _UNSEEN
    if key in there and key in here and there[key] != here[key]
  ]
  if flags:
    raise UsageError(
      f"{begins_with} was trained with another network, although its arrays "
      f"have the same shapes; expected {' '.join(flags)}."
    )


def _step_to_go_on(
  begins_with: origin.Origin,
  weights: origin.Weights,
  config: Mapping[str, Any],
  total_steps: int,
) -> int:
  """The step at which a run continues another one.

  Raises:
    UsageError: their configs differ, or this run would have ended there.
  """
  if weights.config is not None:
    different = workdir_lib.differences(weights.config, config, _MAY_CHANGE)
    if different:
      raise UsageError(
        f"{begins_with}: that run had another config ({'; '.join(different)}); "
        "give this one the same, or take --init, which begins anew."
      )
  step = weights.step
  assert step is not None  # a file without one was refused
  if step >= total_steps:
    raise UsageError(
      f"{begins_with} has done {step:,} updates, and by its config this run "
      f"has {total_steps:,}; give it the batch_size and epochs of the other, "
      "or take --init, which begins at 0."
    )
  return step


def _began(begins_with: origin.Origin | None, workdir: str) -> Beginning:
  """What the run in `workdir` began with."""
  reader = checkpoint.Checkpoints.reader(workdir)
  record = reader.newest_record()
  reader.close()
  if record is None:  # damaged: `restore` tells of it
    return Beginning()
  record = records.completed(record)
  told = ""
  if begins_with:
    told = origin.check_resumes(begins_with, record["init"], workdir)
  return Beginning(record["init"], told)


def modules(
  begins_with: origin.Origin,
  weights: origin.Weights,
  state: train_state.ByolState,
  config: Mapping[str, Any],
) -> tuple[tuple[str, ...], str]:
  """Which modules of both networks are taken into a new state.

  Args:
    begins_with: how they were asked for.
    weights: that were found.
    state: the new one, or its shapes.
    config: of the new run.

  Returns:
    The names of the modules, and what to tell the user about the others, or "".
    A classifier for another number of classes is not taken, unless the new run
    continues the other.

  Raises:
    UsageError: they do not fit; the first arrays that differ are named.
  """
  shapes = weights.shapes
  if begins_with.takes == origin.ENCODER:
    names, pairs, anew = {"encoder"}, _ENCODER, "; the heads begin anew"
  else:
    names, pairs, anew = set(state.online.params), _WHOLE, ""
  other_classes = list(_differences({"classifier"}, pairs, shapes, state))
  if begins_with.takes == origin.NETWORKS and other_classes:
    names.discard("classifier")
    anew = f"; the classifier begins anew ({other_classes[0]})"
  different = list(_differences(names, pairs, shapes, state))
  if different:
    more = len(different) - _SHOWN
    heads_only = not any(text.startswith("encoder/") for text in different)
    there = metrics_log.flatten({"model": weights.model})
    here = metrics_log.flatten(config)
    flags = [
      f"--config.{key}={value}"
      for key, value in there.items()
      if key in here and here[key] != value
    ]
    raise UsageError(
      f"{begins_with} does not fit this run: {'; '.join(different[:_SHOWN])}"
      f"{f'; and {more} more' if more > 0 else ''}. Give the section `model` "
      "of the config as that run had it"
      + (f" ({' '.join(flags)})" if flags else "")
      + (
        ", or take --init-encoder, which needs no heads." if heads_only else "."
      )
    )
  return tuple(sorted(names)), anew


def enter(
  begins_with: origin.Origin,
  taken: origin.Taken,
  names: tuple[str, ...],
  step: int,
  state: train_state.ByolState,
) -> train_state.ByolState:
  """The new `state` with the modules of `names` taken from elsewhere.

  If everything is taken, it also has the momentum and the number of updates.
  """
  takes = begins_with.takes
  pairs = _ENCODER if takes == origin.ENCODER else _WHOLE

  def into(new: train_state.TrainState, found: Mapping[str, Any]) -> Any:
    of_names = {
      collection: {
        **tree,
        **{
          name: jax.tree.map(_copy, tree[name], found[collection][name])
          for name in names
          if name in tree
        },
      }
      for collection, tree in new.variables.items()
    }
    return new.replace(**of_names)

  entered = state.replace(
    **{
      network: into(getattr(state, network), taken.networks[source])
      for network, source in pairs.items()
    }
  )
  if takes != origin.EVERYTHING:
    return entered
  online, target = entered.online, entered.target
  momentum = optax.tree_utils.tree_get(online.opt_state, "trace")
  moved = optax.tree_utils.tree_set(
    online.opt_state,
    trace=jax.tree.map(_copy, momentum, taken.momentum),
    count=optax.tree_utils.tree_get(online.opt_state, "count") + np.int32(step),
  )
  return state.replace(
    online=online.replace(opt_state=moved, step=online.step + np.int32(step)),
    target=target.replace(step=target.step + np.int32(step)),
  )


def _copy(new: jax.Array, found: jax.Array) -> jax.Array:
  """A copy, because an update gives the memory of its state away."""
  return jnp.copy(found.astype(new.dtype))


def _differences(
  names: Collection[str],
  pairs: dict[str, str],
  shapes: origin.Networks,
  state: train_state.ByolState,
) -> Iterator[str]:
  """Yields a phrase for each array whose shape differs between the two."""
  seen = set()
  for network, source in pairs.items():
    for collection, tree in getattr(state, network).variables.items():
      here = _leaves(tree, names)
      there = _leaves(shapes[source][collection], names)
      for path in sorted(here.keys() | there.keys()):
        before, now = there.get(path, "absent"), here.get(path, "absent")
        if before != now and path not in seen:
          seen.add(path)
          yield f"{path} is {before} there, {now} here"


def _leaves(tree: Any, names: Collection[str]) -> dict[str, Any]:
  """Path -> shape, of the modules named."""
  wanted = {name: tree[name] for name in names if name in tree}
  found = jax.tree_util.tree_flatten_with_path(wanted)[0]
  return {
    "/".join(str(key.key) for key in path): leaf.shape for path, leaf in found
  }
