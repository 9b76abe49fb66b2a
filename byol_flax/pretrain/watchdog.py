"""Tells when a network collapses: a pure decision from what updates report.

Two signals are judged, each as a moving average over updates:

- the spread of the projections (`train/projection_std`), as a share of the
  largest spread that this run has had. It falls to zero when all projections
  become equal. What a fresh network has depends on its size and its input, so
  the bound is relative to the run itself.
- the gain of the predictor over the identity (`train/predictor_gain`), as a
  share of the loss. If it is nothing, the target says nothing that the online
  projection does not say itself, which is so when the target is the online
  network of the moment: the projections then keep one or two directions. At
  first a predictor has learnt nothing yet, so this is judged only when the
  learning rate no longer rises; where it never rises, once there was a gain.

`train/online_target_distance` is not judged, because it is zero by construction
where the target is the online network. Nor are rank, alignment and uniformity:
healthy runs on few classes come as low as collapsed ones.
`tests/watchdog_calibration.py` measures all this.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

_MEMORY = 0.9  # of the moving averages: they look back some ten updates
# The least base_target_decay whose gain is judged; the paper's shortest run has
# it. In `byol reproduce 5a`, on digits, the median gain of healthy runs is 12 %
# of the loss with 0.99, 3 % with 0.9 and nothing with 0.5. It is nothing, too,
# where the target is the online network, which is a collapse.
_LEAST_DECAY = 0.97


@dataclasses.dataclass(frozen=True)
class Settings:
  """When a network counts as ill; from the config's section `watchdog`.

  Attributes:
    least_spread: share of the largest spread so far, below which it is ill.
    least_gain: share of the loss, below which it is ill; 0 if the gain says
      nothing about this run.
    patience: updates in a row that must be ill.
  """

  least_spread: float
  least_gain: float
  patience: int


@dataclasses.dataclass(frozen=True)
class Past:
  """What is remembered of the updates so far; numbers only, for the record.

  Attributes:
    update: the last one that was judged.
    healthy: the last one that was not ill, neither by the averages nor by its
      own values: those of a sudden collapse fall before the averages do.
    ill: how many were in a row until now.
    spread: moving average.
    largest: the largest `spread` so far.
    gain: moving average, as a share of the loss.
    rate: learning rate of the last update; before the first it is negative, so
      that it rises.
    ready: whether a predictor has had time to learn: the learning rate rose
      after the first update, `gain` was above its bound, or nobody looked at
      the first updates.
  """

  update: int = 0
  healthy: int = 0
  ill: int = 0
  spread: float = 0.0
  largest: float = 0.0
  gain: float = 0.0
  rate: float = -1.0
  ready: bool = False


def judge(
  past: Past, update: int, values: Mapping[str, float], settings: Settings
) -> tuple[Past, str]:
  """Looks at one more update.

  Args:
    past: what is remembered of those before it. The averages begin anew if it
      does not end with the update before.
    update: its number.
    values: its metrics.
    settings: when it counts as ill.

  Returns:
    What to remember from now on, and the reason for an alarm or "".
  """
  if past.update != update - 1:  # nobody looked at those between
    past = dataclasses.replace(past, update=0, ill=0)
  loss, rate = values["train/byol_loss"], values["train/learning_rate"]
  its_spread = values["train/projection_std"]
  its_gain = values["train/predictor_gain"] / loss if loss else 0.0
  spread = _average(past, past.spread, its_spread)
  gain = _average(past, past.gain, its_gain)
  largest = max(spread, past.largest)
  rises = rate > past.rate
  ready = (
    past.ready
    or (update > 1 and (rises or not past.update))
    or gain >= settings.least_gain
  )
  learnt = ready and not rises
  reasons = _reasons(spread, gain, largest, learnt, settings)
  well = not (
    reasons or _reasons(its_spread, its_gain, largest, learnt, settings)
  )
  now = Past(
    update=update,
    healthy=update if well else past.healthy,
    ill=past.ill + 1 if reasons else 0,
    spread=spread,
    largest=largest,
    gain=gain,
    rate=rate,
    ready=ready,
  )
  if now.ill < settings.patience:
    return now, ""
  return now, " and ".join(reasons)


def _average(past: Past, before: float, value: float) -> float:
  """Moves an average on; the first value is one by itself."""
  return _MEMORY * before + (1 - _MEMORY) * value if past.update else value


def _reasons(
  spread: float, gain: float, largest: float, learnt: bool, settings: Settings
) -> list[str]:
  """Why a network with these signals is ill; nothing if it is not.

  Args:
    spread: of the projections.
    gain: of the predictor, as a share of the loss.
    largest: spread so far.
    learnt: whether a predictor has had time to.
    settings: when it counts as ill.
  """
  found = []
  if spread < settings.least_spread * largest:
    found.append(
      f"the projections vary {spread / largest:.0%} as much as they did at "
      f"most (deviation {spread:.2g} after {largest:.2g})"
    )
  if learnt and gain < (settings.least_gain or -math.inf):
    found.append(
      f"the predictor saves {gain:.1%} of the loss over predicting the "
      "projection itself"
    )
  return found


def settings_of(config: Any) -> Settings:
  """What a config says of its run, made as configs/byol.py makes it.

  Without a predictor there is no gain. With negatives the projections agree by
  themselves, so that a predictor may have nothing to add. Under another
  normalization the loss has another unit than the gain. A target network that
  follows within a few updates says little that is new, though the run may be
  healthy. `base_target_decay` decides that, also under `scaling="ema"`, which
  lowers the decay and raises the rate, so that the target stays as far behind.
  """
  found, objective = config.watchdog, config.objective
  follows = (
    objective.target == "average" and config.base_target_decay < _LEAST_DECAY
  )
  judged = (
    config.model.predictor.layers
    and not objective.negatives_weight
    and objective.normalization == "l2"
    and not follows
  )
  return Settings(
    least_spread=found.least_spread,
    least_gain=found.least_gain if judged else 0.0,
    patience=found.patience,
  )
