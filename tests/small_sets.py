"""Small copies of the paper's data sets, shaped as TFDS delivers them.

Features, names of classes, splits, keys and file formats are those of TFDS's
own builders. Only the images are made up, few, and of the first classes.
"""

import io
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from configs import sets
from input_pipeline import known_sets
from tests.input_pipeline.test_folders import make_folder

CLASSES = 3  # the first ones of each set

# TFDS's name -> split -> images of each class. Where the paper holds out a
# number of each class, train has some more.
TFDS: Mapping[str, Mapping[str, int]] = {
  "food101": {"train": 6, "validation": 4},
  "cifar10": {"train": 6, "test": 4},
  "cifar100": {"train": 6, "test": 4},
  "sun397/standard-part1-120k": {"train": 14, "test": 6},
  "cars196": {"train": 6, "test": 4},
  "voc/2007": {"train": 5, "validation": 4, "test": 4},
  "dtd": {"train": 5, "validation": 4, "test": 4},
  "oxford_iiit_pet": {"train": 24, "test": 4},
  "caltech101": {"train": 9, "test": 4},
  "oxford_flowers102": {"train": 5, "validation": 4, "test": 4},
  "imagenet2012": {"train": 10, "validation": 4},
  "imagenet2012_subset/1pct": {"train": 4, "validation": 4},
  "imagenet2012_subset/10pct": {"train": 6, "validation": 4},
  "places365_small": {"train": 8, "validation": 4, "test": 2},
}
# Sets of which the paper holds out the end of train -> how many images here.
HELD_OUT = {
  "food101": 5,
  "cifar10": 5,
  "cifar100": 5,
  "imagenet2012": 8,
  "places365_small": 6,
}
# The slices of a set that are numbers of images of the whole one.
_SLICES = {
  "cars": {"train_split": "train[:13]", "valid_split": "train[13:]"},
}
# TFDS learns the names of these classes when it downloads the set.
_NAMES_COME_LATER = ("cifar10", "cifar100")


def write(out: pathlib.Path, names: Mapping[str, Any] = TFDS) -> None:
  """Writes copies of TFDS's sets into `out`, a `data_dir` of TFDS."""
  tfds.disable_progress_bar()
  for name in names:
    _write(out, name)


def write_folders(out: pathlib.Path) -> dict[str, str]:
  """Writes Birdsnap and Aircraft as their layout says; returns their names."""
  found = {}
  for name, splits in (
    ("birdsnap", {"train": 6, "test": 2}),
    ("aircraft", {"train": 4, "valid": 3, "test": 3}),
  ):
    files = [
      f"{split}/{kind}/{kind} {i}.png"
      for split, count in splits.items()
      for kind in ("Brünnich's Guillemot", "A320", "707-320")
      for i in range(count)
    ]
    found[name] = make_folder(out / name, files)
  return found


def changes(
  name: str, data_dir: pathlib.Path, folders: Mapping[str, str]
) -> dict[str, Any]:
  """What the config of a set has to be changed to for its small copy.

  Args:
    name: in `sets.SETS`.
    data_dir: where `write` wrote.
    folders: what `write_folders` returned.
  """
  return {
    "data_name": folders.get(name, sets.SETS[name].data_name),
    "data_dir": str(data_dir),
    **_SLICES.get(name, {}),
    **{f"{split}_size": 0 for split in ("train", "valid", "test")},
  }


def known() -> dict[str, known_sets.Facts]:
  """What `known_sets.KNOWN` would be if the sets were as small as these."""
  found = {}
  for name, facts in known_sets.KNOWN.items():
    if name not in TFDS:
      continue
    total = CLASSES * TFDS[name]["train"]
    theirs = facts.splits["test"][0]
    splits = {"train": ("train", total)}
    if held := HELD_OUT.get(name):
      splits = known_sets.splits_of_train(total, held)
    splits["test"] = (theirs, CLASSES * TFDS[name][theirs])
    found[name] = known_sets.Facts(facts.num_classes, splits)
  return found


def _write(out: pathlib.Path, name: str) -> None:
  data_set, _, variant = name.partition("/")
  theirs = tfds.builder_cls(data_set)

  class Copy(theirs, skip_registration=True):  # type: ignore[misc, valid-type]
    """TFDS's builder, with other images."""

    # TFDS finds descriptions of a set beside the module of its class.
    pkg_dir_path = theirs.pkg_dir_path

    def _split_generators(self, dl_manager):
      del dl_manager
      for key in ("label", "coarse_label"):
        if data_set in _NAMES_COME_LATER and key in self.info.features:
          feature = self.info.features[key]
          feature.names = [f"{key} {k}" for k in range(feature.num_classes)]
      return {
        split: _examples(name, split, count, self.info.features)
        for split, count in TFDS[name].items()
      }

  Copy.name = data_set
  config = {"config": variant} if variant else {}
  Copy(
    data_dir=str(out), file_format="array_record", **config
  ).download_and_prepare()


def _examples(
  name: str, split: str, count: int, features: Mapping[str, Any]
) -> Iterator[tuple[Any, dict[str, Any]]]:
  """Yields (key, example) of a split, in the form that TFDS takes."""
  for i in range(CLASSES * count):
    label = i % CLASSES
    # As ImageNet's; the other sets' names have other forms.
    file_name = f"n{label:08d}_{split}{i}.JPEG"
    example = {
      key: _value(name, key, feature, file_name, label, split, i)
      for key, feature in features.items()
    }
    yield (i if name.startswith("cifar") else file_name), example


def _value(
  name: str,
  key: str,
  feature: Any,
  file_name: str,
  label: int,
  split: str,
  i: int,
) -> Any:
  """What an example has for a feature."""
  if key == "image":
    return picture(name, split, label, i)
  if key == "label":
    unlabelled = name == "places365_small" and split == "test"
    return -1 if unlabelled else label
  if key == "segmentation_mask":
    return _encoded(np.zeros((8, 9), np.uint8), "PNG")
  if key == "objects":
    return []
  if key in ("labels", "labels_no_difficult"):
    # Every fourth image has a difficult object of the next class.
    others = [(label + 1) % CLASSES] * (i % 4 == 0 and key == "labels")
    return sorted([label, *others])
  if isinstance(feature, tfds.features.Text):
    return file_name
  if isinstance(feature, tfds.features.BBoxFeature):
    return tfds.features.BBox(ymin=0.1, xmin=0.1, ymax=0.9, xmax=0.9)
  assert isinstance(feature, tfds.features.ClassLabel), (name, key)
  return 0


def picture(name: str, split: str, label: int, i: int) -> bytes:
  """An image file whose colour tells its class.

  The test images of SUN397 are what its archive has: JPEGs of other colour
  models, another format under the name of a JPEG, and a file that was cut.
  """
  side = (32, 32) if name.startswith("cifar") else (18 + i % 5, 20)
  rng = np.random.default_rng([len(name), len(split), i])
  pixels = rng.integers(0, 90, (*side, 3), np.uint8)
  pixels[..., label] += 150
  if name.startswith("cifar"):
    return _encoded(pixels, "PNG")
  if not (name.startswith("sun397") and split == "test"):
    return _encoded(pixels, "JPEG")
  kind = i // CLASSES
  if kind == 0:
    return _encoded(pixels, "JPEG", mode="CMYK")
  if kind == 1:
    return _encoded(pixels, "JPEG", mode="L")
  if kind == 2:
    return _encoded(pixels, "PNG")
  if kind == 3:
    return _encoded(pixels, "GIF")
  whole = _encoded(pixels, "JPEG")
  return whole[: len(whole) // 2] if i == 4 * CLASSES else whole


def _encoded(pixels: np.ndarray, form: str, mode: str = "") -> bytes:
  out = io.BytesIO()
  image = Image.fromarray(pixels)
  (image.convert(mode) if mode else image).save(out, form)
  return out.getvalue()
