"""The paper's numbers for BYOL's encoders, beside their source.

They are percentages, save in columns of another unit.

Grill et al. 2020; numbers of tables and appendices are those of arXiv v3. Where
two tables give the same quantity differently, each has its own value here.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

IMAGENET = "imagenet2012"
PLACES365 = "places365_small"


class Network(NamedTuple):
  """An encoder as the paper tells them apart.

  Attributes:
    architecture: such as "resnet50".
    width: of its layers, 1 for the usual one.
    data: what it was trained on, by TFDS's name; "" for random weights.
    by: "byol", "labels" for a supervised one, or "nobody" for random weights,
      with which the paper's supervised baselines begin.
  """

  architecture: str
  width: float
  data: str = IMAGENET
  by: str = "byol"


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of the paper, as far as it is about one's own encoders.

  Attributes:
    title: what it shows, with the place in the paper.
    columns: names of its numbers.
    rows: the numbers of an encoder, in the order of `columns`; None where the
      paper has none.
    data: what all numbers are measured on; "" if each has its own data.
    units: column -> unit of its numbers, if they are no percentages.
  """

  title: str
  columns: tuple[str, ...]
  rows: Mapping[Network, tuple[float | None, ...]]
  data: str = ""
  units: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def number(self, network: Network, column: str) -> float | None:
    """The paper's number, or None if it has none."""
    row = self.rows.get(network)
    return row[self.columns.index(column)] if row else None


# Data sets of Table 3 in its order: key in configs/sets.py -> its name.
SETS = {
  "food101": "Food101",
  "cifar10": "CIFAR10",
  "cifar100": "CIFAR100",
  "birdsnap": "Birdsnap",
  "sun397": "SUN397",
  "cars": "Cars",
  "aircraft": "Aircraft",
  "voc2007": "VOC2007",
  "dtd": "DTD",
  "pets": "Pets",
  "caltech101": "Caltech-101",
  "flowers": "Flowers",
}
# Table 13 leaves one out.
SETS_OF_TABLE_13 = {k: name for k, name in SETS.items() if k != "voc2007"}
# By protocol, what Table 4 is measured on: name and number of images (App. D.4,
# D.5 and D.6).
TESTED = {
  "segmentation": ("val of VOC2012", 1_449),
  "detection": ("test of VOC2007", 4_952),
  "depth": ("test of NYU Depth v2", 654),
}
# Columns of Table 9 about a network that is trained with labels.
SUPERVISED = ("supervised, top-1", "supervised, top-5")
# Columns of Table 4b: measure of depth -> its name.
DEPTH = {
  "pct_1.25": "pct<1.25",
  "pct_1.25^2": "pct<1.25²",
  "pct_1.25^3": "pct<1.25³",
  "rms": "rms",
  "rel": "rel",
}
# Table 7: whether the classifier sees the augmentation of pre-training, and
# whether its logits are regularised.
VARIANTS = {
  "crop and flip": (False, False),
  "augmentation of pre-training": (True, False),
  "crop and flip, logits regularised": (False, True),
  "augmentation of pre-training, logits regularised": (True, True),
}

_R50, _R50_4 = Network("resnet50", 1), Network("resnet50", 4)
_R50_2, _R200_2 = Network("resnet50", 2), Network("resnet200", 2)
_TOPS = ("top-1", "top-5")
# Table 9: architecture and width -> linear evaluation of BYOL's encoder, top-1
# and top-5, and the same network trained with labels, top-1 and top-5.
_LARGER = {
  ("resnet50", 1): (74.3, 91.6, 76.4, 92.9),
  ("resnet101", 1): (76.4, 93.0, 78.0, 94.0),
  ("resnet152", 1): (77.3, 93.7, 79.1, 94.5),
  ("resnet200", 1): (77.8, 93.9, 79.3, 94.6),
  ("resnet50", 2): (77.4, 93.6, 79.9, 95.0),
  ("resnet101", 2): (78.7, 94.3, 80.3, 95.0),
  ("resnet50", 3): (78.2, 93.9, 80.2, 95.0),
  ("resnet152", 2): (79.0, 94.6, 80.6, 95.3),
  ("resnet200", 2): (79.6, 94.9, 80.1, 95.2),
  ("resnet50", 4): (78.6, 94.2, 80.7, 95.3),
  ("resnet101", 3): (78.4, 94.2, 80.7, 95.3),
  ("resnet152", 3): (79.5, 94.6, 80.9, 95.2),
}


def untrained(architecture: str, width: float) -> Network:
  """The network of this shape with random weights."""
  return Network(architecture, width, data="", by="nobody")


# By the number in the paper.
TABLES = {
  "1": Table(
    "Linear evaluation on ImageNet (§4)",
    _TOPS,
    {
      _R50: (74.3, 91.6),
      _R50_2: (77.4, 93.6),
      _R50_4: (78.6, 94.2),
      _R200_2: (79.6, 94.8),
    },
    data=IMAGENET,
  ),
  "2": Table(
    "Fine-tuning on 1 % and 10 % of ImageNet's labels (§4)",
    ("1 %, top-1", "10 %, top-1", "1 %, top-5", "10 %, top-5"),
    {
      _R50: (53.2, 68.8, 78.4, 89.0),
      _R50_2: (62.2, 73.5, 84.1, 91.7),
      _R50_4: (69.1, 75.7, 87.9, 92.5),
      _R200_2: (71.2, 77.7, 89.5, 93.7),
    },
    data=IMAGENET,
  ),
  "3": Table(
    "Transfer to twelve data sets (§4)",
    tuple(
      f"{name}, {how}"
      for how in ("linear", "fine-tuned")
      for name in SETS.values()
    ),
    {
      _R50: (
        *(75.3, 91.3, 78.4, 57.2, 62.2, 67.8),
        *(60.6, 82.5, 75.5, 90.4, 94.2, 96.1),
        *(88.5, 97.8, 86.1, 76.3, 63.7, 91.6),
        *(88.1, 85.4, 76.2, 91.7, 93.8, 97.0),
      ),
      _R50._replace(by="labels"): (
        *(72.3, 93.6, 78.3, 53.7, 61.9, 66.7),
        *(61.0, 82.8, 74.9, 91.5, 94.5, 94.7),
        *(88.3, 97.5, 86.4, 75.8, 64.3, 92.1),
        *(86.0, 85.0, 74.6, 92.1, 93.3, 97.6),
      ),
      untrained("resnet50", 1): (
        *[None] * len(SETS),
        *(86.9, 95.9, 80.2, 76.1, 53.6, 91.4),
        *(85.9, 67.3, 64.8, 81.5, 72.6, 92.0),
      ),
    },
  ),
  # Fine-tuned. Table 4, §4, and with more rows Tables 11 and 12, App. D.7.
  "4a": Table(
    "Detection on VOC2007 and segmentation on VOC2012 (§4)",
    ("AP50", "mIoU"),
    {_R50: (77.5, 76.3), _R50._replace(by="labels"): (74.4, 74.4)},
  ),
  "4b": Table(
    "Depth estimation on NYU Depth v2 (§4)",
    tuple(DEPTH.values()),
    {
      _R50: (84.6, 96.7, 99.1, 0.541, 0.129),
      _R50._replace(by="labels"): (81.1, 95.3, 98.8, 0.573, 0.127),
    },
    units={"rms": "metres", "rel": "ratio"},
  ),
  "7": Table(
    "Improved linear evaluation on ImageNet (App. C.1)",
    tuple(f"{name}, {top}" for name in VARIANTS for top in _TOPS),
    {
      _R50: (74.3, 91.6, 74.4, 91.8, 74.7, 91.8, 74.8, 91.8),
      _R50_4: (78.6, 94.2, 78.6, 94.3, 78.9, 94.3, 79.0, 94.5),
      _R200_2: (79.6, 94.8, 79.6, 94.8, 79.8, 95.0, 80.0, 95.0),
    },
    data=IMAGENET,
  ),
  "8": Table(
    "Fine-tuning on all labels of ImageNet (App. C.1)",
    _TOPS,
    {_R50: (77.7, 93.9)},
    data=IMAGENET,
  ),
  "9": Table(
    "Linear evaluation of larger encoders, and training with labels, on "
    "ImageNet (App. C.2)",
    (*_TOPS, *SUPERVISED),
    {
      Network(*shape): (*numbers[:2], None, None)
      for shape, numbers in _LARGER.items()
    }
    | {
      untrained(*shape): (None, None, *numbers[2:])
      for shape, numbers in _LARGER.items()
    },
    data=IMAGENET,
  ),
  "13": Table(
    "Linear evaluation, pre-training on ImageNet or Places365 (App. E)",
    ("Places365", "ImageNet", *SETS_OF_TABLE_13.values()),
    {
      _R50: (
        *(51.0, 74.3, 75.3, 91.3, 78.4, 57.3, 62.6),
        *(67.2, 60.6, 76.5, 90.4, 94.3, 96.1),
      ),
      _R50._replace(data=PLACES365): (
        *(53.2, 58.5, 64.7, 84.5, 66.1, 28.8, 64.2),
        *(55.6, 55.9, 68.5, 66.1, 84.3, 90.0),
      ),
    },
  ),
}
