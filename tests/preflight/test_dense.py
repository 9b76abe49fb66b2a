"""Preflight of segmentation, detection and depth, without and with data."""

import jax
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.evaluation import encoder
from byol_flax.preflight import dense_data, jobs, protocols
from configs import byol, depth, detection, segmentation
from input_pipeline import sources
from input_pipeline.errors import UsageError
from tests.evaluation import settings


@pytest.fixture(scope="module")
def mesh():
  return sharding.make_mesh()


def programs(config, opened, mesh, data=None):
  """Number of calls and the last argument of each program."""
  data = data or dense_data.look(config, config.data_name, None)
  job = jobs.Job(config, opened, mesh, data.counts, data.num_classes)
  found = protocols.PROTOCOLS[config.protocol].programs(job)
  for program in found:  # all are given what they take
    jax.eval_shape(
      lambda *given, program=program: program.function(*given),
      *program.arguments,
    )
  return {x.name: (x.calls, x.arguments[1]) for x in found}


@pytest.mark.slow
def test_segmentation_tries_five_rates_and_tests_five_seeds(mesh):
  opened = encoder.without_weights(settings.small_config(), mesh)
  config = segmentation.get_config()
  config.crop_size = 33
  found = programs(config, opened, mesh)
  updates, batch = found["update"]
  assert updates == (5 + 5) * 30_000
  assert batch["classes"].sharding.shard_shape((16, 33, 33)) == (2, 33, 33)
  looks, shown = found["look"]
  # 2,119 images are held out, and 1,449 tested on, 16 at a time.
  assert looks == 5 * 133 + 5 * 91
  assert shown["image"].shape == (16, 33, 33, 3)
  config.inference, config.held_out = "whole", 0
  config.evaluate_every_steps = 10_000
  looks, shown = programs(config, opened, mesh)["look"]
  assert (looks, shown["classes"].shape) == (4 * 5 * 91, (16, 513, 513))


@pytest.mark.slow
def test_detection_is_asked_about_on_its_largest_canvas(mesh):
  opened = encoder.without_weights(settings.small_config(), mesh)
  config = detection.get_config()
  config.update(short_edges=(64, 96), longest_edge=150, test_edge=96)
  found = programs(config, opened, mesh)
  updates, batch = found["update"]
  assert updates == 5 * 9_000
  assert batch["image"].shape == (16, 96, 160, 3)
  assert batch["boxes"].shape == (16, config.max_boxes, 4)
  looks, shown = found["look"]
  assert looks == 5 * 310
  assert shown["scale"].shape == (16, 2)


@pytest.mark.slow
def test_depth_needs_no_data(mesh):
  of_encoder = byol.get_config("architecture=resnet18")
  opened = encoder.without_weights(of_encoder, mesh)
  found = programs(depth.get_config(), opened, mesh)
  updates, batch = found["update"]
  assert (updates, batch["depth"].shape) == (7_500, (256, 128, 160))
  looks, shown = found["look"]
  assert (looks, shown["depth"].shape) == (41, (16, 480, 640))
  assert shown["mask"].shape == (16,)


@pytest.mark.parametrize(
  ("config", "name"),
  [
    (segmentation.get_config(), "VOC2012"),
    (detection.get_config(), "VOC2007"),
    (depth.get_config(), "NYU Depth v2"),
  ],
  ids=lambda x: x if isinstance(x, str) else "",
)
def test_photographs_stand_for_absent_images(config, name):
  data = dense_data.look(config, config.data_name, None)
  assert data.name == f"{name} ({config.data_name} is not here)"
  assert "synthetic photographs" in data.measured_on
  example = sources.ReadableSource(data.source)[0]
  (transform,) = data.transforms
  row = transform.random_map(example, np.random.default_rng(0))
  assert row["unreadable"] < 0


def test_other_data_than_the_papers_must_be_there(tmp_path):
  config = detection.get_config()
  with pytest.raises(UsageError):  # it is there, but is no such data set
    dense_data.look(config, f"voc:{tmp_path}", None)
  config.test_split = "val"
  with pytest.raises(UsageError):
    dense_data.look(config, "voc:/nowhere", None)


def test_a_batch_that_the_devices_cannot_share_is_told(mesh):
  config = depth.get_config()
  opened = encoder.without_weights(settings.small_config(), mesh)
  for size, near in ((12, "8 or 16"), (4, "8")):
    config.batch_size = size
    told = f"{size} must be a multiple of 8, such as {near}, to be"
    with pytest.raises(UsageError, match=told):
      programs(config, opened, mesh)
