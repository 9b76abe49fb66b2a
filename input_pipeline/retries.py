"""Reads from storage that may fail for a while.

Damaged images are replaced by their neighbours. A network file system or a
bucket that cannot be reached must not pass for that: it is tried again for
about a minute, and then the run ends. A file that is absent, forbidden or
damaged is not tried again, because it would fail again.
"""

import contextlib
import enum
import errno
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from input_pipeline.errors import (
  RunError,
  StorageError,
  UnreadableError,
  UsageError,
)

T = TypeVar("T")

# Seconds between tries, a minute in all. Each is multiplied by a random factor
# from 0.5 to 1.5, so that a thousand workers do not come back together.
DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

# The system's errors for a path that are faults of the file itself.
_OF_THE_FILE = frozenset(
  {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
  }
)
_NUMBER_OF = {os.strerror(number): number for number in errno.errorcode}

# Errors of libraries are known only by their texts, such as ArrayRecord's
# "open() failed: No such file or directory; opening /data/x".
_FAILED_CALL = re.compile(r"\w+\(\) failed: ([^;\[]+)")
_STORAGE_WORDS = re.compile(
  "UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED|UNAUTHENTICATED|"
  "UnavailableError|DeadlineExceeded|ResourceExhausted|AbortedError|"
  "Unauthenticated|CURL|timed out|Timeout|Connection (?:reset|refused)|"
  "resolve host|Retry policy"
)
_FILE_WORDS = re.compile(
  "DATA_LOSS|DataLoss|NOT_FOUND|NotFound|PERMISSION_DENIED|PermissionDenied|"
  "OUT_OF_RANGE|OutOfRange|INVALID_ARGUMENT|InvalidArgument|"
  "Riegeli|[Cc]orrupt|[Cc]hecksum|DecodeError"
)
# Libraries whose errors have classes of their own.
_READERS = ("tensorflow", "google", "gcsfs", "requests", "urllib3", "aiohttp")
_NO_READERS = ("jax", "jaxlib")  # RESOURCE_EXHAUSTED is a device's memory


class Fault(enum.Enum):
  """Whose fault an error is."""

  FILE = enum.auto()
  STORAGE = enum.auto()
  UNKNOWN = enum.auto()


def fault_of(error: Exception) -> Fault:
  """Whose fault an error is that was raised while a file was read."""
  if isinstance(error, OSError) and error.errno is not None:
    return _fault_of_number(error.errno)
  if isinstance(error, (ConnectionError, TimeoutError)):
    return Fault.STORAGE
  if isinstance(error, OSError):  # Python's own code: "shorter than it was"
    return Fault.FILE
  text = f"{type(error).__name__}: {error}"
  if failed := _FAILED_CALL.search(text):
    return _fault_of_number(_NUMBER_OF.get(failed[1].strip(), errno.EIO))
  if _STORAGE_WORDS.search(text):
    return Fault.STORAGE
  return Fault.FILE if _FILE_WORDS.search(text) else Fault.UNKNOWN


def _fault_of_number(number: int) -> Fault:
  return Fault.FILE if number in _OF_THE_FILE else Fault.STORAGE


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
  """Adds the path to errors of `read`; unlike those of `open` they lack it."""
  try:
    yield
  except OSError as error:
    if error.errno is not None and error.filename is None:
      error.filename = path
    raise


def patiently(
  read: Callable[[], T],
  what: str,
  delays: Sequence[float] | None = None,
  *,
  unknown: Fault = Fault.STORAGE,
) -> T:
  """Returns `read()`; tries again while the storage is at fault.

  Errors that do not come from reading pass through, and so do those of JAX.

  Args:
    read: opens and reads; it is called at most once more than there are
      `delays`.
    what: names what is read in the message: "the images of folder:/data".
    delays: seconds to wait after each failure, before the random factor; None:
      DELAYS.
    unknown: whose fault an error of reading is if nothing tells.

  Raises:
    UnreadableError: the file is at fault, at the first try or a later one.
    StorageError: no try succeeded.
  """
  begun = time.monotonic()
  delays = DELAYS if delays is None else delays
  for delay in (*delays, None):
    try:
      return read()
    except Exception as error:
      fault = _fault_of_a_read(error, unknown)
      if fault is Fault.UNKNOWN:
        raise
      if fault is Fault.FILE:
        raise UnreadableError(_one_line(error)) from error
      if delay is None:
        seconds = time.monotonic() - begun
        raise StorageError(
          f"The storage of {what} does not answer: {_one_line(error)}. It was "
          f"asked {len(delays) + 1} times in {seconds:.0f} s. What was saved "
          "before stays; give the command again when the storage is back."
        ) from error
      time.sleep(delay * random.uniform(0.5, 1.5))
  raise AssertionError("the last try returns or raises")


def in_bucket(call: Callable[[], T], path: str) -> T:
  """Returns `call()`, which reads or writes a whole object; see `patiently`.

  Raises:
    StorageError: for a minute the bucket did not answer.
    RunError: it refuses.
  """
  try:
    return patiently(call, path)
  except UnreadableError as error:
    raise RunError(f"{path} cannot be written: {error}.") from error


def _fault_of_a_read(error: Exception, unknown: Fault) -> Fault:
  """`fault_of`, or `unknown`; UNKNOWN if the error is not one of reading."""
  library = type(error).__module__.split(".")[0]
  if isinstance(error, (RunError, UsageError)) or library in _NO_READERS:
    return Fault.UNKNOWN
  fault = fault_of(error)
  of_reading = isinstance(error, (OSError, RuntimeError)) or library in _READERS
  return unknown if fault is Fault.UNKNOWN and of_reading else fault


def _one_line(error: Exception) -> str:
  return " ".join(str(error).split())[:300] or type(error).__name__
