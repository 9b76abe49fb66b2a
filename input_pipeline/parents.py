"""Child processes that end with their parent, and not by its signals."""

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
  """Processes that are started within the block never hear these signals.

  Ctrl-C, a closed terminal and a preemption reach the whole process group. A
  child that has not come to its first line yet would end or print a traceback.
  So the signals are blocked in this thread, and a child inherits that. Other
  threads of this process still hear them.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
  try:
    # Python's own helper process inherits the blocking too. If it were started
    # later, it would unblock SIGINT and SIGTERM.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_children() -> None:
  """Kills what `multiprocessing` started, before this process ends at once.

  The children would end by themselves. But one that is just starting would be
  told only half of its task, and print a traceback. Python's own helper process
  stays, and removes what they leave.
  """
  for listing in pathlib.Path("/proc/self/task").glob("*/children"):
    with contextlib.suppress(OSError):
      for pid in listing.read_text().split():
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"multiprocessing.spawn" in command:
          os.kill(int(pid), signal.SIGKILL)


def end_with_parent() -> None:
  """Ends this process soon after its parent, even if that was killed.

  The kernel's parent-death signal will not do: it comes when the *thread* that
  started the process ends. And if the parent is gone already, the kernel names
  another parent; so the number that `multiprocessing` knows is compared.
  """
  parent = multiprocessing.parent_process()
  pid = parent.pid if parent else os.getppid()
  threading.Thread(target=_watch, args=(pid,), daemon=True).start()


def _watch(parent: int | None) -> None:
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)
