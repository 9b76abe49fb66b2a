"""Batches on few canvases; example i follows from the seed and i alone."""

import collections
import hashlib

import numpy as np
import pytest

from input_pipeline import bucketed, dense_sources, loading, pipeline, sources
from input_pipeline.canvases import MULTIPLE
from input_pipeline.dense_boxes import Canvas, TrainBoxes
from input_pipeline.unreadable import UnreadableImages

BATCH = 6
EDGES = (32, 40, 48, 64, 72)


class Sized:
  """Images of given sizes that carry their number, each with one box."""

  name, split, ignored = "sized", "train", ""
  num_classes, class_names = 1, ("thing",)
  fingerprint, most_boxes = "", 1

  def __init__(self, sizes, broken=()):
    self.sizes = np.array(sizes, np.int32)
    self.broken = frozenset(broken)
    self.faults = {}

  def __len__(self):
    return len(self.sizes)

  def __getitem__(self, i):
    if not 0 <= i < len(self):
      raise IndexError(i)
    height, width = self.sizes[i]
    image = np.full((height, width, 3), i, np.uint8)
    label = np.array([(0, 0, width, height, 0, 0)], np.float32)
    return {"image": b"" if i in self.broken else image, "label": label}

  def ahead(self, numbers):
    pass

  def example_name(self, i):
    return f"image {i}"

  def file_of(self, i):
    return None


rng = np.random.default_rng(0)
SIZES = [
  (short, long) if i % 3 else (long, short)
  for i, (short, long) in enumerate(
    zip(rng.integers(20, 50, 16), rng.integers(50, 90, 16), strict=True)
  )
]
PORTRAIT = {i for i in range(16) if i % 3 == 0}


def how(seed=3, **changes):
  return bucketed.Bucketed(
    **{
      "batch_size": BATCH,
      "seed": seed,
      "short_edges": EDGES,
      "longest_edge": 120,
      "buckets": 2,
      "transform": TrainBoxes(max_boxes=2, flip_probability=0.5),
      **changes,
    }
  )


def stream(source=None, **changes):
  source = source or Sized(SIZES)
  readable = sources.ReadableSource(source)
  return how(**changes).stream(readable, source.sizes)


def number(row):
  """What image a row holds, by a pixel that is no padding."""
  return int(row["image"][0, 0, 0])


def digest(batch, first_row):
  """Adds up over processes, whatever arrays the batch has."""
  total = 0
  for row in range(len(batch["image"])):
    content = b"%d" % (first_row + row)
    for name in sorted(batch):
      content += b"%r" % (batch[name].shape[1:],) + batch[name][row].tobytes()
    total += int.from_bytes(hashlib.blake2b(content).digest()[:8], "little")
  return total % 2**64


def digests(updates, *, start=0, processes=1, workers=0, chunk=1, seed=3):
  """The digest of each global batch, and the canvases of their images."""
  source = sources.ReadableSource(Sized(SIZES))
  totals, shapes = np.zeros(updates, object), []
  for process in range(processes):
    rows = BATCH // processes
    batches = pipeline.train_iterator(
      how(seed=seed).stream(source, np.array(SIZES)),
      loading.Loading(
        num_workers=workers,
        num_threads=2,
        chunk_rows=chunk,
        row_bytes=how().row_bytes,
      ),
      rows=rows,
      start_step=start,
      process_index=process,
      process_count=processes,
      unreadable=UnreadableImages(source, "/dev/null", 1),
    )
    for k in range(updates):
      batch = next(batches)
      totals[k] += digest(batch, process * rows)
      shapes.append(batch["image"].shape[1:3])
    batches.close()
  return [total % 2**64 for total in totals], shapes


@pytest.mark.slow
def test_batches_do_not_depend_on_chunks_processes_or_restarts():
  whole, shapes = digests(9)
  assert len(set(whole)) == 9
  assert len(set(shapes)) >= 3  # batches of different shapes, one after another
  assert digests(9, chunk=3) == (whole, shapes)
  for processes in (2, 3):
    assert digests(9, processes=processes)[0] == whole
  assert digests(4, start=5)[0] == whole[5:]
  assert digests(3, start=6, processes=2)[0] == whole[6:]
  assert digests(9, seed=4)[0] != whole


@pytest.mark.slow
def test_batches_do_not_depend_on_workers():
  whole, shapes = digests(7)
  assert len(set(shapes[4:])) >= 2
  assert digests(3, start=4, workers=2, chunk=2) == (whole[4:], shapes[4:])


def test_a_batch_has_one_orientation_and_one_short_edge():
  examples = stream()
  seen = collections.Counter()
  for batch in range(25):
    rows = [examples[batch * BATCH + row] for row in range(BATCH)]
    (shape,) = {row["image"].shape[:2] for row in rows}
    (portrait,) = {number(row) in PORTRAIT for row in rows}
    edge = how().short_edge(batch)
    canvas = how().canvas(edge, portrait)
    assert shape == canvas[:2]
    assert (shape[0] > shape[1]) == portrait
    for row in rows:
      height, width = SIZES[number(row)]
      # Exactly the short edge, unless the image is longer than the canvas.
      long = edge * max(height, width) / min(height, width)
      short = min(edge, round(edge * canvas.longest / long))
      assert abs(min(row["size"]) - short) <= 1
      assert max(row["size"]) <= canvas.longest
    seen[edge, portrait] += 1
  assert {edge for edge, _ in seen} == {*EDGES}


def test_every_image_comes_once_an_epoch_of_its_orientation():
  examples = stream()
  order = {True: [], False: []}
  for batch in range(24):
    for row in range(BATCH):
      i = number(examples[batch * BATCH + row])
      order[i in PORTRAIT].append(i)
  for portrait, numbers in order.items():
    size = sum((i in PORTRAIT) == portrait for i in range(16))
    epochs = [numbers[k : k + size] for k in range(0, len(numbers), size)]
    whole = [epoch for epoch in epochs if len(epoch) == size]
    assert len(whole) >= 5
    assert all(len({*epoch}) == size for epoch in whole)
    assert len({tuple(epoch) for epoch in whole}) == len(whole)
  assert abs(len(order[True]) - 24 * BATCH * len(PORTRAIT) / 16) <= BATCH


@pytest.mark.parametrize("counts", [(10, 6), (1, 999), (7, 7), (5, 0), (0, 5)])
def test_orientations_have_their_shares(counts):
  came = [0, 0]
  for batch in range(2500):
    portrait, before = bucketed.orientation(batch, *counts)
    assert before == came[portrait]
    came[portrait] += 1
    for count, n in zip(counts, came, strict=True):
      assert abs(n - (batch + 1) * count / sum(counts)) < 1


def test_canvases_are_few_and_all_foreseen():
  examples = stream()
  shapes = {examples[k * BATCH]["image"].shape[:2] for k in range(60)}
  foreseen = how().canvases(np.array(SIZES))
  assert shapes == {canvas[:2] for canvas in foreseen}
  assert len(shapes) == 4
  for canvas in foreseen:
    assert not canvas.height % MULTIPLE
    assert not canvas.width % MULTIPLE
  assert len(how().canvases(np.array([(3, 4)]))) == 2


def test_mocos_edges_and_buckets():
  edges = tuple(range(480, 801, 32))
  many = how(short_edges=edges, longest_edge=1333, buckets=3)
  assert many.canvases(np.array([(3, 4), (4, 3)])) == [
    Canvas(576, 960, 960),
    Canvas(960, 576, 960),
    Canvas(704, 1184, 1173),
    Canvas(1184, 704, 1173),
    Canvas(800, 1344, 1333),
    Canvas(1344, 800, 1333),
  ]
  assert how(short_edges=(600,), buckets=3).canvas(600, False).height == 608


def test_every_batch_fits_into_a_workers_slot():
  for canvas in how().canvases(np.array(SIZES)):
    row = how().transform.row_bytes(canvas)
    slot = loading.Loading(
      num_workers=1, num_threads=1, chunk_rows=1, row_bytes=how().row_bytes
    ).slots.slot_bytes
    assert row + 8 * 64 <= slot  # each of at most eight arrays is aligned


def test_a_neighbour_of_another_orientation_stands_in():
  source = Sized([(30, 60), (60, 30)], broken=[0])
  row = next(
    row
    for row in (stream(source)[k] for k in range(0, 99, BATCH))
    if row["unreadable"] == 0
  )
  height, width = row["image"].shape[:2]
  assert height < width
  assert number(row) == 1
  assert row["size"][0] == height
  np.testing.assert_allclose(row["boxes"][0], [0, 0, *row["size"][::-1]])


def test_an_evaluation_needs_two_canvases():
  source = Sized(SIZES)
  part = dense_sources.DensePart(source, "test", range(1, 16))
  landscape, portrait = bucketed.evaluated(part, 64, 120)
  assert landscape[1] == Canvas(64, 128, 120)
  assert portrait[1] == Canvas(128, 64, 120)
  for images, canvas in (landscape, portrait):
    for i in range(len(images)):
      height, width = images[i]["image"].shape[:2]
      assert (height > width) == (canvas.height > canvas.width)
  assert len(landscape[0]) + len(portrait[0]) == 15
  assert len(bucketed.evaluated(portrait[0], 64, 120)) == 1
