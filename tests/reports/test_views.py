import numpy as np
import pytest

from byol_flax.reports import views as views_lib

RANDOM = np.random.default_rng(0)
GREY = (232, 232, 232)


def random_images(*shape):
  return RANDOM.integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize(
  ("side", "cell", "count"),
  [(16, 96, 3), (32, 96, 16), (28, 112, 1), (100, 100, 2)],
)
def test_every_view_stands_in_its_cell(side, cell, count):
  view1, view2 = random_images(2, count, side, side)
  originals = list(random_images(count, side, side))
  grid = views_lib.view_grid(originals, view1, view2)
  factor = cell // side
  for row, images in enumerate((originals, view1, view2)):
    for column, image in enumerate(images):
      box = grid[views_lib.cell_box(row, column, cell)]
      # Nearest neighbour: each pixel became a square of one colour.
      np.testing.assert_array_equal(
        box, np.kron(image, np.ones((factor, factor, 1), np.uint8))
      )


def test_cells_do_not_touch_and_nothing_else_is_drawn_among_them():
  grid = views_lib.view_grid(
    list(random_images(2, 16, 16)), *random_images(2, 2, 16, 16)
  )
  rows, columns = views_lib.cell_box(0, 0, 96)
  assert grid.shape == (3 * 96 + 4 * 4, columns.start + 2 * 96 + 2 * 4, 3)
  assert (rows.start, rows.stop) == (4, 100)
  outside = np.ones(grid.shape[:2], bool)
  for row in range(3):
    for column in range(2):
      outside[views_lib.cell_box(row, column, 96)] = False
  outside[:, : columns.start] = False
  assert (grid[outside] == 255).all()


def test_each_row_has_a_label_that_fits_beside_it():
  grid = views_lib.view_grid(
    list(random_images(1, 224, 224)), *random_images(2, 1, 224, 224)
  )
  labels = []
  for row in range(3):
    rows, columns = views_lib.cell_box(row, 0, 224)
    gutter = grid[rows, : columns.start]
    inked_rows, inked_columns = np.nonzero((gutter < 128).all(axis=-1))
    assert abs(inked_rows.mean() - 112) < 12  # half way up
    assert inked_columns.min() > 3
    assert inked_columns.max() < columns.start - 3
    labels.append(gutter.tobytes())
  assert len(set(labels)) == 3


@pytest.mark.parametrize(
  ("height", "width", "box"),
  [
    (300, 200, (slice(0, 96), slice(16, 80))),
    (100, 400, (slice(36, 60), slice(0, 96))),
    (24, 48, (slice(24, 72), slice(0, 96))),
  ],
)
def test_originals_keep_their_aspect_ratio(height, width, box):
  # Four by four blocks, each of one colour.
  colors = RANDOM.integers(0, 200, (4, 4, 3), np.uint8)
  image = np.kron(colors, np.ones((height // 4, width // 4, 1), np.uint8))
  cell = views_lib.letterbox(image, 96)
  rows, columns = (
    np.linspace(side.start, side.stop, 9)[1::2].astype(int) for side in box
  )
  centres = cell[np.ix_(rows, columns)].astype(int)
  np.testing.assert_allclose(centres, colors, atol=12)
  bars = np.ones((96, 96), bool)
  bars[box] = False
  assert (cell[bars] == GREY).all()
  assert (cell[box] != GREY).any(axis=-1).all()


def test_a_very_flat_original_does_not_vanish():
  cell = views_lib.letterbox(np.full((1, 900, 3), 90, np.uint8), 96)
  assert (cell[47] == 90).all()
  assert (np.delete(cell, 47, axis=0) == GREY).all()


def test_large_originals_are_reduced_smoothly():
  checkerboard = np.indices((960, 960)).sum(0) % 2 * 255
  image = np.repeat(checkerboard[..., None], 3, -1).astype(np.uint8)
  inner = views_lib.letterbox(image, 96)[2:-2, 2:-2].astype(int)
  assert abs(inner - 127).max() <= 2


def test_views_must_match_their_originals():
  views = random_images(2, 3, 16, 16)
  with pytest.raises(ValueError, match="2 originals"):
    views_lib.view_grid(list(random_images(2, 16, 16)), *views)
  with pytest.raises(ValueError, match=r"view2 is \(2, 16, 16, 3\)"):
    views_lib.view_grid(list(random_images(3, 16, 16)), views[0], views[1][:2])
