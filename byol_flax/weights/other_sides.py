"""Features by other programs, of the same weights, to be compared with ours.

Each function is called only when a comparison is made, and raises ImportError
if its program is not installed.
"""

import functools
import importlib
import os
import runpy
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_flax.models import pixels
from byol_flax.weights import (
  artifact,
  huggingface,
  torch_export,
  torch_files,
  torch_names,
)
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.foreign import Foreign
from byol_flax.weights.proof import Features

# Since this version, PyTorch's `weights_only` keeps its word (CVE-2025-32434).
_SAFE = (2, 6)

# Names of packages -> () -> the program's name with version, and its function.
Sides = Mapping[str, Callable[[], tuple[str, Features]]]


def of_export(found: Foreign, form: str, folder: str) -> Sides:
  """Programs that can compute what was exported into `folder`.

  Args:
    found: the encoder that was exported.
    form: the format.
    folder: with the files.
  """
  if form == "jax":
    path = os.path.join(folder, artifact.FILE)
    return {"jax": functools.partial(_artifact, path)}
  if form == "huggingface":
    transformers = functools.partial(_transformers, found, folder)
    return {"transformers and torch": transformers}
  if form != "safetensors":
    return {}
  sides: dict[str, Any] = {"torch": functools.partial(_shipped, folder)}
  if torch_export.why_no_twin(found) is None:
    sides["torchvision"] = functools.partial(_torchvision, found, folder)
  return sides


def of_file(found: Foreign, file: str) -> Sides:
  """Programs that can compute what a file of another program holds.

  They are given its arrays and nothing else: a config or code beside them may
  be anybody's.
  """
  if found.format == "huggingface" and huggingface.why_not(found) is None:
    return {"transformers and torch": functools.partial(_resnet, found, file)}
  if found.format in ("torchvision", "huggingface"):
    return {"torch": functools.partial(_torch_file, found, file)}
  return {}


def _artifact(path: str) -> tuple[str, Features]:
  with open(path, "rb") as file:
    program = jax.export.deserialize(bytearray(file.read()))

  def features(images: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision("highest"):
      return np.asarray(program.call(images))

  return f"jax.export {jax.__version__}", features


def _shipped(folder: str) -> tuple[str, Features]:
  """The module that an export has beside its weights."""
  torch = importlib.import_module("torch")
  load = runpy.run_path(os.path.join(folder, "encoder.py"))["load"]
  return f"encoder.py (torch {torch.__version__})", _of_pixels(
    torch, load(folder)
  )


def _torchvision(found: Foreign, folder: str) -> tuple[str, Features]:
  torch = importlib.import_module("torch")
  torchvision = importlib.import_module("torchvision")
  load_file = importlib.import_module("safetensors.torch").load_file
  name = found.model["encoder"]["architecture"]
  network = getattr(torchvision.models, name)()
  network.fc = torch.nn.Identity()
  network.load_state_dict(load_file(os.path.join(folder, "model.safetensors")))
  return f"torchvision {torchvision.__version__}", _of_floats(
    torch, found, network.eval()
  )


def _torch_file(found: Foreign, file: str) -> tuple[str, Features]:
  """A file in our PyTorch module, which is named as torchvision's are."""
  torch = importlib.import_module("torch")
  torch_resnet = importlib.import_module("byol_flax.weights.torch_resnet")
  network = torch_resnet.Encoder(**torch_export.module_config(found))
  how = _fill(torch, network, found, file, "torchvision")
  return f"torch {torch.__version__} ({how})", _of_pixels(torch, network)


def _resnet(found: Foreign, file: str) -> tuple[str, Features]:
  """A file in the network of transformers that has its shapes.

  The folder's config is not given to transformers, which would do more with it
  than to build a network, such as to look for kernels on the network.
  """
  torch = importlib.import_module("torch")
  transformers = importlib.import_module("transformers")
  config = transformers.ResNetConfig.from_dict(huggingface.config_of(found))
  network = transformers.ResNetModel(config)
  how = _fill(torch, network, found, file, "huggingface")
  return f"transformers {transformers.__version__} ({how})", _of_floats(
    torch, found, _pooled(network)
  )


def _transformers(found: Foreign, folder: str) -> tuple[str, Features]:
  """An export, loaded as its users will load it."""
  torch = importlib.import_module("torch")
  transformers = importlib.import_module("transformers")
  network = transformers.ResNetModel.from_pretrained(
    folder, local_files_only=True
  )
  return f"transformers {transformers.__version__}", _of_floats(
    torch, found, _pooled(network.eval())
  )


def _pooled(network: Any) -> Callable[[Any], Any]:
  return lambda x: network(x).pooler_output.flatten(1)


def _fill(
  torch: ModuleType, network: Any, found: Foreign, file: str, naming: str
) -> str:
  """Loads a file into a PyTorch network; returns who has read the file.

  PyTorch reads it itself, so that our reader is proven too. But it refuses
  settings of many libraries beside the weights; then it is given our arrays.
  """
  try:
    tensors = _tensors(torch, file)
  # Whatever PyTorch makes of a file that was not written for this version.
  except Exception:
    named = torch_export.encoder_arrays(found, naming)
    given = {name: torch.from_numpy(array) for name, array in named.items()}
    how = "which refuses the file and was given its arrays"
  else:
    given, how = _given(tensors, found, naming), "which read the file itself"
  counts = {n for n in network.state_dict() if n.endswith("_batches_tracked")}
  told = network.load_state_dict(given, strict=False)
  if lacking := set(told.missing_keys) - counts:
    raise WeightsError(
      f"PyTorch finds no {sorted(lacking)[0]} in it, and byol does."
    )
  network.float().eval()
  return how


def _given(
  tensors: Mapping[str, Any], found: Foreign, naming: str
) -> dict[str, Any]:
  """The encoder's tensors among those of a file, in another naming."""
  prefix, theirs = found.details["prefix"], found.details["naming"]
  given = {}
  for place, _ in torch_names.places(found.encoder):
    name = prefix + torch_names.name_of(place, theirs)
    if name in tensors:
      given[torch_names.name_of(place, naming)] = tensors[name]
  return given


def _of_pixels(torch: ModuleType, network: Any) -> Features:
  """A network that scales the pixels itself, as a function of NumPy arrays."""

  def features(images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
      return np.asarray(network(torch.from_numpy(images)))

  return features


def _of_floats(torch: ModuleType, found: Foreign, network: Any) -> Features:
  """A network that is given scaled pixels."""

  def features(images: np.ndarray) -> np.ndarray:
    scaled = pixels.scale(
      jnp.asarray(images), found.model["input_scaling"], np.float32
    )
    channels_first = np.asarray(scaled).transpose(0, 3, 1, 2).copy()
    with torch.no_grad():
      return np.asarray(network(torch.from_numpy(channels_first)))

  return features


def _tensors(torch: ModuleType, file: str) -> dict[str, Any]:
  """All tensors of a file by their whole names."""
  if not torch_files.is_one(file):
    load_file = importlib.import_module("safetensors.torch").load_file
    tensors: dict[str, Any] = load_file(file)
    return tensors
  major, minor = torch.__version__.split(".")[:2]
  if (int(major), int(minor)) < _SAFE:
    raise RuntimeError("this version could be made to run what is in a file")
  held = torch.load(file, "cpu", weights_only=True)
  return {
    name: tensor
    for found in torch_files.named(held, torch.Tensor).values()
    for name, tensor in found.items()
  }
