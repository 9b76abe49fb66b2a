"""Features of whole splits, on any devices, and what ends them."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.evaluation import (
  features,
  online,
  representations,
)
from configs import few_label
from input_pipeline import augment, sources
from input_pipeline.errors import PreemptedError
from tests import tiny
from tests.evaluation import settings


@pytest.fixture(scope="module")
def network():
  net = tiny.make_network(num_classes=10)
  images = np.zeros((2, 1, tiny.SIZE, tiny.SIZE, 3), np.uint8)
  return net, jax.jit(lambda: net.init(jax.random.key(0), images, train=True))()


def mesh_of(devices):
  return sharding.make_mesh(jax.devices()[:devices])


def reader(batch_size, mesh):
  return features.make_reader(
    augment.EvalCrop(size=tiny.SIZE, ratio=1.0),
    mesh,
    batch_size=batch_size,
    num_workers=0,
    num_threads=1,
  )


def extract(network, batch_size, devices):
  net, variables = network
  mesh = mesh_of(devices)
  (found,) = features.extract_splits(
    online.make_feature_fn(net, mesh),
    jax.device_put(variables, sharding.replicated(mesh)),
    [sources.open_source("digits", "test")],
    reader(batch_size, mesh),
    mesh=mesh,
  )
  return found


@pytest.mark.slow
def test_statistics_of_an_untrained_encoder_do_not_depend_on_devices():
  """Nor on what a batch is rounded up to so that they can share it."""
  source, found = sources.open_source("digits", "test[:9]"), []
  for devices in (1, 8):
    mesh = mesh_of(devices)
    calibrated = features.calibrate(
      settings.untrained(mesh), source, reader(3, mesh), mesh, batch_size=3
    )
    found.append(jax.device_get(calibrated.variables))
  jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "devices"), [(128, 8), (100, 8)])
def test_features_do_not_depend_on_batches_or_devices(
  network, batch_size, devices
):
  """Neither 100 nor the 360 digits can be divided among 8 devices and less."""
  one = extract(network, 100, 1)  # the last batch holds 60
  many = extract(network, batch_size, devices)
  assert one["representation"].shape == (360, 8)
  np.testing.assert_array_equal(one["label"], many["label"])
  for name in ("representation", "logits"):
    np.testing.assert_allclose(one[name], many[name], rtol=1e-4, atol=1e-5)
  split = sources.open_source("digits", "test")
  assert one["label"].tolist() == [split[i]["label"] for i in range(360)]


def test_a_batch_grows_until_the_devices_can_share_it():
  assert reader(100, mesh_of(8)).batch_size == 104
  assert reader(96, mesh_of(8)).batch_size == 96
  assert reader(1, mesh_of(3)).batch_size == 3


def test_what_ends_an_evaluation_ends_its_input(network):
  """Two splits, one reader; a preemption comes between two batches."""
  net, variables = network
  mesh = mesh_of(1)
  splits = [sources.open_source("digits", s) for s in ("test", "train")]
  parts = []

  def part_done():
    parts.append(len(parts))
    if len(parts) == 7:  # of 3 batches and 12
      raise PreemptedError

  with pytest.raises(PreemptedError):
    features.extract_splits(
      online.make_feature_fn(net, mesh),
      variables,
      splits,
      reader(120, mesh),
      mesh=mesh,
      part_done=part_done,
    )
  assert len(parts) == 7
  assert not [t for t in threading.enumerate() if t.name == "input"]


def few_label_table(devices, representations_=("raw_pixels", "byol")):
  """The protocol, on an encoder that was never trained."""
  lines = []
  config = few_label.get_config()
  config.few_label.update({"per_class": (1, 10), "draws": 3})
  mine = settings.setting(
    config, "", devices=devices, representations=representations_
  )
  found = representations.run(dataclasses.replace(mine, tell=lines.append))
  return found["table"], "\n".join(lines).splitlines()


@pytest.mark.slow
def test_table_of_raw_pixels_and_a_random_encoder():
  (raw, untrained), lines = few_label_table(1)
  assert raw["knn"] > 0.97  # scikit-learn's own figure for 8 × 8 digits: 0.986
  assert 0.2 < untrained["knn"] < raw["knn"]
  assert raw["linear"][10][0] > raw["linear"][1][0] > 0.4
  header, first = lines[2:4]
  assert header.split()[0] == "representation"
  assert "linear, 10/class" in header
  assert f"{raw['knn']:.3f}" in first


@pytest.mark.slow
def test_the_table_does_not_depend_on_devices():
  """Five devices can share neither 360 rows in halves nor the last batch."""
  (one,), (many,) = (few_label_table(n, ("byol",))[0] for n in (1, 7))
  assert one["knn"] == pytest.approx(many["knn"], abs=0.006)  # 2 of 360
  for count in (1, 10):
    assert one["linear"][count] == pytest.approx(
      many["linear"][count], abs=0.01
    )
