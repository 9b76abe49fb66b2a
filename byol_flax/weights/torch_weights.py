"""Reads networks that PyTorch programs have saved, or that were exported.

Names and shapes do not tell everything that a network computes. A file without
a description is taken for what nearly all are: ImageNet's normalisation, and
padding and strides as in torchvision. It would be wrong for Caffe's ResNets,
whose strides are in the first 1×1 convolution (mmpretrain's style="caffe").

Checkpoints of TensorFlow are not read, SimCLR's among them: that would take
TensorFlow, and SimCLR's ResNets pad convolutions symmetrically but the pooling
as SAME does (google-research/simclr: resnet.py), which no network here does.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from byol_flax.weights import (
  arrays,
  fitting,
  preprocessing,
  publishers,
  safetensors_files,
  structure,
  torch_files,
  torch_names,
)
from byol_flax.weights.arrays import Stored
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Account, Foreign
from byol_flax.weights.preprocessing import Description
from byol_flax.weights.torch_names import Place

# PyTorch's averages are not de-biased: each batch moves them by a tenth. Ours
# do the same once many batches were counted, so a network whose batches were
# not counted gets this number.
_MANY = 1_000_000
_MOST = 2**31 - 1  # ours are int32

_MOST_LAYERS = 3  # of a block; what has a higher number is left over
_PARTS = ("online", "target", "momentum")
_LAYER = re.compile(r"(group\d+_block\d+)/conv(\d+)/")

_CONFIG = "config.json"
_PROCESSOR = "preprocessor_config.json"
# Files of a folder; the first one that is there is read.
FILES = ("model.safetensors", "pytorch_model.bin")


def read(path: str) -> Foreign:
  """Reads the encoder, or the whole state, of a file or a folder.

  The arrays themselves are read when they are needed.

  Args:
    path: a .safetensors file, one of `torch.save`, or a folder of Hugging Face
      or of an export.

  Raises:
    WeightsError: it is damaged, or holds no network that is known here.
    OSError: it cannot be read.
  """
  file = _file_of(path) if os.path.isdir(path) else path
  if torch_files.is_one(file):
    contents = torch_files.read(file)
    return _encoder(
      contents.arrays, contents.others, _described(file), exported=False
    )
  stored, metadata = safetensors_files.read(file)
  if preprocessing.KEY in metadata:
    description = Description.parse(metadata[preprocessing.KEY])
    if description.kind == "state":
      return _state(stored, description)
    return _encoder(stored, {}, description, exported=True)
  return _encoder(stored, {}, _described(file), exported=False)


def from_arrays(stored: Mapping[str, Stored]) -> Foreign:
  """The encoder among arrays in PyTorch's names and layouts.

  Raises:
    WeightsError: as for `read`.
  """
  return _encoder(stored, {}, Description(), exported=False)


def _file_of(folder: str) -> str:
  """The file with the weights of a folder."""
  for name in FILES:
    if os.path.exists(file := os.path.join(folder, name)):
      return file
  parts = [n for n in os.listdir(folder) if n.endswith(".index.json")]
  raise WeightsError(
    "The folder has its weights in several files; expected one "
    f"{FILES[0]}. Save them in one file."
    if parts
    else f"The folder has neither {' nor '.join(FILES)}."
  )


def _described(path: str) -> Description:
  """The description of what is no export of ours.

  Hugging Face puts it into files beside the one with the weights.
  """
  if os.path.basename(path) not in FILES:
    return Description()
  folder = os.path.dirname(path)
  config = _json(folder, _CONFIG)
  if config is None:
    return Description()
  return preprocessing.of_huggingface(config, _json(folder, _PROCESSOR))


def _json(folder: str, name: str) -> dict[str, Any] | None:
  try:
    with open(os.path.join(folder, name), encoding="utf-8") as file:
      text = file.read(1 << 20)
  except FileNotFoundError:
    return None
  except UnicodeDecodeError:
    text = ""
  return preprocessing.parsed(text, f"Its {name}")


def _encoder(
  stored: Mapping[str, Stored],
  others: Mapping[str, str],
  description: Description,
  *,
  exported: bool,
) -> Foreign:
  """The encoder among the arrays of a file."""
  found = publishers.find(stored)
  leaves = {
    place: _ours(place, name, stored[name], exact=exported)
    for place, name in found.names.items()
  }

  def called(path: str) -> str:
    _, collection, _, rest = path.split("/", 3)
    name = torch_names.name_of(Place(collection, rest), found.naming)
    return f"{found.prefix}{name}{_order(path)}"

  if lacking := _lacking({place.path for place in leaves}):
    named = [called(f"online/params/encoder/{path}") for path in lacking]
    raise WeightsError(f"It lacks {', '.join(named[:3])}{_more(named[3:])}.")
  uncounted = _add_counts(leaves)
  online = {
    collection: {"encoder": tree}
    for collection, tree in torch_names.variables_of(leaves).items()
  }
  types = {str(stored[name].dtype) for name in found.names.values()}
  details: dict[str, Any] = {
    "prefix": found.prefix,
    "naming": found.naming,
    "types": sorted(types - {"int64"}),
  }
  if uncounted:
    details["batch_norm_count"] = (
      f"{uncounted} BatchNorms do not tell how many batches they have seen; "
      f"{_MANY} are assumed, so that training moves the averages as PyTorch "
      "would."
    )
  theirs = "huggingface" if found.naming == "huggingface" else "torchvision"
  weights = _foreign(
    "byol" if exported else theirs,
    {"online": online},
    None,
    description,
    Account(len(found.names), {**found.ignored, **others}),
    details,
  )
  if not exported and weights.model["encoder"]["stem"] == "small":
    weights = _for_small_images(weights)
  fitting.check(weights, called)
  return weights


def _for_small_images(found: Foreign) -> Foreign:
  """An encoder with a 3 × 3 stem, of which the file says nothing else.

  Such networks are made for CIFAR (SimCLR, App. B.9).
  """
  taken = (
    "Its 3 × 3 stem is taken to be made for whole images of 32 pixels, and to "
    "pad one pixel, as lightly's does. solo-learn's pads two: features of its "
    "networks for CIFAR will differ from its own."
  )
  return dataclasses.replace(
    found,
    image_size=32,
    crop_ratio=1.0,
    details={**found.details, "small_stem": taken},
  )


def _state(stored: Mapping[str, Stored], description: Description) -> Foreign:
  """The state that `torch_export.write_state` wrote."""
  leaves: dict[str, dict[Place, Stored]] = {}
  names = {}
  for name, array in stored.items():
    network, _, rest = name.partition(".")
    place = torch_names.state_place_of(rest)
    if network not in _PARTS or place is None:
      raise WeightsError(f"Its {name} is no part of an exported state.")
    leaves.setdefault(network, {})[place] = _ours(
      place, name, array, exact=True
    )
    middle = "" if network == "momentum" else f"{place.collection}/"
    names[f"{network}/{middle}{place.path}"] = name
  trees = {
    network: torch_names.variables_of(found)
    for network, found in leaves.items()
  }
  for network in {"online"} | trees.keys():
    if "encoder" not in trees.get(network, {}).get("params", {}):
      raise WeightsError(f"Its {network} network lacks the encoder.")
  momentum = trees.pop("momentum", {"params": None})["params"]
  account = Account(len(stored), {})
  weights = _foreign("byol", trees, momentum, description, account, {})
  fitting.check(weights, lambda path: names.get(path, path) + _order(path))
  return weights


def _foreign(
  form: str,
  networks: Mapping[str, Mapping[str, arrays.Tree]],
  momentum: arrays.Tree | None,
  description: Description,
  account: Account,
  details: Mapping[str, Any],
) -> Foreign:
  """Weights with the model that their shapes and the description tell."""
  model = structure.model_of(
    networks["online"]["params"],
    padding=description.padding,
    decay=description.decay,
    epsilon=description.epsilon,
  )
  return Foreign(
    format=form,
    networks=networks,
    momentum=momentum,
    step=description.step,
    model={**model, "input_scaling": description.input_scaling},
    image_size=description.image_size,
    crop_ratio=description.crop_ratio,
    account=account,
    details=details,
  )


def _lacking(paths: set[str]) -> list[str]:
  """What blocks lack, as their number of layers is that of any other.

  Without it, an encoder of fewer layers would be expected, and the rest of the
  file would seem to be left over.

  Args:
    paths: of an encoder's arrays, such as "group0_block0/conv1/kernel".
  """
  layers = {int(found[2]) for path in paths if (found := _LAYER.match(path))}
  blocks = {path.partition("/")[0] for path in paths if _LAYER.match(path)}
  numbers = range(min(max(layers) + 1, _MOST_LAYERS))
  pairs = [("stem_conv", "stem_norm")]
  pairs += [(f"{b}/conv{i}", f"{b}/norm{i}") for b in blocks for i in numbers]
  needed = {
    name
    for conv, norm in pairs
    for name in (f"{conv}/kernel", f"{norm}/scale", f"{norm}/offset")
  }
  return sorted(needed - paths)


def _order(path: str) -> str:
  """How a message explains the axes of an array."""
  if "conv" in path.rsplit("/", 2)[-2]:
    return " (height, width, inputs, outputs)"
  return ""


def _more(names: list[str]) -> str:
  return f" and {len(names)} more" if names else ""


def _ours(place: Place, name: str, stored: Stored, exact: bool) -> Stored:
  """An array of a file in our layout and type.

  Args:
    place: in our trees.
    name: in the file.
    stored: as it lies there.
    exact: whether a count of 0 means that nothing was ever counted.
  """
  if 0 in stored.shape:
    raise WeightsError(
      f"Its {name} has no elements: it is {list(stored.shape)}."
    )
  number = stored.dtype.kind in "iu"
  if place.path.endswith("count"):
    if not number:
      raise WeightsError(
        f"Its {name} is {stored.dtype}; expected whole numbers."
      )
    return Stored(stored.shape, np.dtype(np.int32), _Count(name, stored, exact))
  if number or stored.dtype.kind in "bc":
    raise WeightsError(
      f"Its {name} is {stored.dtype}; expected floating numbers."
    )
  ours = torch_names.from_torch(place, stored)
  if ours.dtype == np.float32:
    return ours
  return Stored(ours.shape, np.dtype(np.float32), lambda: _float32(ours.load()))


def _float32(array: np.ndarray) -> np.ndarray:
  """An array of another type; what is too large becomes infinite."""
  with np.errstate(over="ignore"):
    return array.astype(np.float32)


class _Count:
  """Reads how many batches a BatchNorm has seen, as int32."""

  def __init__(self, name: str, stored: Stored, exact: bool) -> None:
    self.name = name
    self.stored = stored
    self.exact = exact

  def __call__(self) -> np.ndarray:
    count = int(self.stored.load())
    if count < 0 or (self.exact and count > _MOST):
      raise WeightsError(f"Its {self.name} is {count}; expected a count.")
    if not self.exact:
      count = min(count, _MANY) or _MANY
    return np.array(count, np.int32)


def _add_counts(leaves: dict[Place, Stored]) -> int:
  """Adds counts where a file has none; returns how many."""
  added = 0
  for place in [p for p in leaves if p.path.endswith("/mean")]:
    count = Place("batch_stats", place.path.removesuffix("mean") + "count")
    if count not in leaves:
      leaves[count] = Stored.of(np.array(_MANY, np.int32))
      added += 1
  return added
