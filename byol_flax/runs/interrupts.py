"""A thread that answers Ctrl-C and a closed terminal.

Python answers Ctrl-C by an exception, which it raises wherever the main thread
happens to be. In a callback whose exceptions are ignored it is lost, and while
a compiler works it is not raised at all. So the handler here does nothing.
Instead Python's C code writes a byte into a pipe the moment the signal comes
(`signal.set_wakeup_fd`), whatever the main thread is doing; a thread reads the
byte and ends the process.

Thus no `finally` block runs. What must be done before the end is a callback
(`when_leaving`). The state is global because a process has one set of handlers.
"""

import contextlib
import dataclasses
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

from byol_flax.runs import console
from input_pipeline import parents

EXIT_CODE = 130  # what shells report of a command that SIGINT ended
_SECONDS = 1.5  # for the callbacks; the process ends within two


@dataclasses.dataclass
class _State:
  """What this process does when it is interrupted.

  Attributes:
    listening: whether a thread waits for signals.
    sentence: what it says when it ends the process.
    callbacks: called before the end, the newest first.
    saves: whether the first Ctrl-C is handed on as SIGTERM.
    saved: whether nothing was left unsaved on purpose.
    handed_on: whether one was.
    status: exit status of the process, once it has nothing left to do.
    ending: held by whoever decides how the process ends.
  """

  listening: bool = False
  sentence: str = ""
  callbacks: list[Callable[[], object]] = dataclasses.field(
    default_factory=list
  )
  saves: bool = False
  saved: bool = True
  handed_on: bool = False
  status: int | None = None
  ending: threading.Lock = dataclasses.field(default_factory=threading.Lock)


_state = _State()


def listen(sentence: str) -> None:
  """From now on Ctrl-C ends this process within two seconds, with status 130.

  A second Ctrl-C ends it at once. A process that was started with SIGINT
  ignored, as jobs in the background of a script are, goes on ignoring it.

  Args:
    sentence: what to say then.
  """
  _state.listening, _state.sentence = True, sentence
  # Python's resource tracker removes the semaphores of a process that ended
  # like this, and would write a warning about them.
  others = os.environ.get("PYTHONWARNINGS")
  hushed = "ignore:resource_tracker"
  os.environ["PYTHONWARNINGS"] = f"{others},{hushed}" if others else hushed
  warnings.filterwarnings("ignore", "resource_tracker")
  pipe, write_end = os.pipe()
  os.set_blocking(write_end, False)
  signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
  _hear(signal.SIGINT)
  threading.Thread(
    target=_wait, args=(pipe,), daemon=True, name="signals"
  ).start()


def end(status: int) -> NoReturn:
  """Ends this process, which has nothing left to do.

  Ctrl-C can still cut short the interpreter's own end; then the status is the
  same, and nothing is said. If Ctrl-C came just before, this waits for the
  process to end.
  """
  with _state.ending:
    _state.status = status
  sys.exit(status)


def terminate_on_hangup() -> None:
  """From now on a closed terminal counts as SIGTERM, unless under `nohup`."""
  if _state.listening:
    _hear(signal.SIGHUP)


@contextlib.contextmanager
def when_leaving(*callbacks: Callable[[], object]) -> Iterator[None]:
  """Within the block, Ctrl-C calls these before it ends the process.

  They are called in another thread and have 1.5 seconds in all.
  """
  _state.callbacks.extend(callbacks)
  try:
    yield
  finally:
    for callback in callbacks:
      _state.callbacks.remove(callback)


def hand_on(wanted: bool) -> None:
  """From now on, if wanted, the first Ctrl-C counts as SIGTERM, which saves."""
  _state.saves = wanted


def nothing_saved() -> None:
  """Says that what was unsaved was not fit to be saved."""
  _state.saved = False


def saved() -> bool:
  """Whether what `hand_on` was told of was saved, if Ctrl-C was handed on."""
  return _state.saved


def handed_on() -> bool:
  """Whether a preemption of this process was a Ctrl-C."""
  return _state.handed_on


def _hear(number: signal.Signals) -> None:
  if signal.getsignal(number) is not signal.SIG_IGN:
    signal.signal(number, lambda *_: None)


def _wait(pipe: int) -> None:
  """Waits for signals and answers them, for ever."""
  while True:
    for number in os.read(pipe, 64):
      if number == signal.SIGHUP:
        os.kill(os.getpid(), signal.SIGTERM)
      elif number == signal.SIGINT and _state.saves and not _state.handed_on:
        _state.handed_on = True
        console.say(
          "interrupted; saving after the update under way. Ctrl-C again ends "
          "at once."
        )
        os.kill(os.getpid(), signal.SIGTERM)
      elif number == signal.SIGINT:
        _end(pipe)


def _end(pipe: int) -> None:
  """Ends this process, after the callbacks unless they take too long.

  The interpreter is not ended in order, because a compilation that goes on in
  XLA's threads would crash it.
  """
  with _state.ending:
    if _state.status is None:
      _say_why(pipe)
    parents.kill_children()
    os._exit(EXIT_CODE if _state.status is None else _state.status)


def _say_why(pipe: int) -> None:
  """Says the last words and calls the callbacks, until the next Ctrl-C."""
  # In a thread, because a stopped terminal or a dead host may hold it up.
  speaker = threading.Thread(target=_take_leave, daemon=True)
  with contextlib.suppress(RuntimeError):  # the interpreter ends already
    speaker.start()
  until = time.monotonic() + _SECONDS
  while speaker.is_alive() and time.monotonic() < until:
    again, _, _ = select.select([pipe], [], [], 0.02)
    if again and signal.SIGINT in os.read(pipe, 64):
      break


def _take_leave() -> None:
  console.say_last(_state.sentence)
  for callback in reversed(_state.callbacks):
    with contextlib.suppress(Exception):
      callback()
