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
  Several,
  Switch,
  Text,
  Whole,
)
from input_pipeline.errors import UsageError

_SHARE = Real(0, 1)  # probabilities too
_POSITIVE = Real(0, above=True)
_SEED = Whole(0, 2**32 - 1)  # JAX would reduce any other to one of these

_WORKERS = Whole(-1, 10_000, ", -1 for one per core")
_THREADS = Whole(1, 10_000)

_VIEW: dict[str, Bound] = {
  "crop_area": Interval(Real(0, 1, above=True)),
  "crop_aspect": Interval(Real(1e-3, 1e3)),
  "crop_sampling": OneOf("clamped", "retried"),
  "flip_probability": _SHARE,
  "jitter_probability": _SHARE,
  "brightness": _SHARE,
  "brightness_mode": OneOf("add", "multiply"),
  "contrast": _SHARE,
  "saturation": _SHARE,
  "hue": Real(0, 0.5),
  "grayscale_probability": _SHARE,
  "blur_probability": _SHARE,
  "blur_sigma": Interval(Real(0, 1e3, above=True)),
  "solarize_probability": _SHARE,
  "solarize_threshold": _SHARE,
}
_HEAD: dict[str, Bound] = {
  "hidden_size": Whole(1),
  "output_size": Whole(1),
  "final_bias": Switch(),
  "final_norm": Switch(),
}


def _rows(section: str, rows: Mapping[str, Bound]) -> dict[str, Bound]:
  return {f"{section}.{name}": bound for name, bound in rows.items()}


_CHECKPOINT: dict[str, Bound] = {
  "checkpoint.every_steps": Whole(0),
  "checkpoint.every_minutes": _POSITIVE,
  # One remains when the newest is damaged.
  "checkpoint.keep_last": Whole(2),
  "checkpoint.keep_every": Whole(0),
  "checkpoint.save_on_interrupt": Switch(),
}
# JAX takes whole seconds.
_DEADLINES: dict[str, Bound] = {
  "deadlines.start_seconds": Real(1),
  "deadlines.silence_seconds": Real(1),
  "deadlines.stall_seconds": Real(1),
}

# For configs/byol.py and all configs that are made from it.
RUN: dict[str, Bound] = {
  "seed": _SEED,
  "epochs": _POSITIVE,
  "warmup_epochs": Real(0),
  "batch_size": Whole(1),
  "scaling": OneOf("linear", "ema"),
  "reference_batch_size": Whole(1),
  "accumulation_steps": Whole(1),
  "base_learning_rate": Real(0, 1e30),
  "base_target_decay": _SHARE,
  "target_init": OneOf("independent", "copy"),
  "dtype": OneOf("auto", "bfloat16", "float32", "float64"),
  "gradient_dtype": OneOf("params", "activations"),
  "optimizer.weight_decay": Real(0),
  "optimizer.momentum": Real(0, 1, below=True),
  "optimizer.trust_coefficient": _POSITIVE,
  "optimizer.projector_multiplier": Real(0),
  "optimizer.predictor_multiplier": Real(0),
  "objective.negatives_weight": Real(0),
  "objective.temperature": _POSITIVE,
  "objective.normalization": OneOf("l2", "layer_norm", "batch_norm", "none"),
  "objective.target": OneOf("average", "online_stopped", "online"),
  "objective.optimal_predictor": Switch(),
  "objective.ridge": Real(0),
  "objective.multiplier": _POSITIVE,
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
  **_rows("model.projector", _HEAD),
  "model.predictor.layers": Whole(0, 100),
  **_rows("model.predictor", _HEAD),
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
  **_rows("augment.view1", _VIEW),
  **_rows("augment.view2", _VIEW),
  "loader.data_dir": Path(optional=True),
  "loader.num_workers": _WORKERS,
  "loader.num_threads": _THREADS,
  "loader.max_unreadable_share": _SHARE,
  **_CHECKPOINT,
  **_DEADLINES,
  "watchdog.action": OneOf("warn", "stop", "roll_back", "off"),
  "watchdog.change": OneOf("learning_rate", "views"),
  "watchdog.least_spread": _SHARE,
  "watchdog.least_gain": _SHARE,
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

# For `common.protocol` in configs/.
_EVALUATION: dict[str, Bound] = {
  "data_name": DataSet(optional=True),
  "data_dir": Path(optional=True),
  "num_workers": _WORKERS,
  "num_threads": _THREADS,
  **_DEADLINES,
}
# For `common.trained_protocol`.
_TRAINED: dict[str, Bound] = {
  **_EVALUATION,
  "seed": _SEED,
  "max_unreadable_share": _SHARE,
  "report_every_steps": Whole(1),
  **_CHECKPOINT,
}

# For `sets.add_splits`.
_THREE_SPLITS: dict[str, Bound] = {
  "train_split": Text(),
  "valid_split": Text(optional=True),
  "test_split": Text(),
  "valid_per_class": Whole(-1),
  "train_size": Whole(0),
  "valid_size": Whole(0),
  "test_size": Whole(0),
  "layout": Text(optional=True),
  "metric": OneOf("top1", "mean_per_class", "map11"),
}

# For configs/few_label.py.
_FEW_LABEL: dict[str, Bound] = {
  **_EVALUATION,
  "representations": Several(OneOf("raw_pixels", "random_encoder", "byol")),
  "train_split": Text(),
  "test_split": Text(),
  "batch_size": Whole(1),
  "few_label.per_class": Several(Whole(1)),
  "few_label.draws": Whole(1),
  "few_label.inverse_penalty": _POSITIVE,
  "few_label.seed": _SEED,
  "neighbours": Whole(1),
}

# For configs/knn.py.
_KNN: dict[str, Bound] = {
  **_EVALUATION,
  "train_split": Text(),
  "test_split": Text(),
  "batch_size": Whole(1),
  "neighbours": Several(Whole(1)),
  "temperature": _POSITIVE,
}

# For configs/linear.py.
_LINEAR: dict[str, Bound] = {
  **_TRAINED,
  "train_split": Text(),
  "valid_split": Text(optional=True),
  "test_split": Text(),
  "epochs": _POSITIVE,
  "batch_size": Whole(1),
  "learning_rates": Several(Real(0, 1e30, above=True)),
  "momentum": Real(0, 1, below=True),
  "augmentations": Several(OneOf("crop_flip", "pretraining")),
  "logit_regularisation": Several(Switch()),
  "logit_clip": _POSITIVE,
  "logit_penalty": Real(0),
  "evaluate_every_steps": Whole(0),
}

# For configs/semi_supervised.py.
_SEMI_SUPERVISED: dict[str, Bound] = {
  **_TRAINED,
  "train_split": Text(),
  "valid_split": Text(),
  "test_split": Text(),
  "shares": Several(Real(0, 1, above=True)),
  "subset_seed": _SEED,
  "subset_file": Path(optional=True),
  "subset_data": DataSet(optional=True),
  "batch_size": Whole(1),
  "epochs": Several(_POSITIVE),
  "learning_rates": Several(Real(0, 1e30, above=True)),
  "momentum": Real(0, 1, below=True),
  "weight_decay": Real(0),
}

# Of configs/finetune.py.
_FINETUNE: dict[str, Bound] = {
  **_TRAINED,
  **_THREE_SPLITS,
  "batch_size": Whole(1),
  "steps": Whole(1),
  "learning_rates": Several(Real(0, 1e30, above=True)),
  "weight_decays": Several(Real(0)),
  "momentum": Real(0, 1, below=True),
  "budget": Whole(0),
}

# Of configs/supervised.py.
_SUPERVISED: dict[str, Bound] = {
  **_TRAINED,
  "train_split": Text(),
  "test_split": Text(),
  "epochs": _POSITIVE,
  "warmup_epochs": Real(0),
  "batch_size": Whole(1),
  "base_learning_rate": Real(0, 1e30, above=True),
  "momentum": Real(0, 1, below=True),
  "weight_decay": Real(0),
  "label_smoothing": Real(0, 1, below=True),
  "rand_augment.layers": Whole(0, 100),
  "rand_augment.magnitude": Real(0, 10),
}

# For configs/transfer.py.
_TRANSFER: dict[str, Bound] = {
  **_EVALUATION,
  **_THREE_SPLITS,
  "seed": _SEED,
  "crop_ratio": Real(0, 1, above=True),
  "batch_size": Whole(1),
  "penalties.least": _POSITIVE,
  "penalties.most": _POSITIVE,
  "penalties.count": Whole(1),
}

# By the name of the protocol.
PROTOCOLS: dict[str, dict[str, Bound]] = {
  "few_label": _FEW_LABEL,
  "knn": _KNN,
  "linear": _LINEAR,
  "finetune": _FINETUNE,
  "semi_supervised": _SEMI_SUPERVISED,
  "supervised": _SUPERVISED,
  "transfer": _TRANSFER,
}


# What ships as configs/NAME.py for --suite=NAME.
SUITES = OneOf("paper")
# For a suite, beside its parts.
_SUITE: dict[str, Bound] = {
  "suite": SUITES,
  "data_dir": Path(optional=True),
  **_DEADLINES,
}


def rows_of(config: Any) -> dict[str, Bound]:
  """The table for the kind of config that `config` is.

  Raises:
    UsageError: it names an unknown protocol.
  """
  if "suite" in config:
    of_parts = [_rows(name, _rows_of_part(x)) for name, x in _parts(config)]
    return dict(collections.ChainMap(_SUITE, *of_parts))
  if not evaluates(config):
    return RUN
  bound = OneOf(*PROTOCOLS)
  bounds.check("protocol", config["protocol"], bound)
  return {"protocol": bound, **PROTOCOLS[config["protocol"]]}


def _rows_of_part(config: Any) -> dict[str, Bound]:
  """Those of its protocol, but for the deadlines, which a suite has once."""
  rows = rows_of(config)
  return {key: rows[key] for key in rows.keys() - _DEADLINES.keys()}


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
