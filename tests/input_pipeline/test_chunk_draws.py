"""Draws of a whole chunk against Grain, which draws for one example."""

import contextlib
import dataclasses

import grain
import numpy as np
import pytest

from input_pipeline import (
  augment,
  chunk_draws,
  loading,
  pipeline,
  resident,
  sources,
)
from input_pipeline.errors import RunError
from input_pipeline.unreadable import UnreadableImages
from tests.input_pipeline.test_pipeline import VIEW, Numbered

OTHER = dataclasses.replace(
  VIEW,
  crop_area=(0.08, 0.9),
  crop_sampling="retried",
  brightness_mode="multiply",
  hue=0.2,
  solarize_threshold=0.4,
)


@pytest.mark.slow
def test_draws_of_a_chunk_are_those_of_each_example():
  """Bit for bit, wherever the chunk begins: in another epoch, after a restart.

  The other side is Grain's own order and generators, one example at a time.
  """
  rng = np.random.default_rng(3)
  for length, seed in [(1, 0), (3, 7), (257, 1), (65_537, 2**32 - 2)]:
    sizes = rng.integers(1, 700, (length, 2)).astype(np.int32)
    whole = resident.Resident(
      images=np.zeros((0, 0, 0, 3), np.uint8),
      turned=sizes[:, 0] > sizes[:, 1],
      sizes=sizes,
      label=rng.integers(-1, 9, length).astype(np.int32),
      unreadable=rng.integers(-1, 2, length),
    )
    transform = augment.TwoDraws(size=8, view1=VIEW, view2=OTHER)

    def packed(i, generator, transform=transform, sizes=sizes):
      draws = transform.draw(*sizes[i].tolist(), generator)
      return i, np.stack([augment.pack(draw) for draw in draws])

    oracle = grain.MapDataset.range(length).shuffle(seed=seed).repeat(None)
    oracle = oracle.random_map(packed, seed=seed + 1)
    stream = resident.DrawStream(whole, transform, seed)
    for first in (0, length - 1, int(rng.integers(10**12))):
      rows = stream.rows(first, 40)
      places, draws = zip(*(oracle[first + k] for k in range(40)), strict=True)
      np.testing.assert_array_equal(rows["draw"], np.stack(draws))
      assert rows["index"].tolist() == list(places)
      for name in ("turned", "label", "unreadable"):
        expected = getattr(whole, name)[list(places)]
        np.testing.assert_array_equal(rows[name], expected)


def test_a_grain_that_draws_otherwise_is_refused(monkeypatch):
  chunk_draws.check_grain(3, 4)
  monkeypatch.setattr(chunk_draws, "generator_key", lambda _: np.zeros(2, "u8"))
  with pytest.raises(RunError, match=r"Grain \S+ orders .*cache=none"):
    chunk_draws.check_grain(3, 4)


def test_batches_of_draws_do_not_depend_on_processes_or_restarts():
  transform = augment.TwoDraws(size=8, view1=VIEW, view2=OTHER)
  source = sources.ReadableSource(Numbered(20, broken=[3]))
  stream = resident.DrawStream(resident.load(source), transform, 5)

  def batches(start, process=0, processes=1, chunk=4):
    rows = 24 // processes
    opened = pipeline.train_iterator(
      stream,
      loading.Loading(
        num_workers=0, num_threads=1, chunk_rows=chunk, row_bytes=152
      ),
      rows=rows,
      start_step=start,
      process_index=process,
      process_count=processes,
      unreadable=UnreadableImages(source, "/dev/null", 1),
    )
    with contextlib.closing(opened):
      return [next(opened) for _ in range(3)]

  whole = batches(2)
  halves = [batches(2, p, 2, chunk=12) for p in (0, 1)]
  for k, batch in enumerate(whole):
    rows = stream.rows(24 * (2 + k), 24)
    for name, value in batch.items():
      np.testing.assert_array_equal(value, rows[name])
      both = np.concatenate([half[k][name] for half in halves])
      np.testing.assert_array_equal(value, both)
  assert set(whole[0]) == {"index", "turned", "label", "draw"}
