"""The data position contract, padding, unreadable images, digests."""

import errno
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from input_pipeline import (
  augment,
  decoding,
  loading,
  pipeline,
  retries,
  sources,
)
from input_pipeline.errors import StorageError, UsageError
from input_pipeline.unreadable import UnreadableImages

VIEW = augment.View(
  crop_area=(0.3, 1.0),
  crop_aspect=(3 / 4, 4 / 3),
  crop_sampling="clamped",
  flip_probability=0.5,
  jitter_probability=0.8,
  brightness=0.4,
  brightness_mode="add",
  contrast=0.4,
  saturation=0.2,
  hue=0.1,
  grayscale_probability=0.2,
  blur_probability=0.5,
  blur_sigma=(0.1, 2.0),
  solarize_probability=0.2,
  solarize_threshold=0.5,
)
TWO_VIEWS = augment.TwoViews(size=8, view1=VIEW, view2=VIEW)
BATCH = 24


class Numbered:
  """Images that carry their index; those in `broken` cannot be decoded."""

  name = "numbered"
  num_classes = 5
  ignored = ""
  class_names = ()

  def __init__(self, length, broken=(), split="train"):
    self.length, self.broken, self.split = length, frozenset(broken), split

  def __len__(self):
    return self.length

  def ahead(self, numbers):
    pass

  def __getitem__(self, i):
    if not 0 <= i < self.length:
      raise IndexError(i)
    image = np.full((6, 7, 3), i % 256, np.uint8)
    image[4:] = np.random.default_rng(i).integers(0, 256, (2, 7, 3))
    broken = i in self.broken
    return {
      "image": b"not an image" if broken else image,
      "label": np.int32(i % 5),
    }

  def example_name(self, i):
    return f"image {i}"

  def file_of(self, i):
    return None


def digests(
  updates, *, start=0, processes=1, workers=0, source=None, seed=5, chunk=2
):
  """Digest of the global batch of each update, summed over processes."""
  source = sources.ReadableSource(source or Numbered(50))
  totals = np.zeros(updates, object)
  for process in range(processes):
    rows = BATCH // processes
    batches = pipeline.train_iterator(
      pipeline.view_stream(source, TWO_VIEWS, seed),
      loading.Loading(
        num_workers=workers, num_threads=2, chunk_rows=chunk, row_bytes=384
      ),
      rows=rows,
      start_step=start,
      process_index=process,
      process_count=processes,
      unreadable=UnreadableImages(source, "/dev/null", 1),
    )
    for k in range(updates):
      totals[k] += pipeline.batch_digest(next(batches), process * rows)
    batches.close()
  return [total % 2**64 for total in totals]


def open_batches(source, unreadable, *, workers=0, chunk=8):
  """All rows of the batches from the first update on."""
  return pipeline.train_iterator(
    pipeline.view_stream(source, TWO_VIEWS, 5),
    loading.Loading(
      num_workers=workers, num_threads=1, chunk_rows=chunk, row_bytes=384
    ),
    rows=BATCH,
    start_step=0,
    process_index=0,
    process_count=1,
    unreadable=unreadable,
  )


@pytest.mark.parametrize("chunk", [1, 4, 24])
def test_views_do_not_depend_on_chunks(chunk):
  assert digests(4, chunk=chunk) == digests(4)


@pytest.mark.slow
def test_views_do_not_depend_on_processes_or_restarts():
  whole = digests(9)
  assert len(set(whole)) == 9
  for processes in (2, 3, 4):
    assert digests(9, processes=processes) == whole
  assert digests(4, start=5) == whole[5:]
  assert digests(3, start=6, processes=2) == whole[6:]
  assert digests(9, seed=6) != whole


@pytest.mark.slow
def test_views_do_not_depend_on_workers():
  """One process with two workers is compared below, under signals."""
  whole = digests(7)
  assert digests(7, workers=3) == whole
  assert digests(3, start=4, workers=2, processes=2) == whole[4:]


def test_every_epoch_shows_each_image_once_in_a_new_order():
  source = sources.ReadableSource(Numbered(50))
  stream = pipeline.example_stream(source, seed=1)
  order = [int(stream[i]["image"][1, 1, 0]) for i in range(150)]
  epochs = [order[:50], order[50:100], order[100:]]
  assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
  assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
  assert epochs[0] != sorted(epochs[0])


def test_the_same_image_is_augmented_anew_in_each_epoch():
  source = sources.ReadableSource(Numbered(4))
  stream = pipeline.view_stream(source, TWO_VIEWS, seed=1)
  views = {stream[i]["view1"].tobytes() for i in range(40)}
  assert len(views) > 35  # a few are all black or all white


@pytest.mark.slow
def test_workers_survive_sigterm_and_end_with_the_iterator():
  source = sources.ReadableSource(Numbered(50))
  batches = open_batches(
    source, UnreadableImages(source, "/dev/null", 1), workers=2
  )
  told = []

  def tell():  # from their first moment on
    until = time.monotonic() + 300
    while len(told) < 20 or (len(set(told)) < 2 and time.monotonic() < until):
      for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGTERM)
        told.append(worker.pid)
      time.sleep(0.2)

  telling = threading.Thread(target=tell)
  telling.start()
  first = [pipeline.batch_digest(next(batches), 0)]
  assert len(multiprocessing.active_children()) == 2
  telling.join()
  assert len(set(told)) == 2
  first += [pipeline.batch_digest(next(batches), 0) for _ in range(8)]
  assert first == digests(9)
  batches.close()
  assert not multiprocessing.active_children()


def reader(process=0, processes=1, *, batch_size=8, workers=0):
  return pipeline.EvalReader(
    transform=augment.EvalCrop(size=6, ratio=1.0),
    batch_size=batch_size,
    num_workers=workers,
    num_threads=1,
    process_index=process,
    process_count=processes,
  )


def eval_batches(source, processes=1, batch_size=8):
  return [
    list(reader(p, processes, batch_size=batch_size).read(source))
    for p in range(processes)
  ]


@pytest.mark.parametrize(
  ("length", "processes"), [(21, 1), (21, 2), (16, 4), (3, 2)]
)
def test_evaluation_counts_every_example_once(length, processes):
  parts = eval_batches(Numbered(length), processes)
  assert len({len(part) for part in parts}) == 1
  seen = []
  for batches in zip(*parts, strict=True):
    for batch in batches:
      assert batch["image"].shape == (8 // processes, 6, 6, 3)
      assert not batch["image"][~batch["mask"]].any()
      assert (batch["label"][~batch["mask"]] == -1).all()
      seen.extend(batch["image"][batch["mask"]][:, 3, 3, 0].tolist())
  assert seen == list(range(length))


def test_evaluation_leaves_out_what_it_cannot_read():
  ((*batches,),) = eval_batches(Numbered(10, broken=[3, 9]))
  counted = np.concatenate([b["label"][b["mask"]] for b in batches])
  assert counted.tolist() == [i % 5 for i in range(10) if i not in (3, 9)]


@pytest.mark.slow
def test_workers_read_an_evaluation_as_threads_do(monkeypatch):
  """Both splits, by the same workers; those hear no signal and end in time."""
  splits = Numbered(21, broken=[3, 20]), Numbered(14)
  expected = list(reader().read(*splits))
  monkeypatch.setattr(loading, "_WORTH_WORKERS", 0)
  assert reader(workers=2).how(*splits).num_workers == 2
  read, told = reader(workers=2).read(*splits), set()
  for k, batch in enumerate(expected):  # 3 of the first split, 2 of the other
    found = next(read)
    for name, value in batch.items():
      np.testing.assert_array_equal(found[name], value)
    if k == 0:
      for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
        told.add(worker.pid)
  assert len(told) == 2
  assert next(read, None) is None
  assert not multiprocessing.active_children()
  half = reader(1, 2, workers=1).read(*splits)
  np.testing.assert_array_equal(next(half)["image"], expected[0]["image"][4:])
  half.close()  # as a preemption does
  assert not multiprocessing.active_children()


def test_unreadable_images_are_replaced_named_and_counted_once(tmp_path):
  source = sources.ReadableSource(Numbered(50, broken=[7, 8]))
  report = tmp_path / "unreadable.txt"
  found = UnreadableImages(source, str(report), 0.1)
  batches = open_batches(source, found)
  for _ in range(6):  # almost three epochs
    assert set(next(batches)) == {"view1", "view2", "label"}
  batches.close()
  assert found.indices == {7, 8}
  lines = sorted(report.read_text().splitlines())
  assert lines == ["7\t-\timage 7", "8\t-\timage 8"]


class Remote(Numbered):
  """Every read fails once before it succeeds, those of `lost` for good."""

  def __init__(self, length, lost=()):
    super().__init__(length)
    self.lost, self.seen = frozenset(lost), set()

  def __getitem__(self, i):
    if i in self.lost or i not in self.seen:
      self.seen.add(i)
      raise OSError(errno.EIO, "Input/output error", f"/remote/{i}")
    return super().__getitem__(i)


def test_storage_that_fails_for_a_while_changes_nothing(tmp_path):
  def batches(source):
    readable = sources.ReadableSource(source, delays=(0.001, 0.001))
    found = UnreadableImages(readable, str(tmp_path / "bad.txt"), 0)
    opened = open_batches(readable, found)
    taken = [next(opened) for _ in range(3)]
    opened.close()
    return [pipeline.batch_digest(batch, 0) for batch in taken]

  assert batches(Remote(50)) == batches(Numbered(50))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_storage_that_fails_for_good_ends_the_run(tmp_path, workers):
  source = sources.ReadableSource(Remote(50, lost=[3]), delays=(0.001,) * 2)
  found = UnreadableImages(source, str(tmp_path / "bad.txt"), 1)
  batches = open_batches(source, found, workers=workers)
  with pytest.raises(StorageError, match=r"images of numbered .*/remote/3"):
    list(batches)
  batches.close()
  assert not found.indices


def test_storage_that_fails_ends_an_evaluation(monkeypatch):
  monkeypatch.setattr(retries, "DELAYS", (0.001,) * 2)
  ((*batches,),) = eval_batches(Remote(10))
  assert sum(batch["mask"].sum() for batch in batches) == 10
  with pytest.raises(StorageError, match="/remote/4"):
    eval_batches(Remote(10, lost=[4]))


def test_too_many_unreadable_images_stop_the_run(tmp_path):
  source = sources.ReadableSource(Numbered(50, broken=range(5)))
  found = UnreadableImages(source, str(tmp_path / "bad.txt"), 0.06)
  found.see(np.array([-1, 0, 1, 2]))
  with pytest.raises(UsageError, match=r"4 of 50 .*0\.06.*bad\.txt"):
    found.see(np.array([3, -1]))


def test_digest_sees_content_position_and_label():
  source = sources.ReadableSource(Numbered(50))
  stream = pipeline.view_stream(source, TWO_VIEWS, 5)
  rows = [stream[i] for i in range(4)]
  batch = {
    name: np.stack([row[name] for row in rows])
    for name in ("view1", "view2", "label")
  }
  whole = pipeline.batch_digest(batch, 0)
  halves = [
    pipeline.batch_digest({k: v[part] for k, v in batch.items()}, part.start)
    for part in (slice(0, 2), slice(2, 4))
  ]
  assert sum(halves) % 2**64 == whole
  assert pipeline.batch_digest(batch, 1) != whole
  for name in batch:
    changed = {**batch, name: batch[name].copy()}
    changed[name].flat[0] ^= 1
    assert pipeline.batch_digest(changed, 0) != whole
  swapped = {k: v[[1, 0, 2, 3]] for k, v in batch.items()}
  assert pipeline.batch_digest(swapped, 0) != whole


def test_decoding_is_what_the_source_promises():
  with pytest.raises(decoding.ImageError):
    decoding.decode_image(Numbered(3, broken=[1])[1]["image"])
