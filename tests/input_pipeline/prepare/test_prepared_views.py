"""A set prepared by TFDS and one by `byol prepare` hold the same examples."""

import zlib

import cv2
import numpy as np
import pytest

from byol_flax import main
from input_pipeline import augment, sources
from tests.input_pipeline.test_pipeline import VIEW
from tests.prepare_cifar10 import write_cifar10


@pytest.mark.slow
def test_a_set_prepared_by_tfds_gives_the_same_views(tmp_path):
  """The same files through TFDS's builder and through `byol prepare`."""
  rng = np.random.default_rng(5)
  images = rng.integers(0, 256, (30, 32, 32, 3), np.uint8)
  labels = np.arange(30) % 10
  names = [f"class{i}" for i in range(10)]
  by_tfds, by_byol = tmp_path / "a", tmp_path / "b"
  write_cifar10(str(by_tfds), {"train": (images, labels)}, names)
  for i, (image, label) in enumerate(zip(images, labels, strict=True)):
    file = tmp_path / "files" / names[label] / f"{i}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
  arguments = (tmp_path / "files", by_byol, "--name=cifar10")
  options = ("--version=3.0.2", "--workers=1")
  assert main.main(["prepare", *map(str, arguments), *options]) == 0
  transform = augment.TwoViews(size=16, view1=VIEW, view2=VIEW)
  views = []
  for data_dir in (by_tfds, by_byol):
    encoded = sources.open_source("cifar10", "train", str(data_dir))
    source = sources.ReadableSource(encoded)
    found = {}
    for i in range(len(source)):
      # One generator for each file, in whatever place it stands.
      seed = zlib.crc32(encoded[i]["image"])
      example = transform.random_map(source[i], np.random.default_rng(seed))
      found[seed] = (
        int(example["label"]),
        example["view1"].tobytes(),
        example["view2"].tobytes(),
      )
    views.append(found)
  assert len(views[0]) == 30
  assert views[0] == views[1]
