"""Files that are written whole or not at all, by one process at a time."""

import contextlib
import fcntl
import io
import os
from collections.abc import Iterator

import numpy as np
from etils import epath


def write_bytes(path: epath.PathLike, data: bytes) -> None:
  """Writes a file, local or gs://; no reader ever sees half of it.

  What is there stays until then, and for good where writing fails.
  """
  target = epath.Path(path)
  temporary = target.parent / f"{target.name}.tmp"
  try:
    temporary.write_bytes(data)
    temporary.replace(target)
  except BaseException:
    with contextlib.suppress(Exception):
      temporary.unlink(missing_ok=True)
    raise


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a text file in UTF-8."""
  write_bytes(path, text.encode())


def write_arrays(path: epath.PathLike, arrays: dict[str, np.ndarray]) -> None:
  """Writes arrays to an .npz file, without pickles."""
  file = io.BytesIO()
  np.savez(file, allow_pickle=False, **arrays)
  write_bytes(path, file.getvalue())


def read_arrays(path: str) -> dict[str, np.ndarray]:
  """The arrays of an .npz file, which is closed again."""
  with np.load(path) as arrays:  # opened lazily, one handle for each file
    return dict(arrays)


@contextlib.contextmanager
def taken(folder: str) -> Iterator[None]:
  """Keeps other processes of this machine out of a folder.

  The kernel lets go of the lock when the process ends, however it ends. Some
  network file systems have no locks; there nothing is kept out.

  Raises:
    BlockingIOError: another process has it.
  """
  with open(os.path.join(folder, "lock"), "a") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise
    except OSError:
      pass
    yield
