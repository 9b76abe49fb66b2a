import colorsys
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tests import float_ops, planes

GOLDENS = np.load(
  Path(__file__).parents[1] / "goldens" / "augmentation_ops.npz"
)
JITTER = ("brightness", "contrast", "saturation", "hue")
# Ours, and the oracle that whole views are compared with.
BOTH = pytest.mark.parametrize("ops", [planes, float_ops])


def random_image(seed: int, height: int, width: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.random((height, width, 3), dtype=np.float32)


def random_bytes(seed: int, height: int, width: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


# Colours.


@BOTH
@pytest.mark.parametrize("i", range(4))
@pytest.mark.parametrize("name", JITTER)
def test_color_op_matches_the_authors(ops, name, i):
  factor = GOLDENS[f"factors_{i}"][JITTER.index(name)]
  out = getattr(ops, f"adjust_{name}")(GOLDENS["input"][i], float(factor))
  np.testing.assert_allclose(out, GOLDENS[f"{name}_{i}"], atol=1e-5)


@BOTH
@pytest.mark.parametrize("i", range(4))
def test_color_ops_in_order_match_the_authors(ops, i):
  image = GOLDENS["input"][i]
  for k in GOLDENS[f"jitter_order_{i}"]:
    op = getattr(ops, f"adjust_{JITTER[k]}")
    image = op(image, float(GOLDENS[f"factors_{i}"][k]))
  np.testing.assert_allclose(image, GOLDENS[f"jitter_{i}"], atol=1e-5)


@BOTH
@pytest.mark.parametrize("i", range(4))
def test_grayscale_and_solarize_match_the_authors(ops, i):
  image = GOLDENS["input"][i]
  np.testing.assert_allclose(
    ops.to_grayscale(image), GOLDENS[f"grayscale_{i}"], atol=1e-5
  )
  np.testing.assert_allclose(
    ops.solarize(image, 0.5), GOLDENS[f"solarize_{i}"], atol=1e-5
  )


def hard_colors() -> np.ndarray:
  """Ties, grays, black, white and neighbours of all of them, [7, 243, 3]."""
  levels = np.float32([0, 1e-5, 0.25, 0.5, 0.500001, 0.999999, 1])
  grid = np.array(list(itertools.product(levels, repeat=3)), np.float32)
  rng = np.random.default_rng(3)
  noise = rng.random((7 * 243 - len(grid), 3), dtype=np.float32)
  return np.concatenate([grid, noise]).reshape(7, 243, 3)


def by_pixel(image, change) -> np.ndarray:
  """Applies change(h, s, v) to each pixel with Python's colorsys, float64."""
  pixels = [
    colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel)))
    for pixel in image.reshape(-1, 3).astype(np.float64)
  ]
  return np.array(pixels).reshape(image.shape)


@pytest.mark.parametrize("factor", [0.0, 0.8, 1.0, 1.2, 3.0])
def test_saturation_is_colorsyss(factor):
  image = hard_colors()
  expected = by_pixel(image, lambda h, s, v: (h, min(s * factor, 1), v))
  out = planes.adjust_saturation(image, factor)
  np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("delta", [-0.5, -0.1, -0.013, 0.0, 0.07, 0.1, 0.5])
def test_hue_is_colorsyss(delta):
  image = hard_colors()
  expected = by_pixel(image, lambda h, s, v: ((h + delta) % 1, s, v))
  out = planes.adjust_hue(image, delta)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_third_of_a_turn_rotates_the_channels():
  image = random_image(4, 5, 7)
  out = planes.adjust_hue(image, 1 / 3)
  np.testing.assert_allclose(out, np.roll(image, 1, axis=-1), atol=1e-5)


def test_color_ops_are_tensorflows():
  image = random_image(5, 13, 17)
  pairs = [
    (planes.adjust_brightness, tf.image.adjust_brightness, -0.31),
    (planes.multiply_brightness, tf.multiply, 1.6),
    (planes.adjust_contrast, tf.image.adjust_contrast, 1.37),
    (planes.adjust_saturation, tf.image.adjust_saturation, 1.19),
    (planes.adjust_hue, tf.image.adjust_hue, -0.09),
  ]
  for ours, theirs, value in pairs:
    expected = np.clip(theirs(image, value), 0, 1)
    np.testing.assert_allclose(ours(image, value), expected, atol=1e-5)


# Blur, solarize.


@BOTH
@pytest.mark.parametrize("i", range(4))
@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.3, 2.0])
def test_blur_matches_the_authors(ops, sigma, i):
  out = ops.gaussian_blur(GOLDENS["input"][i], sigma)
  np.testing.assert_allclose(out, GOLDENS[f"blur_{i}_sigma{sigma}"], atol=1e-5)


@pytest.mark.parametrize(
  ("height", "length"),
  [(224, 23), (160, 17), (128, 13), (96, 9), (64, 7), (32, 3), (19, 1)],
)
def test_blur_length_follows_the_height(height, length):
  impulse = np.zeros((height, 71, 3), np.float32)
  impulse[height // 2, 35] = 1
  out = planes.gaussian_blur(impulse, 20.0)
  assert np.count_nonzero(out[height // 2, :, 0]) == length
  assert np.count_nonzero(out[:, 35, 2]) == length
  np.testing.assert_allclose(out.sum((0, 1)), 1, atol=1e-5)


def test_blur_taps_at_224():
  impulse = np.zeros((224, 64, 3), np.float32)
  impulse[100, 30] = 1
  row = np.sqrt(planes.gaussian_blur(impulse, 1.0)[100, 30, 0])
  assert row == pytest.approx(0.398942, abs=1e-5)
  line = planes.gaussian_blur(impulse, 1.0)[100, 28:33, 1] / row
  taps = [0.053991, 0.241971, 0.398942, 0.241971, 0.053991]
  np.testing.assert_allclose(line, taps, atol=1e-5)


def test_blur_pads_with_zeros():
  image, sigma = random_image(6, 47, 31), 1.7
  x = np.arange(-2, 3)
  taps = np.exp(-(x**2) / (2 * sigma**2))
  taps /= taps.sum()
  padded = np.pad(image.astype(np.float64), ((2, 2), (2, 2), (0, 0)))
  expected = sum(
    taps[i] * taps[j] * padded[i : i + 47, j : j + 31]
    for i in range(5)
    for j in range(5)
  )
  out = planes.gaussian_blur(image, sigma)
  np.testing.assert_allclose(out, expected, atol=1e-6)
  white = planes.gaussian_blur(np.ones_like(image), sigma)
  assert white[0, 0, 0] < 0.5 < 0.999 < white[20, 15, 0]


@pytest.mark.parametrize("threshold", [0.5, 0.25])
def test_solarize_inverts_from_the_threshold_on(threshold):
  t = np.float32(threshold)
  below, above = np.nextafter(t, np.float32(0)), np.nextafter(t, np.float32(1))
  image = np.float32([0, below, t, above, 0.9, 1]).reshape(1, 2, 3)
  expected = np.float32([0, below, 1 - t, 1 - above, 1 - np.float32(0.9), 0])
  out = planes.solarize(image, threshold)
  np.testing.assert_array_equal(out.ravel(), expected)


# What holds for all.


@pytest.mark.parametrize(
  ("op", "value"),
  [
    (planes.adjust_brightness, 0.4),
    (planes.adjust_brightness, -0.4),
    (planes.multiply_brightness, 1.4),
    (planes.adjust_contrast, 1.4),
    (planes.adjust_saturation, 1.2),
    (planes.adjust_hue, -0.1),
    (planes.gaussian_blur, 1.1),
    (planes.solarize, 0.5),
    (planes.to_grayscale, None),
  ],
)
def test_ops_stay_in_range_and_leave_their_input(op, value):
  image = np.clip(1.4 * random_image(8, 40, 33) - 0.2, 0, 1)
  before = image.copy()
  out = op(image) if value is None else op(image, value)
  np.testing.assert_array_equal(image, before)
  assert out.dtype == np.float32
  assert out.shape == image.shape
  assert out.min() >= 0
  assert out.max() <= 1
  assert np.any(out != image)


def test_opencv_starts_no_threads():
  assert cv2.getNumThreads() == 1
