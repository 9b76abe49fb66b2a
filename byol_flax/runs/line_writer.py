"""A thread that writes lines to a file from time to time.

In a bucket, to add to a file means to read and write all of it, and one object
may be written about once a second. A loop that waited for that after each line
would stand still.
"""

import threading

from etils import epath

from byol_flax.runs import buckets
from input_pipeline import appending

_LOCAL, _BUCKET = 1.0, 30.0
_MOST_LINES = 10_000  # may wait in memory


def seconds_between(path: str, mounts: str) -> float:
  """How long a thread rests after it has written lines to a file at `path`.

  Args:
    path: absolute path or gs://BUCKET/PATH.
    mounts: see `buckets.holds`.
  """
  return _BUCKET if buckets.holds(path, mounts) else _LOCAL


class LineWriter:
  """Appends lines to a file, in order, within `seconds` and at each `flush`.

  The first error is final: the next call raises it, as do all that follow, and
  nothing more is written. A failed write may have torn a line, and no line may
  follow a torn one. A process that is killed loses the lines that wait.

  Args:
    path: the file; made with the first line if absent.
    seconds: how long the thread rests between two times that it writes.
  """

  def __init__(self, path: epath.PathLike, seconds: float) -> None:
    self._path = epath.Path(path)
    self._seconds = seconds
    self._lines: list[str] = []
    self._error: BaseException | None = None
    self._writing = threading.Lock()
    self._ended = threading.Event()
    self._thread = threading.Thread(
      target=self._write_by_time, name=f"writes {self._path.name}", daemon=True
    )
    self._thread.start()

  def write(self, line: str) -> None:
    """Hands over a line, without its newline; waits only if very many wait."""
    if self._error:
      raise self._error
    self._lines.append(line)
    if len(self._lines) >= _MOST_LINES:
      self.flush()

  def flush(self) -> None:
    """Returns when the file holds every line so far."""
    with self._writing:
      if self._error:
        raise self._error
      count = len(self._lines)  # more may come while these are written
      if count:
        text = "".join(line + "\n" for line in self._lines[:count])
        try:
          appending.append(self._path, text.encode())
        except BaseException as error:
          self._error = error
          raise
        del self._lines[:count]

  def close(self) -> None:
    """Ends the thread and flushes; a second call does nothing more."""
    self._ended.set()
    self._thread.join()
    self.flush()

  def _write_by_time(self) -> None:
    while not self._ended.wait(self._seconds):
      try:
        self.flush()
      except Exception:  # it is kept, and the next call raises it
        return
