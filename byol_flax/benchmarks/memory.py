"""Asks the kernel how much memory a process holds."""

import ctypes
import gc
import os
import pathlib
import re


def of_process(name: str, pid: int | None = None) -> int:
  """Bytes that a process holds.

  Args:
    name: of a figure of the kernel: VmRSS, all that it holds now; VmHWM, the
      most that it ever held; RssAnon, its own memory now; RssShmem, what it
      shares with others now.
    pid: of the process; by default this one.
  """
  status = pathlib.Path(f"/proc/{pid or os.getpid()}/status").read_text()
  found = re.search(rf"{name}:\s+(\d+) kB", status)
  return int(found[1]) * 1024 if found else 0


def settle() -> None:
  """Returns freed memory to the kernel."""
  gc.collect()
  ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
  """Resets this process's VmHWM to what it holds now."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")
