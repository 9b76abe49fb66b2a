"""Copies one file to local storage by large ranges, and verifies the copy.

A range that does not come in a minute counts as stalled, and one that is short
as broken off; either is read again by a connection of its own, as often as
`retries` allows. The copy is read back and must have the size of the original
and the checksum of the bytes that came. The transport to a bucket has
checksums of its own, and so has every chunk of an ArrayRecord file.
"""

import os
import queue
import threading
import zlib
from collections.abc import Callable
from typing import TypeVar

from etils import epath

from input_pipeline import retries
from input_pipeline.errors import RunError

T = TypeVar("T")

PART = ".part"  # ends the name of a file that is being copied

# Bytes. So much TensorFlow fetches from a bucket in one request (its
# gcs_file_system.cc, kDefaultBlockSize), however little is read of it.
_RANGE = 64 * 2**20
_STALL_SECONDS = 60.0


def copy(
  original: epath.Path, target: str, size: int, came: Callable[[int], None]
) -> int:
  """Copies a file, whole or not at all; a kill leaves `target`.part behind.

  Args:
    original: of the file, local or gs://.
    target: local path.
    size: bytes of the original.
    came: is told how many bytes came, after each range; it may raise.

  Returns:
    CRC-32 of the file.

  Raises:
    StorageError: the original's storage does not answer.
    UnreadableError: the original is absent or forbidden.
    RunError: the local storage gives back other bytes than it was given.
    OSError: it takes no more.
  """
  part, checksum = f"{target}{PART}", 0
  with open(part, "wb") as file:
    for start in range(0, size, _RANGE):
      count = min(_RANGE, size - start)
      data = retries.patiently(
        lambda start=start, count=count: _within(  # type: ignore[misc]
          _STALL_SECONDS, lambda: _read(original, start, count)
        ),
        str(original),
      )
      file.write(data)
      checksum = zlib.crc32(data, checksum)
      came(count)
    file.flush()
    os.fsync(file.fileno())
  if (found := checksum_of(part)) != (size, checksum):
    raise RunError(
      f"{part} should hold {size:,} bytes with checksum {checksum:08x}, but "
      f"{found[0]:,} with {found[1]:08x} were read back. Its storage or the "
      "memory of this host is faulty; stage to another folder, or replace the "
      "host."
    )
  os.replace(part, target)
  return checksum


def checksum_of(path: str) -> tuple[int, int]:
  """Size and CRC-32 of a local file."""
  size = checksum = 0
  with open(path, "rb") as file:
    while data := file.read(_RANGE):
      size += len(data)
      checksum = zlib.crc32(data, checksum)
  return size, checksum


def _read(path: epath.Path, start: int, count: int) -> bytes:
  """Bytes start, ..., start + count - 1 of a file, and no fewer."""
  with retries.naming(str(path)), path.open("rb") as file:
    file.seek(start)
    data: bytes = file.read(count)
  if len(data) != count:
    raise ConnectionError(
      f"{path} gave {len(data):,} of {count:,} bytes from {start:,} on"
    )
  return data


def _within(seconds: float, work: Callable[[], T]) -> T:
  """Returns `work()`; after `seconds` it is left to itself.

  Raises:
    TimeoutError: it took longer.
  """
  done: queue.SimpleQueue[tuple[T | None, BaseException | None]]
  done = queue.SimpleQueue()

  def run() -> None:
    try:
      done.put((work(), None))
    except BaseException as error:
      done.put((None, error))

  threading.Thread(target=run, daemon=True, name="copies").start()
  try:
    value, error = done.get(timeout=seconds)
  except queue.Empty:
    raise TimeoutError(f"nothing came for {seconds:g} s") from None
  if error:
    raise error
  return value  # type: ignore[return-value]
