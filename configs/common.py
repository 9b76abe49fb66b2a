"""What configs share: arguments `FILE:name=value`, and parts of evaluations."""

import difflib
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict, config_dict


def parse_arg(arg: str | None, **defaults: Any) -> dict[str, Any]:
  """Reads "epochs=100,architecture=resnet18" into typed values.

  Args:
    arg: text after the colon of `--config=FILE:ARG`; None or "" changes
      nothing.
    **defaults: every known name with its default, whose type the value gets.

  Returns:
    The defaults with the given values.

  Raises:
    ValueError: a name is unknown, a value has another type, or "=" is missing.
  """
  values = dict(defaults)
  for item in filter(None, (arg or "").split(",")):
    name, equals, text = item.partition("=")
    if name not in defaults:
      raise ValueError(
        f"Unknown config argument {name!r}; known are "
        f"{', '.join(sorted(defaults))}.{near_miss(name, defaults)}"
      )
    if not equals:
      raise ValueError(f"Config argument {item!r} has no value: write {name}=…")
    kind = type(defaults[name])
    try:
      values[name] = kind(text)
    except ValueError:
      raise ValueError(
        f"Config argument {name} is {text!r}; expected {kind.__name__}, such "
        f"as {defaults[name]}."
      ) from None
  return values


def near_miss(name: str, known: Iterable[str]) -> str:
  """Asks whether a known name was meant; "" if none is like `name`."""
  near = difflib.get_close_matches(name, known, n=1)
  return f" Did you mean {near[0]!r}?" if near else ""


def protocol(name: str) -> ConfigDict:
  """Returns what every evaluation has; `name` is the protocol."""
  config = ConfigDict()
  config.protocol = name
  # A labelled data set, named like data.name; "" is the encoder's own.
  config.data_name = ""
  # As loader.data_dir; if it is unset, the encoder's own counts.
  config.data_dir = config_dict.placeholder(str)
  config.num_workers = -1  # processes that read images; -1 is one per core
  # In each. 0 is two, and 16 where the images lie in a bucket.
  config.num_threads = 0
  config.max_unreadable_share = 0.001  # of all images; above it the run stops
  # Seconds that a process waits for the others; see configs/byol.py.
  config.deadlines = {
    "start_seconds": 300.0,
    "silence_seconds": 60.0,
    "stall_seconds": 1800.0,
  }
  return config


def trained_protocol(name: str) -> ConfigDict:
  """Returns `protocol`, and what an evaluation with a training loop needs."""
  config = protocol(name)
  config.seed = 0
  config.report_every_steps = 50
  # As in configs/byol.py, but for each training of the evaluation.
  config.checkpoint = {
    "every_minutes": 10.0,
    "every_steps": 0,
    "keep_last": 2,
    "keep_every": 0,
    "save_on_interrupt": False,
  }
  return config


def dense_protocol(name: str) -> ConfigDict:
  """Returns `trained_protocol`, and what segmentation and the like share."""
  config = trained_protocol(name)
  del config.seed  # `seeds` has one for each training
  # Names of the classes, one a line; unset: those of the data set.
  config.classes_file = config_dict.placeholder(str)
  # BatchNorm of the encoder: "synchronised" (statistics of the whole batch),
  # "per_device", or "frozen" (averages, scale and offset stay).
  config.batch_norm = "synchronised"
  config.evaluation_batch_size = 16
  config.warmup_steps = 0
  config.warmup_factor = 1e-3  # share of the rate with which a warm-up begins
  config.drops = (0.7, 0.9)  # shares of the steps; the rate is a tenth after
  config.momentum = 0.9
  config.pictures = 8  # images of test that are drawn
  return config
