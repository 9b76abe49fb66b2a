"""What each value of a config may be: a row for every key, and no other row.

The meaning of a key is written beside it in configs/byol.py, or in the config
of its protocol. Limits that depend on the devices or the data are checked where
these are known.
"""

import collections
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from byol_flax import bounds
from byol_flax.bounds import (
  Architecture,
  Bound,
  DataSet,
  Interval,
  OneOf,
  Path,
  Real,
  Switch,
  Text,
  Whole,
)
from byol_flax.commands.protocol_bounds import (
  CHECKPOINT,
  DEADLINES,
  POSITIVE,
  PROTOCOLS,
  SEED,
  SHARE,
  THREADS,
  WORKERS,
  rows_in,
)
from input_pipeline.errors import UsageError

_VIEW: dict[str, Bound] = {
  "crop_area": Interval(Real(0, 1, above=True)),
  "crop_aspect": Interval(Real(1e-3, 1e3)),
  "crop_sampling": OneOf("clamped", "retried"),
  "flip_probability": SHARE,
  "jitter_probability": SHARE,
  "brightness": SHARE,
  "brightness_mode": OneOf("add", "multiply"),
  "contrast": SHARE,
  "saturation": SHARE,
  "hue": Real(0, 0.5),
  "grayscale_probability": SHARE,
  "blur_probability": SHARE,
  "blur_sigma": Interval(Real(0, 1e3, above=True)),
  "solarize_probability": SHARE,
  "solarize_threshold": SHARE,
}
_HEAD: dict[str, Bound] = {
  "hidden_size": Whole(1),
  "output_size": Whole(1),
  "final_bias": Switch(),
  "final_norm": Switch(),
}


# For configs/byol.py and all configs that are made from it.
RUN: dict[str, Bound] = {
  "seed": SEED,
  "epochs": POSITIVE,
  "warmup_epochs": Real(0),
  "batch_size": Whole(1),
  "scaling": OneOf("linear", "ema"),
  "reference_batch_size": Whole(1),
  "accumulation_steps": Whole(1),
  "base_learning_rate": Real(0, 1e30),
  "base_target_decay": SHARE,
  "target_init": OneOf("independent", "copy"),
  "dtype": OneOf("auto", "bfloat16", "float32", "float64"),
  "gradient_dtype": OneOf("params", "activations"),
  "optimizer.weight_decay": Real(0),
  "optimizer.momentum": Real(0, 1, below=True),
  "optimizer.trust_coefficient": POSITIVE,
  "optimizer.projector_multiplier": Real(0),
  "optimizer.predictor_multiplier": Real(0),
  "objective.negatives_weight": Real(0),
  "objective.temperature": POSITIVE,
  "objective.normalization": OneOf("l2", "layer_norm", "batch_norm", "none"),
  "objective.target": OneOf("average", "online_stopped", "online"),
  "objective.optimal_predictor": Switch(),
  "objective.ridge": Real(0),
  "objective.multiplier": POSITIVE,
  "model.encoder.architecture": Architecture(
    "resnet8",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet200",
  ),
  "model.encoder.width": Real(0, 1e3, above=True),
  "model.encoder.stem": OneOf("imagenet", "small"),
  "model.encoder.shortcut": OneOf("projection", "identity"),
  "model.encoder.padding": OneOf("same", "symmetric"),
  "model.encoder.zero_init_last": Switch(),
  "model.encoder.recompute": Switch(),
  "model.projector.layers": Whole(1, 100),
  **rows_in("model.projector", _HEAD),
  "model.predictor.layers": Whole(0, 100),
  **rows_in("model.predictor", _HEAD),
  "model.batch_norm.decay": Real(0, 1, below=True),
  "model.batch_norm.epsilon": Real(1e-30, 1),  # a variance may be 0
  "model.initializer": OneOf("fan_in", "he", "simclr"),
  "model.input_scaling": OneOf("imagenet", "unit"),
  "data.name": DataSet(),
  "data.split": Text(),
  "augment.size": Whole(1, 65_535),
  "augment.device": OneOf("host", "accelerator"),
  "augment.cache": OneOf("none", "device"),
  "augment.scaled_decoding": Switch(),
  **rows_in("augment.view1", _VIEW),
  **rows_in("augment.view2", _VIEW),
  "loader.data_dir": Path(optional=True),
  "loader.stage_dir": Path(optional=True),
  "loader.num_workers": WORKERS,
  "loader.num_threads": THREADS,
  "loader.max_unreadable_share": SHARE,
  **CHECKPOINT,
  **DEADLINES,
  "watchdog.action": OneOf("warn", "stop", "roll_back", "off"),
  "watchdog.change": OneOf("learning_rate", "views"),
  "watchdog.least_spread": SHARE,
  "watchdog.least_gain": SHARE,
  "watchdog.patience": Whole(1),
  "report.every_steps": Whole(1),
  "report.view_hashes": Switch(),
  "evaluation.split": Text(),
  "evaluation.bank_split": Text(),
  "evaluation.neighbours": Whole(1),
  "evaluation.every_steps": Whole(0),
  "evaluation.batch_size": Whole(1),
  "evaluation.crop_ratio": Real(0, 1, above=True),
}

# What ships as configs/NAME.py for --suite=NAME.
SUITES = OneOf("paper")
# For a suite, beside its parts.
_SUITE: dict[str, Bound] = {
  "suite": SUITES,
  "data_dir": Path(optional=True),
  **DEADLINES,
}


def rows_of(config: Any) -> dict[str, Bound]:
  """The table for the kind of config that `config` is.

  Raises:
    UsageError: it names an unknown protocol.
  """
  if "suite" in config:
    of_parts = [rows_in(name, _rows_of_part(x)) for name, x in _parts(config)]
    return dict(collections.ChainMap(_SUITE, *of_parts))
  if not evaluates(config):
    return RUN
  bound = OneOf(*PROTOCOLS)
  bounds.check("protocol", config["protocol"], bound)
  return {"protocol": bound, **PROTOCOLS[config["protocol"]]}


def _rows_of_part(config: Any) -> dict[str, Bound]:
  """Those of its protocol, but for the deadlines, which a suite has once."""
  rows = rows_of(config)
  return {key: rows[key] for key in rows.keys() - DEADLINES.keys()}


def _parts(config: Any) -> list[tuple[str, Any]]:
  """(name, config) of the parts of a suite."""
  return [
    (name, part)
    for name, part in config.items()
    if hasattr(part, "keys") and "protocol" in part
  ]


def parts_of(suite: Any) -> dict[str, Any]:
  """Name -> config of each part of a suite, as its protocol expects it."""
  parts = {}
  for name, part in _parts(suite):
    parts[name] = part.copy_and_resolve_references()
    with parts[name].unlocked():
      parts[name].deadlines = suite.deadlines
    if not part.data_dir:
      parts[name].data_dir = suite.data_dir
  return parts


def evaluates(config: Any) -> bool:
  """Whether `config` is for `byol evaluate`, not for a run."""
  return "protocol" in config or "suite" in config


def leaves(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
  """Dotted names of the values of a nested dict."""
  for name, value in config.items():
    if isinstance(value, Mapping):
      yield from leaves(value, f"{above}{name}.")
    else:
      yield f"{above}{name}"


def value_of(config: Any, key: str) -> Any:
  """The value with a dotted name."""
  for name in key.split("."):
    config = config[name]
  return config


def check(config: Any) -> None:
  """Raises UsageError if a key is unknown or absent, or a value is wrong."""
  rows, keys = rows_of(config), set(leaves(config.to_dict()))
  for key in sorted(keys - rows.keys()):
    near = difflib.get_close_matches(key, rows, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(f"The config has a key {key}, which nothing reads.{hint}")
  for key, bound in rows.items():
    if key not in keys:
      raise UsageError(
        f"The config has no key {key}; expected {bound}. Begin with "
        "byol.get_config() of the configs that ship, which has every key."
      )
    bounds.check(key, value_of(config, key), bound)
