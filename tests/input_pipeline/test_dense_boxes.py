"""Transforms of images with boxes: the boxes follow the pixels."""

import numpy as np
import pytest

from input_pipeline import canvases, dense_boxes
from input_pipeline.dense_boxes import Canvas, EvalBoxes, TrainBoxes, fitted
from input_pipeline.errors import UsageError

CANVAS = Canvas(height=96, width=160, longest=150)
TRAIN = TrainBoxes(max_boxes=5, flip_probability=0.5)
EVALUATION = EvalBoxes(max_boxes=5, short_edge=80, canvas=CANVAS)


def painted(height, width, box, seed=0):
  """A dark image with a white rectangle, and its box with a class."""
  image = np.full((height, width, 3), 20, np.uint8)
  x_min, y_min, x_max, y_max = box
  image[y_min:y_max, x_min:x_max] = 250
  label = np.array([(*box, 3, seed % 2)], np.float32)
  return {"image": image, "label": label, "unreadable": np.int64(-1)}


def found(image):
  """The rectangle, to within a pixel, by what is more light than dark."""
  light = image.mean(-1) > 135
  ys, xs = np.flatnonzero(light.any(1)), np.flatnonzero(light.any(0))
  return xs[0], ys[0], xs[-1] + 1, ys[-1] + 1


def boxes_drawn(count=25):
  rng = np.random.default_rng(4)
  for seed in range(count):
    height, width = rng.integers(40, 400, 2)
    x_min, y_min = rng.integers(0, width - 20), rng.integers(0, height - 20)
    x_max = rng.integers(x_min + 15, width + 1)
    y_max = rng.integers(y_min + 15, height + 1)
    yield painted(height, width, (x_min, y_min, x_max, y_max), seed)


def test_boxes_follow_pixels():
  """Padding is grey of 115 at most, so only the rectangle is found."""
  flips = set()
  for seed, example in enumerate(boxes_drawn()):
    height, width = example["image"].shape[:2]
    rng = np.random.default_rng(seed)
    draw = TRAIN.draw(height, width, 80, CANVAS, rng)
    row = TRAIN.apply(example["image"], example["label"], CANVAS, draw)
    assert row["image"].shape == (96, 160, 3)
    seen = row["image"][: draw.size[0], : draw.size[1]]
    np.testing.assert_allclose(row["boxes"][0], found(seen), atol=1)
    assert row["label"].tolist() == [3, -1, -1, -1, -1]
    assert row["difficult"].tolist() == [bool(seed % 2)] + 4 * [False]
    padding = np.ones((96, 160), bool)
    padding[: draw.size[0], : draw.size[1]] = False
    assert (row["image"][padding] == canvases.MEAN_COLOR).all()
    flips.add(draw.flip)
  assert flips == {False, True}


def test_evaluation_keeps_the_boxes_of_the_file():
  for example in boxes_drawn():
    row = EVALUATION.map(example)
    np.testing.assert_array_equal(row["boxes"][0], example["label"][0, :4])
    height, width = row["size"]
    on_canvas = row["boxes"][0] * np.tile(row["scale"][::-1], 2)
    seen = row["image"][:height, :width]
    np.testing.assert_allclose(on_canvas, found(seen), atol=1)


def test_a_flip_twice_is_the_identity():
  rng = np.random.default_rng(0)
  corners = rng.integers(0, 50, (9, 2, 2))
  boxes = np.concatenate([corners.min(1), corners.max(1) + 1], 1)
  boxes = boxes.astype(np.float32)
  size = (60, 70)
  once = dense_boxes.moved(boxes, size, size, flip=True)
  assert (once[:, 2:] > once[:, :2]).all()
  assert (once != boxes).any()
  twice = dense_boxes.moved(once, size, size, flip=True)
  np.testing.assert_array_equal(twice, boxes)


@pytest.mark.parametrize(
  ("size", "short_edge", "expected"),
  [
    ((375, 500), 90, (90, 120)),
    ((500, 375), 90, (96, 72)),  # a portrait on a landscape canvas
    ((100, 400), 90, (38, 150)),  # the longest edge
    ((96, 160), 96, (90, 150)),
    ((1, 5000), 90, (1, 150)),
    ((5000, 1), 90, (96, 1)),
    ((7, 7), 90, (90, 90)),
  ],
)
def test_sizes_on_a_canvas(size, short_edge, expected):
  assert fitted(*size, short_edge, CANVAS) == expected
  aside = Canvas(CANVAS.width, CANVAS.height, CANVAS.longest)
  assert fitted(*size[::-1], short_edge, aside) == expected[::-1]


def test_sizes_never_exceed_the_canvas():
  rng = np.random.default_rng(0)
  for height, width in rng.integers(1, 3000, (2000, 2)):
    h, w = fitted(height, width, 96, CANVAS)
    assert 1 <= h <= 96
    assert 1 <= w <= 160
    assert max(h, w) <= 150


def test_fine_patterns_do_not_alias():
  image = np.zeros((200, 300, 3), np.uint8)
  image[:, ::2] = 200  # grey from afar
  small = dense_boxes.resized(image, (50, 70))
  assert np.ptp(small.astype(int)) < 60
  assert abs(small.mean() - 100) < 2


def test_rows_without_boxes_and_with_too_many():
  example = painted(60, 80, (1, 2, 30, 40))
  none = {**example, "label": np.zeros((0, 6), np.float32)}
  many = {**example, "label": np.repeat(example["label"], 7, 0)}
  rng = np.random.default_rng(0)
  place = {"short_edge": 80, "canvas": CANVAS}
  assert (TRAIN.random_map({**none, **place}, rng)["label"] == -1).all()
  assert (TRAIN.random_map({**many, **place}, rng)["label"] == 3).all()
  assert (EVALUATION.map(none)["label"] == -1).all()
  with pytest.raises(UsageError, match=r"7 boxes.*room for 5"):
    EVALUATION.map(many)


def test_rows_have_one_form():
  example = painted(60, 80, (1, 2, 30, 40))
  row, empty = EVALUATION.map(example), EVALUATION.empty()
  place = {"short_edge": 80, "canvas": CANVAS}
  trained = TRAIN.random_map({**example, **place}, np.random.default_rng(0))
  assert trained.keys() == {*row} - {"scale"} | {"unreadable"}
  assert row.keys() == empty.keys()
  for name, value in empty.items():
    assert value.shape == row[name].shape
    assert value.dtype == row[name].dtype
    if name != "scale":
      assert value.shape == trained[name].shape
      assert value.dtype == trained[name].dtype
  nbytes = sum(x.nbytes for x in empty.values())
  assert nbytes == EVALUATION.row_bytes == TRAIN.row_bytes(CANVAS)
