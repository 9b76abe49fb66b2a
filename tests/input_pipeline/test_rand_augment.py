"""RandAugment's operations against Pillow and NumPy, and its draws."""

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from input_pipeline import augment, rand_augment
from tests.input_pipeline.test_pipeline import VIEW

IMAGE = np.random.default_rng(3).integers(20, 200, (64, 80, 3), np.uint8)
IMAGE[..., 1] //= 2  # channels of unequal range
IMAGE[::7, ::5, 0] = 250  # and some that solarization inverts
LAYER = rand_augment.Layer(0, False, 0.9, 0.1)
NINE = 0.9  # M = 9 of 10


def operation(name, layer=LAYER, image=IMAGE):
  return rand_augment.OPERATIONS[name](image, NINE, layer)


def by_numpy_cutout():
  out = IMAGE.copy()
  half, y, x = int(36 * 80 / 224), int(0.9 * 64), int(0.1 * 80)
  for i in range(64):
    for j in range(80):
      if y - half <= i < y + half and x - half <= j < x + half:
        out[i, j] = 128
  return out


ORACLES = {  # name: (what is expected, how far a value may be off)
  "autocontrast": (lambda x: ImageOps.autocontrast(x), 0),
  "equalize": (lambda x: ImageOps.equalize(x), 0),
  "invert": (lambda x: ImageOps.invert(x), 0),
  "posterize": (lambda x: ImageOps.posterize(x, 3), 0),
  "solarize": (lambda x: ImageOps.solarize(x, 230), 0),
  "color": (lambda x: ImageEnhance.Color(x).enhance(1.72), 1),
  "contrast": (lambda x: ImageEnhance.Contrast(x).enhance(1.72), 1),
  "brightness": (lambda x: ImageEnhance.Brightness(x).enhance(1.72), 0),
  "sharpness": (lambda x: ImageEnhance.Sharpness(x).enhance(1.72), 1),
  "cutout": (lambda x: by_numpy_cutout(), 0),
  "solarize_add": (
    lambda x: np.where(IMAGE < 128, np.minimum(IMAGE.astype(int) + 99, 255), x),
    0,
  ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_colours_against_pillow(name):
  oracle, most = ORACLES[name]
  expected = np.asarray(oracle(Image.fromarray(IMAGE))).astype(int)
  found = operation(name)
  assert (found.dtype, found.shape) == (np.uint8, IMAGE.shape)
  assert np.abs(found.astype(int) - expected).max() <= most
  assert (found != IMAGE).any()


def sources_of(name, amount):
  """Where each pixel comes from: y and x, [64, 80]."""
  y, x = np.mgrid[:64, :80].astype(float)
  if name == "rotate":
    turn = math.radians(amount)
    dy, dx = y - 31.5, x - 39.5
    y, x = (
      math.sin(turn) * dx + math.cos(turn) * dy + 31.5,
      math.cos(turn) * dx - math.sin(turn) * dy + 39.5,
    )
  elif name == "shear_x":
    x = x + amount * y
  elif name == "shear_y":
    y = y + amount * x
  elif name == "translate_x":
    x = x + amount
  else:
    y = y + amount
  return y, x


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize(
  ("name", "amount"),
  [
    ("rotate", 27.0),
    ("shear_x", 0.27),
    ("shear_y", 0.27),
    ("translate_x", 90 * 80 / 224),
    ("translate_y", 90 * 80 / 224),
  ],
)
def test_places_against_numpy(name, amount, negative):
  """But for pixels half way between two, which OpenCV may round elsewhere."""
  y, x = sources_of(name, -amount if negative else amount)
  i, j = np.floor(y + 0.5).astype(int), np.floor(x + 0.5).astype(int)
  inside = (i >= 0) & (i < 64) & (j >= 0) & (j < 80)
  expected = np.full_like(IMAGE, 128)
  expected[inside] = IMAGE[i[inside], j[inside]]
  found = operation(name, LAYER._replace(negative=negative))
  assert np.mean(np.any(found != expected, axis=-1)) < 0.01
  assert 0.1 < inside.mean() < 1


def test_draws_are_uniform_and_leave_the_crop_as_it_is():
  policy = rand_augment.RandAugment(layers=2, magnitude=9.0)
  rng = np.random.default_rng(0)
  drawn = [layer for _ in range(4000) for layer in policy.sample(rng)]
  counts = np.bincount([layer.operation for layer in drawn], minlength=16)
  assert len(counts) == len(rand_augment.OPERATIONS) == 16
  assert np.abs(counts - 500).max() < 5 * math.sqrt(500)
  assert abs(np.mean([layer.negative for layer in drawn]) - 0.5) < 0.03
  plain = augment.OneView(size=16, view=augment.crop_and_flip(VIEW))
  strong = augment.OneView(size=16, view=plain.view, policy=policy)
  differ = 0
  for seed in range(8):
    first, again, other = (
      made.random_map({"image": IMAGE, "label": 3}, np.random.default_rng(seed))
      for made in (plain, plain, strong)
    )
    np.testing.assert_array_equal(first["image"], again["image"])
    rng = np.random.default_rng(seed)
    augment.sample_view(plain.view, 64, 80, rng)
    np.testing.assert_array_equal(
      other["image"], policy.apply(first["image"], policy.sample(rng))
    )
    assert (other["image"].shape, other["label"]) == ((16, 16, 3), 3)
    differ += not np.array_equal(first["image"], other["image"])
  assert differ >= 7
