"""TensorBoard's own code reads back what is written for its projector."""

import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins.projector import projector_config_pb2, projector_plugin

from byol_flax.reports import projector

RANDOM = np.random.default_rng(7)


@pytest.mark.parametrize("first", [0.0, 1.5])
def test_tensorboard_reads_features_columns_and_thumbnails(tmp_path, first):
  features = RANDOM.normal(size=(5, 3)).astype(np.float32)
  # Read as text, these bytes would be a line of zeros: no number, an error.
  features[0] = first, 0, np.frombuffer(b"\0\0\n\0", "<f4")[0]
  images = RANDOM.integers(0, 256, (5, 32, 32, 3), np.uint8)
  about = {
    "class": ["a\tb", "c\nd", "", "é", "f"],
    "guess": list("abcde"),
  }
  projector.write(tmp_path, features, about, images)

  config = projector_config_pb2.ProjectorConfig()
  path = tmp_path / "projector_config.pbtxt"
  projector_plugin.text_format.Parse(path.read_text(), config)
  (embedding,) = config.embeddings
  found = {
    name: projector_plugin._rel_to_abs_asset_path(text, str(path))
    for name, text in (
      ("features", embedding.tensor_path),
      ("about", embedding.metadata_path),
      ("sprite", embedding.sprite.image_path),
    )
  }
  with pytest.raises(UnicodeDecodeError):  # so it goes on to read numbers
    projector_plugin._read_tensor_tsv_file(found["features"])
  np.testing.assert_allclose(
    projector_plugin._read_tensor_binary_file(
      found["features"], embedding.tensor_shape
    ),
    features,
    rtol=2**-15,
    atol=1e-40,
  )
  with open(found["about"]) as file:
    assert file.read().splitlines() == [
      *("class\tguess", "a b\ta", "c d\tb", "\tc", "é\td", "f\te")
    ]
  sprite = np.array(Image.open(found["sprite"]))
  assert sprite.shape == (96, 96, 3)  # a square of 3 times 3
  np.testing.assert_array_equal(sprite[32:64, :32], images[3])
  assert list(embedding.sprite.single_image_dim) == [32, 32]

  values, columns = projector.read(tmp_path)
  np.testing.assert_allclose(values, features, rtol=2**-15, atol=1e-40)
  assert columns["class"] == ["a b", "c d", "", "é", "f"]


def test_thumbnails_are_of_one_size():
  flat = np.full((100, 100, 3), 90, np.uint8)
  assert (projector.thumbnail(flat) == np.full((32, 32, 3), 90)).all()
  assert projector.thumbnail(flat[:8, :8]).shape == (32, 32, 3)
