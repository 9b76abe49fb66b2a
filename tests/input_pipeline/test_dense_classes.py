"""Transforms of images with masks: aligned, nearest, padded with void."""

import cv2
import numpy as np
import pytest

from byol_flax.models import pixels
from input_pipeline import canvases
from input_pipeline.dense_classes import (
  CentreCrop,
  CropDraw,
  ScaledCrop,
  WholeImage,
)
from input_pipeline.errors import UsageError

MEAN = np.array(canvases.MEAN_COLOR, np.uint8)


def crop(size=33, scales=(0.5, 2.0), flip_probability=0.5):
  return ScaledCrop(size=size, scales=scales, flip_probability=flip_probability)


def example(seed=0, height=40, width=60, block=8):
  """An image whose red channel says in blocks what its mask says."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 5, (-(-height // block), -(-width // block)))
  classes = coarse.repeat(block, 0).repeat(block, 1)[:height, :width]
  classes = classes.astype(np.uint8)
  image = np.stack([40 * classes + 20, classes, classes], -1)
  return {"image": image, "label": classes, "unreadable": np.int64(-1)}


def nearest(array, size):
  """Picks for each centre of a pixel the pixel that it lies in."""
  for axis, new in enumerate(size):
    old = array.shape[axis]
    picked = ((np.arange(new) + 0.5) * old / new).astype(int)
    array = array.take(picked, axis)
  return array


def test_padding_is_the_mean_that_a_network_subtracts():
  assert (
    tuple(round(255 * mean) for mean in pixels.IMAGENET_MEAN)
    == canvases.MEAN_COLOR
  )


@pytest.mark.parametrize("size", [(20, 30), (61, 97), (40, 60), (80, 117)])
@pytest.mark.parametrize("flip", [False, True])
def test_classes_are_those_of_the_nearest_pixels(size, flip):
  before = example(1)
  draw = CropDraw(size, (3, 5), flip)
  made = crop(50).apply(before["image"], before["label"], draw)
  expected = nearest(before["label"], size)[3:53, 5:55]
  expected = np.pad(
    expected,
    [(0, 50 - n) for n in expected.shape],
    constant_values=255,
  )
  expected = expected[:, ::-1] if flip else expected
  np.testing.assert_array_equal(made["classes"], expected)
  void = made["classes"] == 255
  assert (made["image"][void] == MEAN).all()


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.3, 2.0])
def test_image_and_classes_stay_aligned(scale):
  """Inside a block the image has the colour of its class."""
  before = example(2, 64, 96, block=32)
  size = (round(64 * scale), round(96 * scale))
  made = crop(200).apply(
    before["image"], before["label"], CropDraw(size, (0, 0), False)
  )
  classes = made["classes"][: size[0], : size[1]]
  edge = np.ones((7, 7), np.uint8)
  inner = cv2.erode(classes, edge) == cv2.dilate(classes, edge)
  assert inner.mean() > 0.3
  red = made["image"][: size[0], : size[1], 0]
  np.testing.assert_array_equal(red[inner], 40 * classes[inner] + 20)
  # The edge between blocks is a ramp; its middle is where the class changes.
  near = (red.astype(int) - (40 * classes + 20))[~inner]
  assert abs(near.mean()) < 6


def test_a_flip_twice_is_the_identity():
  before = example(3)
  draw = CropDraw((40, 60), (0, 0), True)
  once = ScaledCrop(size=60, scales=(1, 1), flip_probability=1).apply(
    before["image"], before["label"], draw
  )
  twice = crop(60).apply(
    once["image"], once["classes"], CropDraw((60, 60), (0, 0), True)
  )
  plain = crop(60).apply(
    before["image"], before["label"], draw._replace(flip=False)
  )
  for name in ("image", "classes"):
    np.testing.assert_array_equal(twice[name], plain[name])


def test_draws_reach_their_bounds_and_take_four_numbers():
  rng = np.random.default_rng(0)
  draws = [crop().draw(40, 60, rng) for _ in range(4000)]
  heights = np.array([draw.size[0] for draw in draws])
  widths = np.array([draw.size[1] for draw in draws])
  assert (heights.min(), heights.max()) == (20, 80)
  assert (np.abs(widths - 1.5 * heights) <= 1.25).all()
  corners = np.array([draw.corner for draw in draws])
  room = np.maximum(np.stack([heights, widths], 1) - 33, 0)
  assert (corners <= room).all()
  assert ((corners == room) & (room > 5)).any(0).all()
  assert not corners[room == 0].any()
  assert 0.45 < np.mean([draw.flip for draw in draws]) < 0.55
  other = np.random.default_rng(0)
  other.random(4 * 4000)
  assert other.random() == rng.random()


def test_a_training_row():
  made = crop().random_map(example(), np.random.default_rng(1))
  assert made["image"].shape == (33, 33, 3)
  assert made["classes"].shape == (33, 33)
  assert {*np.unique(made["classes"]).tolist()} <= {0, 1, 2, 3, 4, 255}
  assert made["unreadable"] == -1
  rows = [made["image"], made["classes"]]
  assert sum(x.nbytes for x in rows) == crop().row_bytes


@pytest.mark.parametrize(
  "transform",
  [CentreCrop(height=33, width=33), WholeImage(height=64, width=64)],
)
def test_evaluation_rows_have_one_form(transform):
  row, empty = transform.map(example()), transform.empty()
  assert row.keys() == empty.keys()
  for name, value in empty.items():
    assert value.shape == row[name].shape
    assert value.dtype == row[name].dtype
  assert sum(x.nbytes for x in empty.values()) == transform.row_bytes
  assert (empty["classes"] == 255).all()


def test_the_centre_crop_is_the_middle():
  before = example()
  made = CentreCrop(height=33, width=70).map(before)
  label = made["classes"]
  np.testing.assert_array_equal(label[:, :60], before["label"][3:36])
  np.testing.assert_array_equal(made["image"][:, :60], before["image"][3:36])
  assert (label[:, 60:] == 255).all()
  assert (made["image"][:, 60:] == MEAN).all()


def test_a_whole_image_is_never_cut():
  sizes = np.array([(40, 60), (64, 33)])
  canvas = canvases.covering(sizes)
  assert canvas == (64, 64)
  made = WholeImage(height=64, width=64).map(example())
  np.testing.assert_array_equal(made["classes"][:40, :60], example()["label"])
  assert (made["classes"] == 255).sum() == 64 * 64 - 40 * 60
  with pytest.raises(UsageError, match="does not fit"):
    WholeImage(height=64, width=32).map(example())
