"""Writes networks for PyTorch: an encoder with its module, or a whole state.

Each fills a new folder from weights as `foreign.Foreign` describes them.
"""

import dataclasses
import importlib.resources
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from byol_flax.models import resnet
from byol_flax.weights import (
  arrays,
  preprocessing,
  safetensors_files,
  torch_names,
)
from byol_flax.weights.arrays import Stored
from byol_flax.weights.foreign import Foreign
from byol_flax.weights.preprocessing import Description

# Torchvision's constructors of our networks at width 1.
_CONSTRUCTORS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def write_encoder(foreign: Foreign, folder: str) -> None:
  """Writes model.safetensors, config.json, encoder.py and a README.

  The names are torchvision's. encoder.py is the module of this very network,
  which needs PyTorch and safetensors only. The README says whether torchvision
  has the network too.

  Args:
    foreign: its online encoder is written.
    folder: an empty one.

  Raises:
    WeightsError: an array cannot be read, or holds NaN.
  """
  description = description_of(foreign)
  config = {
    "encoder": module_config(foreign),
    "image_size": description.image_size,
    "crop_ratio": description.crop_ratio,
  }
  source = importlib.resources.files("byol_flax.weights") / "torch_resnet.py"
  safetensors_files.write(
    os.path.join(folder, "model.safetensors"),
    encoder_arrays(foreign, "torchvision"),
    {preprocessing.KEY: description.text()},
  )
  texts = {
    "config.json": json.dumps(config, indent=2) + "\n",
    "encoder.py": source.read_text(encoding="utf-8"),
    "README.md": _readme(foreign, why_no_twin(foreign)),
  }
  for name, text in texts.items():
    write_text(os.path.join(folder, name), text)


def module_config(foreign: Foreign) -> dict[str, Any]:
  """The arguments of `torch_resnet.Encoder` for such an encoder."""
  architecture, encoder = architecture_of(foreign), foreign.model["encoder"]
  description = description_of(foreign)
  mean, std = description.normalisation
  return {
    "bottleneck": architecture.bottleneck,
    "blocks": architecture.blocks,
    "channels": architecture.channels,
    "stem_channels": architecture.stem_channels,
    "stem": encoder["stem"],
    "shortcut": encoder["shortcut"],
    "padding": encoder["padding"],
    "epsilon": description.epsilon,
    "mean": mean,
    "std": std,
  }


def write_state(foreign: Foreign, folder: str) -> None:
  """Writes all networks with their heads, momentum and step.

  model.safetensors has the names online.encoder.conv1.weight,
  online.projector.linear0.weight, target.…, momentum.…; `torch_weights.read`
  gives back what was written, bit for bit.

  Args:
    foreign: what is written.
    folder: an empty one.

  Raises:
    WeightsError: an array cannot be read, or holds NaN.
  """
  networks: dict[str, Mapping[str, arrays.Tree]] = dict(foreign.networks)
  if foreign.momentum is not None:
    networks["momentum"] = {"params": foreign.momentum}
  named = {
    f"{network}.{name}": array
    for network, variables in networks.items()
    for name, array in _read(variables, torch_names.state_name_of).items()
  }
  description = dataclasses.replace(description_of(foreign), kind="state")
  safetensors_files.write(
    os.path.join(folder, "model.safetensors"),
    named,
    {preprocessing.KEY: description.text()},
  )


def why_no_twin(foreign: Foreign) -> str | None:
  """Why torchvision has no network with such weights; None if it has one."""
  encoder, architecture = foreign.model["encoder"], architecture_of(foreign)
  if reason := why_not_symmetric(foreign):
    return reason
  if encoder["stem"] == "small":
    return "its first convolution is 3 × 3, without a pooling after it"
  named = resnet.name_of(architecture)
  if named not in _CONSTRUCTORS:
    return f"torchvision has no constructor of {named}"
  return None


def why_not_symmetric(foreign: Foreign) -> str | None:
  """Why neither torchvision nor Hugging Face computes what this encoder does.

  None if they do, as far as padding, shortcuts and BatchNorm are concerned.
  """
  encoder, architecture = foreign.model["encoder"], architecture_of(foreign)
  if encoder["padding"] == "same":
    return (
      "it pads as TensorFlow does (SAME), so that strides begin at another "
      "pixel"
    )
  if (
    encoder["shortcut"] == "projection"
    and architecture.stem_channels == architecture.channels[0]
  ):
    return "its first block projects the shortcut, although the shapes agree"
  epsilon = foreign.model["batch_norm"]["epsilon"]
  if epsilon != Description.epsilon:
    return f"its BatchNorm has epsilon {epsilon} instead of 1e-5"
  return None


def architecture_of(foreign: Foreign) -> resnet.Architecture:
  """The encoder's architecture, with the channels that it really has."""
  encoder = foreign.model["encoder"]
  known = resnet.architecture_of(encoder["architecture"])
  return dataclasses.replace(
    known,
    channels=tuple(int(c * encoder["width"]) for c in known.channels),
    stem_channels=int(known.stem_channels * encoder["width"]),
  )


def description_of(foreign: Foreign) -> Description:
  """What an export says of an encoder besides its arrays."""
  return Description(
    padding=foreign.model["encoder"]["padding"],
    decay=foreign.model["batch_norm"]["decay"],
    epsilon=foreign.model["batch_norm"]["epsilon"],
    input_scaling=foreign.model["input_scaling"],
    image_size=foreign.image_size,
    crop_ratio=foreign.crop_ratio,
    step=foreign.step,
  )


def encoder_arrays(foreign: Foreign, naming: str) -> dict[str, np.ndarray]:
  """The encoder's arrays by PyTorch's names, float32, counts int64.

  Args:
    foreign: its online encoder is read.
    naming: a key of `torch_names.NAMINGS`.
  """
  return _read(
    foreign.encoder, lambda place: torch_names.name_of(place, naming)
  )


def write_text(path: str, text: str) -> None:
  """Writes a text in UTF-8."""
  with open(path, "w", encoding="utf-8") as file:
    file.write(text)


def _read(variables: Mapping[str, Any], name_of: Any) -> dict[str, np.ndarray]:
  """Reads a network's arrays into PyTorch's layout; they must be finite."""
  named: dict[str, Stored] = {
    name_of(place): torch_names.to_torch(place, stored)
    for place, stored in torch_names.places(variables)
  }
  # Names with dots are leaves of one flat tree here.
  return {
    name: array.astype(
      np.int64 if array.dtype.kind == "i" else np.float32, copy=False
    )
    for name, array in arrays.read(named).items()
  }


_README = """# {name} encoder{training}

```python
import encoder  # encoder.py of this folder
model = encoder.load(".")
features = model(images)  # uint8 [B, 3, H, W] or [B, H, W, 3] -> [B, {size}]
```

The images are pixels, not yet scaled; show it the middle {ratio:.4g} of an
image's shorter side, resized to {pixels} × {pixels} pixels (bicubic).

{twin}

`byol evaluate --encoder=FOLDER` takes this folder too.
"""
_TWIN = """The names are torchvision's, whose network gives the same features:

```python
import safetensors.torch, torch, torchvision
model = torchvision.models.{name}()
model.fc = torch.nn.Identity()  # there is no classifier
model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
```

It takes floats that are normalised already,
by mean {mean} and deviation {std}."""


def _readme(foreign: Foreign, reason: str | None) -> str:
  description = description_of(foreign)
  name = resnet.name_of(architecture_of(foreign))
  mean, std = (list(x) for x in description.normalisation)
  twin = (
    "The names are torchvision's, but torchvision has no network that gives "
    f"the same features: {reason}. Loading\nthese weights into one of its "
    "networks would give other features; use encoder.py."
    if reason
    else _TWIN.format(name=name, mean=mean, std=std)
  )
  encoder = foreign.model["encoder"]
  return _README.format(
    training=foreign.training,
    name=encoder["architecture"]
    + (f" ×{encoder['width']:g}" if encoder["width"] != 1 else ""),
    size=architecture_of(foreign).channels[-1],
    ratio=description.crop_ratio,
    pixels=description.image_size,
    twin=twin,
  )
