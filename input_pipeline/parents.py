"""Processes that end with the one that started them."""

import multiprocessing
import os
import threading
import time


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
