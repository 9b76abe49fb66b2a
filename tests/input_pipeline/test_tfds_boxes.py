"""Boxes of TFDS's `voc`."""

import cloudpickle
import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline import dense_sources, voc_classes
from input_pipeline.errors import UsageError
from input_pipeline.faults import Kind
from tests import small_sets
from tests.input_pipeline.test_tfds_sources import store

HEIGHT, WIDTH = 375, 500


def thing(box, label="dog", difficult=False):
  """An object as TFDS's builder makes it of VOC's numbers."""
  x_min, y_min, x_max, y_max = box
  return {
    "label": label,
    "bbox": tfds.features.BBox(
      y_min / HEIGHT, x_min / WIDTH, y_max / HEIGHT, x_max / WIDTH
    ),
    "is_difficult": difficult,
  }


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  out = tmp_path_factory.mktemp("tfds")
  image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  objects = [
    [thing((11, 6, 33, 47)), thing((1, 1, WIDTH, HEIGHT), "cat", True)],
    [],
    [thing((5, 5, 5, 9)), thing((0, 3, 9, 9))],
  ]
  store(
    out,
    {
      "image": tfds.features.Image(),
      "image/filename": tfds.features.Text(),
      "objects": tfds.features.Sequence(
        {
          "label": tfds.features.ClassLabel(names=["cat", "dog"]),
          "bbox": tfds.features.BBoxFeature(),
          "is_difficult": np.bool_,
        }
      ),
    },
    [
      {"image": image, "image/filename": f"{k}.jpg", "objects": some}
      for k, some in enumerate(objects)
    ],
    name="objects",
  )
  return str(out)


def test_boxes_are_those_of_the_annotations(data_dir):
  source = dense_sources.open_boxes("objects", "holdout", data_dir)
  source = cloudpickle.loads(cloudpickle.dumps(source))
  assert source.class_names == ("cat", "dog")
  assert source.most_boxes == 2
  assert (source.sizes == [(HEIGHT, WIDTH)] * 3).all()
  found = {
    source.file_name(i): source[i]["label"].tolist() for i in range(len(source))
  }
  assert found == {
    "0.jpg": [[10, 5, 33, 47, 1, 0], [0, 0, WIDTH, HEIGHT, 0, 1]],
    "1.jpg": [],
    "2.jpg": [[0, 2, 9, 9, 1, 0]],
  }


def test_faults_are_counted(data_dir):
  source = dense_sources.open_boxes("objects", "holdout[:100%]", data_dir)
  assert {what: len(names) for what, names in source.faults.items()} == {
    Kind.BOX_WITHOUT_AREA.what: 1,
    Kind.BOX_REACHES_OUTSIDE.what: 1,
    Kind.NO_OBJECTS.what: 1,
    Kind.DIFFICULT.what: 1,
  }


def test_a_file_of_classes_and_depth_are_refused(data_dir):
  with pytest.raises(UsageError, match="Leave classes_file empty"):
    dense_sources.open_boxes("objects", "holdout", data_dir, "classes.txt")
  with pytest.raises(UsageError, match="should have depth"):
    dense_sources.open_depth("objects", "holdout", data_dir)


def test_trainval_of_voc_is_train_and_validation(tmp_path):
  small_sets.write(tmp_path, ["voc/2007"])
  train, valid, both = (
    dense_sources.open_boxes("voc/2007", split, str(tmp_path))
    for split in ("train", "validation", "trainval[1:]")
  )
  assert both.class_names == voc_classes.OBJECTS
  assert len(both) == len(both.sizes) == len(train) + len(valid) - 1
  np.testing.assert_array_equal(
    both[len(train) - 1]["label"], valid[0]["label"]
  )
  both = cloudpickle.loads(cloudpickle.dumps(both))
  assert both[len(train)]["image"] == valid[1]["image"]
