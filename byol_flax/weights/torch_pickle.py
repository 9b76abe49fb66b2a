"""What the pickle in a file of PyTorch may name, and what that becomes.

Tensors become `arrays.Stored` over bytes that stay in the file. Checkpoints
also carry settings as objects of many libraries. The commonest of these are
admitted by name and become an `Inert`, which keeps nothing and does nothing.
All other names are refused.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Final

import jax.numpy as jnp
import numpy as np

from byol_flax.weights import pickle_input, pickled_arrays, pickled_records
from byol_flax.weights.arrays import Stored
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_calls import Named
from byol_flax.weights.pickle_input import Blob

_MAX_DIMENSIONS: Final = 8
_STORAGES: Final[dict[str, np.dtype[Any]]] = {
  name: np.dtype(dtype)
  for name, dtype in {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
  }.items()
}
# Settings, and how they are spelled, by module. None of these is a network.
_INERT: Final = {
  "argparse": "Namespace",
  "easydict": "EasyDict",
  "yacs.config": "CfgNode",
  "fvcore.common.config": "CfgNode",
  "mmengine.config.config": "Config ConfigDict",
  "mmcv.utils.config": "Config ConfigDict",
  "mmengine.logging.history_buffer": "HistoryBuffer",
  "addict.addict": "Dict",
  "omegaconf.dictconfig": "DictConfig",
  "omegaconf.listconfig": "ListConfig",
  "omegaconf.base": "ContainerMetadata Metadata SCMode",
  "omegaconf.nodes": "AnyNode BooleanNode FloatNode IntegerNode PathNode"
  " StringNode",
  "pytorch_lightning.utilities.parsing": "AttributeDict",
  "lightning_fabric.utilities.data": "AttributeDict",
  "lightning.fabric.utilities.data": "AttributeDict",
  "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
  "pytorch_lightning.callbacks.early_stopping": "EarlyStopping",
  "collections": "Counter",
  "datetime": "datetime timedelta",
  "pathlib": "PosixPath WindowsPath PurePosixPath PureWindowsPath Path",
  "typing": "Any Union",
  "torch": "Size device float16 bfloat16 float32 float64 int32 int64 uint8"
  " bool",
  "torch.serialization": "_get_layout",
  **dict.fromkeys(
    ("builtins", "__builtin__"),
    "int float bool str list tuple dict set object long unicode",
  ),
}


class Inert(pickled_records.Ordered):
  """An object that was not made: it takes items and a state and drops them."""

  def __init__(self, name: str) -> None:
    self.name = name

  def __setitem__(self, key: Any, value: Any) -> None:
    """Drops an item."""


@dataclasses.dataclass(eq=False)
class Storage:
  """Numbers in a row in the file.

  Attributes:
    path: of the file.
    dtype: of the numbers, in the file's order of bytes (little-endian).
    size: how many they are.
    offset: of the first, in bytes from the beginning of the file; None as long
      as it is not known.
  """

  path: str
  dtype: np.dtype[Any]
  size: int
  offset: int | None


def dtype_of(storage_type: Any) -> np.dtype[Any]:
  """The type of the numbers in a storage of the class that a pickle names."""
  if isinstance(storage_type, Named):
    module, _, name = storage_type.name.rpartition(".")
    if module in ("torch", "torch.cuda") and name in _STORAGES:
      return _STORAGES[name]
  raise WeightsError("It has a storage of no type that is known.")


def admitted() -> dict[tuple[str, str], Callable[..., Any]]:
  """The names that a file of `torch.save` may use, for `pickle_machine`."""
  functions: dict[tuple[str, str], Callable[..., Any]] = {
    (module, name): functools.partial(_inert, f"{module}.{name}")
    for module, names in _INERT.items()
    for name in names.split()
  }
  # Lightning keeps metrics, and mmengine its log, as NumPy's numbers. They are
  # no weights, so their bytes are never looked for.
  functions |= pickled_arrays.admitted(_no_file)
  functions |= {
    ("collections", "OrderedDict"): pickled_records.ordered,
    ("collections", "defaultdict"): _defaultdict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    ("torch", "Tensor"): _uncallable,
    ("torch.nn.parameter", "Parameter"): _uncallable,
    ("torch.nn.parameter", "Buffer"): _uncallable,
  }
  for module in ("torch", "torch.cuda"):
    for name in _STORAGES:
      functions[module, name] = _uncallable
  return functions


def _tensor(
  storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> Stored:
  """A view of a storage; gradients and hooks are not looked at."""
  if not isinstance(storage, Storage):
    raise WeightsError("It has a tensor without a storage.")
  if isinstance(shape, Inert) or not _sizes((offset,), shape, strides):
    raise WeightsError("It has a tensor whose shape is no list of sizes.")
  count = math.prod(shape)
  span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  span = span if count else 0
  if offset + span > storage.size:
    raise WeightsError(
      f"It has a tensor {list(shape)} that begins at element {offset} and "
      f"needs {span} elements of a storage, which has {storage.size}."
    )
  if count > span:
    raise WeightsError(
      f"It has a tensor {list(shape)} that repeats the elements of its storage."
    )
  return Stored(
    shape,
    storage.dtype,
    functools.partial(_load, storage, offset, shape, strides, span),
  )


def _sizes(*parts: Any) -> bool:
  """Whether all are tuples of sizes, of which the last two belong together."""
  return len(parts[-1]) == len(parts[-2]) <= _MAX_DIMENSIONS and all(
    isinstance(part, tuple) and all(type(n) is int and n >= 0 for n in part)
    for part in parts
  )


def _load(
  storage: Storage,
  offset: int,
  shape: tuple[int, ...],
  strides: tuple[int, ...],
  span: int,
) -> np.ndarray:
  """Reads the elements from the first to the last of a tensor, and no more."""
  if storage.offset is None:
    raise WeightsError("It ends before the numbers of a tensor.")
  size = storage.dtype.itemsize
  memory = np.empty(span * size, np.uint8)
  with open(storage.path, "rb") as file:
    place = Blob(storage.offset + offset * size, span * size, "bytes")
    pickle_input.fill(memory, file, place)
  row = memory.view(storage.dtype)
  view = np.lib.stride_tricks.as_strided(
    row, shape, [stride * size for stride in strides]
  )
  return np.array(view, order="C") if view.size else np.empty(shape, row.dtype)


def _parameter(data: Any, *_: Any) -> Stored:
  if not isinstance(data, Stored):
    raise WeightsError("It has a parameter that is no tensor.")
  return data


def _of_type(function: Any, _: Any, arguments: Any, *__: Any) -> Stored:
  """A tensor that also has attributes, which are dropped."""
  known = isinstance(function, Named) and function.call is _tensor
  if not known or not isinstance(arguments, tuple):
    raise WeightsError("It has a tensor of a class of its own.")
  return _tensor(*arguments)


def _defaultdict(*_: Any) -> pickled_records.Ordered:
  return pickled_records.Ordered()


def _inert(name: str, *_: Any) -> Inert:
  return Inert(name)


def _uncallable(*_: Any) -> Any:
  raise WeightsError("It calls a class of PyTorch itself.")


def _no_file() -> Any:
  raise WeightsError("It has weights that are NumPy's and not PyTorch's.")
