"""Real sets laid out as VOC's open whole, and their one kind of fault is told.

Numbers are those that the sets' own folders give.
"""

import numpy as np
import pytest

from input_pipeline import dense_depth, dense_sources, sources
from input_pipeline.faults import Kind
from tests import prepare_depth, real_sets


@pytest.mark.parametrize(
  ("split", "images", "without_area"),
  [("train", 205, "BloodImage_00343"), ("val", 87, "BloodImage_00338")],
)
def test_blood_cells(split, images, without_area):
  path = real_sets.folder("bccd")
  source = dense_sources.open_boxes(f"voc:{path}", split)
  assert len(source) == images
  assert source.class_names == ("Platelets", "RBC", "WBC")
  assert source.faults == {Kind.BOX_WITHOUT_AREA.what: (without_area,)}
  assert (source.sizes == [(480, 640)] * images).all()
  example = sources.ReadableSource(source)[3]
  boxes = example["label"]
  assert len(boxes) <= source.most_boxes < 60
  assert example["image"].shape == (480, 640, 3)
  assert (boxes[:, :2] >= 0).all()
  assert (boxes[:, 2:4] <= [(640, 480)] * len(boxes)).all()


@pytest.mark.parametrize(("split", "images"), [("train", 367), ("val", 101)])
def test_street_scenes(split, images):
  path = real_sets.folder("camvid")
  source = dense_sources.open_classes(f"voc:{path}", f"{split}[:30]")
  assert len(source) == 30
  assert len(source.source) == images
  assert source.num_classes == 11
  assert source.faults.keys() == {Kind.MASK_VOID.what}
  values = np.unique(sources.ReadableSource(source)[7]["label"])
  assert {255} < {*values.tolist()} <= {*range(11), 255}


def test_frames_of_a_depth_camera(tmp_path):
  assert prepare_depth.write_frames(tmp_path) == 32
  for split, frames in (("train", 24), ("val", 8)):
    source = dense_sources.open_depth(f"depth:{tmp_path}", split)
    assert len(source) == frames
    assert not source.faults
    example = sources.ReadableSource(source)[5]
    assert example["image"].shape == (480, 640, 3)
    depth = example["label"]
    assert 0 < (depth > 0).mean() < 1
    assert depth[depth > 0].min() > 0.3
    assert depth.max() < 10
    target = dense_depth.target(depth)
    assert (target > 0).mean() > (depth > 0).mean() - 0.02
