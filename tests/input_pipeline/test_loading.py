"""Who makes the batches, and the memory in which workers hand them over."""

import math
import multiprocessing
import os
import threading
import time

import numpy as np
import pytest

from input_pipeline import handover, loading, pipeline, sources
from input_pipeline.errors import UsageError
from input_pipeline.unreadable import UnreadableImages
from tests.input_pipeline.test_pipeline import TWO_VIEWS, Numbered

MIB = 2**20
EXAMPLE = {
  "view": np.zeros((5, 7, 3), np.uint8),
  "draw": np.zeros((2, 3), np.float32),
  "label": np.int32(0),
}


@pytest.mark.parametrize(
  ("rows", "row_bytes", "chunk"),
  [
    (64, 301_056, 16),  # 27 fit into 8 MiB, of which 16 divide 64
    (4096, 301_056, 16),
    (24, 301_056, 24),
    (61, 301_056, 1),
    (64, 500, 64),
    (3, 100 * MIB, 1),
  ],
)
def test_chunks_divide_the_rows_and_are_of_bounded_size(rows, row_bytes, chunk):
  found = loading.choose_loading(
    num_workers=3, num_threads=2, rows=rows, row_bytes=row_bytes
  )
  assert (found.num_workers, found.num_threads) == (3, 2)
  assert found.chunk_rows == chunk
  most = math.ceil((3 + 2 + 3) * chunk * (row_bytes + 512) / MIB)
  assert str(found) == (
    f"3 worker(s) with 2 thread(s) each, {chunk} images at a time; at most "
    f"{most} MiB of finished images in each"
  )


def test_one_worker_per_core_that_this_process_may_use():
  found = loading.choose_loading(
    num_workers=-1, num_threads=1, rows=8, row_bytes=9
  )
  assert found.num_workers == loading.available_cores()
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {min(before)})
  try:
    assert loading.available_cores() == 1
  finally:
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
  ("images", "size", "workers", "expected"),
  [
    (60_000, 32, 16, "16 worker(s) with 2 thread(s) each, 125 images"),
    (10_000, 32, 16, "2 thread(s) of this process, 500 images"),  # a second
    (10_000, 224, 16, "16 worker(s) with 2 thread(s) each, 25 images"),
    (1_000, 224, 16, "2 thread(s) of this process, 50 images"),
    (10_000, 224, 3, "3 worker(s)"),  # as the config says
    (10_000, 224, 0, "2 thread(s) of this process"),
  ],
)
def test_workers_read_once_where_that_takes_longer_than_their_start(
  images, size, workers, expected, monkeypatch
):
  monkeypatch.setattr(loading, "available_cores", lambda: 2)
  found = loading.choose_once(
    num_workers=workers,
    num_threads=2,
    batches=images // 500,
    rows=500,
    row_bytes=3 * size**2,
  )
  assert str(found).startswith(expected)


def owner(slots=2, slot_bytes=4096, workers=2):
  return handover.Owner(handover.Shape(workers, slots, slot_bytes))


def test_a_slot_holds_what_was_written_until_it_is_freed():
  ours = owner()
  rng = np.random.default_rng(0)
  for _ in range(5):  # slots come again
    filled, arrays = ours.memory.reserve(1, EXAMPLE, 4)
    written = {
      "view": rng.integers(0, 256, (4, 5, 7, 3), np.uint8),
      "draw": rng.normal(size=(4, 2, 3)).astype(np.float32),
      "label": rng.integers(-1, 9, 4).astype(np.int32),
    }
    for name, value in written.items():
      arrays[name][:] = value
    for name, value in ours.memory.arrays(filled).items():
      assert value.dtype == written[name].dtype
      np.testing.assert_array_equal(value, written[name])
    ours.memory.free(filled)
  ours.close()


def test_slots_are_not_given_out_twice():
  ours = owner(slots=2)
  (first, a), (second, b) = (
    ours.memory.reserve(0, EXAMPLE, 4) for _ in range(2)
  )
  assert ours.memory.reserve(0, EXAMPLE, 4) is None
  other, c = ours.memory.reserve(1, EXAMPLE, 4)  # another worker's
  for value, arrays in enumerate((a, b, c)):
    arrays["view"][:] = value
  for value, filled in enumerate((first, second, other)):
    assert np.all(ours.memory.arrays(filled)["view"] == value)
  ours.memory.free(first)
  assert ours.memory.reserve(0, EXAMPLE, 4)[0].slot == first.slot
  ours.close()


def test_rows_that_do_not_fit_get_no_slot():
  ours = owner(slot_bytes=1024)
  assert ours.memory.reserve(0, EXAMPLE, 8) is None
  assert ours.memory.reserve(0, EXAMPLE, 4) is not None
  ours.close()


def test_threads_of_a_worker_get_different_slots():
  ours, got = owner(slots=64), []

  def take():
    got.extend(ours.memory.reserve(0, EXAMPLE, 1)[0].slot for _ in range(8))

  threads = [threading.Thread(target=take) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(got) == list(range(64))
  ours.close()


def _fill(address, queue):
  handover.attach(address, worker=1)
  filled, arrays = handover.reserve(EXAMPLE, 3)
  arrays["view"][:] = 42
  queue.put(filled)


@pytest.mark.slow
def test_a_worker_writes_into_the_memory_of_its_trainer():
  ours = owner()
  context = multiprocessing.get_context("spawn")
  queue = context.Queue()
  worker = context.Process(target=_fill, args=(ours.address, queue))
  worker.start()
  filled = queue.get(timeout=300)
  worker.join()
  assert filled.worker == 1
  assert np.all(ours.memory.arrays(filled)["view"] == 42)
  assert handover.reserve(EXAMPLE, 3) is None  # not in the trainer itself
  ours.close()


def batches_of(source, **changes):
  how = {"num_workers": 0, "num_threads": 1, "chunk_rows": 4, "row_bytes": 384}
  return pipeline.train_iterator(
    pipeline.view_stream(source, TWO_VIEWS, 5),
    loading.Loading(**{**how, **changes}),
    rows=8,
    start_step=0,
    process_index=0,
    process_count=1,
    unreadable=UnreadableImages(source, "/dev/null", 1),
  )


@pytest.mark.slow
def test_chunks_without_a_slot_arrive_all_the_same(monkeypatch):
  """Slots of four bytes hold nothing; Grain carries the rows itself."""
  monkeypatch.setattr(loading, "_OTHER_BYTES", 0)
  source = sources.ReadableSource(Numbered(50))
  expected = batches_of(source)
  found = batches_of(source, num_workers=2, row_bytes=1)
  for _ in range(6):
    ours, theirs = next(found), next(expected)
    assert set(ours) == {"view1", "view2", "label"}
    for name, value in theirs.items():
      np.testing.assert_array_equal(ours[name], value)
  expected.close()
  found.close()


def test_batches_are_read_ahead_and_no_further():
  seen = []

  class Watched(Numbered):
    def __getitem__(self, i):
      seen.append(i)
      return super().__getitem__(i)

  batches = batches_of(sources.ReadableSource(Watched(5000)))
  deadline = time.monotonic() + 300
  while len(seen) < 24 and time.monotonic() < deadline:
    time.sleep(0.05)  # nobody has asked for a batch yet
  time.sleep(0.5)
  # Two batches wait, one is being put, and some chunks are read ahead.
  assert 24 <= len(seen) <= 24 + 5 * 4
  batches.close()
  read = len(seen)
  time.sleep(0.3)
  assert len(seen) == read
  assert not [t for t in threading.enumerate() if t.name == "input"]


def test_an_error_is_raised_where_the_batch_is_awaited():
  class Broken(Numbered):
    def __getitem__(self, i):
      if i == 7:
        raise UsageError("Image 7 has label 99.")
      return super().__getitem__(i)

  batches = batches_of(sources.ReadableSource(Broken(9)))
  for _ in range(2):  # and again
    with pytest.raises(UsageError, match="label 99"):
      for _ in batches:
        pass
  batches.close()
