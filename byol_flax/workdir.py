"""The folder of a run: may it be written to, and is it the same run?"""

import time
from typing import Any

import jax
from etils import epath

from byol_flax import checkpoint, report
from byol_flax.distributed import Processes
from input_pipeline.errors import UsageError

# Sections of the config that do not change what is learned: they may differ
# from those of the checkpoint that a run resumes from.
MAY_CHANGE = ("loader", "checkpoint", "report", "evaluation", "deadlines")


def check_writable(workdir: str) -> None:
  """Makes the folder if absent; raises UsageError unless it takes files."""
  probe = epath.Path(workdir) / f".writable-{jax.process_index()}"
  try:
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.write_text("")
    probe.unlink()
  # A bucket without permission raises classes of its storage library.
  except Exception as error:
    reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
    raise UsageError(
      f"The workdir {workdir} cannot be written to ({reason}); give "
      "--workdir=DIR with a folder, or gs://BUCKET/PATH, of yours."
    ) from None


def set_aside(workdir: str, processes: Processes) -> None:
  """Moves what an earlier run left into `workdir/replaced-<time>/`."""
  processes.wait("before setting aside")
  if jax.process_index() == 0:
    entries = [
      entry
      for entry in epath.Path(workdir).iterdir()
      if not entry.name.startswith("replaced-")
    ]
    if entries:
      folder = epath.Path(workdir) / time.strftime("replaced-%Y%m%d-%H%M%S")
      folder.mkdir()
      for entry in entries:
        entry.rename(folder / entry.name)
  processes.wait("after setting aside")


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
