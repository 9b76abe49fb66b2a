"""Tells what the rows of an ablation would take, without running any."""

from collections.abc import Callable, Mapping
from typing import Any, TextIO

from byol_flax.preflight import estimate, shallow
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

Compile = Callable[[Any], Compiled]  # config -> its update


def list_rows(plan: Plan, stream: TextIO) -> None:
  """Prints what each row changes."""
  _say(stream, f"{_title(plan)}; --slice=NAME tells what they would take")
  for row in plan.rows:
    _say(stream, f"{_name(plan, row)}  {_settings(plan, row)}")
  _say_left_out(plan, stream)


def tell(
  plan: Plan,
  slice_: Slice,
  compile_update: Compile,
  *,
  price: float | None,
  stream: TextIO,
) -> None:
  """Prints what each row changes and takes, and all of them together.

  Rows whose updates differ in numbers only share one compilation.

  Args:
    plan: the ablation.
    slice_: where it would run.
    compile_update: raises UsageError or RunError where it cannot.
    price: of a device and hour, in any currency; None leaves the cost out.
    stream: console.
  """
  _say(stream, f"{_title(plan)}, on {slice_.name}, {shallow.SAID}")
  programs: dict[str, Compiled | str] = {}
  hours: dict[str, float] = {}
  for row, config in plan.rows.items():
    if not plan.is_trained(row):
      _say(stream, f"{_name(plan, row)}  not trained")
      continue
    program = program_of(plan.baseline, config)
    if program not in programs:
      programs[program] = _compiled(compile_update, config)
    found = programs[program]
    _say(
      stream,
      f"{_name(plan, row)}  {_settings(plan, row)}; {_words(found, slice_)}",
    )
    if isinstance(found, Compiled) and found.fits:
      hours[row] = estimate.hours_of([found])[1]
  _say_left_out(plan, stream)
  _say(stream, _sum(plan, hours, slice_, price))


def program_of(baseline: Any, config: Any) -> str:
  """Tells the update of a config from those that take another time.

  Args:
    baseline: the config that all rows change.
    config: of a row.
  """
  # The host draws the views, so the step does not know of them.
  unseen = (
    ("augment.view1", "augment.view2")
    if places.place_of(config.augment) is Place.HOST
    else ()
  )
  settings = {
    key: value
    for key, value in changes(baseline, config).items()
    if key not in _NUMBERS and not key.startswith(unseen)
  }
  if _WEIGHT in settings:
    settings[_WEIGHT] = settings[_WEIGHT] > 0
  return str(sorted(settings.items()))


def _compiled(compile_update: Compile, config: Any) -> Compiled | str:
  """What the compiler says of an update, or why it says nothing."""
  try:
    return compile_update(config)
  except (UsageError, RunError) as error:
    return str(error)


def _say(stream: TextIO, line: str) -> None:
  """Writes a line at once."""
  stream.write(line + "\n")
  stream.flush()


def _say_left_out(plan: Plan, stream: TextIO) -> None:
  """Says which rows the scale cannot do."""
  for row, why in plan.left_out.items():
    _say(stream, f"{row} is left out: {why}")


def _title(plan: Plan) -> str:
  """Says which table this is."""
  ablation = ABLATIONS[plan.table]
  return (
    f"{ablation.title} ({ablation.place}) at the scale {plan.scale}: "
    f"{len(plan.rows)} rows × {len(plan.seeds)} seed(s)"
  )


def _name(plan: Plan, row: str) -> str:
  """Of a row, as wide as the others."""
  return row.ljust(max(map(len, plan.rows)))


def _settings(plan: Plan, row: str) -> str:
  """What a row changes."""
  settings: Mapping[str, Any] = plan.settings(row)
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
  devices = total * slice_.devices
  amount = estimate.amount
  names = {one.name for one in plan.runs() if one.trained}
  untold = len(names) - len(of_names)
  missing = f"; {untold} that cannot run there not counted" if untold else ""
  cost = "" if price is None else f", {amount(devices * price)} at your price"
  return (
    f"in all {len(of_names)} trainings: {amount(total)} h one after another, "
    f"{amount(devices)} device-hours{cost}; evaluations not counted{missing}"
  )
