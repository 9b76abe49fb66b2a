"""Files that a command leaves where `--out` says, most of them JSON."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from input_pipeline import full_disk, whole_files
from input_pipeline.errors import UsageError


def has_code_version(path: str) -> bool:
  """Whether a file is a JSON object with a "code_version": one of ours."""
  try:
    with open(path, "rb") as file:
      return "code_version" in json.load(file)
  except (OSError, ValueError, TypeError):
    return False


def check_writable(
  path: str, is_ours: Callable[[str], bool] = has_code_version
) -> None:
  """Checks, before the work, that a file can be written to a local path.

  A file is written over only if `byol` wrote it, which `is_ours` tells. Of a
  bucket nothing is checked.

  Raises:
    UsageError: it cannot write there, or the file there is not byol's.
  """
  if path.startswith("gs://"):
    return
  folder = os.path.dirname(os.path.abspath(path))
  if os.path.isdir(path):
    reason = "it is a folder"
  elif not os.path.isdir(folder):
    reason = f"there is no folder {folder}"
  elif why := whole_files.why_unwritable(folder):
    reason = f"{folder} takes no files ({why})"
  elif os.path.exists(path) and not is_ours(path):
    reason = (
      "that file is there and was not written by byol; move it away, or give "
      "another --out"
    )
  else:
    return
  raise UsageError(f"Cannot write {path}: {reason}.")


def write_json(path: str, record: Mapping[str, Any]) -> None:
  """Writes a JSON file, local or gs://, whole or not at all.

  Raises:
    UsageError: it cannot be written there.
  """
  try:
    whole_files.write_text(
      path, json.dumps(record, indent=2, allow_nan=False) + "\n"
    )
  except OSError as error:
    if full_disk.problem(error):
      raise
    raise UsageError(
      f"Cannot write {path}: {error.strerror or error}."
    ) from None
