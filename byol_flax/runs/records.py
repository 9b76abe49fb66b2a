"""Records of runs that older versions of the code began.

A record is the JSON object that lies beside the state in a checkpoint. Records
of format 1 do not tell their format. The config of an old record may lack keys
that came later, and may hold keys that are gone; `completed` turns it into what
today's code expects.
"""

import copy
from collections.abc import Mapping
from typing import Any

from input_pipeline.errors import UsageError

FORMAT = 2

# A key that configs got after format 1 -> the value with which today's code
# does what the code without the key did. Each row says why.
ADDED_SINCE: dict[str, Any] = {
  "gradient_dtype": "activations",  # the layers cast weights, as Flax's do
  "checkpoint.save_on_interrupt": False,  # Ctrl-C always ended at once
  "augment.scaled_decoding": False,  # images were decoded whole
  "loader.stage_dir": None,  # shards were read where they lie
  # There was one shape of head, and one way to start and to scale.
  "model.projector.layers": 2,
  "model.projector.final_norm": False,
  "model.predictor.layers": 2,
  "model.predictor.final_norm": False,
  "model.encoder.padding": "same",
  "model.initializer": "fan_in",
  "model.input_scaling": "imagenet",
  # And one way to draw a window and to change the brightness.
  "augment.view1.crop_sampling": "clamped",
  "augment.view1.brightness_mode": "add",
  "augment.view2.crop_sampling": "clamped",
  "augment.view2.brightness_mode": "add",
  # Every loss was BYOL's, and the target decay did not follow the batch size.
  "objective.negatives_weight": 0.0,
  "objective.temperature": 0.1,
  "objective.normalization": "l2",
  "objective.target": "average",
  "objective.optimal_predictor": False,
  "objective.ridge": 1e-4,
  "objective.multiplier": 1.0,
  "optimizer.projector_multiplier": 1.0,
  "optimizer.predictor_multiplier": 1.0,
  "scaling": "linear",
  "reference_batch_size": None,  # nobody knows, and nothing depends on it
  "watchdog.action": "off",  # nothing looked for a collapse
  "watchdog.change": "learning_rate",  # without effect while it is off
  "watchdog.least_spread": 0.0,
  "watchdog.least_gain": 0.0,
  "watchdog.patience": 1,
}

# A key that configs lost after format 1 -> the value to which today's code
# corresponds. A run with that value goes on; any other value is a difference.
REMOVED_SINCE: dict[str, Any] = {}


def completed(
  record: Mapping[str, Any],
  *,
  added: Mapping[str, Any] = ADDED_SINCE,
  removed: Mapping[str, Any] = REMOVED_SINCE,
) -> dict[str, Any]:
  """A copy of `record` whose config has the keys of today's configs.

  Args:
    record: of a checkpoint, in any format so far. Its "config" is completed,
      and "init", which tells where the first weights came from, becomes None
      if it is absent.
    added: see ADDED_SINCE.
    removed: see REMOVED_SINCE.

  Raises:
    UsageError: the record is of a format that a newer version introduced.
  """
  made_in = record.get("format", 1)
  if made_in > FORMAT:
    raise UsageError(
      f"The checkpoint has a record of format {made_in} and this version of "
      f"the code knows none above {FORMAT}; use the version that the run was "
      "made with, or a newer one."
    )
  config = copy.deepcopy(record["config"])
  for key, value in added.items():
    *sections, name = key.split(".")
    _section(config, sections).setdefault(name, copy.deepcopy(value))
  for key, value in removed.items():
    *sections, name = key.split(".")
    section = _section(config, sections)
    if name in section and section[name] == value:
      del section[name]
  return {"init": None, **record, "config": config}


def _section(config: dict[str, Any], names: list[str]) -> dict[str, Any]:
  """The section of a nested config; made if it is absent."""
  for name in names:
    config = config.setdefault(name, {})
  return config
