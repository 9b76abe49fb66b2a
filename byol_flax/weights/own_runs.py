"""Reads a checkpoint of a run of this project as weights to be written out."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from byol_flax import sharding
from byol_flax.runs import address, checkpoint, metrics_log, records
from byol_flax.weights import arrays
from byol_flax.weights.foreign import Account, Foreign
from input_pipeline.errors import RunError

FORMAT = "run"
_COLLECTIONS = ("params", "batch_stats")
# The folders before the last part of an absolute path, or of a bucket's.
_PATH = re.compile(r"(?<![^:])(gs://|/)([^/]+/)*")


def read(where: str, flag: str, *, whole: bool) -> Foreign:
  """Reads the weights of WORKDIR or WORKDIR@STEP into memory.

  Args:
    where: absolute path of a run's workdir.
    flag: the option that named it, for messages.
    whole: whether both networks with heads, momentum and step are wanted;
      otherwise only the online encoder is read.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: it is damaged.
  """
  named = address.Address.parse(where)
  step, steps = named.find(flag)
  checkpoints = checkpoint.Checkpoints.reader(named.workdir)
  try:
    record = records.completed(checkpoints.record(step))
    saved = checkpoints.shapes(step)
    shapes = _wanted(saved, whole)
    here = sharding.replicated(sharding.make_mesh(jax.local_devices()[:1]))
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes
    )
    # One trained with labels has a single network, without a name.
    named_so = "online" in saved
    part = abstract if named_so else abstract["online"]
    read_part = jax.device_get(checkpoints.restore_part(step, part))
    state = read_part if named_so else {"online": read_part}
  except checkpoint.DamagedError as error:
    raise RunError(
      f"{flag}={where}: {error} {address.others(step, steps)}"
    ) from None
  finally:
    checkpoints.close()
  config = record["config"]
  networks = {
    name: {part: _stored(state[name][part]) for part in _COLLECTIONS}
    for name in state
  }
  momentum = _trace(state["online"].get("opt_state"))
  return Foreign(
    format=FORMAT,
    networks=networks,
    momentum=None if momentum is None else _stored(momentum),
    step=step,
    model=config["model"],
    image_size=config["augment"]["size"],
    crop_ratio=config["evaluation"]["crop_ratio"],
    account=Account(matched=len(jax.tree.leaves(state)), ignored={}),
    # It leaves this machine, whose paths are nobody's business.
    details=without_paths(
      {
        "run": f"{named.workdir}@{step}",
        "config": config,
        "code_version": record["code_version"],
        "digest": record["digest"],
        "trained_by": "byol" if "target" in saved else "labels",
        "trained_on": config["data"],
      }
    ),
  )


def without_paths(value: Any) -> Any:
  """A JSON value in whose texts only the last part of each path is left."""
  if isinstance(value, Mapping):
    return {name: without_paths(part) for name, part in value.items()}
  if isinstance(value, list | tuple):
    return [without_paths(part) for part in value]
  return _PATH.sub("", value) if isinstance(value, str) else value


def metrics(where: str, step: int) -> dict[str, float]:
  """What the run's last evaluation before a checkpoint measured, by name.

  Args:
    where: as of `read`.
    step: of the checkpoint.
  """
  path = epath.Path(address.Address.parse(where).workdir, "metrics.jsonl")
  return metrics_log.last_evaluation(path, step)


def _wanted(shapes: Mapping[str, Any], whole: bool) -> dict[str, Any]:
  """The part of a state's shapes that is read, by network.

  A run that is trained with labels has one network and no others' names.
  """
  networks = shapes if "online" in shapes else {"online": shapes}
  if not whole:
    online = networks["online"]
    return {
      "online": {
        part: {"encoder": online[part]["encoder"]} for part in _COLLECTIONS
      }
    }
  kept = (*_COLLECTIONS, "opt_state")
  return {
    name: {
      part: networks[name][part] for part in kept if networks[name].get(part)
    }
    for name in ("online", "target")
    if name in networks
  }


def _trace(opt_state: Any) -> Any:
  """The momentum in the state of an optimizer; None if it has none."""
  if isinstance(opt_state, Mapping):
    if "trace" in opt_state:
      return opt_state["trace"]
    opt_state = opt_state.values()
  if not isinstance(opt_state, (list, tuple, type({}.values()))):
    return None
  found = (_trace(part) for part in opt_state)
  return next((trace for trace in found if trace is not None), None)


def _stored(tree: Mapping[str, Any]) -> dict[str, Any]:
  return jax.tree.map(lambda x: arrays.Stored.of(np.asarray(x)), dict(tree))
