"""Processes that end with the one that started them, and by nothing else."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def born_deaf(*numbers: signal.Signals) -> Iterator[None]:
  """Processes started within never hear these signals.

  Ctrl-C, a closed terminal and a preemption reach the whole group, and a child
  that has not come to its first line yet would end, or print a traceback. They
  inherit the mask of signals from the thread that starts them. In this process
  other threads go on hearing.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
  try:
    # Python's own helper process, which inherits the mask too. It must not be
    # started later: that would end the blocking of SIGINT and SIGTERM.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_children() -> None:
  """Kills what `multiprocessing` started here; for a process that ends at once.

  They would end by themselves, but one that is just being started would find
  half of what it is told, and print a traceback. Python's own helper stays, and
  removes what they leave.
  """
  for listing in pathlib.Path("/proc/self/task").glob("*/children"):
    with contextlib.suppress(OSError):
      for pid in listing.read_text().split():
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"multiprocessing.spawn" in command:
          os.kill(int(pid), signal.SIGKILL)


def end_with_parent() -> None:
  """Ends this process soon after its parent; a SIGKILL leaves it no farewell.

  Not by the kernel's parent-death signal: that comes when the *thread* that
  started the process ends. Not by asking the kernel who the parent is, only: it
  may be gone already.
  """
  parent = multiprocessing.parent_process()
  pid = parent.pid if parent else os.getppid()
  threading.Thread(target=_watch, args=(pid,), daemon=True).start()


def _watch(parent: int | None) -> None:
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)
