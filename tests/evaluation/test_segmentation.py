"""Segmentation: one device as eight, a whole protocol, and real learning."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from byol_flax import sharding
from byol_flax.evaluation import (
  dense,
  dense_splits,
  kept_pictures,
  mean_iou,
  segmentation,
  segmenter,
)
from byol_flax.models import resnet
from configs import segmentation as segmentation_config
from input_pipeline import dense_sources, whole_files
from input_pipeline.errors import RunError, UsageError
from tests import trainers
from tests.evaluation import dense_data, settings
from tests.input_pipeline import voc_folders

RNG = np.random.default_rng(31)
SMALL = resnet.name_of(
  resnet.Architecture(
    bottleneck=False, blocks=(1, 1, 1), channels=(4, 8, 16), stem_channels=4
  )
)


def setting_of(
  workdir, *, devices=1, architecture=SMALL, dtype="float32", **changes
):
  opened = dense_data.encoder_of(
    settings.mesh_of(devices), architecture, stem="small", dtype=dtype
  )
  return settings.setting(
    segmentation_config.get_config(),
    workdir,
    devices=devices,
    opened=opened,
    **{
      "crop_size": 33,
      "batch_size": 8,
      "evaluation_batch_size": 8,
      "warmup_steps": 2,
      "report_every_steps": 1,
      **changes,
    },
  )


@pytest.mark.slow
def test_one_device_updates_as_eight(tmp_path):
  """In float64, because on some machines rounding turns a ReLU."""
  batch = {
    "image": RNG.integers(0, 256, (8, 33, 33, 3)).astype(np.uint8),
    "classes": RNG.choice([0, 1, 2, 255], (8, 33, 33)).astype(np.uint8),
  }
  found = []
  with jax.enable_x64(True):
    setting = setting_of(tmp_path, dtype="float64")
    # Drawn once: most of what is compiled here would draw it.
    drawn = jax.device_get(segmenter.Segmenter.of(setting, 3).create(0))
    sgd = dense.sgd_of(setting.config, learning_rate=0.1, seed=0)
    for devices in (1, 8):
      mesh = settings.mesh_of(devices)
      network = segmenter.Segmenter.of(
        dataclasses.replace(setting, mesh=mesh), 3
      )
      state = jax.device_put(drawn, sharding.replicated(mesh))
      moved = network.update(state, sharding.put_batch(mesh, batch), sgd)
      found.append(jax.device_get(moved))
  assert found[0][1]["train/loss"] > 0
  one, eight = map(trainers.by_path, found)
  assert trainers.largest_difference(eight, one) < 1e-9


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
  return dense_data.shapes_folder(
    tmp_path_factory.mktemp("voc"), train=32, test=12
  )


@pytest.mark.slow
def test_it_learns_shapes_and_chooses_the_rate_on_what_is_held_out(
  shapes, tmp_path
):
  """With a rate that is far too low, one that is right, and one that fails."""
  (tmp_path / "evaluation.json").write_text("{}")  # so that pictures are kept
  setting = setting_of(
    tmp_path,
    data_name=shapes,
    train_split="train",
    test_split="test",
    held_out=8,
    steps=32,
    learning_rates=(1e-6, 0.1, 1e30),
    seeds=(3,),
    inference="whole",
    evaluate_every_steps=16,
    pictures=3,
  )
  found = segmentation.run(setting)
  assert found["learning_rate"] == 0.1
  untrained, best, diverged = found["valid"].values()
  assert best > 0.6 > 0.4 > untrained
  assert diverged == 0
  assert found["mean_iou"] > 0.6
  assert found["mean_iou"] == pytest.approx(np.mean(found["spread"]["each"]))
  assert found["per_class"].keys() == set(dense_data.SHAPES)
  trial = found["trials"]["3"]
  source = dense_splits.open_split(
    setting, "test_split", dense_sources.open_classes
  )
  # As after a last update that diverged.
  network = segmenter.Segmenter.of(setting, len(dense_data.SHAPES))
  state = dense_data.spoilt(network.create(0), "head")
  with pytest.raises(RunError, match="of test is not finite, so the last"):
    network.measures(state, source)
  # Void lines and what fills up a canvas count nowhere, all else does.
  pixels = sum((source[i]["label"] != 255).sum() for i in range(len(source)))
  assert np.sum(trial["confusion"]) == pixels
  measured = mean_iou.measures(np.array(trial["confusion"]), dense_data.SHAPES)
  assert trial["mean_iou"] == measured["mean_iou"]
  # A second start finds everything, and pictures have what they need.
  again = segmentation.run(setting)
  assert json.dumps(again) == json.dumps(found)
  kept = whole_files.read_arrays(str(tmp_path / f"{kept_pictures.MASKS}.npz"))
  assert len(kept_pictures.read_each(kept, "found")) == 3
  lines = (tmp_path / "seed-3" / "metrics.jsonl").read_text().splitlines()
  curve = [json.loads(line) for line in lines]
  assert any("segmentation/test/mean_iou" in line for line in curve)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"held_out": 0}, "nothing is there to choose"),
    ({"held_out": 32}, "has only 32 images"),
    ({"crop_size": 32}, "such as 33"),
    ({"batch_size": 64}, "more than the 24 images of rest of train"),
    ({"batch_norm": "frozen"}, "an untrained encoder has none"),
    ({"test_split": "void"}, "void of .* has no pixels of the declared"),
  ],
)
def test_what_cannot_be_is_told_at_once(shapes, tmp_path, changes, message):
  root = pathlib.Path(shapes.removeprefix("voc:"))
  voc_folders.write_image(root, "v.png")
  mask = np.full((voc_folders.HEIGHT, voc_folders.WIDTH), 255, np.uint8)
  voc_folders.write_bytes(
    root, "SegmentationClass/v.png", voc_folders.palette_png(mask)
  )
  voc_folders.write_list(root, "Segmentation", "void", ["v"])
  given = {"held_out": 8, "train_split": "train", "test_split": "test"}
  setting = setting_of(tmp_path, data_name=shapes, **given | changes)
  with pytest.raises(UsageError, match=message):
    segmentation.run(setting)


def test_every_rate_has_a_name_of_its_own():
  assert segmentation._named((1e-3, 0.01)) == {
    "rate-0.001": 1e-3,
    "rate-0.01": 0.01,
  }
  assert len(segmentation._named((0.01, 0.010001))) == 2
