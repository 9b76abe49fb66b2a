"""A detector learns from a folder of images, and a second start only reads."""

import numpy as np
import pytest

from byol_flax.evaluation import (
  average_precision,
  detection,
  detector,
  kept_pictures,
  place,
)
from byol_flax.models import resnet
from configs import detection as detection_config
from input_pipeline import dense_sources, whole_files
from input_pipeline.errors import RunError, UsageError
from tests.evaluation import dense_data, settings
from tests.input_pipeline import voc_folders


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory):
  root = tmp_path_factory.mktemp("rectangles")
  dense_data.rectangles_folder(root, "train", 48, seed=0)
  dense_data.rectangles_folder(root, "test", 17, seed=1)
  return root


def small_config(root, **changes):
  config = detection_config.get_config()
  config.data_name = f"voc:{root}"
  config.train_split, config.test_split = "train", "test"
  config.batch_size = config.evaluation_batch_size = 8
  config.steps, config.seeds = 2, (0,)
  config.warmup_steps = 10
  config.learning_rate = 0.2
  config.short_edges, config.buckets = (64,), 1
  config.test_edge, config.longest_edge = 64, 72
  config.anchors = {"sizes": (16.0, 28.0), "ratios": (0.6, 1.7)}
  config.rpn.update(
    batch=64, train_before=200, train_after=50, test_before=200, test_after=50
  )
  config.roi.update(batch=32, pool_size=6)
  config.update(changes)
  return config


def small_setting(root, workdir, *, devices=2, **changes):
  config = small_config(root, **changes)
  # Proposals are made on its first group, at every fourth pixel.
  opened = dense_data.encoder_of(settings.mesh_of(devices), "basic:1-1:16-32:8")
  found = settings.setting(config, workdir, devices=devices, opened=opened)
  (workdir / place.IDENTITY).parent.mkdir(parents=True, exist_ok=True)
  (workdir / place.IDENTITY).write_text("{}")
  return found


@pytest.mark.slow
def test_rectangles_are_found(rectangles, tmp_path):
  setting = small_setting(rectangles, tmp_path, steps=60)
  test = dense_sources.open_boxes(setting.config.data_name, "test")
  network = detector.Detector.of(setting, 2)
  boxes = network.boxes(network.create(0), test)
  assert len(boxes.true) == len(test)
  assert boxes.true[boxes.label >= 0].max() > 100  # in pixels of the files
  untrained = average_precision.summarise(boxes, 2)
  # As after a last update that diverged.
  for part in ("rpn", "box"):
    spoilt = dense_data.spoilt(network.create(0), part)
    with pytest.raises(RunError, match="of test is not finite, so the last"):
      network.boxes(spoilt, test)

  found = detection.run(setting)
  assert found["ap50"] > 0.6 > 0.1 > untrained.ap50
  assert found["ap50"] == np.mean(list(found["per_class"].values()))
  assert found["spreads"]["ap50"]["each"] == [found["ap50"]]
  kept = whole_files.read_arrays(str(tmp_path / f"{kept_pictures.BOXES}.npz"))
  assert len(kept_pictures.read_each(kept, "image")) == 8
  # Both are of the canvas, and most true boxes of these images are found.
  pairs = [
    average_precision.overlaps_of(true, found_boxes).max(axis=1)
    for true, found_boxes in zip(
      *(kept_pictures.read_each(kept, x) for x in ("boxes", "found_boxes")),
      strict=True,
    )
  ]
  assert np.mean(np.concatenate(pairs) > 0.5) > 0.6
  for name in (kept_pictures.CURVES, kept_pictures.COUNTS):
    assert (tmp_path / f"{name}.npz").exists()
  # Nothing is trained again.
  again = small_setting(rectangles, tmp_path, steps=60)
  again.encoder.variables.clear()
  assert detection.run(again) == found


@pytest.mark.slow
def test_folder_without_boxes_is_refused(tmp_path):
  voc_folders.write_text(tmp_path, "classes.txt", "cat\n")
  for split in ("train", "test"):
    voc_folders.write_image(tmp_path, f"{split}.jpg")
    voc_folders.write_boxes(tmp_path, split, voc_folders.annotation())
    voc_folders.write_list(tmp_path, "Main", split, [split])
  setting = small_setting(
    tmp_path,
    tmp_path,
    batch_size=2,
    classes_file=str(tmp_path / "classes.txt"),
  )
  with pytest.raises(UsageError, match="has no boxes"):
    detection.run(setting)


def write_split(root, split, names, *things):
  for name in names:
    voc_folders.write_image(root, f"{name}.jpg")
    voc_folders.write_boxes(root, name, voc_folders.annotation(*things))
  voc_folders.write_list(root, "Main", split, names)


def test_lists_that_share_images_are_refused(tmp_path):
  write_split(tmp_path, "train", ["a", "b", "c"], voc_folders.thing())
  write_split(tmp_path, "test", ["d", "b"], voc_folders.thing())
  setting = small_setting(tmp_path, tmp_path, batch_size=2)
  with pytest.raises(UsageError, match=r"share 1 images, such as .*b\.jpg"):
    detection.run(setting)


def test_a_test_split_of_difficult_boxes_is_refused_before_the_training(
  tmp_path,
):
  difficult = voc_folders.thing(extra="<difficult>1</difficult>")
  write_split(tmp_path, "train", ["a", "b"], voc_folders.thing())
  write_split(tmp_path, "test", ["d", "e"], difficult)
  setting = small_setting(tmp_path, tmp_path, batch_size=2)
  told = []
  object.__setattr__(setting, "tell", told.append)
  with pytest.raises(UsageError, match=r"test of .* that are not difficult"):
    detection.run(setting)
  # What is wrong with the data stands at the start.
  assert "objects marked difficult: 2" in told[1]


def test_a_frozen_encoder_normalises_as_it_did(rectangles, tmp_path):
  for encoder in ("frozen", "fine_tuned"):
    setting = small_setting(rectangles, tmp_path, encoder=encoder)
    module = detector.make_module(setting, 2)
    assert module.frozen_norm == (encoder == "frozen")
    (said,) = (x for x in detection._choices(setting.config) if "Norm" in x)
    assert ("is frozen" in said) == module.frozen_norm


def test_encoder_of_one_group_is_refused(rectangles, tmp_path):
  setting = small_setting(rectangles, tmp_path)
  one = resnet.Architecture(bottleneck=False, blocks=(1,), channels=(8,))
  module = setting.encoder.module.clone(architecture=one)
  object.__setattr__(setting.encoder, "module", module)
  with pytest.raises(UsageError, match="one group of blocks"):
    detector.make_module(setting, 2)
