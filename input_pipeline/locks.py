"""Locks that keep other processes of a machine out of a folder."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator


class TakenError(Exception):
  """Another process holds the lock; the text says which."""


@contextlib.contextmanager
def taken(path: str) -> Iterator[None]:
  """Holds the lock of a file, which is made if absent and names the holder.

  The kernel releases the lock when the process ends, however it ends. Some
  network file systems have no locks; there no process is kept out.

  Raises:
    TakenError: another process holds it.
  """
  with open(path, "a+") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise TakenError(file.read().strip()) from None
    except OSError:
      pass
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    yield
