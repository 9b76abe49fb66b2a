"""Whether a path lies in a bucket, where files are objects.

An object is written as a whole: it cannot be renamed and nothing can be added
to its end.
"""

import os
import pathlib


def holds(path: str, mounts: str) -> bool:
  """Whether `path` is in a bucket.

  A bucket mounted with gcsfuse looks like a local folder; only the list of
  mounts shows what it is. Links on the way are followed, because the list names
  folders by their real paths.

  Args:
    path: absolute path or gs://BUCKET/PATH.
    mounts: text of /proc/mounts, empty where there is none.
  """
  if path.startswith("gs://"):
    return True
  real = pathlib.PurePath(os.path.realpath(path))
  mounted, deepest = "", -1
  for line in mounts.splitlines():
    fields = line.split(" ")
    if len(fields) < 3:
      continue
    point = pathlib.PurePath(fields[1].replace("\\040", " "))
    depth = len(point.parts)
    # If there are two mounts on one point, the later one hides the other.
    if real.is_relative_to(point) and depth >= deepest:
      mounted, deepest = f"{fields[0]} {fields[2]}", depth
  return "gcsfuse" in mounted


def mounts() -> str:
  """What is mounted on this machine, as `holds` wants it."""
  try:
    return pathlib.Path("/proc/mounts").read_text()
  except OSError:
    return ""
