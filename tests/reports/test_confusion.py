import numpy as np
import pytest

from byol_flax.reports import confusion

RANDOM = np.random.default_rng(3)


def test_counts_are_those_of_a_loop_and_large_matrices_are_cut_into_blocks():
  true, guess = RANDOM.integers(0, 7, (2, 300))
  true[true == 4] = 5  # a class without examples
  expected = np.zeros((7, 7), int)
  for pair in zip(true, guess, strict=True):
    expected[pair] += 1
  np.testing.assert_array_equal(confusion.counts(true, guess, 7), expected)
  blocks = confusion.counts(true, guess, 7, most=3)
  edges = [0, 3, 5, 7]  # 7 classes on 3 cells
  for row, column in np.ndindex(3, 3):
    part = expected[
      edges[row] : edges[row + 1], edges[column] : edges[column + 1]
    ]
    assert blocks[row, column] == part.sum()


def test_the_most_frequent_mistakes_are_named_and_hits_are_not():
  true = np.array([0, 0, 0, 0, 2, 2, 2, 1, 1])
  guess = np.array([0, 1, 1, 2, 0, 0, 2, 0, 1])
  names = ["cat", "dog", "emu", "none"]
  found = confusion.largest(true, guess, names, count=3)
  assert found == [
    {"true": "cat", "guess": "dog", "images": 2, "share": 0.5},
    {"true": "emu", "guess": "cat", "images": 2, "share": 0.6667},
    {"true": "cat", "guess": "emu", "images": 1, "share": 0.25},
  ]
  assert confusion.largest(true, true, names) == []


@pytest.mark.parametrize(("classes", "side"), [(4, 540), (1200, 1200)])
def test_the_picture_shows_the_diagonal_and_an_absent_class(classes, side):
  true = np.delete(np.arange(classes).repeat(2), [2, 3])  # none of class 1
  image = confusion.picture(true, true, [f"class {k}" for k in range(classes)])
  assert image.shape == (side, side + 100, 3)
  blue, yellow = [8, 48, 107], [252, 255, 164]  # of 100 %
  color = np.array(blue if classes == 4 else yellow)
  full = (np.abs(image.astype(int) - color) < 8).all(axis=-1)
  assert full.sum() > classes / 2
  grey = (image == 0xCC).all(axis=-1).mean()  # the row of class 1
  assert (grey > 0.02) == (classes == 4)
