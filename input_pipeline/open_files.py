"""Raises the number of files that a process may hold open at once."""

import resource

from input_pipeline.errors import UsageError

_OTHERS = 128  # libraries, pipes to workers, a run's files, shards read ahead


def make_room(count: int, what: str) -> None:
  """Makes sure that this process and its children may open `count` files.

  A process may raise its own limit, usually 1,024, to a higher one that the
  system sets.

  Args:
    count: how many files will stay open.
    what: names them in the message.

  Raises:
    UsageError: the system's own limit is lower.
  """
  needed = count + _OTHERS
  limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  if limit == resource.RLIM_INFINITY or needed <= limit:
    return
  if most != resource.RLIM_INFINITY and needed > most:
    raise UsageError(
      f"{what} are {count:,} files, which stay open while they are read, but a "
      f"process of yours may open no more than {most:,}. Have that limit "
      f"raised to {needed:,} (ulimit -Hn)."
    )
  resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
