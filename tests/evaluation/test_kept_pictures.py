"""What pictures need is kept whole, without padding, and within bounds."""

import numpy as np
import pytest

from byol_flax.evaluation import kept_pictures, place
from input_pipeline import whole_files
from input_pipeline.errors import RunError

RANDOM = np.random.default_rng(11)


def test_rows_that_count_are_kept_up_to_the_number_that_is_wanted():
  rows = kept_pictures.FirstRows(3)
  for size in (4, 6, 8):
    batch = RANDOM.integers(0, 9, (4, size))
    if size == 4:
      first = batch.copy()
    elif rows.wanted:
      second = batch.copy()
    rows.add(np.array([False, True, True, False]), image=batch)
    batch[:] = -1  # what is kept is a copy
  assert not rows.wanted
  kept = rows.rows["image"]
  assert len(kept) == 3
  np.testing.assert_array_equal(kept[:2], first[1:3])
  np.testing.assert_array_equal(kept[2], second[1])
  none = kept_pictures.FirstRows(0)
  assert not none.wanted


def test_padding_of_images_and_of_boxes_is_not_kept(tmp_path):
  images = RANDOM.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
  boxes = RANDOM.uniform(0, 5, (2, 3, 4)).astype(np.float32)
  label = np.array([[2, -1, 0], [-1, -1, -1]])
  difficult = np.array([[True, False, False], [False] * 3])
  found = RANDOM.uniform(0, 5, (2, 4, 4)).astype(np.float32)
  scores = RANDOM.uniform(0, 1, (2, 4))
  found_label = np.array([[1, 1, -1, -1], [0, -1, -1, -1]])

  def keep():
    kept_pictures.keep_boxes(
      str(tmp_path),
      images,
      np.array([[6, 5], [4, 8]]),
      boxes,
      label,
      difficult,
      found,
      scores,
      found_label,
      ["a", "b", "c"],
    )

  keep()
  assert not list(tmp_path.iterdir())  # not the folder of an evaluation
  (tmp_path / place.IDENTITY).write_text("{}")
  (tmp_path / "boxes.png").write_text("of what was there before")
  keep()
  assert not (tmp_path / "boxes.png").exists()
  kept = whole_files.read_arrays(str(tmp_path / "boxes.npz"))

  def each(name):
    return kept_pictures.read_each(kept, name)

  assert [x.shape for x in each("image")] == [(6, 5, 3), (4, 8, 3)]
  np.testing.assert_array_equal(each("image")[1], images[1, :4])
  np.testing.assert_array_equal(each("boxes")[0], boxes[0, [0, 2]])
  assert each("difficult")[0].tolist() == [True, False]
  assert each("boxes")[1].shape == (0, 4)
  np.testing.assert_array_equal(each("found_scores")[0], scores[0, :2])
  assert each("found_label")[1].tolist() == [0]
  assert kept["class_names"].tolist() == ["a", "b", "c"]


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path):
  (tmp_path / place.IDENTITY).write_text("{}")
  long = np.linspace(0, 0.7, 5000), np.linspace(1, 0.2, 5000)
  none = np.zeros(0), np.zeros(0)
  kept_pictures.keep_curves(
    str(tmp_path), {"cat": (*long, 0.5), "dog": (*none, float("nan"))}
  )
  kept = whole_files.read_arrays(str(tmp_path / "precision-recall.npz"))
  cat, dog = kept_pictures.read_each(kept, "curve")
  assert (cat.shape, dog.shape) == ((1000, 2), (0, 2))
  np.testing.assert_allclose(cat[[0, -1]], [[0, 1], [0.7, 0.2]])
  assert kept["class_names"].tolist() == ["cat", "dog"]
  np.testing.assert_array_equal(kept["precision"], [0.5, np.nan])


def test_images_are_spread_over_their_split():
  assert kept_pictures.spread(9, 3).tolist() == [0, 4, 8]
  assert kept_pictures.spread(2, 8).tolist() == [0, 1]
  assert kept_pictures.spread(5, 1).tolist() == [0]
  assert kept_pictures.spread(5, 0).tolist() == []
  assert kept_pictures.spread(0, 5).tolist() == []


def test_guesses_that_are_no_class_are_no_result(tmp_path):
  true, guess = np.array([0, 1, -1]), np.array([0, 1, -1])
  names = ("cat", "dog")
  assert kept_pictures.keep_guesses(str(tmp_path), "", true, guess, names) == []
  with pytest.raises(RunError, match="The classifier of lr3 has diverged"):
    kept_pictures.keep_guesses(
      str(tmp_path), "lr3", true[:2], -guess[:2], names
    )
