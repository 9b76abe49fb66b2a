"""Standard output and error that never end the work.

A reader may go away (`| head`, a closed terminal, a dead `tee`) while hours of
work are under way. Python would raise an error at the next line, and another
when it ends. Here such a line is lost, and the work goes on.
"""

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

_SECONDS = 5.0  # to wait for a slow reader before its line is lost
# After these errors nobody will read there again. A full disk is not among
# them: it may be emptied, and then the next line can be written.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)


def protect() -> None:
  """Makes standard output and error of this process such streams.

  Each line is written at once, and a character that the encoding lacks is
  written as an escape.
  """
  for descriptor in (0, 1, 2):
    try:
      os.fstat(descriptor)
    except OSError:  # it is closed, and the next file would take its number
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
  sys.stdout = _open(1, sys.stdout)
  sys.stderr = _open(2, sys.stderr)


def say(sentence: str) -> None:
  """Writes "byol: SENTENCE" to standard error, from any thread, and at once.

  It writes to the descriptor, because another thread may hold the lock of
  `sys.stderr`. On a terminal it begins a new line, because the progress line
  may stand on the current one.
  """
  with contextlib.suppress(OSError):
    start = "\n" if os.isatty(2) else ""
    os.write(2, f"{start}byol: {sentence}\n".encode(errors="backslashreplace"))


def say_last(sentence: str) -> None:
  """Like `say`, but standard error stays silent afterwards.

  Other threads go on until the process has ended, and would add their lines.
  """
  say(sentence)
  with contextlib.suppress(OSError):
    _silence(2)


def _open(descriptor: int, before: TextIO | None) -> TextIO:
  return io.TextIOWrapper(
    io.BufferedWriter(_Descriptor(descriptor, "w", closefd=False)),
    encoding=before.encoding if before else "utf-8",
    errors="backslashreplace",
    line_buffering=True,
  )


class _Descriptor(io.FileIO):
  """A file descriptor to which every write succeeds."""

  def write(self, data: Any, /) -> int:
    try:
      written = super().write(data)
      if written is None:  # the reader shares it and made it non-blocking
        select.select([], [self], [], _SECONDS)
        written = super().write(data)
      return len(data) if written is None else written
    except OSError as error:
      if error.errno in _GONE:
        _silence(self.fileno())
      return len(data)


def _silence(descriptor: int) -> None:
  """Discards all that is written there, also directly by libraries."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, descriptor)
  os.close(nowhere)
