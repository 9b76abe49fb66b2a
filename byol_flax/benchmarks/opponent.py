"""Runs updates of another library in a process of its own.

On a processor both sides take turns, each as if it were alone except for the
memory that the other keeps. On a GPU the opponent is done before ours begins:
beside an idle process of ours PyTorch's tuning of kernels never ended on an
H200. If the opponent fails or hangs, our own measurement goes on.
"""

import multiprocessing
import multiprocessing.connection
import signal
import time
from collections.abc import Callable
from typing import Any

from input_pipeline import parents
from input_pipeline.errors import UsageError

MakeUpdate = Callable[..., Callable[[], None]]

_SECONDS_TO_END = 5
# In which an update is done, or the first one compiled.
_SECONDS_TO_ANSWER = 600


class OpponentError(Exception):
  """The opponent failed; the text says why, in a line."""


class Opponent:
  """A process that does an update when it is told to; close it at the end."""

  def __init__(self, make_update: MakeUpdate, *arguments: Any) -> None:
    """Starts the process, in which `make_update(*arguments)` is called."""
    context = multiprocessing.get_context("spawn")
    self._pipe, theirs = context.Pipe()
    # No daemon, because it may start processes that compile.
    self._process = context.Process(
      target=_serve, args=(theirs, make_update, arguments)
    )
    self._process.start()
    theirs.close()

  def update(self) -> float:
    """Does an update and returns its seconds; the first call waits longer.

    Raises:
      OpponentError: the opponent failed, hangs or is gone.
    """
    try:
      self._pipe.send(None)
      if not self._pipe.poll(_SECONDS_TO_ANSWER):
        raise OpponentError(f"no update was done in {_SECONDS_TO_ANSWER} s")
      answer = self._pipe.recv()
    except (EOFError, OSError):
      self._process.join(_SECONDS_TO_END)
      raise OpponentError(
        f"its process ended with {self._process.exitcode}"
      ) from None
    if isinstance(answer, str):
      raise OpponentError(answer)
    return answer

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.join()
    self._pipe.close()


def _serve(
  pipe: multiprocessing.connection.Connection,
  make_update: MakeUpdate,
  arguments: tuple[Any, ...],
) -> None:
  """In the process: answers each message with the seconds of an update."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
  parents.end_with_parent()
  try:
    update = make_update(*arguments)
    while True:
      pipe.recv()
      pipe.send(seconds(update))
  except EOFError:
    return
  except UsageError as error:
    pipe.send(str(error))
  except Exception as error:
    first_line = (str(error).splitlines() or ["no reason given"])[0]
    pipe.send(f"{type(error).__name__}: {first_line[:200]}")


def seconds(update: Callable[[], None]) -> float:
  """How long an update takes."""
  begun = time.perf_counter()
  update()
  return time.perf_counter() - begun
