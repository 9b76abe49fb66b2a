"""Checkpoints of BYOL's authors: `pretrain_res50x1.pkl` and their like.

Such a file is a pickle of {"experiment_state", "step", "rng"} (the authors'
checkpointing.py). The state is a named tuple of both networks' parameters and
BatchNorm statistics, {Haiku module: {leaf: array}}, and the optimizer's state.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

from byol_flax.weights import (
  arrays,
  fitting,
  haiku_names,
  pickle_machine,
  pickled_arrays,
  pickled_records,
  structure,
)
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Account, Foreign
from byol_flax.weights.pickle_input import shown
from byol_flax.weights.pickled_records import Record

FORMAT: Final = "deepmind"
# The authors' configs/byol.py and dataset.py; their padding is TensorFlow's.
_DECAY: Final = 0.9
_EPSILON: Final = 1e-5
_IMAGE_SIZE: Final = 224
_CROP_RATIO: Final = _IMAGE_SIZE / (_IMAGE_SIZE + 32)
_MAX_MODULES: Final = 10_000
_MAX_LEAVES: Final = 4  # of a module
_SHOWN: Final = 3  # names in a message
_UNUSED: Final = {
  "rng": "a run draws its random numbers from its seed and the update's number",
  "hidden": "sums that are not de-biased; a network uses `average`",
  "var_ema/counter": "it counts what mean_ema/counter counts",
}


def read(path: str) -> Foreign:
  """Finds the weights in a checkpoint of the authors; reads no array yet.

  Raises:
    WeightsError: it is damaged, refused, or of a network that is none of ours.
  """

  def open_file() -> BinaryIO:
    return open(path, "rb")

  names = {**pickled_arrays.admitted(open_file), **pickled_records.admitted()}
  with open_file() as file:
    checkpoint = pickle_machine.load(
      file, admitted={**names, **pickled_records.looked_up(names)}
    )
  state = _state_of(checkpoint)
  networks = {
    name: _network(state, name)
    for name in ("online", "target")
    if name == "online" or state.fields.get("target_params")
  }
  momentum, ignored = _momentum_of(state.fields.get("opt_state"))
  params = networks["online"]["params"]
  found = Foreign(
    format=FORMAT,
    networks=networks,
    momentum=momentum,
    step=None,
    model=structure.model_of(
      params, padding="same", decay=_DECAY, epsilon=_EPSILON
    ),
    image_size=_IMAGE_SIZE,
    crop_ratio=_CROP_RATIO,
    account=Account(
      matched=sum(1 for _ in _all_leaves(networks, momentum)),
      ignored={**_UNUSED, **ignored},
    ),
    details={},
  )
  _check_size(found, os.path.getsize(path))
  names_there = _names(state)
  fitting.check(found, lambda path: names_there.get(path, path))
  step, said = _step_of(checkpoint.get("step"), networks["online"])
  return dataclasses.replace(
    found,
    step=step,
    details={
      "state": state.name,
      "step": said,
      # As the authors' README says of the files that they released.
      "trained_by": "byol",
      "trained_on": {"name": "imagenet2012", "split": "train"},
    },
  )


def _state_of(checkpoint: Any) -> Record:
  """The named tuple of a checkpoint."""
  if not isinstance(checkpoint, dict):
    checkpoint = {}
  state = checkpoint.get("experiment_state")
  if not isinstance(state, Record):
    raise WeightsError(
      "It is no checkpoint of BYOL's authors: it has no experiment_state that "
      "is a named tuple."
    )
  if not {"online_params", "online_state"} <= state.fields.keys():
    raise WeightsError(
      f"Its {shown(state.name)} has "
      f"{shown(', '.join(state.fields) or 'no fields')}; expected "
      "online_params and online_state, as after pre-training."
    )
  return state


def _network(state: Record, name: str) -> dict[str, arrays.Tree]:
  """Parameters and statistics of a network, in our names and shapes."""
  return {
    "params": _tree(state.fields.get(f"{name}_params"), f"{name}_params"),
    "batch_stats": _tree(state.fields.get(f"{name}_state"), f"{name}_state"),
  }


def _tree(modules: Any, where: str) -> dict[str, Any]:
  """A mapping of Haiku as a tree of ours.

  Args:
    modules: {module: {leaf: array}}, or anything that a file may hold.
    where: its name, for messages.
  """
  leaves: dict[str, arrays.Stored] = {}
  unknown = []
  for module, leaf, stored in _haiku_leaves(modules, where):
    path = haiku_names.our_path(module, leaf)
    if path in leaves:
      raise WeightsError(f"Its {where} has two arrays that would be {path}.")
    if path:
      leaves[path] = _in_our_shape(path, stored)
    elif leaf not in ("hidden", "counter"):
      unknown.append(f"{module} {leaf}")
  if unknown:
    more = len(unknown) - _SHOWN
    raise WeightsError(
      f"Its {where} has names that are none of the authors' network: "
      f"{'; '.join(map(shown, unknown[:_SHOWN]))}"
      f"{f'; and {more} more' if more > 0 else ''}."
    )
  return arrays.nested(leaves)


def _names(state: Record) -> dict[str, str]:
  """Paths such as "online/params/classifier/bias" -> names in the file."""
  names = {}
  for network in ("online", "target"):
    for ours, theirs in (("params", "params"), ("batch_stats", "state")):
      where = f"{network}_{theirs}"
      for module, leaf, _ in _haiku_leaves(
        state.fields.get(where) or {}, where
      ):
        path = haiku_names.our_path(module, leaf)
        names[f"{network}/{ours}/{path}"] = shown(f"{where} {module} {leaf}")
  return names


def _haiku_leaves(
  modules: Any, where: str
) -> Iterator[tuple[str, str, arrays.Stored]]:
  """Yields (module, leaf, array), and looks no deeper than two levels."""
  if not isinstance(modules, dict) or len(modules) > _MAX_MODULES:
    raise WeightsError(f"Its {where} is no mapping of modules.")
  for module, leaves in modules.items():
    if not isinstance(leaves, dict) or len(leaves) > _MAX_LEAVES:
      raise WeightsError(
        f"Its {where} has {shown(str(module))}, which is no module of arrays."
      )
    for leaf, value in leaves.items():
      stored = pickled_arrays.stored_in(value)
      if stored is None:
        raise WeightsError(
          f"Its {where} has {shown(f'{module} {leaf}')}, which is no array."
        )
      yield str(module), str(leaf), stored


def _in_our_shape(path: str, stored: arrays.Stored) -> arrays.Stored:
  """BatchNorm's arrays are [1, …, 1, C] to Haiku and [C] to us."""
  kind = "iu" if path.endswith("/count") else "f"
  if stored.dtype.kind not in kind:
    raise WeightsError(f"Its {path} is of type {stored.dtype.name}.")
  *ones, channels = stored.shape or (1,)
  if "norm" in path.split("/")[-2] and ones and set(ones) == {1}:
    return stored.reshaped((channels,))
  return stored


def _momentum_of(
  opt_state: Any,
) -> tuple[arrays.Tree | None, dict[str, str]]:
  """LARS's momentum in Optax's states, and what else they are."""
  states = opt_state if isinstance(opt_state, list | tuple) else [opt_state]
  ignored = {}
  momentum = None
  for state in states[:_MAX_LEAVES]:
    if isinstance(state, Record) and state.fields.keys() == {"mu"}:
      momentum = _tree(state.fields["mu"], "mu") or None
    elif isinstance(state, Record):
      ignored[shown(state.name)] = (
        "the momentum of no LARS" if state.fields else "it is empty"
      )
  if momentum is None:
    ignored["opt_state"] = "it holds no momentum of LARS"
  return momentum, ignored


def _all_leaves(
  networks: Mapping[str, arrays.Tree], momentum: arrays.Tree | None
) -> Iterator[arrays.Stored]:
  for _, stored in arrays.flat({**networks, "momentum": momentum or {}}):
    yield stored


def _check_size(found: Foreign, size: int) -> None:
  """Refuses arrays that share their bytes: a small file could be any size."""
  total = sum(
    math.prod(stored.shape) * stored.dtype.itemsize
    for stored in _all_leaves(found.networks, found.momentum)
  )
  if total > size:
    raise WeightsError(
      f"Its arrays are {total} bytes, more than the file's {size}: some are "
      "the same."
    )


def _step_of(
  step: Any, online: Mapping[str, arrays.Tree]
) -> tuple[int | None, str]:
  """Completed updates, and how they are known.

  Each update shows two views to a network, and BatchNorm counts them. The
  authors' loop counts an update only after it has saved, but for the last one,
  so the step of most of their checkpoints is one less than the updates in it
  (their main_loop.py).
  """
  stored = pickled_arrays.stored_in(step)
  if stored is not None and not stored.shape and stored.dtype.kind in "iu":
    step = int(stored.load())
  counts = {
    int(stored.load())
    for path, stored in arrays.flat(online["batch_stats"])
    if path.endswith("/count")
  }
  if type(step) is not int or step < 0:
    return None, "the file does not tell"
  for updates in (step, step + 1):
    if counts == {2 * updates}:
      return updates, f"{step} in the file, {2 * updates} views in BatchNorm"
  return None, f"{step} in the file, which BatchNorm's counts contradict"
