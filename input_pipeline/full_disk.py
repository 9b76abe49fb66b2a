"""Recognises a disk that takes no more data, and says so once.

Python raises OSError. Orbax, TensorFlow and ArrayRecord raise errors of their
own classes, from threads of their own, but these quote the system's words.
"""

import contextlib
import errno
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from input_pipeline.errors import (
  DiskFullError,
  PreemptedError,
  RunError,
  UsageError,
)

# The system's number -> what is the matter with PLACE, and what to do.
_CASES = {
  errno.ENOSPC: ("The disk of {} is full", "make room there"),
  errno.EDQUOT: (
    "Your quota on the disk of {} is used up",
    "make room within it",
  ),
  errno.EFBIG: (
    "A file in {} would become larger than the disk or this process may have",
    "raise that limit (ulimit -f)",
  ),
  errno.EROFS: (
    "The disk of {} has become read-only",
    "have it mounted for writing again",
  ),
}
_LITTLE = 2**20  # bytes; a disk with fewer free counts as full


def problem(error: BaseException | None) -> int | None:
  """The number in `errno` if `error` came from a disk that takes no more."""
  seen: set[int] = set()
  open_ones = [error]
  while open_ones:
    one = open_ones.pop()
    if one is None or id(one) in seen:
      continue
    seen.add(id(one))
    if isinstance(one, OSError) and one.errno in _CASES:
      return one.errno
    # Our own sentences may quote these words and mean something else.
    if not isinstance(one, (UsageError, RunError)):
      for number in _CASES:
        if os.strerror(number) in str(one):
          return number
    open_ones += [one.__cause__, one.__context__]
    if isinstance(one, BaseExceptionGroup):
      open_ones += one.exceptions
  return None


def check_room(folder: str, needed: int) -> None:
  """Raises OSError if `needed` bytes surely do not fit into a local folder."""
  if folder.startswith("gs://"):
    return
  disk = shutil.disk_usage(folder)
  if disk.total and disk.free < needed:  # some file systems do not tell
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)


@contextlib.contextmanager
def told(place: str, then: Callable[[], str]) -> Iterator[None]:
  """Turns what `problem` recognises into one sentence.

  Args:
    place: where the block writes.
    then: says what to do once there is room: "the same command resumes ...".

  Raises:
    DiskFullError: the sentence.
  """
  try:
    yield
  except (UsageError, RunError, PreemptedError):
    raise
  except Exception as error:
    number = problem(error)
    if number is None:
      raise
    what, remedy = _CASES[number]
    full = _full_one(place) if number == errno.ENOSPC else place
    raise DiskFullError(
      f"{what.format(full)}. Please {remedy}; {then()}."
    ) from None


def _full_one(place: str) -> str:
  """The folder that is full: `place`, or that for temporary files."""
  temporary = tempfile.gettempdir()
  for folder in (place, os.path.dirname(os.path.abspath(place)), temporary):
    if os.path.isdir(folder) and shutil.disk_usage(folder).free < _LITTLE:
      return folder
  return place


def hush() -> None:
  """Keeps off the console what threads of libraries say about a full disk.

  Orbax logs a traceback for each of its threads, and what they leave undone
  complains that an event loop is closed. `told` says it once.
  """

  def is_news(record: logging.LogRecord) -> bool:
    return not problem(record.exc_info[1] if record.exc_info else None)

  def unraisable(found: Any) -> None:
    error = found.exc_value
    if not problem(error) and "Event loop is closed" not in str(error):
      before(found)

  before = sys.unraisablehook
  sys.unraisablehook = unraisable
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(is_news)
