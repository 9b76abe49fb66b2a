"""Depth: one device as eight, a whole protocol, and real learning."""

import dataclasses
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.evaluation import (
  dense,
  depth,
  depth_metrics,
  depth_network,
  kept_pictures,
)
from byol_flax.models import resnet
from configs import depth as depth_config
from input_pipeline import dense_sources, whole_files
from input_pipeline.errors import RunError, UsageError
from tests import trainers
from tests.evaluation import dense_data, settings

RNG = np.random.default_rng(32)
SMALL = resnet.name_of(
  resnet.Architecture(
    bottleneck=False,
    blocks=(1, 1, 1, 1),
    channels=(4, 8, 16, 32),
    stem_channels=4,
  )
)


def setting_of(
  workdir, *, devices=1, architecture=SMALL, dtype="float32", **changes
):
  mesh = settings.mesh_of(devices)
  opened = dense_data.encoder_of(mesh, architecture, dtype=dtype)
  return settings.setting(
    depth_config.get_config(),
    workdir,
    devices=devices,
    opened=opened,
    **{
      "batch_size": 8,
      "evaluation_batch_size": 8,
      "report_every_steps": 1,
      **changes,
    },
  )


@pytest.mark.slow
def test_one_device_updates_as_eight(tmp_path):
  """In float64, because on some machines rounding turns a ReLU."""
  batch = {
    "image": RNG.integers(0, 256, (8, 64, 64, 3)).astype(np.uint8),
    "depth": RNG.uniform(0.5, 8, (8, 32, 32)).astype(np.float32),
  }
  batch["depth"][RNG.random(batch["depth"].shape) < 0.2] = 0
  found = []
  with jax.enable_x64(True):
    setting = setting_of(tmp_path, dtype="float64")
    # Drawn once: most of what is compiled here would draw it.
    drawn = jax.device_get(depth_network.DepthNetwork.of(setting).create(0))
    sgd = dense.sgd_of(setting.config, learning_rate=0.02, seed=0)
    for devices in (1, 8):
      mesh = settings.mesh_of(devices)
      network = depth_network.DepthNetwork.of(
        dataclasses.replace(setting, mesh=mesh)
      )
      state = jax.device_put(drawn, sharding.replicated(mesh))
      moved = network.update(state, sharding.put_batch(mesh, batch), sgd)
      found.append(jax.device_get(moved))
  one, eight = map(trainers.by_path, found)
  assert trainers.largest_difference(eight, one) < 1e-9


@pytest.mark.slow
def test_it_learns_four_frames(tmp_path):
  """Measured on the same frames, which lie there once more."""
  (tmp_path / "evaluation.json").write_text("{}")  # so that pictures are kept
  setting = setting_of(
    tmp_path,
    data_name=dense_data.depth_folder(tmp_path / "frames", train=4, test=4),
    batch_size=4,
    steps=50,
    learning_rate=0.02,
    drops=(0.6, 0.9),
    flip_probability=0.0,
    evaluate_every_steps=25,
    pictures=2,
  )
  found = depth.run(setting)
  for convention in depth_metrics.CONVENTIONS:
    constant = found["mean_depth"]["each pixel"][convention]
    reached = found["metrics"][convention]
    assert reached["rel"] < 0.6 * constant["rel"]
    # The frames are the same.
    seen = found["spreads"]["train"][convention]
    assert {key: x["mean"] for key, x in seen.items()} == reached
  # A second start finds everything, and pictures have what they need.
  assert json.dumps(depth.run(setting)) == json.dumps(found)
  kept = whole_files.read_arrays(str(tmp_path / f"{kept_pictures.DEPTHS}.npz"))
  true, guess = (kept_pictures.read_each(kept, x) for x in ("depth", "found"))
  assert len(true) == 2
  assert true[0].shape == guess[0].shape == (456, 608)


@pytest.mark.slow
def test_the_decoder_needs_a_map_of_a_thirty_second(tmp_path):
  setting = setting_of(tmp_path, architecture="resnet8")
  with pytest.raises(UsageError, match="output stride of 32"):
    depth_network.make_module(setting)


@pytest.mark.slow
def test_depths_that_are_not_finite_are_no_result(tmp_path):
  """As after a last update that diverged."""
  name = dense_data.depth_folder(tmp_path / "frames", train=1, test=1)
  setting = setting_of(tmp_path, data_name=name, num_workers=0)

  @jax.jit
  def compare(variables, batch):
    return {
      name: depth_metrics.row_sums(
        jnp.full(known.shape, jnp.nan), known, batch["mask"]
      )
      for name, (_, known) in depth_metrics.pairs(
        jnp.ones((len(batch["depth"]), 2, 2)), batch["depth"]
      ).items()
    }

  split = dense_sources.open_depth(name, "test", None)
  with pytest.raises(RunError, match="of test is not finite, so the last"):
    depth_network.measures_of(setting, compare, {}, split)


@pytest.mark.slow
def test_frames_without_a_depth_are_refused_before_the_training(tmp_path):
  name = dense_data.depth_folder(tmp_path / "frames", train=2, test=1)
  path = tmp_path / "frames" / "test" / "0.depth.png"
  cv2.imwrite(str(path), np.zeros((480, 640), np.uint16))
  setting = setting_of(
    tmp_path,
    data_name=name,
    train_split="train",
    test_split="test",
    batch_size=2,
  )
  with pytest.raises(UsageError, match=r"test of .* has no valid depth"):
    depth.run(setting)
