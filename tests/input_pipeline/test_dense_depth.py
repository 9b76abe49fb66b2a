"""Transforms of frames with depth: aligned, valid pixels only."""

import math

import cv2
import numpy as np

from input_pipeline import dense_depth
from input_pipeline.dense_depth import ColorDraw, EvalDepth, TrainDepth

PLAIN = ColorDraw(
  flip=False, brightness=0.0, saturation=1.0, hue=0.0, grayscale=False
)
TRAIN = TrainDepth(
  flip_probability=0.5,
  brightness=32 / 255,
  saturation=(0.5, 1.5),
  hue=0.2,
  grayscale_probability=0.3,
)


def frame(seed=0):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
  image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
  return image, rng.uniform(0.5, 10, (480, 640)).astype(np.float32)


def test_the_network_sees_the_middle_of_the_half():
  image, _ = frame()
  four = image.reshape(240, 2, 320, 2, 3).astype(float).mean((1, 3))
  expected = four[6:234, 8:312]
  seen = dense_depth.seen(image)
  assert seen.shape == (228, 304, 3)
  assert np.abs(seen - expected).max() <= 0.5


def nearest_valid(depth, row, column):
  """By the definition, with loops: the cell's centre in pixels of the frame."""
  height, width = 456 / 128, 608 / 160
  top, left = 12 + row * height, 16 + column * width
  best, found = math.inf, 0.0
  for y in range(math.floor(top), math.ceil(top + height)):
    for x in range(math.floor(left), math.ceil(left + width)):
      inside_y = top <= y + 0.5 < top + height
      if not (inside_y and left <= x + 0.5 < left + width) or not depth[y, x]:
        continue
      away = (y + 0.5 - top - height / 2) ** 2 + (
        x + 0.5 - left - width / 2
      ) ** 2
      if away < best - 1e-9:
        best, found = away, depth[y, x]
  return found


def test_the_target_is_the_nearest_valid_pixel_of_its_cell():
  _, depth = frame(1)
  depth[np.random.default_rng(2).random(depth.shape) < 0.8] = 0
  depth[100:200, 100:200] = 0
  made = dense_depth.target(depth)
  assert made.dtype == np.float32
  assert (made == 0).sum() > 25 * 24
  rng = np.random.default_rng(3)
  cells = [(0, 0), (127, 159), *rng.integers(0, (128, 160), (400, 2))]
  for row, column in cells:
    assert made[row, column] == nearest_valid(depth, row, column)


def test_every_target_is_a_pixel_of_the_frame():
  _, depth = frame(4)
  made = dense_depth.target(depth)
  assert (made > 0).all()
  assert np.isin(made, depth).all()


def test_image_and_depth_stay_aligned():
  """A wall on the left is nearer and brighter."""
  image = np.full((480, 640, 3), 50, np.uint8)
  image[:200, :300] = 200
  depth = np.where(image[..., 0] > 100, 2, 7).astype(np.float32)
  for flip in (False, True):
    made = dense_depth.apply(image, depth, PLAIN._replace(flip=flip))
    small = cv2.resize(
      made["image"][..., 0], (160, 128), interpolation=cv2.INTER_AREA
    )
    disagree = (small > 125) != (made["depth"] < 5)
    assert disagree.mean() < 0.01


def test_a_flip_twice_is_the_identity():
  image, depth = frame(5)
  plain = dense_depth.apply(image, depth, PLAIN)
  flipped = dense_depth.apply(image, depth, PLAIN._replace(flip=True))
  for name in ("image", "depth"):
    np.testing.assert_array_equal(flipped[name][:, ::-1], plain[name])
    assert (flipped[name] != plain[name]).any()
  np.testing.assert_array_equal(plain["image"], dense_depth.seen(image))


def test_colours_change_as_drawn():
  image, depth = frame(6)
  seen = dense_depth.seen(image).astype(float)

  def apply(**changes):
    made = dense_depth.apply(image, depth, PLAIN._replace(**changes))
    np.testing.assert_array_equal(made["depth"], dense_depth.target(depth))
    return made["image"].astype(float)

  brighter = apply(brightness=0.1)
  expected = np.minimum(seen + 25.5, 255)
  assert np.abs(brighter - expected).max() <= 1
  grey = apply(grayscale=True, hue=0.1)
  assert not np.ptp(grey, axis=-1).any()
  value = seen.max(-1)
  for other in (apply(saturation=0.5), apply(hue=0.2)):
    assert np.abs(other.max(-1) - value).max() <= 1  # V of HSV stays
  half = np.ptp(apply(saturation=0.5), axis=-1)
  assert np.abs(half - np.ptp(seen, axis=-1) / 2).max() <= 1
  turned = apply(hue=1 / 3 - 1e-7)  # red becomes green
  assert np.abs(turned - np.roll(seen, 1, -1)).max() <= 1


def test_draws_reach_their_bounds_and_take_five_numbers():
  rng = np.random.default_rng(0)
  draws = np.array([TRAIN.draw(rng) for _ in range(4000)])
  flip, brightness, saturation, hue, gray = draws.T
  assert 0.46 < flip.mean() < 0.54
  assert 0.27 < gray.mean() < 0.33
  for values, low, high in (
    (brightness, -32 / 255, 32 / 255),
    (saturation, 0.5, 1.5),
    (hue, -0.2, 0.2),
  ):
    assert low <= values.min() < low + 0.01
    assert high - 0.01 < values.max() <= high
  other = np.random.default_rng(0)
  other.random(5 * 4000)
  assert other.random() == rng.random()


def test_rows_have_one_form():
  image, depth = frame(7)
  example = {"image": image, "label": depth, "unreadable": np.int64(-1)}
  row, empty = EvalDepth().map(example), EvalDepth().empty()
  assert row.keys() == empty.keys()
  for name, value in empty.items():
    assert value.shape == row[name].shape
    assert value.dtype == row[name].dtype
  assert sum(x.nbytes for x in empty.values()) == EvalDepth().row_bytes
  np.testing.assert_array_equal(row["depth"], depth)
  trained = TRAIN.random_map(example, np.random.default_rng(0))
  nbytes = trained["image"].nbytes + trained["depth"].nbytes
  assert nbytes == TRAIN.row_bytes
  assert trained["unreadable"] == -1
  assert trained["depth"].shape == (128, 160)
