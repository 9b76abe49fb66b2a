"""Evaluates an encoder by several protocols in turn, and reports on all.

Each part is the evaluation that a command of its own would make in the folder
of its name, by the same code: it resumes, and one that was made alone counts.
"""

import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from byol_flax.evaluation import finetune as finetune_lib
from byol_flax.evaluation import illustrations, place, protocols
from byol_flax.evaluation.protocol import data_of
from byol_flax.evaluation.protocols import Session
from byol_flax.reports import markdown
from byol_flax.reports import suite as report_lib
from byol_flax.runs import out_files
from byol_flax.runs import workdir as workdir_lib
from byol_flax.runs.metrics_log import flatten
from byol_flax.runs.version import code_version
from input_pipeline import whole_files
from input_pipeline.errors import DiskFullError, RunError, UsageError

REPORT, TEXT = "report.json", "report.md"
_SMALL_FIRST = (
  "knn",
  "few_label",
  "transfer",
  "depth",
  "detection",
  "segmentation",
  "linear",
  "semi_supervised",
  "finetune",
  "supervised",
)
_TO_COME = "its turn has not come"

# Name of a part -> its config.
Parts = Mapping[str, Any]


def run(
  session: Session, suite: str, parts: Parts, shipped: Parts, workdir: str
) -> None:
  """Evaluates part after part, and writes the report anew after each.

  A part that cannot be done leaves its reason in the report, and the suite goes
  on.

  Args:
    session: the encoder, and where it runs.
    suite: its name.
    parts: what to do.
    shipped: all parts of the suite, as its config file has them.
    workdir: holds the report, and a folder for each part.

  Raises:
    UsageError: the folder holds something else.
    PreemptedError: the same call goes on.
  """
  with workdir_lib.taken(workdir, session.processes):
    identity = {
      "config": {"suite": suite},
      "encoder": session.encoder.provenance,
    }
    place.claim(workdir, identity, session.processes)
    order = sorted(
      parts, key=lambda name: _SMALL_FIRST.index(parts[name].protocol)
    )
    why_not = {
      name: _TO_COME if name in parts else ""
      for name in [*order, *sorted(shipped.keys() - parts.keys())]
    }
    session.tell(_announcement(suite, order, parts))
    for number, name in enumerate(order, 1):
      session.tell(f"\n{name}, part {number} of {len(order)}")
      folder = str(epath.Path(workdir, name))
      why_not[name] = _why_twice(session, name, parts) or _evaluate(
        session, name, parts[name], folder
      )
      if why_not[name]:
        session.tell(f"not done: {why_not[name]}")
      _report(session, suite, shipped, why_not, workdir)
    session.tell(f"\nWritten to {epath.Path(workdir, TEXT)} and {REPORT}")


def _evaluate(session: Session, name: str, config: Any, folder: str) -> str:
  """Evaluates by one part; returns why that cannot be, or ""."""
  try:
    protocols.evaluate(session, config, folder, again=False)
  except DiskFullError:
    raise
  except (UsageError, RunError) as error:
    if not session.processes.all_fail(f"{name} cannot be evaluated"):
      raise
    return str(error).replace("--config.", f"--config.{name}.")
  except jax.errors.JaxRuntimeError as error:
    # Of several processes the others may be in the midst of a computation.
    if jax.process_count() > 1 or not (why := lack_of_memory(error)):
      raise
    return (
      f"{why}; a larger slice has more, or a suite in another --workdir may "
      f"have a smaller --config.{name}.batch_size"
    )
  return ""


def lack_of_memory(error: jax.errors.JaxRuntimeError) -> str:
  """Says so if a device had too little memory; "" for other errors."""
  said = str(error).splitlines()[0]
  if "RESOURCE_EXHAUSTED" not in said:
    return ""
  return f"a device has too little memory for it ({said[:200]})"


def _why_twice(session: Session, name: str, parts: Parts) -> str:
  """Says so if a part names the encoder's own data, as another one does."""
  config = parts[name]
  own, _ = data_of(_without_data(config), session.encoder.config)
  if config.data_name != own:
    return ""
  for other, of_other in parts.items():
    if of_other.protocol == config.protocol and not of_other.data_name:
      return f"the encoder was trained on {own}, which {other} evaluates"
  return ""


def _without_data(config: Any) -> Any:
  """The config, for the data set that the encoder was trained on."""
  changed = config.copy_and_resolve_references()
  changed.data_name = ""
  return changed


def _announcement(suite: str, order: list[str], parts: Parts) -> str:
  """Says what is coming, and how to have less of it."""
  width = max(map(len, order))
  lines = [f"{name:<{width}}  {_work(parts[name])}" for name in order]
  return "\n".join(
    [
      f"{len(order)} parts; what was done before is not done again. Some of "
      f"them only: --suite={suite}:{order[0]},{order[-1]}",
      *lines,
    ]
  )


def _work(config: Any) -> str:
  """How much a part is, as far as its config tells."""
  match config.protocol:
    case "finetune":
      grid = list(finetune_lib.points(config))
      count = len(finetune_lib.within(config, grid)) + 1
      return f"{count} trainings, {count * config.steps:,} updates"
    case "semi_supervised":
      count = len(config.learning_rates) * len(config.shares)
      return f"{count} trainings of each of {_several(config.epochs)} epochs"
    case "linear":
      sweeps = len(config.augmentations)
      return f"{sweeps} sweep(s) of {config.epochs:g} epochs"
    case "transfer":
      return f"features, and {config.penalties.count + 1} regressions"
    case "segmentation":
      tried = len(config.learning_rates) if config.held_out else 0
      count = tried + len(config.seeds)
      return f"{count} trainings, {count * config.steps:,} updates"
    case "detection" | "depth":
      count = len(config.seeds)
      return f"{count} trainings, {count * config.steps:,} updates"
    case "supervised":
      return f"{config.epochs:g} epochs"
  return "features"


def _several(values: Any) -> str:
  return " and ".join(f"{value:g}" for value in values)


def _report(
  session: Session,
  suite: str,
  shipped: Parts,
  why_not: Mapping[str, str],
  workdir: str,
) -> None:
  """Writes the report of all results that lie in the folder."""
  if jax.process_index():
    return
  found = {}
  for name, why in why_not.items():
    result = whole_files.read_object_if_there(
      epath.Path(workdir, name, place.RESULT)
    )
    if result and _differs(result["encoder"], session.encoder.provenance):
      result, why = None, "its folder holds a result of another encoder"
    if result and why == _TO_COME:
      why = ""
    found[name] = report_lib.Part(
      result, why, _changed(shipped.get(name), result)
    )
  report = report_lib.make(suite, session.encoder.provenance, found)
  out_files.write_json(
    str(epath.Path(workdir, REPORT)),
    {**report, "code_version": code_version()},
  )
  done = {name: part.result for name, part in found.items() if part.result}
  illustrations.draw_of_suite(workdir, done, session.tell)
  whole_files.write_text(
    epath.Path(workdir, TEXT),
    markdown.render(report) + illustrations.links(workdir, done),
  )


def _differs(encoder: Any, now: Any) -> bool:
  """Whether two encoders are not the same."""
  of_now = json.loads(json.dumps({"encoder": now}))
  before = place.completed({"encoder": encoder}, of_now)
  return bool(workdir_lib.differences(before, of_now, place.MAY_CHANGE))


def _changed(shipped: Any, result: Any) -> dict[str, list[Any]]:
  """Settings of a result that the suite's config file has otherwise.

  Which data set it is does not count: the report tells it anyway.
  """
  if shipped is None or result is None:
    return {}
  there = flatten(json.loads(json.dumps(shipped.to_dict())))
  now = flatten(result["config"])
  free = (
    *place.MAY_CHANGE,
    "config.data_name.",
    "config.max_unreadable_share.",
  )
  return {
    key: [there.get(key), now.get(key)]
    for key in sorted(there.keys() | now.keys())
    if there.get(key) != now.get(key) and not f"config.{key}.".startswith(free)
  }
