"""The twelve data sets of a transfer, as the paper divides them (Table 10)."""

import dataclasses

from ml_collections import ConfigDict

from configs import common


@dataclasses.dataclass(frozen=True)
class Set:
  """A data set as Table 10 divides it.

  Attributes:
    data_name: as data.name in configs/byol.py.
    train: split to train on; also what is held out of, if `per_class` is given.
    valid: split to choose on; "" where `per_class` is given.
    test: split to report on.
    sizes: images of train, valid and test (Table 10); 0 where TFDS or the
      rule of the paper gives another number than the table.
    metric: see `add_splits`.
    per_class: images of each class held out of train (App. D.1); -1 for as many
      as test has.
    layout: what to put where, if TFDS cannot fetch the set.
  """

  data_name: str
  train: str
  valid: str
  test: str
  sizes: tuple[int, int, int]
  metric: str = "top1"
  per_class: int = 0
  layout: str = ""


# Where the paper does not tell which images it held out, the last of TFDS's
# order (which is a random one) are valid, as for ImageNet.
SETS = {
  "food101": Set(
    "food101", "train_without_valid", "valid", "test", (68_175, 7_575, 25_250)
  ),
  "cifar10": Set(
    "cifar10", "train_without_valid", "valid", "test", (45_000, 5_000, 10_000)
  ),
  "cifar100": Set(
    "cifar100", "train_without_valid", "valid", "test", (44_933, 5_067, 10_000)
  ),
  # Table 10 has 4,981 images in valid and 2,443 in test, and App. D.1 the same
  # numbers of each class in both. This is the rule of App. D.1.
  "birdsnap": Set(
    "folder:birdsnap",
    "train",
    "",
    "test",
    (0, 0, 2_443),
    per_class=-1,
    layout="Birdsnap is not in TFDS: put the images that its test_images.txt "
    "lists into DIR/test/SPECIES/ and all others into DIR/train/SPECIES/, and "
    "give --config.data_name=folder:DIR.",
  ),
  "sun397": Set(
    "sun397/standard-part1-120k",
    "train",
    "",
    "test",
    (15_880, 3_970, 19_850),
    per_class=10,
  ),
  "cars": Set(
    "cars196",
    "train[:6494]",
    "train[6494:]",
    "test",
    (6_494, 1_650, 8_041),
    layout="If TFDS cannot fetch Stanford Cars any more: put its images into "
    "DIR/train/MODEL/ and DIR/test/MODEL/, mix each with `byol prepare "
    "DIR/train OUT --name=cars196 --split=train` (and test), and give "
    "--config.data_dir=OUT.",
  ),
  "aircraft": Set(
    "folder:aircraft",
    "train",
    "valid",
    "test",
    (3_334, 3_333, 3_333),
    metric="mean_per_class",
    layout="FGVC Aircraft is not in TFDS: put the images of "
    "fgvc-aircraft-2013b into DIR/train/VARIANT/, DIR/valid/VARIANT/ and "
    "DIR/test/VARIANT/, as its images_variant_train.txt, _val.txt and "
    "_test.txt list them, and give --config.data_name=folder:DIR.",
  ),
  "voc2007": Set(
    "voc/2007",
    "train",
    "validation",
    "test",
    (2_501, 2_510, 4_952),
    metric="map11",
  ),
  "dtd": Set("dtd", "train", "validation", "test", (1_880, 1_880, 1_880)),
  "pets": Set(
    "oxford_iiit_pet",
    "train",
    "",
    "test",
    (2_940, 740, 3_669),
    metric="mean_per_class",
    per_class=20,
  ),
  # TFDS draws 30 files of each of 102 classes for train, as the paper does, and
  # keeps those that end in .jpg; so it is not held to the sizes of the table.
  "caltech101": Set(
    "caltech101",
    "train",
    "",
    "test",
    (0, 510, 0),
    metric="mean_per_class",
    per_class=5,
  ),
  "flowers": Set(
    "oxford_flowers102",
    "train",
    "validation",
    "test",
    (1_020, 1_020, 6_149),
    metric="mean_per_class",
  ),
}
# The data set of the encoder.
_OWN = Set("", "train_without_valid", "valid", "test", (0, 0, 0))


def choose(arg: str | None) -> tuple[Set, str]:
  """Reads an argument such as "pets,random=1".

  Returns:
    The set that it names, or that of the encoder if it names none; and the
    rest of the argument, for `common.parse_arg`.

  Raises:
    ValueError: it names an unknown set, or two.
  """
  items = [item for item in (arg or "").split(",") if item]
  names = [item for item in items if "=" not in item]
  for name in names:
    if name not in SETS:
      raise ValueError(
        f"Unknown data set {name!r}; known are {', '.join(SETS)}."
        f"{common.near_miss(name, SETS)}"
      )
  if len(names) > 1:
    raise ValueError(f"{arg!r} names {len(names)} data sets; expected one.")
  chosen = SETS[names[0]] if names else _OWN
  return chosen, ",".join(item for item in items if "=" in item)


def add_splits(config: ConfigDict, chosen: Set) -> None:
  """Writes into a config what `three_splits.open_splits` reads."""
  config.data_name = chosen.data_name
  config.train_split = chosen.train
  config.valid_split = chosen.valid
  config.test_split = chosen.test
  # Instead of valid_split: that many of each class are held out of train_split,
  # drawn by seed; -1 for as many as test has.
  config.valid_per_class = chosen.per_class
  # Images that are expected; 0 for any number.
  config.train_size, config.valid_size, config.test_size = chosen.sizes
  config.layout = chosen.layout  # said where the set cannot be opened
  # top1, mean_per_class, or map11: mean over classes of VOC2007's average
  # precision, where an image may have several.
  config.metric = chosen.metric
