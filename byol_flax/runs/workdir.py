"""The folder of a run: may it be written to, and does it hold the same run?"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from byol_flax.runs import checkpoint, metrics_log, records, run_files
from byol_flax.runs.distributed import Processes
from input_pipeline import locks, whole_files
from input_pipeline.errors import UsageError

# Parts of the config that do not change what is learned. A run may be resumed
# with other values of them.
MAY_CHANGE = (
  "data.name.",
  "loader.",
  "checkpoint.",
  "report.",
  "evaluation.",
  "deadlines.",
  "watchdog.",  # what it has changed stands in the record
  "gradient_dtype.",  # nearer to the exact sums, or as near as before
  "model.encoder.recompute.",
  "augment.device.",
  "augment.cache.",
)


def check_writable(workdir: str) -> None:
  """Makes the folder if absent; raises UsageError unless it takes files."""
  if reason := whole_files.why_unwritable(workdir):
    raise UsageError(
      f"The workdir {workdir} cannot be written to ({reason}); give "
      "--workdir=DIR with a folder, or gs://BUCKET/PATH, of yours."
    )


def way_on(workdir: str, restart: bool) -> str:
  """What the command of a run that could not go on will do the next time."""
  steps = checkpoint.steps_in(workdir)
  if not steps:
    return "nothing was saved yet, so the same command begins the run anew"
  without = ", without --restart," if restart else ""
  return (
    f"the same command{without} resumes from checkpoint {steps[-1]}, which is "
    "kept"
  )


@contextlib.contextmanager
def taken(workdir: str, processes: Processes) -> Iterator[None]:
  """Makes the folder, and keeps other runs out of it; all processes call this.

  A bucket cannot be locked, so nothing keeps them out there.

  Raises:
    UsageError: the folder cannot be written to, holds somebody else's files,
      or another run is using it.
  """
  with contextlib.ExitStack() as until_the_end:
    processes.together(lambda: _take(workdir, until_the_end))
    yield


def _take(workdir: str, until_the_end: contextlib.ExitStack) -> None:
  """What each process does; process 0 keeps others out."""
  check_writable(workdir)
  if jax.process_index():
    return
  run_files.check_ours(workdir)
  if not workdir.startswith("gs://"):
    try:
      until_the_end.enter_context(locks.taken(f"{workdir}/{run_files.LOCK}"))
    except locks.TakenError as holder:
      raise UsageError(
        f"Another run ({holder}) is writing to {workdir}; end it first, or "
        "give another --workdir."
      ) from None
  run_files.mark(workdir)


def complete(workdir: str) -> tuple[str, str]:
  """What to say about a run that was trained to its end."""
  done = "This run is complete; nothing to do."
  return done, to_train_longer(workdir)


def to_train_longer(workdir: str) -> str:
  """How to train longer than a run's schedules allow."""
  return (
    "Its schedules end with its last update; to train longer, start a new run "
    f"with its weights: another --workdir, and --init={workdir}."
  )


# Runs from before there was this key do not tell what it would have been.
_SINCE = "reference_batch_size"


def differences(
  before: Mapping[str, Any], after: Mapping[str, Any], may_change: Sequence[str]
) -> list[str]:
  """Says of each dotted name what it was there and is now, where they differ.

  Args:
    before: a nested JSON object.
    after: another one.
    may_change: names, and beginnings of names, that make no difference; each
      ends with a dot.
  """
  if before.get(_SINCE, 0) is None:
    before = {**before, _SINCE: after.get(_SINCE)}
  there, here = metrics_log.flatten(before), metrics_log.flatten(after)
  absent = "not a key"
  return [
    f"{name}: {there.get(name, absent)} there, {here.get(name, absent)} now"
    for name in sorted(there.keys() | here.keys())
    if there.get(name, absent) != here.get(name, absent)
    and not f"{name}.".startswith(tuple(may_change))
  ]


def check_same_run(
  saved: checkpoint.Record | None, now: checkpoint.Record, workdir: str
) -> None:
  """Raises UsageError, naming the keys, if `now` contradicts the saved run.

  It is no contradiction if the images lie elsewhere; `same_data` checks those.

  Args:
    saved: record of the newest checkpoint, in any format, or None.
    now: what the next checkpoint would record; only its "config" counts.
    workdir: for the message.
  """
  if saved is None:
    return
  before, after = records.completed(saved)["config"], now["config"]
  different = differences(before, after, MAY_CHANGE)
  if different:
    more = after["epochs"] > before["epochs"]
    longer = f" {to_train_longer(workdir)}" if more else ""
    raise UsageError(
      f"The run in {workdir} was made with another config ("
      + "; ".join(different)
      + f").{longer} "
      "Give another --workdir, or --restart to set that run aside."
    )
