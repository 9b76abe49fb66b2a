"""What is known about data sets of TFDS before they are on disk."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known about a data set before it is on disk.

  Attributes:
    num_classes: number of classes.
    splits: our name of a split -> (TFDS's name, number of images).
  """

  num_classes: int
  splits: Mapping[str, tuple[str, int]]


def splits_of_train(total: int, valid: int) -> dict[str, tuple[str, int]]:
  """Splits of `total` training images; the last `valid` ones are held out."""
  kept = total - valid
  return {
    "train": ("train", total),
    "train_without_valid": (f"train[:{kept}]", kept),
    "valid": (f"train[{kept}:]", valid),
  }


# Sizes are from the paper, Table 10 (App. D.1), except where noted. Only for
# ImageNet does the paper say which images it held out (App. C.1: the last of
# TFDS's train); the other sets follow that rule here. The official validation
# images are our test.
KNOWN = {
  "imagenet2012": Facts(
    1000, splits_of_train(1_281_167, 10_009) | {"test": ("validation", 50_000)}
  ),
  "imagenet2012_subset/1pct": Facts(  # Sizes of SimCLR's lists (paper, §4).
    1000, {"train": ("train", 12_811), "test": ("validation", 50_000)}
  ),
  "imagenet2012_subset/10pct": Facts(
    1000, {"train": ("train", 128_116), "test": ("validation", 50_000)}
  ),
  # Paper, App. E. It holds nothing out (Table 10); to choose a learning rate,
  # as many images are taken here as test has.
  "places365_small": Facts(
    365,
    splits_of_train(1_803_460, 36_500) | {"test": ("validation", 36_500)},
  ),
  "imagenette": Facts(  # README of the authors' code; test: TFDS's catalogue.
    10, {"train": ("train", 9_469), "test": ("validation", 3_925)}
  ),
  "cifar10": Facts(
    10, splits_of_train(50_000, 5_000) | {"test": ("test", 10_000)}
  ),
  "cifar100": Facts(
    100, splits_of_train(50_000, 5_067) | {"test": ("test", 10_000)}
  ),
  "food101": Facts(
    101, splits_of_train(75_750, 7_575) | {"test": ("validation", 25_250)}
  ),
}


def known_facts(name: str) -> Facts | None:
  """What is known about a data set, whether or not it is on disk."""
  without_version = name.partition(":")[0]
  data_set = without_version.partition("/")[0]
  return KNOWN.get(without_version) or KNOWN.get(data_set)
