"""Reads files of `torch.save` without PyTorch, and without running them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from byol_flax.weights import torch_archive, torch_pickle
from byol_flax.weights.arrays import Stored, check_name
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_input import shown

is_one = torch_archive.is_one

# How deep arrays are looked for, and among how many objects. VISSL's lie six
# deep.
_DEEPEST = 12
_MOST_OBJECTS = 100_000

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a file holds.

  Attributes:
    arrays: by name; names of nested dicts are joined by dots.
    others: entries at the top that hold no arrays, with what they are.
  """

  arrays: Mapping[str, Stored]
  others: Mapping[str, str]


def read(path: str) -> Contents:
  """The arrays of a file; none of them is read yet.

  Raises:
    WeightsError: it is damaged, or needs code to be read.
  """
  held = torch_archive.content(path)
  if not isinstance(held, dict) or isinstance(held, torch_pickle.Inert):
    raise WeightsError(
      f"It holds {_kind(held)}; expected a dict of arrays, as "
      "torch.save(model.state_dict(), FILE) writes it."
    )
  arrays: dict[str, Stored] = {}
  others = {}
  for key, found in named(held, Stored).items():
    if repeated := found.keys() & arrays.keys():
      raise WeightsError(f"It has two arrays {sorted(repeated)[0]}.")
    arrays |= found
    if not found:
      others[shown(str(key))] = f"It holds no arrays ({_kind(held[key])})."
  return Contents(arrays, others)


def named(held: Mapping[Any, Any], kind: type[_T]) -> dict[Any, dict[str, _T]]:
  """The arrays in each value of a dict, by their whole names.

  Args:
    held: dicts and lists, one in another, and anything else.
    kind: what an array is.

  Raises:
    WeightsError: there are too many objects, or two arrays of one name.
  """
  left = iter(range(_MOST_OBJECTS))
  arrays: dict[Any, dict[str, _T]] = {}
  for key, value in held.items():
    found = arrays[key] = {}
    for name, array in _walk(str(key), value, kind, _DEEPEST, left):
      check_name(name)
      if name in found:
        raise WeightsError(f"It has two arrays {name}.")
      found[name] = array
  return arrays


def _walk(
  name: str, value: Any, kind: type[_T], depth: int, left: Iterator[int]
) -> Iterator[tuple[str, _T]]:
  """Yields (name, array) for all arrays in a value, as deep as `depth`."""
  if next(left, None) is None:
    raise WeightsError(f"It holds more than {_MOST_OBJECTS:,} objects.")
  if isinstance(value, kind):
    yield name, value
  elif depth and isinstance(value, dict | list | tuple):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
      yield from _walk(f"{name}.{key}", part, kind, depth - 1, left)


def _kind(value: Any) -> str:
  if isinstance(value, torch_pickle.Inert):
    return f"an object of {value.name}, which was not made"
  return type(value).__name__
