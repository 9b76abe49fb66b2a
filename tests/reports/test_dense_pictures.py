"""Boxes, masks and depths are drawn where they are, in the stated colours."""

import numpy as np
import pytest

from byol_flax.reports import (
  boxes,
  depth_maps,
  masks,
  panels,
  precision_recall,
)

RANDOM = np.random.default_rng(3)
# As published in the development kit of Pascal VOC, background first.
PUBLISHED = (
  *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)),
  *((128, 0, 128), (0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0)),
  *((64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128)),
  *((64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0)),
  *((128, 192, 0), (0, 64, 128)),
)


def shown_boxes(height=300, width=400, **changes):
  given = {
    "image": np.full((height, width, 3), 7, np.uint8),
    "boxes": np.array([[10, 150, 110, 250], [200, 150, 300, 250.0]]),
    "label": np.array([0, 1]),
    "difficult": np.array([False, True]),
    "found_boxes": np.array([[20, 20, 120, 100], [200, 20, 300, 100.0]]),
    "found_scores": np.array([0.9, 0.4]),
    "found_label": np.array([1, 1]),
  }
  return boxes.Boxes(**(given | changes))


def edges(image, color):
  """First and last row and column, half-open, that have a colour."""
  down, across = np.nonzero((image == color).all(axis=-1))
  return across.min(), down.min(), across.max() + 1, down.max() + 1


def test_each_box_is_where_it_is_in_the_colour_of_its_kind():
  panel = boxes.panel(shown_boxes(), ["cat", "dog"])
  assert panel.shape == (300, 400, 3)
  assert edges(panel, boxes.TRUE) == (10, 150, 110, 250)
  assert edges(panel, boxes.DIFFICULT) == (200, 150, 300, 250)
  # That of the second found box is too low to be drawn.
  assert edges(panel, boxes.FOUND) == (20, 20, 120, 100)
  assert (panel[60, 30:110] == 7).all()  # the inside stays visible
  sheet = boxes.picture([shown_boxes()] * 5, ["cat", "dog"])
  where = panels.places([[panel] * 4, [panel]], titled=False)
  for box in (where[0][0], where[0][3], where[1][0]):
    np.testing.assert_array_equal(sheet[box], panel)


@pytest.mark.parametrize(
  ("size", "factor"), [((30, 40), 6), ((1280, 640), 0.5)]
)
def test_boxes_are_scaled_as_their_image(size, factor):
  drawn = boxes.panel(
    shown_boxes(
      *size,
      found_boxes=np.array([[4, 6, 28, 20.0]]),
      found_scores=np.array([1.0]),
      found_label=np.array([0]),
      boxes=np.zeros((0, 4)),
      label=np.zeros(0, int),
      difficult=np.zeros(0, bool),
    ),
    [""],
  )
  assert drawn.shape == (*(round(factor * x) for x in size), 3)
  found = edges(drawn, boxes.FOUND)
  expected = [round(factor * x) for x in (4, 6, 28, 20)]
  if factor > 1:  # a score is wider than the smaller one
    assert found == tuple(expected)
  assert found[:2] == tuple(expected[:2])


def test_the_palette_is_the_published_one_and_void_is_like_no_class():
  palette = masks.palette()
  np.testing.assert_array_equal(palette[:21], PUBLISHED)
  assert len(np.unique(palette, axis=0)) == 256


def test_masks_stand_beside_their_image():
  names = [f"class {k}" for k in range(21)]
  shape = 300, 250
  one = masks.Masks(
    RANDOM.integers(0, 256, (*shape, 3), dtype=np.uint8),
    RANDOM.choice([0, 15, 255], shape).astype(np.uint8),
    RANDOM.choice([0, 20], shape).astype(np.uint8),
  )
  sheet = masks.picture([one, one], names)
  row = [one.image] * 3
  where = panels.places([row, row], titled=True)
  for first, true, found in where:
    np.testing.assert_array_equal(sheet[first], one.image)
    void = one.classes == 255
    assert (sheet[true][void] == masks.VOID_COLOR).all()
    assert (sheet[true][one.classes == 15] == PUBLISHED[15]).all()
    assert (sheet[found][one.found == 20] == PUBLISHED[20]).all()
  # The legend has the classes that occur, and no others.
  legend = sheet[where[-1][0][0].stop :]

  def in_legend(color):
    return (legend == color).all(axis=-1).sum() > 50

  assert in_legend(PUBLISHED[15])
  assert in_legend(PUBLISHED[20])
  assert in_legend(masks.VOID_COLOR)
  assert not in_legend(PUBLISHED[1])


def test_a_depth_has_its_colour_and_an_invalid_pixel_that_of_none():
  depth = np.array([[0.0, 5.0], [10.0, 2.5]])
  scale = depth_maps.Scale("gray", 0, 10)
  drawn = depth_maps.colored(depth, depth > 0, scale)
  np.testing.assert_array_equal(drawn[0, 0], depth_maps.INVALID)
  np.testing.assert_allclose(drawn[0, 1], 128, atol=1)
  np.testing.assert_array_equal(drawn[1, 0], [255] * 3)
  np.testing.assert_allclose(drawn[1, 1], 64, atol=1)


def test_depths_and_errors_of_all_images_are_in_the_picture():
  depth = np.full((40, 60), 4.0)
  depth[:, :30] = 0
  one = depth_maps.Depths(
    np.full((40, 60, 3), (250, 0, 250), np.uint8), depth, np.full_like(depth, 3)
  )
  picture = depth_maps.picture([one, one])

  def share(color):
    return (picture == color).all(axis=-1).mean()

  assert share((250, 0, 250)) > 0.1
  # In half of the true maps, and of those of errors.
  grey = share(depth_maps.INVALID)
  assert grey == pytest.approx(share((250, 0, 250)), rel=0.05)
  invalid = depth_maps.Depths(one.image, np.zeros_like(depth), depth)
  assert depth_maps.picture([invalid]).shape[2] == 3


def test_a_curve_is_drawn_for_each_class_that_has_boxes():
  recall = np.linspace(0, 0.8, 20)
  curves = {
    "cat": (recall, 1 - recall, 0.52),
    "dog": (np.array([0.5]), np.array([1.0]), 0.5),
    "emu": (np.zeros(0), np.zeros(0), float("nan")),
  }
  picture = precision_recall.picture(curves)
  assert picture.shape == (600, 900, 3)
  blue, orange, green = (31, 119, 180), (255, 127, 14), (44, 160, 44)
  for color, drawn in ((blue, True), (orange, True), (green, False)):
    assert (picture == color).all(axis=-1).any() == drawn
  none = precision_recall.picture({})
  assert none.shape == picture.shape
