"""Runs tasks in several processes, with only a few under way at a time."""

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
  # A forked process could inherit locks that threads of this one hold.
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(
    num_workers, context, initializer=parents.end_with_parent
  ) as pool:
    waiting = list(reversed(tasks))
    running: set[concurrent.futures.Future] = set()
    try:
      while waiting or running:
        while waiting and len(running) < 2 * num_workers:
          # They must hear SIGTERM: by it the pool ends the others when one of
          # them is killed.
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
