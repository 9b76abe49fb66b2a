"""Folders that are written whole or not at all."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from byol_flax.runs.version import code_version
from input_pipeline import full_disk
from input_pipeline.errors import UsageError

# What makes a folder one of ours, so that it may be written over.
MARK = "export.json"


@contextlib.contextmanager
def written(folder: str, record: Mapping[str, Any]) -> Iterator[str]:
  """Yields a new folder, which becomes `folder` when the block ends.

  If the block fails, nothing is left of the new folder, and an older export
  under that name stays as it is.

  Args:
    folder: absent, empty, or an earlier export, which is replaced.
    record: what `MARK` will say of the export, for JSON.

  Raises:
    UsageError: something else is there, or it cannot be written.
  """
  check(folder)
  folder = os.path.abspath(folder)
  beside = f"{folder}.{uuid.uuid4().hex[:8]}"
  new, old = f"{beside}.new", f"{beside}.old"
  try:
    os.makedirs(new)
    yield new
    text = json.dumps({"code_version": code_version(), **record}, indent=2)
    with open(os.path.join(new, MARK), "w", encoding="utf-8") as file:
      file.write(text + "\n")
    if os.path.isdir(folder):
      os.rename(folder, old)
    os.rename(new, folder)
  except OSError as error:
    if full_disk.problem(error):
      raise
    raise UsageError(
      f"Cannot write {folder}: {error.strerror or error}."
    ) from None
  finally:
    if os.path.isdir(old) and not os.path.isdir(folder):
      os.rename(old, folder)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)


def check(folder: str) -> None:
  """Raises UsageError if something is there that no export may replace."""
  if not os.path.lexists(folder):
    return
  if not os.path.isdir(folder):
    raise UsageError(f"Cannot write {folder}: a file of that name is there.")
  names = os.listdir(folder)
  if names and MARK not in names:
    raise UsageError(
      f"Cannot write {folder}: the folder is there, and is no export of byol. "
      "Give another --out, or move it away."
    )
