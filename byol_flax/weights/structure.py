"""The section `model` of a config, found from the shapes of a network."""

import re
from collections.abc import Mapping
from typing import Any

from byol_flax.models import resnet
from byol_flax.weights import arrays
from byol_flax.weights.errors import WeightsError

# Numbers of few digits: a list is made as long as they say.
_BLOCK = re.compile(r"group(\d{1,3})_block(\d{1,3})", re.ASCII)
_MOST_BLOCKS = 1_000  # each takes some milliseconds to check


def encoder_of(params: arrays.Tree, *, padding: str) -> dict[str, Any]:
  """The section `model.encoder` of an encoder with such parameters.

  A width is only found for networks that have a name; any other is spelled out
  with width 1.

  Args:
    params: of the encoder; leaves with a shape.
    padding: "same" or "symmetric", which no shape tells.

  Raises:
    WeightsError: this is no ResNet as `models.resnet` builds them.
  """
  blocks: dict[int, dict[int, Mapping[str, Any]]] = {}
  for name, block in params.items():
    if found := _BLOCK.fullmatch(name):
      group, number = map(int, found.groups())
      blocks.setdefault(group, {})[number] = block
  if not blocks or "stem_conv" not in params:
    raise WeightsError("It has no blocks and stem of a ResNet.")
  groups = [blocks.get(group, {}) for group in range(max(blocks) + 1)]
  for group, found_blocks in enumerate(groups):
    if sorted(found_blocks) != list(range(len(found_blocks) or 1)):
      raise WeightsError(
        f"Group {group} has the blocks {sorted(found_blocks)}; expected blocks "
        "that are numbered from 0 without a gap."
      )
  if (number := sum(map(len, groups))) > _MOST_BLOCKS:
    raise WeightsError(
      f"It has {number} blocks; at most {_MOST_BLOCKS} are read."
    )
  first = groups[0][0]
  bottleneck = "conv2" in first
  last = "conv2" if bottleneck else "conv1"
  stem = params["stem_conv"]["kernel"].shape
  if stem[:3] not in ((7, 7, 3), (3, 3, 3)):
    raise WeightsError(
      f"Its first convolution is {stem[0]} × {stem[1]} on {stem[2]} channels; "
      "expected 7 × 7 or 3 × 3 on 3."
    )
  architecture, width = _named(
    resnet.Architecture(
      bottleneck=bottleneck,
      blocks=tuple(map(len, groups)),
      channels=tuple(group[0][last]["kernel"].shape[-1] for group in groups),
      stem_channels=stem[-1],
    )
  )
  return {
    "architecture": resnet.name_of(architecture),
    "width": width,
    "stem": "imagenet" if stem[0] == 7 else "small",
    "shortcut": "projection" if "shortcut_conv" in first else "identity",
    "padding": padding,
    "zero_init_last": False,
    "recompute": False,
  }


def _named(
  found: resnet.Architecture,
) -> tuple[resnet.Architecture, float]:
  """The named architecture and width that make `found`, or itself and 1."""
  for known in resnet.ARCHITECTURES.values():
    width = found.stem_channels / known.stem_channels
    if (
      found.bottleneck == known.bottleneck
      and found.blocks == known.blocks
      and found.channels == tuple(int(c * width) for c in known.channels)
    ):
      return known, float(width)
  return found, 1.0


def head_of(params: arrays.Tree) -> dict[str, Any]:
  """The section of a projector or predictor with such parameters."""
  layers = sum(name.startswith("linear") for name in params)
  last = params[f"linear{layers - 1}"]
  return {
    "layers": layers,
    "hidden_size": params["linear0"]["kernel"].shape[-1],
    "output_size": last["kernel"].shape[-1],
    "final_bias": "bias" in last,
    "final_norm": "final_norm" in params,
  }


def model_of(
  params: arrays.Tree, *, padding: str, decay: float, epsilon: float
) -> dict[str, Any]:
  """What the section `model` of a config says of a network.

  Heads that the network does not have are left out. But if it has a projector
  and no predictor, its predictor is known to have no layers.

  Args:
    params: of the network, with "encoder" and the heads that there are.
    padding: see `encoder_of`.
    decay: of BatchNorm's averages.
    epsilon: of BatchNorm.

  Raises:
    WeightsError: the encoder is no ResNet that is known here.
  """
  try:
    encoder = encoder_of(params["encoder"], padding=padding)
    heads = {
      name: head_of(params[name])
      for name in ("projector", "predictor")
      if name in params
    }
  # The names and shapes may be any.
  except (KeyError, IndexError, TypeError, AttributeError) as error:
    raise WeightsError(
      "Its arrays are not those of a ResNet with heads "
      f"({type(error).__name__}: {error})."
    ) from None
  if list(heads) == ["projector"]:
    size = heads["projector"]["output_size"]
    heads["predictor"] = {"layers": 0, "output_size": size}
  return {
    "encoder": encoder,
    **heads,
    "batch_norm": {"decay": decay, "epsilon": epsilon},
    "input_scaling": "imagenet",
  }


def completed(
  found: Mapping[str, Any], default: Mapping[str, Any]
) -> dict[str, Any]:
  """The section `model` as `found`, with the rest of another one.

  Args:
    found: what `model_of` gives.
    default: the section `model` of a config.
  """
  return {
    name: {**value, **found.get(name, {})}
    if isinstance(value, Mapping)
    else found.get(name, value)
    for name, value in default.items()
  }
