"""Names of BYOL's authors' Haiku modules, and the paths of our tree."""

import re
from typing import Final

_STATISTICS: Final = re.compile(r"(?P<norm>.+)/~/(?P<which>mean|var)_ema")
_PARTS: Final = re.compile(
  r"(?P<head>projector|predictor)/(?P<layer>[^/]+)|[^/]+/~/(?P<encoder>.+)"
)
_BLOCK: Final = re.compile(
  r"block_group_(?P<group>\d+)/~/block_(?P<block>\d+)/~/(?P<layer>[^/]+)"
)
_LAYER: Final = re.compile(
  r"(?P<shortcut>shortcut_)?(?P<kind>conv|batchnorm)(_(?P<number>\d+))?"
)
_STEM: Final = {"initial_conv": "stem_conv", "initial_batchnorm": "stem_norm"}
_LEAVES: Final = {
  "w": "kernel",
  "b": "bias",
  "scale": "scale",
  "offset": "offset",
}
_STATISTIC: Final = {
  ("mean", "average"): "mean",
  ("var", "average"): "variance",
  ("mean", "counter"): "count",
}


def our_path(module: str, leaf: str) -> str | None:
  """The path in our tree of a Haiku module's parameter or statistic.

  Haiku numbers the modules of one name from the second on. It keeps three
  values of an average: `average` is the one that a network uses.

  Args:
    module: such as "res_net50/~/block_group_0/~/block_0/~/conv_0"; the first
      part of an encoder's name is that of its class.
    leaf: such as "w", or "average" of a statistic.

  Returns:
    Such as "encoder/group0_block0/conv0/kernel"; None if the authors' network
    has no such name, or ours has no such value.
  """
  if statistic := _STATISTICS.fullmatch(module):
    module = statistic["norm"]
    name = _STATISTIC.get((statistic["which"], leaf))
  else:
    name = _LEAVES.get(leaf)
  ours = _module(module)
  return f"{ours}/{name}" if ours and name else None


def _module(module: str) -> str | None:
  if module == "classifier":
    return module
  parts = _PARTS.fullmatch(module)
  if not parts:
    return None
  if parts["head"]:
    ours = _numbered(parts["layer"], "linear", "linear0", "linear")
    ours = ours or _numbered(parts["layer"], "batch_norm", "norm", "norm")
    return ours and f"{parts['head']}/{ours}"
  if parts["encoder"] in _STEM:
    return f"encoder/{_STEM[parts['encoder']]}"
  block = _BLOCK.fullmatch(parts["encoder"])
  if not block:
    return None
  layer = _LAYER.fullmatch(block["layer"])
  if not layer:
    return None
  kind = {"conv": "conv", "batchnorm": "norm"}[layer["kind"]]
  name = f"{layer['shortcut'] or ''}{kind}{layer['number'] or ''}"
  return f"encoder/group{block['group']}_block{block['block']}/{name}"


def _numbered(layer: str, theirs: str, first: str, ours: str) -> str | None:
  """Our name of "linear", "linear_1"…; None if `layer` is none of them."""
  if layer == theirs:
    return first
  found = re.fullmatch(rf"{theirs}_(\d+)", layer)
  return found and f"{ours}{found[1]}"
