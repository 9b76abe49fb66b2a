"""Folders that are written whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from byol_flax.runs.version import code_version
from input_pipeline import full_disk, locks, whole_files
from input_pipeline.errors import UsageError

# What makes a folder one of ours, and lists its files: these are replaced, and
# nothing that somebody else put there.
MARK = "export.json"
# Folders beside, with names that a killed command's successor finds again.
_NEW, _OLD = ".byol-new", ".byol-old"
_LOCK = ".lock"


@contextlib.contextmanager
def written(
  folder: str, record: Mapping[str, Any], source: str = ""
) -> Iterator[str]:
  """Yields a new folder, which becomes `folder` when the block ends.

  If the block fails, nothing is left of the new folder, and an older export
  under that name stays as it is. After a kill the next one there tidies up.

  Args:
    folder: absent, empty, or an earlier export, which is replaced; or a link to
      such a one.
    record: what `MARK` will say of the export, for JSON.
    source: where the weights are read from, which is not replaced.

  Raises:
    UsageError: something else is there, it cannot be written, or another
      process is writing it.
  """
  check(folder, source)
  folder = os.path.realpath(folder)
  new = f"{folder}{_NEW}"
  try:
    os.makedirs(new, exist_ok=True)
    with locks.taken(os.path.join(new, _LOCK)):
      try:
        _tidy(folder)
        yield new
        _seal(new, record)
        check(folder, source)  # the work has taken a while
        _replace(folder)
      except BaseException:
        _tidy(folder)
        shutil.rmtree(new, ignore_errors=True)
        raise
    # The lock has left with the folder, so another command may have made a new
    # one of that name.
    shutil.rmtree(f"{folder}{_OLD}", ignore_errors=True)
  except locks.TakenError as holder:
    raise UsageError(
      f"Cannot write {folder}: another command ({holder}) is writing it. Wait "
      "until that has ended, or give another --out."
    ) from None
  except OSError as error:
    if full_disk.problem(error):
      raise
    raise UsageError(
      f"Cannot write {folder}: {error.strerror or error}. Give another --out, "
      "a folder that is not there yet."
    ) from None


def _tidy(folder: str) -> None:
  """Empties the new folder, and puts the old one back or away."""
  new, old = f"{folder}{_NEW}", f"{folder}{_OLD}"
  if os.path.isdir(old) and not os.path.isdir(folder):
    os.rename(old, folder)
  shutil.rmtree(old, ignore_errors=True)
  for entry in os.scandir(new) if os.path.isdir(new) else ():
    if entry.name != _LOCK:
      os.unlink(entry.path)


def _seal(new: str, record: Mapping[str, Any]) -> None:
  """Writes `MARK` into the new folder, which is complete but for that."""
  files = sorted({*os.listdir(new), MARK})
  facts = {"code_version": code_version(), **record, "files": files}
  with open(os.path.join(new, MARK), "w", encoding="utf-8") as file:
    file.write(json.dumps(facts, indent=2) + "\n")


def _replace(folder: str) -> None:
  """Gives the new folder its name."""
  if os.path.isdir(folder):
    os.rename(folder, f"{folder}{_OLD}")
  os.rename(f"{folder}{_NEW}", folder)
  os.unlink(os.path.join(folder, _LOCK))


def check(folder: str, source: str = "") -> None:
  """Raises UsageError if `folder` cannot be written, or must be kept.

  Args:
    folder: what --out says.
    source: as of `written`.
  """
  if not folder:
    raise UsageError("--out is empty; give the folder to write.")
  if folder.startswith("gs://"):
    raise UsageError(
      f"Cannot write {folder}: weights are written to folders of this machine. "
      "Give another --out, and copy it (gcloud storage cp --recursive)."
    )
  beside = os.path.dirname(os.path.abspath(folder))
  while not os.path.lexists(beside):
    beside = os.path.dirname(beside)
  if reason := whole_files.why_unwritable(beside):
    raise UsageError(
      f"Cannot write {folder}: {beside} takes no files ({reason}). Give "
      "another --out."
    )
  if not os.path.lexists(folder):
    return
  if not os.path.isdir(folder):
    raise UsageError(f"Cannot write {folder}: a file of that name is there.")
  if reason := _why_kept(os.path.realpath(folder), source):
    raise UsageError(
      f"Cannot write {folder}: {reason}. Give another --out, or move it away."
    )


def _why_kept(folder: str, source: str) -> str:
  """Why a folder that is there is not replaced; "" if it may be."""
  names = set(os.listdir(folder))
  if names and MARK not in names:
    return "the folder is there, and is no export of byol"
  if source and _holds(folder, source):
    return "the weights are read from there, and would be lost"
  if others := names - _files_of(folder):
    return f"the folder holds {min(others)}, which no export wrote"
  if _holds(folder, os.getcwd()):
    return "the command runs in that folder"
  return ""


def _holds(folder: str, path: str) -> bool:
  """Whether a path is a folder, given without links, or lies in it."""
  return os.path.commonpath([folder, os.path.realpath(path)]) == folder


def _files_of(folder: str) -> set[str]:
  """What an export left in its folder."""
  try:
    with open(os.path.join(folder, MARK), encoding="utf-8") as file:
      return {_LOCK, *json.load(file)["files"]}
  except (OSError, ValueError, KeyError, TypeError):
    return {_LOCK, MARK}
