"""Reads a checkpoint of a run of this project as weights to be written out."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from byol_flax import sharding
from byol_flax.runs import address, checkpoint, metrics_log, records, way_back
from byol_flax.weights import arrays
from byol_flax.weights.foreign import Account, Foreign
from input_pipeline.errors import RunError

FORMAT = "run"
COLLECTIONS = ("params", "batch_stats")
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
    shapes = _whole_of(saved) if whole else encoder_of(saved)
    here = sharding.replicated(sharding.make_mesh(jax.local_devices()[:1]))
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes
    )
    state = jax.device_get(checkpoints.restore_part(step, abstract))
  except checkpoint.DamagedError as error:
    raise RunError(
      f"{flag}={where}: {error} {address.others(step, steps)}"
    ) from None
  finally:
    checkpoints.close()
  rolled_back = way_back.known(record, named.workdir)
  config = way_back.config_of(record["config"], rolled_back)
  if "online" not in state:  # trained with labels
    state = {"online": state}
  networks = {
    name: {part: _stored(network[part]) for part in COLLECTIONS}
    for name, network in state.items()
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
        "trained_by": trained_by(config, "target" in saved),
        "trained_on": config["data"],
      }
    ),
  )


def trained_by(config: Mapping[str, Any], without_labels: bool) -> str:
  """Says how a run trains: "byol", "labels", or "variant".

  A variant is another loss of the family than BYOL's, such as SimCLR's.

  Args:
    config: of the run.
    without_labels: whether its state is one of pre-training.
  """
  if not without_labels:
    return "labels"
  loss, predictor = config["objective"], config["model"]["predictor"]
  is_byol = (
    loss["negatives_weight"] == 0
    and loss["target"] == "average"
    and not loss["optimal_predictor"]
    and predictor["layers"] > 0
  )
  return "byol" if is_byol else "variant"


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


def encoder_of(state: Mapping[str, Any]) -> dict[str, Any]:
  """The encoder's part of a state: of the online network, or of the only one.

  States with one network belong to runs that are trained with labels.
  """

  def part(network: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"encoder": network[name]["encoder"]} for name in COLLECTIONS}

  return {"online": part(state["online"])} if "online" in state else part(state)


def _whole_of(state: Mapping[str, Any]) -> dict[str, Any]:
  """The networks of a state with what an optimizer keeps, without the rest."""
  kept = (*COLLECTIONS, "opt_state")

  def part(network: Mapping[str, Any]) -> dict[str, Any]:
    return {name: network[name] for name in kept if network.get(name)}

  if "online" not in state:
    return part(state)
  return {name: part(state[name]) for name in ("online", "target")}


def _trace(opt_state: Any) -> Any:
  """The momentum in the state of an optimizer; None if it has none."""
  if isinstance(opt_state, Mapping):
    if "trace" in opt_state:
      return opt_state["trace"]
    opt_state = list(opt_state.values())
  if not isinstance(opt_state, list | tuple):
    return None
  found = (_trace(part) for part in opt_state)
  return next((trace for trace in found if trace is not None), None)


def _stored(tree: Mapping[str, Any]) -> dict[str, Any]:
  return jax.tree.map(lambda x: arrays.Stored.of(np.asarray(x)), dict(tree))
