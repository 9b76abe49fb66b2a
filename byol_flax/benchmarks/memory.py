"""How much memory processes hold, as the kernel counts it."""

import ctypes
import gc
import os
import pathlib
import re


def of_process(name: str, pid: int | None = None) -> int:
  """Bytes of a process, this one if not said.

  Args:
    name: of the kernel's figures: VmRSS, all now; VmHWM, all at most; RssAnon,
      its own now; RssShmem, what it shares with others now.
    pid: of the process.
  """
  status = pathlib.Path(f"/proc/{pid or os.getpid()}/status").read_text()
  found = re.search(rf"{name}:\s+(\d+) kB", status)
  return int(found[1]) * 1024 if found else 0


def settle() -> None:
  """Gives back what was used and freed."""
  gc.collect()
  ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
  """Lets this process's VmHWM start from what is in use now."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")
