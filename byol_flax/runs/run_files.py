"""Which files in a run's folder are the run's, and which are somebody else's.

A run first writes a marker into its folder. If a folder has no marker but holds
files of the names that a run uses, they are somebody else's: nothing there is
written over or moved. Files of other names are never touched.
"""

import json
import re
import time

import jax
from etils import epath

from byol_flax.runs import goodput, records
from byol_flax.runs.distributed import Processes
from byol_flax.runs.version import code_version
from input_pipeline import unreadable, whole_files
from input_pipeline.errors import UsageError

MARKER = "byol-run.json"
LOCK = "run.lock"
METRICS = "metrics.jsonl"
ROLLED_BACK = "rolled-back.json"

# All that a run and its evaluation write, and that moves when a run is set
# aside. Marker and lock stay, as do the folders `replaced-<time>` of runs that
# were set aside before, and the compiled programs that the launcher keeps.
_WRITTEN = re.compile(
  r"checkpoints|checkpoints-damaged|checkpoints-rolled-back|tensorboard"
  r"|(metrics\.jsonl|starts\.jsonl|view_hashes-\d+\.jsonl"
  r"|config\.json|evaluation\.json|result\.json|summary\.json"
  r"|rolled-back\.json|parameters\.txt|unreadable-\d+\.txt"
  r"|views\.png|curves\.png)(\.tmp)?"
)
_HOLDER = re.compile(rb"(process \d+ on \S+\n)?")
_NAMED = 5  # how many files a message names


def check_ours(workdir: str) -> None:
  """Checks, before anything is written, that the folder is a run's or free.

  Raises:
    UsageError: it is no run's and holds what a run would write over.
  """
  folder = epath.Path(workdir)
  if (folder / MARKER).exists():
    return
  found = [entry.name for entry in written(folder)]
  lock = folder / LOCK
  if lock.exists() and not _HOLDER.fullmatch(lock.read_bytes()):
    found.append(LOCK)
  if found and not _is_older_run(folder):
    more = ", ..." if len(found) > _NAMED else ""
    raise UsageError(
      f"{workdir} is no run of this program (it has no {MARKER}) and holds "
      f"{', '.join(found[:_NAMED])}{more}, which a run would write over. Give "
      "another --workdir, or move these away."
    )


def mark(workdir: str) -> None:
  """Writes the marker, if it is not there."""
  marker = epath.Path(workdir, MARKER)
  if not marker.exists():
    made_by = {"format": records.FORMAT, "code_version": code_version()}
    whole_files.write_text(marker, json.dumps(made_by, indent=2) + "\n")


def written(folder: epath.Path) -> list[epath.Path]:
  """The files and folders of runs that are there, without empty folders."""
  return sorted(
    entry
    for entry in folder.iterdir()
    if _WRITTEN.fullmatch(entry.name)
    and not (entry.is_dir() and not any(entry.iterdir()))
  )


def set_aside(workdir: str, processes: Processes) -> None:
  """Moves what an earlier run left into `workdir/replaced-<time>/`."""
  processes.wait("before setting aside")
  if jax.process_index() == 0:
    _move(written(epath.Path(workdir)))
  processes.wait("after setting aside")


def set_aside_unsaved(workdir: str, processes: Processes) -> tuple[str, ...]:
  """Moves away what an earlier start reported but never saved.

  The earlier start ended before its first save, or somebody removed its
  checkpoints. The run that begins anew would empty what it reported.

  Returns:
    On process 0, a sentence that says where it is now, if there was any.
  """
  processes.wait("before making way")
  notes: tuple[str, ...] = ()
  if jax.process_index() == 0:
    metrics = epath.Path(workdir, METRICS)
    reported = metrics.exists() and metrics.read_bytes()
    # A list of unreadable images moves too: the new run may have other images.
    # And it has not gone back, even if the one before had.
    went_back = epath.Path(workdir, ROLLED_BACK).exists()
    if reported or went_back or unreadable.lines_of(workdir):
      entries = written(epath.Path(workdir))
      # The time of earlier starts is the run's, though nothing is left of them.
      stay = ("checkpoints", goodput.FILE)
      aside = _move([entry for entry in entries if entry.name not in stay])
      notes = (
        f"No checkpoint is in {workdir}: the run begins anew, and what an "
        f"earlier start reported is in {aside}",
      )
  processes.wait("after making way")
  return notes


def set_aside_checkpoints(
  workdir: str, after: int, processes: Processes
) -> None:
  """Moves the checkpoints of later updates than `after` out of the way.

  They go to `workdir/checkpoints-rolled-back/<step>-<time>`. The newest goes
  first: if a kill comes in between, those that are left are a beginning of the
  run. Nobody may have them open.
  """
  processes.wait("before setting checkpoints aside")
  if jax.process_index() == 0:
    folder = epath.Path(workdir, "checkpoints")
    aside = epath.Path(workdir, "checkpoints-rolled-back")
    aside.mkdir(exist_ok=True)
    saved = [int(x.name) for x in folder.iterdir() if x.name.isdigit()]
    for label in sorted((x for x in saved if x > after), reverse=True):
      (folder / str(label)).rename(aside / f"{label}-{time.time_ns()}")
  processes.wait("after setting checkpoints aside")


def _move(entries: list[epath.Path]) -> str:
  """Moves them into a new folder beside them and returns its path."""
  if not entries:
    return ""
  name = time.strftime("replaced-%Y%m%d-%H%M%S")
  folder = entries[0].parent / name
  folder.mkdir()
  for entry in entries:
    entry.rename(folder / entry.name)
  return str(folder)


def _is_older_run(folder: epath.Path) -> bool:
  """Whether a version that wrote no marker trained here; its records tell."""
  starts = folder / "starts.jsonl"
  if starts.exists():
    for line in starts.read_bytes().splitlines():
      if _has(line, "step", "code_version", "devices"):
        return True
  checkpoints = folder / "checkpoints"
  if not checkpoints.is_dir():
    return False
  record = [entry / "record" / "metadata" for entry in checkpoints.iterdir()]
  return any(
    path.exists() and _has(path.read_bytes(), "config", "data_position")
    for path in record
  )


def _has(text: bytes, *keys: str) -> bool:
  """Whether `text` is a JSON object with these keys."""
  try:
    found = json.loads(text)
  except ValueError:
    return False
  return isinstance(found, dict) and all(key in found for key in keys)
