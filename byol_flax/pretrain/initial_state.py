"""The state that a run begins with: random, or with weights of another run.

Momentum, step and schedules of a new run begin at 0 in any case. BatchNorm's
running averages come with the parameters they belong to.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from byol_flax.pretrain import origin, origin_run, train_state
from byol_flax.runs import checkpoint, records
from byol_flax.runs.distributed import Processes
from input_pipeline.errors import UsageError

_SHOWN = 3  # differing arrays in a message

# Network of the new state -> the network of the other run whose weights it
# takes. If only the encoder is wanted, both take the online network's.
_WHOLE = {"online": "online", "target": "target"}
_ENCODER = {"online": "online", "target": "online"}


@dataclasses.dataclass(frozen=True)
class Beginning:
  """What a run begins, or began, with.

  Attributes:
    record: where the first weights came from, for the run's record; None if
      random.
    sentence: what to tell the user, or "".
    enter: random state -> first state of the run.
  """

  record: checkpoint.Record | None = None
  sentence: str = ""
  enter: Callable[[train_state.ByolState], train_state.ByolState] = (
    lambda state: state
  )


def open_beginning(
  begins_with: origin.Origin | None,
  abstract_state: train_state.ByolState,
  mesh: Mesh,
  workdir: str,
  restart: bool,
  processes: Processes,
) -> Beginning:
  """Finds what `begins_with` names and checks that it fits; reads no array.

  If the run exists already, the same command resumes it: the weights it began
  with are neither looked for nor read again.

  Args:
    begins_with: where the weights come from, random if None.
    abstract_state: of the run.
    mesh: where it lies.
    workdir: of the run.
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
  if begins_with.workdir == workdir:
    raise UsageError(
      f"{begins_with} names the workdir of this run itself; give the new run "
      "another --workdir."
    )
  weights = origin_run.open_run(begins_with, abstract_state, mesh, processes)
  names, anew = modules(begins_with, weights.shapes, abstract_state)
  kept = "the online encoder" if begins_with.encoder_only else "both networks"
  return Beginning(
    weights.record,
    f"weights: {kept} of {begins_with.workdir} after update "
    f"{weights.record['step']:,}{anew}",
    lambda state: enter(begins_with, weights.read(), names, state),
  )


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
  shapes: origin.Networks,
  state: train_state.ByolState,
) -> tuple[tuple[str, ...], str]:
  """Which modules of both networks are taken into a new state.

  Args:
    begins_with: how they were asked for.
    shapes: of the weights that were found.
    state: the new one, or its shapes.

  Returns:
    The names of the modules, and what to tell the user about the others, or "".
    A classifier for another number of classes is not taken.

  Raises:
    UsageError: they do not fit; the first arrays that differ are named.
  """
  if begins_with.encoder_only:
    names, pairs, anew = {"encoder"}, _ENCODER, "; the heads begin anew"
  else:
    names, pairs, anew = set(state.online.params), _WHOLE, ""
  other_classes = list(_differences({"classifier"}, pairs, shapes, state))
  if "classifier" in names and other_classes:
    names.remove("classifier")
    anew = f"; the classifier begins anew ({other_classes[0]})"
  different = list(_differences(names, pairs, shapes, state))
  if different:
    more = len(different) - _SHOWN
    heads_only = not any(text.startswith("encoder/") for text in different)
    raise UsageError(
      f"{begins_with} does not fit this run: {'; '.join(different[:_SHOWN])}"
      f"{f'; and {more} more' if more > 0 else ''}. Give the section `model` "
      "of the config as that run had it"
      + (
        ", or take --init-encoder, which needs no heads." if heads_only else "."
      )
    )
  return tuple(sorted(names)), anew


def enter(
  begins_with: origin.Origin,
  weights: origin.Networks,
  names: tuple[str, ...],
  state: train_state.ByolState,
) -> train_state.ByolState:
  """The new `state` with the modules of `names` taken from `weights`."""
  pairs = _ENCODER if begins_with.encoder_only else _WHOLE

  def into(new: train_state.TrainState, found: dict[str, Any]) -> Any:
    taken = {
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
    return new.replace(**taken)

  return state.replace(
    **{
      network: into(getattr(state, network), weights[source])
      for network, source in pairs.items()
    }
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
