"""Reads and writes .safetensors files: names, arrays, and a text beside them.

The format holds a JSON header and raw arrays, and no code. The safetensors
library checks the header: its length, overlaps, gaps and sizes.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from byol_flax.weights.arrays import Stored, check_name
from byol_flax.weights.errors import WeightsError

_DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": jnp.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U64": np.uint64,
  "U32": np.uint32,
  "U16": np.uint16,
  "U8": np.uint8,
  "BOOL": np.bool_,
}
_MOST_NAMES = 100_000


def read(path: str) -> tuple[dict[str, Stored], dict[str, str]]:
  """The arrays of a file by name, none of them read yet, and its metadata.

  Raises:
    WeightsError: it is damaged, or has an array of a type that NumPy has not.
  """
  found = {}
  with _opened(path) as file:
    metadata = dict(file.metadata() or {})
    names = file.keys()
    if len(names) > _MOST_NAMES:
      raise WeightsError(f"It holds {len(names):,} arrays, as no network does.")
    for name in names:
      check_name(name)
      part = file.get_slice(name)
      dtype = part.get_dtype()
      if dtype not in _DTYPES:
        raise WeightsError(
          f"Its {name} has the type {dtype}, which no network has."
        )
      found[name] = Stored(
        tuple(part.get_shape()),
        np.dtype(_DTYPES[dtype]),
        _Loader(path, name),
      )
  return found, metadata


class _Loader:
  """Reads one array; the file is open for as long as that takes."""

  def __init__(self, path: str, name: str) -> None:
    self.path = path
    self.name = name

  def __call__(self) -> np.ndarray:
    with _opened(self.path) as file:
      array: np.ndarray = file.get_tensor(self.name)
    return array


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
  """The file of the library, whose errors become sentences."""
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      yield file
  except (safetensors.SafetensorError, OSError) as error:
    reason = str(error).removeprefix("Error while deserializing header: ")
    raise WeightsError(f"It is no whole .safetensors file: {reason}.") from None


def write(
  path: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
  """Writes arrays, which PyTorch's and Hugging Face's libraries can load."""
  safetensors_numpy.save_file(
    {name: np.asarray(array, order="C") for name, array in arrays.items()},
    path,
    # Hugging Face refuses files that do not name a framework.
    metadata={"format": "pt", **metadata},
  )
  # Their library makes a file that nobody else can read.
  mask = os.umask(0o077)
  os.umask(mask)
  os.chmod(path, 0o666 & ~mask)
