"""Where the paper's ablations are run, and what each setting becomes there.

The rows of configs/ablation_rows.py have the paper's values, for ImageNet. At
another scale a run is shorter, its batch smaller and its images simpler, so
that some values would mean something else. KNOBS says of every setting that a
row changes what it becomes, and why.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import (
  byol,
  byol_cifar10,
  byol_digits,
  common,
  few_label,
  linear,
)

_DIGITS_DECAY = 0.9


def _imagenet() -> ConfigDict:
  """The baseline of all ablations (paper §5)."""
  return byol.get_config("epochs=300")


def _cifar10() -> ConfigDict:
  """As long as configs/byol_cifar10.py, which has a GPU in mind."""
  return byol_cifar10.get_config()


def _digits() -> ConfigDict:
  """Half of configs/byol_digits.py, so that a run takes half a minute."""
  config = byol_digits.get_config()
  config.epochs = 50.0
  config.warmup_epochs = 2.0  # as large a part as 10 of 300
  # With the demo's 12, so few updates leave some seeds of τ = 0 whole.
  config.base_learning_rate = 18.0
  config.base_target_decay = _DIGITS_DECAY  # see KNOBS
  config.optimizer.weight_decay = _imagenet().optimizer.weight_decay
  config.augment.cache = "device"  # no worker has to start for each run
  # What is reported is measured after the run.
  config.evaluation.every_steps = 0
  config.checkpoint.every_steps = 0
  return config


def _linear() -> ConfigDict:
  """As the paper evaluates (App. C.1)."""
  return linear.get_config()


def _one_label() -> ConfigDict:
  """A probe from one label a class, which parts good encoders from bad ones.

  On digits linear evaluation on all labels gives random weights 0.89 and BYOL
  0.98; from one label a class it is 0.51 and 0.86, within seconds.
  """
  config = few_label.get_config()
  config.few_label.update(per_class=(1,), draws=20)
  return config


@dataclasses.dataclass(frozen=True)
class Scale:
  """Where the ablations are run.

  Attributes:
    baseline: makes the config that the rows change.
    evaluation: makes the config of the protocol that measures each run.
  """

  baseline: Callable[[], ConfigDict]
  evaluation: Callable[[], ConfigDict]


SCALES = {
  "imagenet": Scale(_imagenet, _linear),
  "cifar10": Scale(_cifar10, _linear),
  "digits": Scale(_digits, _one_label),
}

# What a value of the paper becomes: itself; its ratio to the paper's baseline
# times the baseline here; 0, because the scale leaves the operation out; or
# what a table says, which has no row for what the scale cannot do.
SAME, RELATIVE, LEFT_OUT = "same", "relative", "left out"
Rule = str | Mapping[Any, Any]


@dataclasses.dataclass(frozen=True)
class Knob:
  """What a setting becomes at scales other than ImageNet.

  Attributes:
    cifar10: the rule of that scale.
    digits: the rule of that scale.
    why: the reason for both.
  """

  cifar10: Rule
  digits: Rule
  why: str


_RATIO = Knob(SAME, SAME, "A ratio of two rates has no scale.")
_WORD = Knob(SAME, SAME, "It names another computation.")
_OPERATION = Knob(
  SAME,
  LEFT_OUT,
  "A mirrored digit is another sign, and one of 8 × 8 grey pixels has neither "
  "colours nor edges to lose; so its baseline leaves the operation out.",
)

KNOBS = {
  "base_learning_rate": Knob(
    RELATIVE,
    RELATIVE,
    "Each baseline has the rate that suits its number of updates; a row says "
    "how far from it one may go.",
  ),
  "optimizer.weight_decay": Knob(
    RELATIVE,
    RELATIVE,
    "LARS sets the length of gradient plus decay, so only their ratio counts, "
    "which does not depend on how long a run is.",
  ),
  "base_target_decay": Knob(
    SAME,
    {1.0: 1.0, 0.999: 0.99, 0.99: _DIGITS_DECAY, 0.9: 0.5},
    "A target remembers 1 / (1 - τ) updates, and a run on digits has 84 times "
    "fewer of them. A tenth of the paper's memory is better there than all of "
    "it (one label a class, three seeds: 83.1, 74.5). A tenth of ten updates "
    "would be no memory at all, which is another row, so that is two.",
  ),
  "accumulation_steps": Knob(
    {n: n for n in (1, 2, 4, 8, 16, 32, 64)},
    {n: n for n in (1, 2, 4, 8, 16, 32)},
    "A row says into how many parts the batch is cut. A batch of 64 in 64 "
    "parts would leave BatchNorm one image, whose deviation is 0.",
  ),
  "model.projector.output_size": Knob(
    RELATIVE,
    RELATIVE,
    "The baseline's size fits the network, and rows are fractions of it.",
  ),
  "model.predictor.output_size": Knob(
    RELATIVE, RELATIVE, "It is compared with the projector's."
  ),
  "model.projector.hidden_size": Knob(
    RELATIVE, RELATIVE, "The same holds for hidden layers."
  ),
  "model.projector.final_norm": _WORD,
  "model.projector.layers": Knob(
    SAME, SAME, "A layer is a layer in a network of any size."
  ),
  "model.predictor.layers": Knob(
    SAME, SAME, "A layer is a layer in a network of any size."
  ),
  "objective.negatives_weight": Knob(
    SAME, SAME, "β weighs two sums that are both means over the batch."
  ),
  "objective.temperature": Knob(
    SAME, SAME, "α divides cosines, which lie between -1 and 1 at any scale."
  ),
  "objective.multiplier": Knob(
    SAME, SAME, "It only undoes the 2α of the loss, and α stays."
  ),
  "objective.target": _WORD,
  "objective.normalization": _WORD,
  "objective.optimal_predictor": _WORD,
  "optimizer.predictor_multiplier": _RATIO,
  "optimizer.projector_multiplier": _RATIO,
  **{
    f"augment.{view}.jitter_probability": Knob(
      SAME, SAME, "Rows only turn it off."
    )
    for view in ("view1", "view2")
  },
  **{
    f"augment.{view}.{operation}_probability": _OPERATION
    for view in ("view1", "view2")
    for operation in ("flip", "grayscale", "solarize")
  },
  **{
    f"augment.{view}.blur_probability": Knob(
      LEFT_OUT,
      LEFT_OUT,
      "Images of 32 pixels or fewer are not blurred (SimCLR App. B.9).",
    )
    for view in ("view1", "view2")
  },
}


def find(name: str) -> Scale:
  """The scale of a name.

  Raises:
    ValueError: there is none.
  """
  if name not in SCALES:
    raise ValueError(
      f"There is no scale {name!r}; known are {', '.join(SCALES)}."
      f"{common.near_miss(name, SCALES)}"
    )
  return SCALES[name]


def translated(scale: str, changes: Mapping[str, Any]) -> dict[str, Any]:
  """What a row changes at a scale, from what it changes in the paper.

  Raises:
    ValueError: the scale cannot do what the row does.
  """
  if scale == "imagenet":
    return dict(changes)
  paper, here = _imagenet(), SCALES[scale].baseline()
  return {
    key: _translated(key, value, scale, paper, here)
    for key, value in changes.items()
  }


def _translated(
  key: str, value: Any, scale: str, paper: ConfigDict, here: ConfigDict
) -> Any:
  """What one value becomes."""
  knob = KNOBS[key]
  rule = getattr(knob, scale)
  if rule == SAME:
    return value
  if rule == LEFT_OUT:
    return 0.0
  if rule == RELATIVE:
    ratio = value / _value_of(paper, key)
    scaled = ratio * _value_of(here, key)
    return round(scaled) if isinstance(value, int) else scaled
  if value not in rule:
    raise ValueError(
      f"At the scale {scale} nothing corresponds to {key}={value}. {knob.why}"
    )
  return rule[value]


def _value_of(config: ConfigDict, key: str) -> Any:
  """The value with a dotted name."""
  for name in key.split("."):
    config = config[name]
  return config
