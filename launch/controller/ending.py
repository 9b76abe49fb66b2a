"""How a command ends: whatever happens becomes one `Ended`."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

# Ctrl-C, the end of the machine, and a terminal that was closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(Exception):
  """Says how a command has ended.

  Attributes:
    status: exit status of the program.
    sentence: why, for the person; "" if there is nothing to say.
    in_time: whether it ends as it was meant to, so that --delete=done counts.
  """

  def __init__(self, status: int, sentence: str, in_time: bool = False) -> None:
    super().__init__(sentence)
    self.status = status
    self.sentence = sentence
    self.in_time = in_time

  @property
  def interrupted(self) -> bool:
    """Whether a signal has ended it."""
    return self.status > 128


class Interrupted(BaseException):
  """A signal came; only `end_of` catches it.

  Attributes:
    status: exit status of the program, 128 and the number of the signal.
  """

  def __init__(self, status: int) -> None:
    super().__init__(status)
    self.status = status


def answer_signals() -> None:
  """Makes a signal that ends the program raise Interrupted, once.

  What was ignored when the program began stays so, as `nohup` wants it.
  """
  for number in _SIGNALS:
    if signal.getsignal(number) != signal.SIG_IGN:
      signal.signal(number, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> None:
  for other in _SIGNALS:
    signal.signal(other, signal.SIG_IGN)
  raise Interrupted(128 + number)


def end_of(work: Callable[[], None]) -> Ended:
  """Does the work, and says how that has ended, whatever happens."""
  try:
    work()
  except Ended as end:
    return end
  except Interrupted as interrupted:
    return Ended(interrupted.status, "Interrupted.")
  except Exception:
    with contextlib.suppress(OSError):
      traceback.print_exc()
    return Ended(1, "The launcher has a fault, see the lines above.")
  return Ended(0, "", in_time=True)


def tell(end: Ended) -> None:
  """Says why it has ended; a terminal that is gone is no matter."""
  if not end.sentence:
    return
  with contextlib.suppress(OSError):
    if end.status:
      print(f"tpu_vm.sh: {end.sentence}", file=sys.stderr, flush=True)
    else:
      print(end.sentence, flush=True)
