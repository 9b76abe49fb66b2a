"""Standard output and error that never end the work.

A reader may go away (`| head`, a closed terminal, a dead `tee`) while hours of
work are under way. Python would raise at the next line, and once more when it
ends; here such a line is lost, and nothing else.
"""

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

_SECONDS = 5.0  # to wait for a reader that is slow, where others would raise
# Nobody will read there again. A full disk is another matter: it may be
# emptied, and the next line may be written.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)


def protect() -> None:
  """Makes standard output and error of this process such streams.

  Lines leave at once, and what the encoding lacks leaves as an escape.
  """
  for descriptor in (0, 1, 2):
    try:
      os.fstat(descriptor)
    except OSError:  # closed: the next file to be opened would take its place
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
  sys.stdout = _open(1, sys.stdout)
  sys.stderr = _open(2, sys.stderr)


def say(sentence: str) -> None:
  """Writes "byol: SENTENCE" to standard error, from any thread, and at once.

  Not by way of `sys.stderr`, whose lock another thread may hold. On a terminal
  a line that is rewritten in place may stand there, hence a new one.
  """
  with contextlib.suppress(OSError):
    start = "\n" if os.isatty(2) else ""
    os.write(2, f"{start}byol: {sentence}\n".encode(errors="backslashreplace"))


def say_last(sentence: str) -> None:
  """`say`, after which standard error stays silent.

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
  """Leads it to nowhere, for libraries too that write there themselves."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, descriptor)
  os.close(nowhere)
