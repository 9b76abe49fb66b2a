"""Windows that are drawn again, against plain Python and TensorFlow."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import augment, retried_crops
from tests.input_pipeline.test_augment import VIEW1

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
RETRIED = dataclasses.replace(VIEW1, crop_sampling="retried")


def draw(height, width, rng, area=AREA, aspect=ASPECT):
  return retried_crops.sample(
    height, width, *rng.random(4).tolist(), *area, *aspect
  )


def test_area_and_aspect_hold_unless_the_whole_image_is_taken():
  rng, wholes = np.random.default_rng(0), 0
  for _ in range(3000):
    height, width = rng.integers(1, 300, 2).tolist()
    low = rng.uniform(0.02, 0.9)
    area = (low, rng.uniform(low, 1))
    aspect = tuple(np.sort(np.exp(rng.uniform(-1, 1, 2))).tolist())
    y, x, h, w = draw(height, width, rng, area, aspect)
    assert 0 <= y <= height - h
    assert 0 <= x <= width - w
    if (h, w) == (height, width):
      wholes += 1
      continue
    assert max(area[0], 0.1) <= h * w / (height * width) <= area[1]
    # The width is rounded to a whole pixel.
    assert aspect[0] - 0.5 / h <= w / h <= aspect[1] + 0.5 / h
  assert 0 < wholes < 1500


@pytest.mark.parametrize("size", [(40, 900), (900, 40)])
def test_an_image_that_is_too_long_is_taken_whole(size):
  # Its largest window of aspect 4/3 or 3/4 has 6 % of its area.
  rng = np.random.default_rng(1)
  assert {draw(*size, rng) for _ in range(50)} == {(0, 0, *size)}


def oracle(height, width, uniform, area, aspect):
  """Plain Python, with the arithmetic of SplitMix64 on whole numbers."""
  mask = 2**64 - 1
  state = int(uniform[0] * 2**53) ^ int(uniform[1] * 2**53) << 11 & mask

  def again():
    nonlocal state
    state = state + 0x9E3779B97F4A7C15 & mask
    word = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
    word = (word ^ word >> 27) * 0x94D049BB133111EB & mask
    return ((word ^ word >> 31) >> 11) / 2**53

  least, most = (share * (height * width) for share in area)
  for _ in range(100):
    ratio = aspect[0] + uniform[1] * (aspect[1] - aspect[0])
    wide = [h for h in range(height + 1) if round(h * ratio) <= width]
    top = min(round(math.sqrt(most / ratio)), wide[-1])
    bottom = min(round(math.sqrt(least / ratio)), top)
    h = bottom + int(uniform[0] * (top - bottom + 1))
    if h * round(h * ratio) < least:
      h += 1
    if h * round(h * ratio) > most:
      h -= 1
    w = round(h * ratio)
    fits = least <= h * w <= most and h <= height and w <= width
    if fits and 10 * h * w >= height * width:
      return int(uniform[3] * (height - h)), int(uniform[2] * (width - w)), h, w
    uniform = [again() for _ in range(4)]
  return 0, 0, height, width


def test_every_window_is_that_of_plain_python():
  """Bit for bit, of long images too, so that a run can be repeated."""
  rng, first = np.random.default_rng(2), 0
  for _ in range(1500):
    height, width = rng.integers(1, 200, 2).tolist()
    uniform = rng.random(4).tolist()
    found = retried_crops.sample(height, width, *uniform, *AREA, *ASPECT)
    assert found == oracle(height, width, uniform, AREA, ASPECT)
    first += found[2] == height
  assert first > 100


@pytest.mark.slow
def test_windows_are_distributed_as_tensorflows():
  """Kolmogorov-Smirnov at p = 0.001 on each number of the window."""
  n, (height, width) = 3000, (70, 110)
  rng = np.random.default_rng(4)
  ours = np.array([draw(height, width, rng) for _ in range(n)])

  @tf.function
  def window(i):
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
      [height, width, 3],
      tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
      seed=[7, i],
      min_object_covered=0.1,
      aspect_ratio_range=ASPECT,
      area_range=AREA,
      max_attempts=100,
    )
    return tf.concat([begin[:2], size[:2]], 0)

  theirs = tf.map_fn(window, tf.range(n)).numpy()

  def numbers(boxes):
    y, x, h, w = boxes.T
    return {"y": y, "x": x, "area": h * w, "aspect": w / h}

  for name, drawn in numbers(ours).items():
    other = numbers(theirs)[name]
    places = np.unique(np.concatenate([drawn, other]))
    below = [
      np.searchsorted(np.sort(values), places, side="right") / n
      for values in (drawn, other)
    ]
    distance = np.max(np.abs(below[0] - below[1]))
    assert distance < 1.95 * np.sqrt(2 / n), name
  area = numbers(ours)["area"] / (height * width)
  # A tenth is the least although eight hundredths are asked for.
  assert 0.1 <= area.min() < 0.103


def test_only_the_window_of_a_view_changes():
  clamped, retried = (
    augment.sample_view(view, 60, 400, np.random.default_rng(5))
    for view in (VIEW1, RETRIED)
  )
  assert retried.box != clamped.box
  assert retried == clamped._replace(box=retried.box)
