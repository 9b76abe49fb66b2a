"""Does something with every example of a source, in order."""

import collections
import concurrent.futures
from collections.abc import Callable, Generator
from typing import TypeVar

from input_pipeline import loading, sources

T = TypeVar("T")

_BLOCK = 64  # examples that a thread takes at a time


def of_every(
  source: sources.Source | sources.ReadableSource, task: Callable[[int], T]
) -> Generator[T, None, None]:
  """Yields `task` of each example's number, in order; all cores work.

  They run at most one block a core ahead of the reader, so that little is done
  in vain if the reader stops early.

  Args:
    source: what `task` reads of.
    task: takes the number of an example.
  """

  def block(numbers: range) -> list[T]:
    source.ahead(numbers)
    return [task(i) for i in numbers]

  count, cores = len(source), loading.available_cores()
  threads = concurrent.futures.ThreadPoolExecutor(cores)
  under_way: collections.deque[concurrent.futures.Future[list[T]]] = (
    collections.deque()
  )
  try:
    for start in range(0, count, _BLOCK):
      numbers = range(start, min(start + _BLOCK, count))
      under_way.append(threads.submit(block, numbers))
      if len(under_way) > cores:
        yield from under_way.popleft().result()
    while under_way:
      yield from under_way.popleft().result()
  finally:
    threads.shutdown(cancel_futures=True)
