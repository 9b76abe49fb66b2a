"""Real sets laid out as VOC's open whole, and their one kind of fault is told.

Numbers are those that the sets' own folders give.
"""

import numpy as np
import pytest

from input_pipeline import dense_sources, sources
from input_pipeline.faults import Kind
from tests import real_sets


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
