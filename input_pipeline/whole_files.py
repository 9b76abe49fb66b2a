"""Writes files whole or not at all, and tells whether that is possible."""

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from input_pipeline import full_disk, retries
from input_pipeline.errors import RunError, UsageError

# What to do with a damaged file that only says what was found.
FOUND_AGAIN = "remove it, and the same command makes it again"


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
  """Yields a path beside a file, local or gs://, for its new content.

  What is written there becomes the file when the block ends, so that no reader
  ever sees half of it. If the block fails, the old file stays.
  """
  target = epath.Path(path)
  temporary = target.parent / f"{target.name}.tmp"
  try:
    yield temporary
    temporary.replace(target)
  except BaseException:
    with contextlib.suppress(Exception):
      temporary.unlink(missing_ok=True)
    raise


def write_bytes(path: epath.PathLike, data: bytes) -> None:
  """Writes a file as `replacing` does.

  A bucket that does not answer is asked again; see `retries.in_bucket`.
  """

  def write() -> None:
    with replacing(path) as temporary:
      temporary.write_bytes(data)

  if str(path).startswith("gs://"):
    retries.in_bucket(write, str(path))
  else:
    write()


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a text file in UTF-8."""
  write_bytes(path, text.encode())


def read_object(
  path: epath.PathLike, otherwise: str = "begin anew in another folder"
) -> dict[str, Any]:
  """The JSON object in a file that was written whole.

  Args:
    path: of the file.
    otherwise: what to do without a copy of it.

  Raises:
    UsageError: the file holds something else, so it was damaged since.
    OSError: it cannot be read, or there is none.
  """
  try:
    found = json.loads(epath.Path(path).read_bytes())
    why = f"it holds a {type(found).__name__}"
  except ValueError as error:
    found, why = None, str(error)
  if not isinstance(found, dict):
    raise UsageError(
      f"{path} should be a JSON object, as it was written, but it is damaged "
      f"({why}). Restore it from a copy, or {otherwise}."
    )
  return found


def read_object_if_there(path: epath.PathLike) -> dict[str, Any] | None:
  """The JSON object of what was found, which a command can find again.

  Raises:
    UsageError: as `read_object`.
    OSError: it cannot be read.
  """
  if not epath.Path(path).exists():
    return None
  return read_object(path, FOUND_AGAIN)


def write_arrays(path: epath.PathLike, arrays: dict[str, np.ndarray]) -> None:
  """Writes arrays to an .npz file, without pickles."""
  file = io.BytesIO()
  np.savez(file, allow_pickle=False, **arrays)
  write_bytes(path, file.getvalue())


def read_arrays(
  path: epath.PathLike, otherwise: str = "begin anew in another folder"
) -> dict[str, np.ndarray]:
  """Reads the arrays of an .npz file, and closes it.

  Args:
    path: of the file.
    otherwise: what to do without a copy of it.

  Raises:
    RunError: the file was damaged since it was written whole.
    OSError: it cannot be read, or there is none.
  """
  try:
    # NumPy would leave a damaged file open if it opened the file itself.
    with epath.Path(path).open("rb") as file, np.load(file) as arrays:
      return dict(arrays)
  # Also where it is no .npz file at all, so that NumPy finds an array or less.
  except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, TypeError):
    raise RunError(
      f"{path} is damaged. Restore it from a copy, or {otherwise}."
    ) from None


def why_unwritable(folder: epath.PathLike) -> str:
  """Says why a folder, local or gs://, takes no files; "" if it takes them.

  The folder is made if absent. A file is written into it and removed, because
  permissions alone do not show quotas and read-only mounts. A full disk raises
  its error, about which `full_disk.told` has more to say.
  """
  # One name for all, so that the next call removes what a killed one has left.
  probe = epath.Path(folder) / ".writable"
  try:
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.write_text("")
    # Another process may ask at the same time and remove the file.
    probe.unlink(missing_ok=True)
  # A bucket without permission raises errors of its storage library.
  except Exception as error:
    if full_disk.problem(error):
      raise
    return getattr(error, "strerror", None) or str(error).split("\n")[0]
  return ""
