"""Other processes of this machine, by /proc."""

import os
import pathlib


def children(pid):
  """Numbers of the processes that `pid` started."""
  return [
    int(name)
    for name in filter(str.isdigit, os.listdir("/proc"))
    if _stat(name)[1] == pid
  ]


def command(pid):
  """Its command line; empty if it is gone."""
  try:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_text()
  except OSError:
    return ""


def lives(pid):
  """Whether it runs; one that only waits to be waited for does not."""
  return _stat(pid)[0] not in "ZX"


def _stat(pid):
  """Letter of its state, X if it is gone, and the number of its parent."""
  try:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return "X", 0
  letter, parent = text.rpartition(")")[2].split()[:2]
  return letter, int(parent)
