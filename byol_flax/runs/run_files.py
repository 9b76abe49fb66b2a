"""The files that a run leaves in its folder, told from anybody else's.

A run begins with a marker. A folder without one that holds files of these names
belongs to somebody else, and nothing in it is written over or moved. What is
called otherwise is never touched.
"""

import json
import re
import time

import jax
from etils import epath

from byol_flax.runs import records
from byol_flax.runs.distributed import Processes
from byol_flax.runs.version import code_version
from input_pipeline import unreadable, whole_files
from input_pipeline.errors import UsageError

MARKER = "byol-run.json"
LOCK = "run.lock"
METRICS = "metrics.jsonl"

# All that a run and its evaluation write, but for marker and lock, which stay
# when a run is set aside, the folders `replaced-<time>` of runs that were, and
# the compiled programs that the launcher keeps beside a run.
_WRITTEN = re.compile(
  r"checkpoints|checkpoints-damaged|tensorboard"
  r"|(metrics\.jsonl|starts\.jsonl|view_hashes-\d+\.jsonl"
  r"|config\.json|evaluation\.json|result\.json|summary\.json|parameters\.txt|unreadable-\d+\.txt"
  r"|views\.png|curves\.png)(\.tmp)?"
)
_HOLDER = re.compile(rb"(process \d+ on \S+\n)?")
_NAMED = 5  # files that a message names


def check_ours(workdir: str) -> None:
  """Looks before anything is written, with or without --restart.

  Raises:
    UsageError: the folder is no run and holds what a run would write over.
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
  """Leaves the marker, if it is not there."""
  marker = epath.Path(workdir, MARKER)
  if not marker.exists():
    made_by = {"format": records.FORMAT, "code_version": code_version()}
    whole_files.write_text(marker, json.dumps(made_by, indent=2) + "\n")


def written(folder: epath.Path) -> list[epath.Path]:
  """What runs write and is there, but for folders that are empty."""
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
  """Makes way for a run that begins anew where no checkpoint is.

  It was ended before its first save, or somebody removed its checkpoints. What
  it reported would be emptied.

  Returns:
    Sentences, on process 0: where it is now, if anything had been reported.
  """
  processes.wait("before making way")
  notes: tuple[str, ...] = ()
  if jax.process_index() == 0:
    metrics = epath.Path(workdir, METRICS)
    reported = metrics.exists() and metrics.read_bytes()
    # Their images may be others than those that the new run begins with.
    if reported or unreadable.lines_of(workdir):
      entries = written(epath.Path(workdir))
      aside = _move([entry for entry in entries if entry.name != "checkpoints"])
      notes = (
        f"No checkpoint is in {workdir}: the run begins anew, and what an "
        f"earlier start reported is in {aside}",
      )
  processes.wait("after making way")
  return notes


def _move(entries: list[epath.Path]) -> str:
  """Into a new folder beside them, whose path is returned."""
  if not entries:
    return ""
  name = time.strftime("replaced-%Y%m%d-%H%M%S")
  folder = entries[0].parent / name
  folder.mkdir()
  for entry in entries:
    entry.rename(folder / entry.name)
  return str(folder)


def _is_older_run(folder: epath.Path) -> bool:
  """Whether a version that left no marker trained here, as its records say."""
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
