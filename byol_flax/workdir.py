"""The folder of a run: may it be written to, and is it the same run?"""

import os
import pathlib
import time
from typing import Any

from byol_flax import checkpoint, report
from input_pipeline.errors import UsageError

# Sections of the config that do not change what is learned: they may differ
# from those of the checkpoint that a run resumes from.
MAY_CHANGE = ("loader", "checkpoint", "report", "evaluation")


def check_writable(workdir: str) -> None:
  """Makes the folder if absent; raises UsageError unless it takes files."""
  probe = pathlib.Path(workdir) / f".writable-{os.getpid()}"
  try:
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise UsageError(
      f"The workdir {workdir} cannot be written to ({error.strerror}); give "
      "--workdir=DIR with a folder of yours."
    ) from None


def set_aside(workdir: str) -> None:
  """Moves what an earlier run left into `workdir/replaced-<time>/`."""
  entries = [
    entry
    for entry in pathlib.Path(workdir).iterdir()
    if not entry.name.startswith("replaced-")
  ]
  if entries:
    folder = pathlib.Path(workdir) / time.strftime("replaced-%Y%m%d-%H%M%S")
    folder.mkdir()
    for entry in entries:
      entry.rename(folder / entry.name)


def check_same_run(
  saved: checkpoint.Record | None, now: checkpoint.Record, workdir: str
) -> None:
  """Raises UsageError, naming the keys, if `now` contradicts the saved run.

  Args:
    saved: record of the newest checkpoint, or None.
    now: what the next checkpoint would record: "config" and the data's
      "num_examples" and "num_classes".
    workdir: for the message.
  """
  if saved is None:
    return

  def meaning(run: checkpoint.Record) -> dict[str, Any]:
    config = {k: v for k, v in run["config"].items() if k not in MAY_CHANGE}
    data = {name: run[name] for name in ("num_examples", "num_classes")}
    return report.flatten({**config, "data": {**config["data"], **data}})

  before, after = meaning(saved), meaning(now)
  different = [
    f"{name}: {before.get(name)} there, {after.get(name)} now"
    for name in sorted(before.keys() | after.keys())
    if before.get(name) != after.get(name)
  ]
  if different:
    raise UsageError(
      f"The run in {workdir} was made with another config ("
      + "; ".join(different)
      + "). Give another --workdir, or --restart to set that run aside."
    )
