"""Files that are written whole or not at all, by one process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

import numpy as np


def write_text(path: str, text: str) -> None:
  """Writes a text file."""
  temporary = f"{path}.writing"
  with open(temporary, "w") as file:
    file.write(text)
  os.replace(temporary, path)


def write_arrays(path: str, arrays: dict[str, np.ndarray]) -> None:
  """Writes arrays to an .npz file, without pickles."""
  temporary = f"{path}.writing.npz"
  np.savez(temporary, allow_pickle=False, **arrays)
  os.replace(temporary, path)


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
