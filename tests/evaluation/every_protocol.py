"""Every protocol and the suite, as short commands, and what they leave.

For the commands that disturb evaluations, or run them on many devices:
tests/evaluation_kills.py and tests/evaluation_devices.py.
"""

import json
import math
import pathlib
from collections.abc import Iterator

import numpy as np

from byol_flax.models import resnet
from tests import trainers
from tests.evaluation import dense_data

# A config file of the encoder: the smallest network that digits have.
_ENCODER = """
from configs import byol_digits

def get_config(arg=None):
  config = byol_digits.get_config()
  config.model.encoder.width = 0.25
  config.dtype = {dtype!r}
  return config
"""
# One with the groups and strides that dense tasks build on.
_DENSE_ENCODER = """
from configs import byol

def get_config(arg=None):
  config = byol.get_config()
  config.model.encoder.update(architecture={architecture!r}, width=1)
  config.augment.size = 33
  config.dtype = {dtype!r}
  return config
"""
_DENSE_ARCHITECTURE = resnet.Architecture(
  bottleneck=False,
  blocks=(1, 1, 1, 1),
  channels=(4, 8, 16, 32),
  stem_channels=4,
)
_SPLITS = (
  "--config.train_split=train[:60%]",
  "--config.valid_split=train[60%:]",
)
_SAVES = ("--config.report_every_steps=1", "--config.checkpoint.every_steps=4")
# Sizes of batches that eight devices can share, so that all topologies read
# the same batches. Of knn, which reads most, workers are part of the trial.
_FLAGS = {
  "knn": (
    "--config.batch_size=48",
    "--config.neighbours=(1,20)",
    "--config.num_workers=1",
  ),
  "few_label": (
    "--config.batch_size=48",
    "--config.few_label.draws=2",
    "--config.few_label.per_class=(1,5)",
  ),
  "linear": (
    *_SPLITS,
    *_SAVES,
    "--config.batch_size=48",
    "--config.epochs=2.4",
    "--config.learning_rates=(3.0,0.4)",
    "--config.evaluate_every_steps=18",
  ),
  "semi_supervised": (
    *_SPLITS,
    *_SAVES,
    "--config.shares=(0.1,)",
    "--config.batch_size=16",
    "--config.epochs=(2.0,)",
    "--config.learning_rates=(0.1,0.2,0.05)",
  ),
  "transfer": (
    *_SPLITS,
    "--config.batch_size=48",
    "--config.penalties.count=9",
  ),
  "finetune": (
    *_SPLITS,
    *_SAVES,
    "--config.batch_size=16",
    "--config.steps=12",
    "--config.learning_rates=(0.01,0.1)",
    "--config.weight_decays=(0.0,0.001)",
    "--config.budget=3",
  ),
  "supervised": (
    *_SAVES,
    "--config.batch_size=48",
    "--config.epochs=1.1",
    "--config.warmup_epochs=0.2",
  ),
}
DENSE = {
  "segmentation": (
    *_SAVES,
    "--config.train_split=train",
    "--config.test_split=test",
    "--config.held_out=8",
    "--config.evaluate_every_steps=3",
    "--config.steps=9",
    "--config.learning_rates=(0.1,0.01)",
    "--config.seeds=(0,1)",
    "--config.crop_size=33",
  ),
  "detection": (
    *_SAVES,
    "--config.train_split=train",
    "--config.test_split=test",
    "--config.steps=9",
    "--config.seeds=(0,1)",
    "--config.short_edges=(64,)",
    "--config.test_edge=64",
    "--config.longest_edge=72",
    "--config.buckets=1",
    "--config.anchors.sizes=(16,28)",
    "--config.anchors.ratios=(0.6,1.7)",
    "--config.rpn.batch=64",
    "--config.rpn.train_before=200",
    "--config.rpn.train_after=50",
    "--config.rpn.test_before=200",
    "--config.rpn.test_after=50",
    "--config.roi.batch=32",
    "--config.roi.pool_size=6",
  ),
  "depth": (
    *_SAVES,
    "--config.learning_rate=0.005",  # the paper's diverges on so few images
    "--config.steps=9",
    "--config.seeds=(0,1)",
    "--config.evaluate_every_steps=3",
  ),
}
_SUITE = (
  "--suite=paper:knn,transfer_pets,linear_released,semi_supervised_10",
  "--config.knn.batch_size=48",
  "--config.knn.neighbours=(1,20)",
  "--config.linear_released.batch_size=48",
  "--config.linear_released.epochs=0.6",
  "--config.linear_released.report_every_steps=1",
  "--config.linear_released.checkpoint.every_steps=4",
  "--config.semi_supervised_10.batch_size=16",
  "--config.semi_supervised_10.epochs=(1.0,)",
  "--config.semi_supervised_10.learning_rates=(0.1,0.2)",
  "--config.semi_supervised_10.report_every_steps=1",
  "--config.semi_supervised_10.checkpoint.every_steps=4",
)
NAMES = (*_FLAGS, *DENSE, "suite")

# Time and place of an evaluation; all other fields are what it found.
_NOT_FOUND = (
  "seconds",
  "wall_time",
  "code_version",
  "devices",
  "also_made_by",
)


def flags(name: str, folder: pathlib.Path, dtype: str) -> list[str]:
  """The command of a protocol; its encoder's config is put into `folder`."""
  if name in DENSE:
    return _dense_flags(name, folder, dtype)
  encoder = folder / f"{dtype}.py"
  encoder.write_text(_ENCODER.format(dtype=dtype))
  of_encoder = f"--encoder=random:{encoder}"
  if name == "suite":
    parts = ("knn", "linear_released", "semi_supervised_10")
    return [
      *_SUITE,
      f"--config.data_dir={folder}/absent",  # no pets
      *(f"--config.{part}.num_workers=0" for part in parts),
      of_encoder,
    ]
  return [
    f"--config={trainers.ROOT}/configs/{name}.py",
    "--config.num_workers=0",
    *_FLAGS[name],
    of_encoder,
  ]


def _dense_flags(name: str, folder: pathlib.Path, dtype: str) -> list[str]:
  encoder = folder / f"dense_{dtype}.py"
  architecture = resnet.name_of(_DENSE_ARCHITECTURE)
  text = _DENSE_ENCODER.format(architecture=architecture, dtype=dtype)
  encoder.write_text(text)
  images = folder / f"images_{name}"
  if not images.exists():
    _write_images(name, images)
  layout = "depth" if name == "depth" else "voc"
  return [
    f"--config={trainers.ROOT}/configs/{name}.py",
    f"--config.data_name={layout}:{images}",
    "--config.num_workers=0",
    "--config.batch_size=8",
    "--config.evaluation_batch_size=8",
    *DENSE[name],
    f"--encoder=random:{encoder}",
  ]


def _write_images(name: str, images: pathlib.Path) -> None:
  if name == "segmentation":
    dense_data.shapes_folder(images, train=24, test=9)
  elif name == "detection":
    dense_data.rectangles_folder(images, "train", 24, seed=0)
    dense_data.rectangles_folder(images, "test", 9, seed=1)
  else:
    dense_data.depth_folder(images, train=16, test=9)


def found(workdir: pathlib.Path) -> dict[str, object]:
  """Every number and text that an evaluation has left, by its place.

  These are the fields of its JSON files and of each line of its metrics, lists,
  and arrays of features. An update that is reported twice has two lines.
  """
  leaves: dict[str, object] = {}
  for path in sorted(workdir.rglob("*")):
    name = path.relative_to(workdir).as_posix()
    if "checkpoints" in path.parts or not path.is_file():
      continue
    match path.suffix:
      case ".json":
        leaves.update(_leaves(name, json.loads(path.read_text())))
      case ".jsonl" if path.name == "metrics.jsonl":
        for i, line in enumerate(trainers.lines(path)):
          leaves.update(_leaves(f"{name}/{i}", line))
      case ".npz":
        with np.load(path) as arrays:
          leaves.update({f"{name}/{key}": x for key, x in arrays.items()})
      case ".txt":
        leaves[name] = path.read_text()
  return leaves


def _leaves(where: str, node: object) -> Iterator[tuple[str, object]]:
  match node:
    case dict():
      for key, child in node.items():
        if key not in _NOT_FOUND and not key.startswith("time/"):
          yield from _leaves(f"{where}/{key}", child)
    case list():
      for i, child in enumerate(node):
        yield from _leaves(f"{where}/{i}", child)
    case _:
      yield where, node


def files(workdir: pathlib.Path) -> set[str]:
  """What lies in a workdir, but for times in names and for older checkpoints.

  Each start adds events to a folder `tensorboard`, so only that it is there
  counts. A save that is due while another is written is left out, so that
  only the last checkpoint is the same in every run.
  """
  names = set()
  for path in workdir.rglob("*"):
    parts = path.relative_to(workdir).parts
    if "tensorboard" in parts:
      parts = parts[: parts.index("tensorboard") + 1]
    if "checkpoints" in parts:
      parts = parts[: parts.index("checkpoints") + 2]
      saves = trainers.saves(workdir.joinpath(*parts[:-2]))
      if parts[-1].isdigit() and int(parts[-1]) < saves[-1]:
        continue
    names.add("/".join(parts))
  return names


def differences(
  one: dict[str, object], other: dict[str, object]
) -> dict[str, float]:
  """Places where two evaluations differ -> by how much.

  Numbers differ by their distance, of the larger one if that is above 1; arrays
  by their largest, of their largest value, and those of whole numbers by the
  share of entries that are not the same. All else differs by infinity.
  """
  found_ = {}
  for place in sorted(one.keys() | other.keys()):
    a, b = (x.get(place, "absent") for x in (one, other))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
      equal = a.shape == b.shape and np.array_equal(a, b)
    else:
      equal = type(a) is type(b) and a == b
    if not equal:
      found_[place] = _distance(a, b)
  return found_


def _distance(a: object, b: object) -> float:
  try:
    x, y = np.asarray(a, float), np.asarray(b, float)
  except ValueError:
    return math.inf
  if x.shape != y.shape:
    return math.inf
  if x.ndim and np.asarray(a).dtype.kind in "iu":
    return float(np.mean(x != y))
  scale = max(1.0, float(np.abs(x).max()))
  return float(np.abs(x - y).max()) / scale
