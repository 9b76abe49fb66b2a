"""Our names and layouts of an encoder, and those of PyTorch's networks."""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from byol_flax.weights import arrays

# One row for each kind of module: our name, torchvision's (pytorch/vision:
# models/resnet.py), that of an nn.Sequential of torchvision's children, and
# that of Hugging Face (transformers: models/resnet/modeling_resnet.py). Numbers
# are of a group g, a block b and a layer i, all from 0.
_ROWS = (
  ("stem_conv", "conv1", "0", "embedder.embedder.convolution"),
  ("stem_norm", "bn1", "1", "embedder.embedder.normalization"),
  (
    "group{g}_block{b}/conv{i}",
    "layer{g+1}.{b}.conv{i+1}",
    "{g+4}.{b}.conv{i+1}",
    "encoder.stages.{g}.layers.{b}.layer.{i}.convolution",
  ),
  (
    "group{g}_block{b}/norm{i}",
    "layer{g+1}.{b}.bn{i+1}",
    "{g+4}.{b}.bn{i+1}",
    "encoder.stages.{g}.layers.{b}.layer.{i}.normalization",
  ),
  (
    "group{g}_block{b}/shortcut_conv",
    "layer{g+1}.{b}.downsample.0",
    "{g+4}.{b}.downsample.0",
    "encoder.stages.{g}.layers.{b}.shortcut.convolution",
  ),
  (
    "group{g}_block{b}/shortcut_norm",
    "layer{g+1}.{b}.downsample.1",
    "{g+4}.{b}.downsample.1",
    "encoder.stages.{g}.layers.{b}.shortcut.normalization",
  ),
)
_OURS = 0
NAMINGS = {"torchvision": 1, "sequential": 2, "huggingface": 3}
_SLOT = re.compile(r"\{([gbi])(?:\+(\d))?\}")

# What PyTorch calls the arrays of a module.
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "offset": "bias",
  "bias": "bias",
  "mean": "running_mean",
  "variance": "running_var",
  "count": "num_batches_tracked",
}
_STATISTICS = ("mean", "variance", "count")
# Axes that turn our kernel into PyTorch's, by the number of axes, and back.
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}
# Modules of a head; a classifier's arrays lie at its top.
_HEAD = re.compile(r"(linear\d{1,3}|norm\d{0,3}|final_norm)?", re.ASCII)

_T = TypeVar("_T")


class Place(NamedTuple):
  """Where an array lies in our tree.

  Attributes:
    collection: "params" or "batch_stats".
    path: such as "group0_block0/conv0/kernel".
  """

  collection: str
  path: str


def place_of(name: str, naming: str) -> Place | None:
  """The place of an encoder's array; None if no encoder has that name.

  Args:
    name: in PyTorch's network, without a prefix, such as "conv1.weight".
    naming: a key of `NAMINGS`.
  """
  module, _, leaf = name.rpartition(".")
  ours = _translated(module, NAMINGS[naming], _OURS)
  return _place(ours, leaf) if ours else None


def name_of(place: Place, naming: str) -> str:
  """The name of an encoder's array in PyTorch's network."""
  module, _, leaf = place.path.rpartition("/")
  theirs = _translated(module, _OURS, NAMINGS[naming])
  if theirs is None:
    raise KeyError(place.path)
  return f"{theirs}.{_LEAVES[leaf]}"


def head_place_of(name: str) -> Place | None:
  """The place of an array of "projector", "predictor" or "classifier".

  Args:
    name: such as "linear0.weight", within a head, or "weight".
  """
  module, _, leaf = name.rpartition(".")
  return _place(module, leaf) if _HEAD.fullmatch(module) else None


def head_name_of(place: Place) -> str:
  """The inverse of `head_place_of`."""
  module, _, leaf = place.path.rpartition("/")
  return f"{module}.{_LEAVES[leaf]}".removeprefix(".")


def state_place_of(name: str) -> Place | None:
  """The place of an array of a whole network, such as "encoder.conv1.weight".

  None if no network has that name.
  """
  module, _, rest = name.partition(".")
  if module == "encoder":
    place = place_of(rest, "torchvision")
  elif module in ("projector", "predictor", "classifier"):
    place = head_place_of(rest)
  else:
    return None
  return place and Place(place.collection, f"{module}/{place.path}")


def state_name_of(place: Place) -> str:
  """The inverse of `state_place_of`."""
  module, _, path = place.path.partition("/")
  within = Place(place.collection, path)
  name = (
    name_of(within, "torchvision")
    if module == "encoder"
    else head_name_of(within)
  )
  return f"{module}.{name}"


def places(variables: Mapping[str, arrays.Tree]) -> Iterator[tuple[Place, Any]]:
  """Yields (place, leaf) for all arrays of "params" and "batch_stats"."""
  for collection in ("params", "batch_stats"):
    for path, leaf in arrays.flat(variables.get(collection, {})):
      yield Place(collection, path), leaf


def variables_of(leaves: Mapping[Place, _T]) -> dict[str, Any]:
  """The trees of which `places` gives `leaves`."""
  return {
    collection: arrays.nested(
      {p.path: leaf for p, leaf in leaves.items() if p.collection == collection}
    )
    for collection in ("params", "batch_stats")
  }


def to_torch(place: Place, stored: arrays.Stored) -> arrays.Stored:
  """An array in PyTorch's layout: kernels are OIHW, or [F, C]."""
  if place.path.endswith("kernel"):
    return stored.transposed(_TO_TORCH[len(stored.shape)])
  return stored


def from_torch(place: Place, stored: arrays.Stored) -> arrays.Stored:
  """An array in our layout: kernels are HWIO, or [C, F].

  An array whose number of axes is none of a kernel's stays as it is; its shape
  will be found to be wrong.
  """
  axes = _FROM_TORCH.get(len(stored.shape))
  return (
    stored.transposed(axes)
    if axes and place.path.endswith("kernel")
    else stored
  )


def _place(module: str, leaf: str) -> Place | None:
  """The place of PyTorch's `leaf` in our `module`."""
  has_kernel = not module or "conv" in module or "linear" in module
  for ours, theirs in _LEAVES.items():
    if theirs == leaf and (ours in ("kernel", "bias")) == has_kernel:
      if "conv" in module and ours == "bias":
        return None
      collection = "batch_stats" if ours in _STATISTICS else "params"
      return Place(collection, f"{module}/{ours}".removeprefix("/"))
  return None


def _translated(module: str, source: int, target: int) -> str | None:
  """The name of a module in another column of `_ROWS`."""
  for row in _ROWS:
    if found := _pattern(row[source]).fullmatch(module):
      numbers = {
        letter: int(found[letter]) - int(plus or 0)
        for letter, plus in _SLOT.findall(row[source])
      }
      if min(numbers.values(), default=0) < 0:
        return None
      return _SLOT.sub(
        lambda slot: str(numbers[slot[1]] + int(slot[2] or 0)),  # noqa: B023
        row[target],
      )
  return None


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
  """A template of `_ROWS` as an expression; numbers have no zeros in front."""
  parts = _SLOT.split(template)
  text = re.escape(parts[0])
  for letter, rest in zip(parts[1::3], parts[3::3], strict=True):
    text += rf"(?P<{letter}>0|[1-9]\d{{0,3}}){re.escape(rest)}"
  return re.compile(text, re.ASCII)
