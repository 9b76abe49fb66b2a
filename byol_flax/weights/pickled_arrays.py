"""NumPy's arrays in a pickle, which become `arrays.Stored`.

NumPy writes an array as a call of `_reconstruct`, which makes an empty one, and
a state with shape, type and content. Its modules have changed their names; JAX
and dill wrap the same call and state into functions of their own.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

import numpy as np

from byol_flax.weights import arrays, pickle_input
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_calls import Buildable, Named
from byol_flax.weights.pickle_input import Blob, shown

Opener = Callable[[], BinaryIO]
Admitted = Mapping[tuple[str, str], Callable[..., Any]]

_MAX_DIMENSIONS: Final = 8
# Real numbers of fixed size; "O" would be Python's objects.
_TYPES: Final = ("f2", "f4", "f8", "b1") + tuple(
  f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)
)
_BYTE_ORDERS: Final = ("<", ">", "=", "|")
# The module that Python's pickle names, and the one that dill does.
_CORES: Final = tuple(
  f"{core}.{module}"
  for core in ("numpy.core", "numpy._core")
  for module in ("multiarray", "_multiarray_umath")
)
_RECONSTRUCT: Final = tuple(f"{core}._reconstruct" for core in _CORES)
_NO_FIELDS: Final = (None, None, None, -1, -1, 0)


class Dtype(Buildable):
  """A numpy.dtype; a state adds its byte order."""

  def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
    if not isinstance(code, str) or code not in _TYPES:
      raise WeightsError(
        f"It has an array of type {_told(code)}; expected numbers of fixed "
        "size, such as f4."
      )
    self._code = code
    self.dtype: np.dtype[Any] = np.dtype(code)

  def build(self, state: Any) -> None:
    """Takes (version, byte order, no fields and sizes…) as NumPy writes it."""
    match state:
      case (3, str(order), *fields) if order in _BYTE_ORDERS:
        if all(map(_is, fields, _NO_FIELDS)) and len(fields) == len(_NO_FIELDS):
          self.dtype = np.dtype(f"{order}{self._code}")
          return
    raise WeightsError("It has a type of arrays that is not a plain number.")


class Array(Buildable):
  """A numpy.ndarray; a state gives it its content.

  Attributes:
    stored: the array; None before it has a state.
  """

  def __init__(self, open_file: Opener) -> None:
    self.stored: arrays.Stored | None = None
    self._open_file = open_file

  def build(self, state: Any) -> None:
    """Takes (version, shape, dtype, whether in Fortran's order, content)."""
    match state:
      case (1, tuple(shape), Dtype() as kind, bool(fortran), content):
        order = "F" if fortran else "C"
        self.fill(shape, kind.dtype, order, content)
      case _:
        raise WeightsError("It has an array whose state is not NumPy's.")

  def fill(
    self, shape: Any, dtype: np.dtype[Any], order: str, content: Any
  ) -> None:
    """Takes shape, type, order ("C" or "F") and content, checked together."""
    if len(shape) > _MAX_DIMENSIONS or not all(
      type(size) is int and size >= 0 for size in shape
    ):
      raise WeightsError("It has an array whose shape is no list of sizes.")
    size = math.prod(shape) * dtype.itemsize
    if isinstance(content, str):
      content = _latin1(content)
    if not isinstance(content, bytes | Blob):
      raise WeightsError("It has an array whose content is not bytes.")
    length = len(content) if isinstance(content, bytes) else content.length
    # In UTF-8 each byte is one or two.
    spelled = isinstance(content, Blob) and content.kind == "text"
    if not size <= length <= (2 * size if spelled else size):
      raise WeightsError(
        f"It has an array of shape {list(shape)} and type {dtype.name}, which "
        f"is {size} bytes, with a content of {length} bytes."
      )
    load = functools.partial(
      _load, self._open_file, content, tuple(shape), dtype, order
    )
    native = dtype.newbyteorder("=")
    self.stored = arrays.Stored(tuple(shape), native, load)


def admitted(open_file: Opener) -> Admitted:
  """What a pickle with arrays may name, for `pickle_machine.load`.

  An array becomes an `Array`, of which `stored_in` gives the content.

  Args:
    open_file: opens the file that the pickle is in, at its beginning.
  """

  def array(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    made = Array(open_file)
    if not isinstance(dtype, Dtype) or not isinstance(shape, tuple):
      raise WeightsError("It has an array without a type or a shape.")
    if not isinstance(order, str) or order not in ("C", "F"):
      raise WeightsError("It has an array of an unknown order.")
    made.fill(shape, dtype.dtype, order, content)
    return made

  def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    if not isinstance(kind, Named) or kind.call is not _uncallable:
      raise WeightsError("It has an array that is no numpy.ndarray.")
    return Array(open_file)

  def frombuffer(
    content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
  ) -> Array:
    if order != "K":
      return array(content, dtype, shape, order)
    made = array(content, dtype, shape, "C")
    axes = axes if isinstance(axes, tuple) else ()
    stored, known = made.stored, all(type(axis) is int for axis in axes)
    if not (known and stored and sorted(axes) == [*range(len(shape))]):
      raise WeightsError("It has an array with its axes in an unknown order.")
    made.stored = stored.transposed(axes)
    return made

  def scalar(dtype: Any, content: Any) -> Array:
    return array(content, dtype, (), "C")

  functions: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): Dtype,
    ("numpy", "ndarray"): _uncallable,
    ("_codecs", "encode"): _encode,
    # Python 3 writes empty bytes so for readers of Python 2.
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
    ("jax._src.device_array", "reconstruct_device_array"): restated,
    ("jax._src.array", "_reconstruct_array"): restated,
  }
  for core in _CORES:
    functions[core, "_reconstruct"] = reconstruct
    functions[core, "scalar"] = scalar
  for core in ("numpy.core", "numpy._core"):
    functions[f"{core}.numeric", "_frombuffer"] = frombuffer
  return functions


def restated(
  function: Any, arguments: Any, state: Any, more: Any = None
) -> Array:
  """The array that a call and a state make, as JAX and dill write them.

  What more they say (a type that is weak, attributes) no weights need.
  """
  # Only this one function, or else calls could be nested without end.
  if not isinstance(function, Named) or function.name not in _RECONSTRUCT:
    raise WeightsError(
      "It has an array that NumPy's _reconstruct did not make."
    )
  made = function.call(*arguments)
  if not isinstance(made, Array):
    raise WeightsError(f"{function.name} makes no array.")
  made.build(state)
  return made


def stored_in(value: Any) -> arrays.Stored | None:
  """The array that an object of a pickle is; None if it is none."""
  return value.stored if isinstance(value, Array) else None


def _load(
  open_file: Opener,
  content: bytes | Blob,
  shape: tuple[int, ...],
  dtype: np.dtype[Any],
  order: Any,
) -> np.ndarray:
  """Reads an array, in C order and with the machine's order of bytes."""
  if isinstance(content, bytes):
    memory = np.frombuffer(content, np.uint8).copy()
  else:
    memory = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    with open_file() as file:
      pickle_input.fill(memory, file, content)
  found = memory.view(dtype).reshape(shape, order=order)
  return np.ascontiguousarray(found, dtype.newbyteorder("=")).reshape(shape)


def _encode(text: Any, encoding: Any) -> bytes | Blob:
  """_codecs.encode(text, "latin1"): bytes, written for readers of Python 2."""
  if encoding not in ("latin1", "latin-1") or not isinstance(text, str | Blob):
    raise WeightsError("It encodes something else than latin-1 text.")
  return _latin1(text) if isinstance(text, str) else text


def _latin1(text: str) -> bytes:
  try:
    return text.encode("latin-1")
  except UnicodeError:
    raise WeightsError("Bytes of an array are spelled wrongly.") from None


def _no_bytes(*arguments: Any) -> bytes:
  if arguments:
    raise WeightsError("It makes bytes of something.")
  return b""


def _uncallable(*_: Any) -> Any:
  raise WeightsError("It calls numpy.ndarray itself.")


def _is(value: Any, expected: Any) -> bool:
  return type(value) is type(expected) and value == expected


def _told(value: Any) -> str:
  return shown(value) if isinstance(value, str) else type(value).__name__
