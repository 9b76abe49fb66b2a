"""Runs the rows of an ablation one after another, and reports on all.

Each run is the training that `byol train` would do, in a folder that its
settings name, and then one evaluation. What is done is not done again, also
when another table asks for it, so that a sweep that was cut off goes on.
"""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any, TextIO

import jax
from etils import epath
from jax.sharding import Mesh

from byol_flax import sharding
from byol_flax.evaluation import encoder, online, place, protocols
from byol_flax.pretrain import objective, train
from byol_flax.reports import (
  png,
  reproduction,
  reproduction_chart,
  reproduction_text,
)
from byol_flax.reproduce.plan import Plan, Run, digest_of
from byol_flax.runs import data_sets, loop, out_files, workdir
from byol_flax.runs.distributed import Processes
from byol_flax.runs.progress_line import human_duration
from byol_flax.runs.start_clock import StartClock
from byol_flax.runs.version import code_version
from input_pipeline import sources, unreadable, whole_files
from input_pipeline.errors import UsageError

_RUNS = "runs"
_TRAINING = "training"
_DIVERGED = "diverged.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """Where a sweep runs.

  Attributes:
    mesh: all devices.
    processes: all that take part.
    out: is given a line before and after each run.
    console: where runs show their progress.
    nowhere: swallows the tables of single evaluations.
  """

  mesh: Mesh
  processes: Processes
  out: TextIO
  console: TextIO
  nowhere: TextIO

  def tell(self, line: str) -> None:
    """Writes a line at once."""
    self.out.write(f"{line}\n")
    self.out.flush()


def run(plan: Plan, folder: str, machine: Machine) -> None:
  """Does all runs that are not done, and writes the report after each.

  Args:
    plan: what to run.
    folder: absolute path of the sweep's folder, or gs://BUCKET/PATH; several
      tables of a scale may share it.
    machine: where.

  Raises:
    UsageError: the folder holds something else, its runs are of other images,
      or no run can begin.
    RunError: a run cannot go on, but for those that diverge.
    PreemptedError: the same call goes on.
  """
  runs = _distinct(plan)
  left = [one for one in runs if not _done(plan, one, folder, machine)]
  plan, left = _possible(plan, left, machine.mesh.size)
  with workdir.taken(folder, machine.processes):
    identity = {"scale": plan.scale, "changed": plan.changed}
    place.claim(folder, {"config": identity}, machine.processes)
    place.claim_images(
      folder, "data.split", images_of(plan, folder), machine.processes
    )
    for why in plan.left_out.values():
      machine.tell(f"left out: {why}")
    machine.tell(_announcement(plan, runs, left))
    _report(plan, folder, machine)
    seconds: list[float] = []  # of the trainings so far
    for number, one in enumerate(left, 1):
      time_left = _time_left(seconds, left[number - 1 :])
      machine.tell(
        f"\nrun {number} of {len(left)}{time_left}: {plan.table}/{one.row}, "
        f"seed {one.config.seed}, in {one.name}"
      )
      began = time.monotonic()
      _train_and_measure(plan, one, folder, machine)
      if one.trained:
        seconds.append(time.monotonic() - began)
      machine.tell(_outcome(plan, one, folder))
      _report(plan, folder, machine)
    machine.tell(
      f"\nWritten to {epath.Path(folder, plan.table)}.md, .json and .png"
    )


def _possible(
  plan: Plan, left: list[Run], devices: int
) -> tuple[Plan, list[Run]]:
  """Leaves out the rows that these devices cannot train, and their runs.

  What was done on others stays in the report.

  Raises:
    UsageError: that is all rows, and none of them was done.
  """
  why_not: dict[str, str] = {}
  undone = {one.name for one in left if one.trained}
  # Rows with the settings of another one have its runs.
  rows = [one.row for one in plan.runs() if one.trained and one.name in undone]
  for row in dict.fromkeys(rows):
    config = plan.rows[row]
    try:
      objective.check(config)
      sharding.check_batch_size(
        config.batch_size,
        devices=devices,
        accumulation_steps=config.accumulation_steps,
      )
    except UsageError as error:
      why_not[row] = f"{plan.table}/{row}: {error}"
  able = [one for one in left if one.row not in why_not]
  if len(left) == len(_distinct(plan)) and not able:
    raise UsageError(next(iter(why_not.values())))
  left_out = {**plan.left_out, **why_not}
  return dataclasses.replace(plan, left_out=left_out), able


def images_of(plan: Plan, folder: str) -> sources.Source:
  """What all runs are trained on, as the first of them began with it."""
  runs, training = epath.Path(folder, _RUNS), f"*/{_TRAINING}"
  measured = place.list_of("*/*", "train_split")
  lists = (
    str(measured),
    f"{training}/{unreadable.FILES}",
    # A run that began anew has put away the list of the start before.
    f"{training}/replaced-*/{unreadable.FILES}",
  )
  lines = [
    line
    for pattern in lists
    for path in runs.glob(pattern)
    for line in unreadable.read(path)
  ]
  return data_sets.open_split(
    plan.baseline, began_with=unreadable.began_with(lines)
  )


def _distinct(plan: Plan) -> list[Run]:
  """The runs of a plan; of several with the same settings only the first."""
  found: dict[tuple[str, bool], Run] = {}
  for one in plan.runs():
    found.setdefault((one.name, one.trained), one)
  return list(found.values())


def _announcement(plan: Plan, runs: list[Run], left: list[Run]) -> str:
  """Says what is coming."""
  rows, seeds = len(plan.rows), len(plan.seeds)
  shared = rows * seeds - len(runs)
  same = f", {shared} of them with settings of others" if shared else ""
  return (
    f"table {plan.table} at the scale {plan.scale}: {rows} rows × {seeds} "
    f"seed(s){same}; {len(left)} of {len(runs)} runs are to be done"
  )


def _time_left(seconds: Sequence[float], left: Sequence[Run]) -> str:
  """Guesses from the trainings before, if there are any."""
  if not seconds:
    return ""
  trainings = sum(one.trained for one in left)
  guess = human_duration(statistics.fmean(seconds) * trainings)
  return f" (about {guess} left)"


def _place(folder: str, one: Run) -> epath.Path:
  """The folder of a run, its training and its evaluation."""
  return epath.Path(folder, _RUNS, one.name)


def evaluation_of(plan: Plan, one: Run, folder: str) -> epath.Path:
  """The folder of the evaluation of a run.

  It is named by the settings of the evaluation, too, so that another version
  of them begins another one.
  """
  settings = plan.evaluation.copy_and_resolve_references()
  if settings.protocol == "few_label":  # an earlier version had no such key
    with settings.unlocked():
      del settings.max_unreadable_share
  kind = "" if one.trained else "untrained-"
  # Earlier versions trained a classifier on the views of such a row itself.
  trained = settings.protocol == "linear"
  views = [config.augment.view1 for config in (one.config, plan.baseline)]
  shares = {view.flip_probability for view in views}
  alike = "-alike" if trained and len(shares) > 1 else ""
  name = f"{kind}{settings.protocol}-{digest_of(settings)}{alike}"
  return _place(folder, one) / name


def _done(plan: Plan, one: Run, folder: str, machine: Machine) -> bool:
  """Whether a run has an outcome; all processes get the same answer."""
  ends = [evaluation_of(plan, one, folder) / place.RESULT]
  if one.trained:
    ends.append(_place(folder, one) / _DIVERGED)
  # Other processes may not see yet what process 0 has written.
  return machine.processes.any(any(path.exists() for path in ends))


def _train_and_measure(
  plan: Plan, one: Run, folder: str, machine: Machine
) -> None:
  """Does one run, from where an earlier start has left it."""
  training = str(_place(folder, one) / _TRAINING)
  if one.trained:
    try:
      _train(one, training, machine)
    except loop.NonFiniteError as error:
      if not machine.processes.all_fail(f"{one.name} diverged"):
        raise
      if jax.process_index() == 0:
        out_files.write_json(
          str(_place(folder, one) / _DIVERGED), {"sentence": str(error)}
        )
      machine.processes.wait("outcome written")
      return
  found = encoder.open_encoder(
    training if one.trained else f"{encoder.RANDOM}{one.name}",
    machine.mesh,
    read_config=lambda _: one.config,
  )
  session = protocols.Session(
    encoder=shown_as_all(found, plan.baseline),
    mesh=machine.mesh,
    processes=machine.processes,
    out=machine.nowhere,
    console=machine.console,
  )
  where = str(evaluation_of(plan, one, folder))
  settings = plan.evaluation.copy_and_resolve_references()
  # What a training may lack, its measurement may lack as well.
  share = plan.baseline.loader.max_unreadable_share
  settings.max_unreadable_share = share
  protocols.evaluate(session, settings, where, again=False)


def shown_as_all(found: encoder.Encoder, baseline: Any) -> encoder.Encoder:
  """The encoder, to be measured on the views of the baseline.

  A classifier is trained on crops and flips of all rows (App. C.1), also of
  those whose own views leave the flip out.
  """
  augment = encoder.plain_config(baseline)["augment"]
  config = {**encoder.plain_config(found.config), "augment": augment}
  return dataclasses.replace(found, config=config)


def _train(one: Run, training: str, machine: Machine) -> None:
  """Trains as `byol train` does."""
  with workdir.taken(training, machine.processes):
    train.train(
      one.config,
      training,
      restart=False,
      begins_with=None,
      open_evaluation=online.open_evaluation,
      processes=machine.processes,
      start_clock=StartClock(time.monotonic()),
      stream=machine.console,
    )


def _outcome(plan: Plan, one: Run, folder: str) -> str:
  """What a run has found, in a line."""
  if sentence := _diverged(one, folder):
    return f"diverged: {sentence}"
  values = _values(plan, one, folder)
  return ", ".join(f"{name}: {x:.1f} %" for name, x in values.items())


def _values(plan: Plan, one: Run, folder: str) -> dict[str, float]:
  """What was measured on a run; empty if nothing was yet."""
  found = whole_files.read_object_if_there(
    evaluation_of(plan, one, folder) / place.RESULT
  )
  return reproduction.measures_of(found) if found else {}


def _versions(plan: Plan, one: Run, folder: str) -> list[str]:
  """Commits that trained and measured a run; empty if nothing was yet."""
  found = whole_files.read_object_if_there(
    evaluation_of(plan, one, folder) / place.RESULT
  )
  if not found:
    return []
  others = [one["code_version"] for one in found.get("also_made_by", ())]
  its = {found["encoder"]["code_version"], found["code_version"], *others}
  return sorted(its)


def _diverged(one: Run, folder: str) -> str:
  """The sentence of a run that diverged, else ""."""
  found = (
    whole_files.read_object_if_there(_place(folder, one) / _DIVERGED)
    if one.trained
    else None
  )
  return found["sentence"] if found else ""


def _report(plan: Plan, folder: str, machine: Machine) -> None:
  """Writes the report of all outcomes that lie in the folder."""
  if jax.process_index() == 0:
    found = {row: _found(plan, row, folder) for row in plan.rows}
    found |= {
      row: reproduction.Found({}, {}, why, {}, {}, "")
      for row, why in plan.left_out.items()
      if row not in found
    }
    report = reproduction.make(
      plan.table, plan.scale, plan.seeds, plan.changed, found
    )
    start = str(epath.Path(folder, plan.table))
    out_files.write_json(
      f"{start}.json", {**report, "code_version": code_version()}
    )
    whole_files.write_text(f"{start}.md", reproduction_text.render(report))
    png.save_png(f"{start}.png", reproduction_chart.draw(report))
  machine.processes.wait("report written")


def _found(plan: Plan, row: str, folder: str) -> reproduction.Found:
  """What the runs of a row have found so far."""
  runs = [one for one in plan.runs() if one.row == row]
  values = {one.config.seed: _values(plan, one, folder) for one in runs}
  versions = {one.config.seed: _versions(plan, one, folder) for one in runs}
  diverged = {one.config.seed: _diverged(one, folder) for one in runs}
  return reproduction.Found(
    values={seed: x for seed, x in values.items() if x},
    diverged={seed: x for seed, x in diverged.items() if x},
    left_out=plan.left_out.get(row, ""),
    versions={seed: x for seed, x in versions.items() if x},
    settings=plan.settings(row),
    folder=digest_of(plan.rows[row]),
  )
