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
from byol_flax.weights import artifact, torch_export, torch_files
from byol_flax.weights.foreign import Foreign
from byol_flax.weights.proof import Features

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
  """Programs that can compute what a file of another program holds."""
  folder = os.path.dirname(file)
  if found.format == "huggingface":
    if os.path.isfile(os.path.join(folder, "config.json")):
      transformers = functools.partial(_transformers, found, folder)
      return {"transformers and torch": transformers}
    return {}
  if found.format == "torchvision":
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
  """The file as PyTorch itself reads it, in our PyTorch module."""
  torch = importlib.import_module("torch")
  torch_resnet = importlib.import_module("byol_flax.weights.torch_resnet")
  network = torch_resnet.Encoder(**torch_export.module_config(found))
  prefix = found.details["prefix"]
  given = {
    name.removeprefix(prefix): tensor
    for name, tensor in _tensors(torch, file).items()
    if name.startswith(prefix)
  }
  wanted = network.state_dict()
  counts = {name for name in wanted if name.endswith("num_batches_tracked")}
  taken = {name: given[name] for name in wanted if name in given}
  lacking = network.load_state_dict(taken, strict=False).missing_keys
  assert set(lacking) <= counts, lacking  # our own reader found all of them
  return f"torch {torch.__version__} (which read the file itself)", _of_pixels(
    torch, network.float().eval()
  )


def _transformers(found: Foreign, folder: str) -> tuple[str, Features]:
  torch = importlib.import_module("torch")
  transformers = importlib.import_module("transformers")
  network = transformers.ResNetModel.from_pretrained(folder).eval()

  def pooled(x: Any) -> Any:
    return network(x).pooler_output.flatten(1)

  return f"transformers {transformers.__version__}", _of_floats(
    torch, found, pooled
  )


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
  if torch_files.is_one(file):
    found: dict[str, Any] = {}
    _collect(torch, torch.load(file, "cpu", weights_only=True), "", found)
    return found
  load_file = importlib.import_module("safetensors.torch").load_file
  tensors: dict[str, Any] = load_file(file)
  return tensors


def _collect(
  torch: ModuleType, tree: Any, prefix: str, found: dict[str, Any]
) -> None:
  """Adds the tensors of nested dicts to `found`."""
  for name, value in tree.items():
    if isinstance(value, torch.Tensor):
      found[f"{prefix}{name}"] = value
    elif isinstance(value, dict):
      _collect(torch, value, f"{prefix}{name}.", found)
