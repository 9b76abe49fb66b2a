"""What preflight knows of the data of segmentation, detection and depth."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from byol_flax.benchmarks import input_stages, photographs
from byol_flax.evaluation import depth_network, detector, segmenter
from byol_flax.preflight.jobs import Count, Data
from byol_flax.reports import paper
from input_pipeline import dense_sources, paths
from input_pipeline.dense_sources import DensePart
from input_pipeline.errors import UsageError
from input_pipeline.nyu import HEIGHT, WIDTH

_SPLITS = ("train_split", "test_split")
# Height and width of most photographs of VOC.
_PHOTOGRAPH = 375, 500


@dataclasses.dataclass(frozen=True)
class Sized(Count):
  """A split of which also the sizes are known, for `dense_sources.sizes_of`.

  Attributes:
    sizes: int [1, 2], the largest height and width.
  """

  sizes: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """What is known of a protocol.

  Attributes:
    known: the paper's data set, for people.
    images: of its splits.
    largest: height and width that hold each of its images.
    num_classes: K of this set; 0 for depth.
    open_split: name, split, folder, file with classes -> the split.
    label: what the task predicts of an image of a height and a width.
    frame: height and width of the photographs that stand for absent images.
    transform: config -> how an example is prepared for training.
  """

  known: str
  images: Mapping[str, int]
  largest: tuple[int, int]
  num_classes: int
  open_split: Callable[[str, str, str | None, str], DensePart]
  label: Callable[[int, int], np.ndarray]
  frame: tuple[int, int]
  transform: Callable[[Any], input_stages.Drawn]


class _Largest:
  """Prepares an example for the largest canvas of a detector."""

  def __init__(self, config: Any) -> None:
    """Takes the config of the evaluation."""
    self._batches = detector.make_batches(config, config.max_boxes, seed=0)

  def random_map(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """See `dense_boxes.TrainBoxes`."""
    height, width = example["image"].shape[:2]
    edge = max(self._batches.short_edges)
    canvas = self._batches.canvas(edge, height > width)
    return self._batches.transform.random_map(
      {**example, "short_edge": edge, "canvas": canvas}, rng
    )


# By protocol. Numbers of images: paper.md §7 (App. D.4, D.5 and D.6); train_aug
# has VOC's images and SBD's. No image of VOC is larger than 500 × 500.
TASKS = {
  "segmentation": Task(
    known="VOC2012",
    images={"train_aug": 10_582, "val": paper.TESTED["segmentation"][1]},
    largest=(500, 500),
    num_classes=21,  # the background is one
    open_split=dense_sources.open_classes,
    label=lambda height, width: np.zeros((height, width), np.uint8),
    frame=_PHOTOGRAPH,
    transform=segmenter.make_view,
  ),
  "detection": Task(
    known="VOC2007",
    images={"trainval": 5_011, "test": paper.TESTED["detection"][1]},
    largest=(500, 500),
    num_classes=20,
    open_split=dense_sources.open_boxes,
    label=lambda height, width: np.array(
      [[0, 0, width / 2, height / 2, 0, 0]], np.float32
    ),
    frame=_PHOTOGRAPH,
    transform=_Largest,
  ),
  "depth": Task(
    known="NYU Depth v2",
    images={"train": 795, "test": paper.TESTED["depth"][1]},
    largest=(HEIGHT, WIDTH),
    num_classes=0,
    open_split=lambda name, split, folder, _: dense_sources.open_depth(
      name, split, folder
    ),
    label=lambda height, width: np.ones((height, width), np.float32),
    frame=(HEIGHT, WIDTH),
    transform=depth_network.make_view,
  ),
}


def look(config: Any, name: str, folder: str | None) -> Data:
  """Looks at the data of a config; the paper's set need not be there.

  Args:
    config: of segmentation, detection or depth.
    name: of the data set.
    folder: of TFDS.

  Raises:
    UsageError: the data is there and cannot be read, or is absent and has
      splits that the paper's set lacks.
  """
  task = TASKS[config.protocol]
  try:
    splits = {
      key: task.open_split(
        name, config[key], folder, config.get("classes_file") or ""
      )
      for key in _SPLITS
    }
  except UsageError:
    unknown = {config[key] for key in _SPLITS} - task.images.keys()
    if unknown or _is_there(name):
      raise
    return _absent(config, task, name)
  train = splits["train_split"]
  return Data(
    name=name,
    counts={
      key: Sized(split.split, len(split), split.sizes.max(axis=0)[None])
      for key, split in splits.items()
    },
    num_classes=train.num_classes,
    source=train,
    transforms=[task.transform(config)],
    measured_on=f"images of {name}",
  )


def _absent(config: Any, task: Task, name: str) -> Data:
  """The paper's data set in place of one that is not on this machine."""
  height, width = task.frame
  return Data(
    name=f"{task.known} ({name} is not here)",
    counts={
      key: Sized(split, task.images[split], np.array([task.largest]))
      for key, split in ((key, config[key]) for key in _SPLITS)
    },
    num_classes=task.num_classes,
    source=_Labelled((width, height), task.label(height, width)),
    transforms=[task.transform(config)],
    measured_on=f"synthetic photographs of {width} × {height}",
  )


def _is_there(name: str) -> bool:
  """Whether a data set that is named by a path lies there."""
  kind, _, path = name.partition(":")
  return paths.has_path(kind, path) and epath.Path(path).exists()


class _Labelled(photographs.Photographs):
  """Synthetic photographs that all have one label."""

  def __init__(self, size: tuple[int, int], label: np.ndarray) -> None:
    """Takes width and height, and what a task predicts of them."""
    super().__init__(size)
    self._label = label

  def __getitem__(self, i: int) -> dict[str, Any]:
    return {**super().__getitem__(i), "label": self._label}
