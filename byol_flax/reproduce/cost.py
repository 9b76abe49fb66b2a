"""Tells what the rows of an ablation would take, without running any."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TextIO

from byol_flax.preflight import estimate, pretraining, shallow
from byol_flax.preflight.compiler import Compiled
from byol_flax.pretrain import places
from byol_flax.pretrain.places import Place
from byol_flax.reports.ablations import ABLATIONS
from byol_flax.reproduce.plan import Plan, changes
from byol_flax.slices import Slice
from input_pipeline.errors import RunError, UsageError

SLICE_OF_THE_PAPER = "v3-64"  # §5: 64 TPU v3 cores for each ablation
# What changes numbers within a step and not its operations. The weight of the
# negatives is one of them, unless it is 0.
_NUMBERS = (
  "epochs",
  "warmup_epochs",
  "base_learning_rate",
  "base_target_decay",
  "optimizer.weight_decay",
  "optimizer.predictor_multiplier",
  "optimizer.projector_multiplier",
  "objective.temperature",
)
_WEIGHT = "objective.negatives_weight"


@dataclasses.dataclass(frozen=True)
class _Costs:
  """Compiles what is needed, and each program once.

  Attributes:
    plan: the ablation.
    slice_: where it would run.
    stream: console.
    found: settings that make a program another one -> what the compiler said,
      or a sentence why nothing.
  """

  plan: Plan
  slice_: Slice
  stream: TextIO
  found: dict[str, Compiled | str]

  def of(self, row: str) -> Compiled | str:
    """What the compiler says of a row's update."""
    key = str(sorted(self._program(row).items()))
    if key not in self.found:
      self.found[key] = self._compile(self.plan.rows[row])
    return self.found[key]

  def _program(self, row: str) -> dict[str, Any]:
    """What a row changes in the program of its update."""
    config = self.plan.rows[row]
    # The host draws the views, so the step does not know of them.
    unseen = (
      ("augment.view1", "augment.view2")
      if places.place_of(config.augment) is Place.HOST
      else ()
    )
    settings = {
      key: value
      for key, value in changes(self.plan.baseline, config).items()
      if key not in _NUMBERS and not key.startswith(unseen)
    }
    if _WEIGHT in settings:
      settings[_WEIGHT] = settings[_WEIGHT] > 0
    return settings

  def _compile(self, config: Any) -> Compiled | str:
    try:
      return pretraining.compile_update(
        config, self.slice_, fast=True, resident=None, stream=self.stream
      )
    except (UsageError, RunError) as error:
      return str(error)


def tell(
  plan: Plan, slice_: Slice | None, *, price: float | None, stream: TextIO
) -> None:
  """Prints what each row takes, and all of them together.

  Args:
    plan: the ablation.
    slice_: where it would run; None lists the runs only.
    price: of a device and hour, in any currency; None leaves the cost out.
    stream: console.
  """
  _say(stream, _announcement(plan, slice_))
  width = max(len(row) for row in plan.rows)
  hours: dict[str, float] = {}
  costs = _Costs(plan, slice_, stream, {}) if slice_ else None
  for row in plan.rows:
    words = "not trained"
    if plan.is_trained(row):
      words = _settings(plan.settings(row))
      if costs and slice_:
        found = costs.of(row)
        words += f"; {_words(found, slice_)}"
        if isinstance(found, Compiled) and found.fits:
          hours[row] = estimate.hours_of([found])[1]
    _say(stream, f"{row:<{width}}  {words}")
  for why in plan.left_out.values():
    _say(stream, f"left out: {why}")
  if slice_:
    _say(stream, _sum(plan, hours, slice_, price))


def _say(stream: TextIO, line: str) -> None:
  """Writes a line at once."""
  stream.write(line + "\n")
  stream.flush()


def _announcement(plan: Plan, slice_: Slice | None) -> str:
  """Says what is asked."""
  ablation, seeds = ABLATIONS[plan.table], len(plan.seeds)
  where = f" on {slice_.name}, {shallow.SAID}" if slice_ else ""
  return (
    f"{ablation.title} ({ablation.place}) at the scale {plan.scale}{where}; "
    f"{len(plan.rows)} rows × {seeds} seed(s)"
  )


def _settings(settings: Mapping[str, Any]) -> str:
  """What a row changes."""
  return ", ".join(f"{k}={v}" for k, v in settings.items()) or "the baseline"


def _words(found: Compiled | str, slice_: Slice) -> str:
  """What the compiler says of a row, in words."""
  if isinstance(found, str):
    return found
  memory = estimate.memory_words(found, slice_)
  if not found.fits:
    return memory
  least, most = estimate.hours_of([found])
  amount = estimate.amount
  return (
    f"{memory}; {amount(least)} to {amount(most)} h a run, "
    f"{amount(most * slice_.devices)} device-hours"
  )


def _sum(
  plan: Plan, hours: Mapping[str, float], slice_: Slice, price: float | None
) -> str:
  """What all runs take, those with the same settings once."""
  of_names = {
    one.name: hours[one.row]
    for one in plan.runs()
    if one.row in hours and one.trained
  }
  total = sum(of_names.values())
  amount = estimate.amount
  cost = f", {amount(total * slice_.devices * price)}" if price else ""
  return (
    f"in all: {len(of_names)} runs with settings of their own, "
    f"{amount(total)} h one after another, "
    f"{amount(total * slice_.devices)} device-hours{cost}; evaluations apart"
  )
