"""Images of several classes, stored as TFDS delivers VOC2007."""

import numpy as np
import tensorflow_datasets as tfds

from tests.input_pipeline.test_tfds_sources import store


def write(folder):
  """Writes 60 images; a bright corner means its class, one of three.

  Every fifth image has only a difficult object of class 0, if it has any.

  Returns:
    What a config of `configs.sets.add_splits` has to be changed to.
  """
  several = tfds.features.Sequence(tfds.features.ClassLabel(num_classes=3))
  rng = np.random.default_rng(0)
  examples = []
  for i in range(60):
    image = rng.integers(0, 60, (9, 9, 3), np.uint8)
    classes = [k for k in range(3) if rng.random() < 0.5]
    for k in classes:
      image[4 * k : 4 * k + 2, :3] = 255
    sure = [k for k in classes if i % 5 or k]
    examples.append(
      {"image": image, "labels": classes, "labels_no_difficult": sure}
    )
  name = store(
    folder,
    {
      "image": tfds.features.Image(shape=(None, None, 3)),
      "labels": several,
      "labels_no_difficult": several,
    },
    examples,
  )
  return {
    "data_name": name,
    "data_dir": str(folder),
    "train_split": "holdout[:30]",
    "valid_split": "holdout[30:45]",
    "test_split": "holdout[45:]",
    "metric": "map11",
  }
