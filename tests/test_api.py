"""What a program or notebook gets from `byol_flax`."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import byol_flax
from byol_flax import sharding
from byol_flax.evaluation import features
from input_pipeline import sources
from input_pipeline.errors import UsageError
from tests import trainers
from tests.runs.test_older_records import unpack

RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("api")
  unpack("format1_digits.tar.xz", folder)
  return folder


@pytest.fixture(scope="module")
def encoder(folder):
  before = os.getcwd()
  os.chdir(folder)
  try:
    return byol_flax.load_encoder("digits")  # a relative path
  finally:
    os.chdir(before)


def random_image(*shape):
  return RNG.integers(0, 256, shape, np.uint8)


@pytest.mark.slow
def test_features_are_those_of_the_evaluations(encoder):
  """On eight devices, which cannot share 20 images alike."""
  mesh = sharding.make_mesh()
  split = sources.open_source("digits", "test[:20]")
  reader = features.make_reader(
    encoder.crop, mesh, batch_size=16, num_workers=0, num_threads=1
  )
  (expected,) = features.extract_splits(
    features.make_feature_fn(encoder, mesh),
    encoder.variables,
    [split],
    reader,
    mesh=mesh,
  )
  images = encoder.preprocess([split[i]["image"] for i in range(20)])
  found = encoder(images)
  assert type(found) is np.ndarray
  assert found.dtype == np.float32
  np.testing.assert_allclose(
    found, expected["representation"], rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(
    encoder(images[3:4]), found[3:4], rtol=1e-5, atol=1e-6
  )
  assert encoder(images[:0]).shape == (0, found.shape[1])


def test_a_shape_is_compiled_once(encoder, caplog):
  for height, compiled in ((5, True), (5, False), (6, True)):
    caplog.clear()
    with jax.log_compiles():
      encoder(random_image(8, height, 7, 3))
    assert ("Compiling" in caplog.text) == compiled


def test_images_of_any_sizes_are_cut_as_evaluations_cut_them(encoder):
  images = [random_image(h, w, 3) for h, w in ((8, 30), (9, 9), (40, 3))]
  found = encoder.preprocess(images)
  assert found.shape == (3, 9, 9, 3)
  for image, one in zip(images, found, strict=True):
    np.testing.assert_array_equal(
      one, encoder.crop.map({"image": image})["image"]
    )
    np.testing.assert_array_equal(one, encoder.preprocess(image))
  same = random_image(2, 12, 10, 3)
  np.testing.assert_array_equal(
    encoder.preprocess(same), encoder.preprocess(list(same))
  )
  assert encoder.preprocess([]).shape == (0, 9, 9, 3)


@pytest.mark.parametrize(
  ("images", "told"),
  [
    (np.zeros((2, 9, 9, 3)), "float64 [2, 9, 9, 3] came. The encoder scales"),
    (np.zeros((9, 9, 3), np.uint8), "uint8 [9, 9, 3] came. One image is a"),
    (np.zeros((2, 9, 9, 4), np.uint8), "[2, 9, 9, 4] came. Give red, green"),
    (np.zeros((2, 0, 9, 3), np.uint8), "uint8 [2, 0, 9, 3] came."),
    ([random_image(8, 9, 3), random_image(9, 9, 3)], "differ in shape"),
  ],
)
def test_what_is_no_batch_is_told(encoder, images, told):
  with pytest.raises(ValueError, match=re.escape(told)) as found:
    encoder(images)
  assert isinstance(found.value, UsageError)


@pytest.mark.parametrize(
  "images",
  [
    random_image(9, 9),
    [random_image(9, 9, 3), random_image(9, 9)],
    np.zeros((9, 9, 3), np.float32),
    random_image(1, 1, 9, 9, 3),
  ],
)
def test_what_is_no_image_is_told(encoder, images):
  with pytest.raises(UsageError, match=r"Expected an image, uint8 \[H, W, 3"):
    encoder.preprocess(images)


def test_all_names_are_there():
  for name in byol_flax.__all__:
    assert getattr(byol_flax, name).__name__ == name
    assert name in dir(byol_flax)
  with pytest.raises(AttributeError, match="has no attribute 'load_decoder'"):
    byol_flax.load_decoder  # noqa: B018


def test_the_package_is_imported_at_once():
  code = (
    "import sys, byol_flax; print(sum(name.partition('.')[0] in "
    "('jax', 'numpy', 'ml_collections') for name in sys.modules))"
  )
  found = subprocess.run(
    [sys.executable, "-c", code],
    cwd=trainers.ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  assert found.stdout == "0\n"


def test_what_is_no_encoder_is_told(tmp_path):
  with pytest.raises(ValueError, match="there is no checkpoint in"):
    byol_flax.load_encoder(tmp_path)
