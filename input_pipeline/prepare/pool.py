"""Work in several processes, a little of it under way at a time."""

import concurrent.futures
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from input_pipeline import parents


def run_all(
  function: Callable[..., Any], tasks: Sequence[tuple], num_workers: int
) -> Iterable[Any]:
  """Yields the results of `function(*task)` as they come, in any order."""
  if num_workers <= 1 or len(tasks) <= 1:
    for task in tasks:
      yield function(*task)
    return
  # Not forked: threads of this process may hold locks.
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(
    num_workers, context, initializer=parents.end_with_parent
  ) as pool:
    waiting = list(reversed(tasks))
    running: set[concurrent.futures.Future] = set()
    try:
      while waiting or running:
        while waiting and len(running) < 2 * num_workers:
          # Not deaf to SIGTERM, by which the pool ends those that are left
          # when one of them is killed.
          with parents.born_deaf(signal.SIGINT):
            running.add(pool.submit(function, *waiting.pop()))
        done, running = concurrent.futures.wait(
          running, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
          yield future.result()
    finally:
      for future in running:
        future.cancel()
