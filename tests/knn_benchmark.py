"""Our exact search for nearest neighbours beside faiss's, on this CPU.

Command: JAX_PLATFORMS=cpu python -m tests.knn_benchmark [NEIGHBOURS ...]
Needs the extra [bench]. Looks for the neighbours of 10,000 queries among
100,000 rows of 512 numbers, 20 and 200 of them unless told otherwise, in turns
with `IndexFlatIP`. Prints the seconds of each turn by the clock and, in
brackets, those that all cores together spent on it, which tell more if other
work shares the machine; then the ratio of the least of both. Three minutes on
two cores.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import faiss
import jax
import numpy as np

from byol_flax import sharding
from byol_flax.evaluation import neighbours, rows

_BANK, _QUERIES, _WIDTH = 100_000, 10_000, 512
_BATCH = 512  # queries, as in configs/knn.py
_TURNS = 5


class Turn(NamedTuple):
  """Seconds of one search by the clock, and of all cores together."""

  seconds: float
  cores: float


def main(*counts: str) -> None:
  """Measures each number of neighbours."""
  rng = np.random.default_rng(0)
  bank, queries = (_directions(rng, count) for count in (_BANK, _QUERIES))
  index = faiss.IndexFlatIP(_WIDTH)
  index.add(bank)
  mesh = sharding.make_mesh()
  labels = np.zeros(_BANK, np.int32)
  ours = neighbours.make_bank(rows.put(bank, labels, mesh), mesh)

  def search(k: int) -> np.ndarray:
    found = [
      ours.nearest(
        sharding.put_everywhere(mesh, queries[start : start + _BATCH]), k
      ).place
      for start in range(0, _QUERIES, _BATCH)
    ]
    return np.concatenate(jax.device_get(found))

  print(f"{sharding.describe(mesh)}; faiss {faiss.__version__}")
  for k in [int(count) for count in counts] or [20, 200]:
    search(k)  # compiles
    times: dict[str, list[Turn]] = {"ours": [], "faiss": []}
    for _ in range(_TURNS):
      mine = _timed(times["ours"], lambda k=k: search(k))
      _, theirs = _timed(times["faiss"], lambda k=k: index.search(queries, k))
    for name, turns in times.items():
      told = ", ".join(f"{t.seconds:.2f} ({t.cores:.2f})" for t in turns)
      print(f"k {k}, {name}: {told} s")
    wall, cores = (
      min(getattr(turn, what) for turn in times["ours"])
      / min(getattr(turn, what) for turn in times["faiss"])
      for what in ("seconds", "cores")
    )
    # Where two rows are equally near but for rounding, they may change places.
    same = np.mean(mine == theirs)
    print(
      f"k {k}: {wall:.2f} times faiss's time, {cores:.2f} of its cores' "
      f"time; {same:.4%} of places equal"
    )


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
  x = rng.normal(size=(count, _WIDTH)).astype(np.float32)
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def _timed(turns: list[Turn], work: Callable[[], Any]) -> Any:
  began, used = time.perf_counter(), time.process_time()
  found = work()
  turns.append(Turn(time.perf_counter() - began, time.process_time() - used))
  return found


if __name__ == "__main__":
  main(*sys.argv[1:])
