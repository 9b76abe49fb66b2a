"""Arrays that lie in a file and are read one at a time."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from byol_flax.weights.errors import WeightsError


@dataclasses.dataclass(frozen=True)
class Stored:
  """An array in a file.

  Attributes:
    shape: of the array.
    dtype: of the array.
    load: () -> the array, in C order. It raises WeightsError if the file is
      damaged.
  """

  shape: tuple[int, ...]
  dtype: np.dtype[Any]
  load: Callable[[], np.ndarray]

  @classmethod
  def of(cls, array: np.ndarray) -> Self:
    """An array that is in memory already."""
    return cls(array.shape, array.dtype, lambda: array)

  def transposed(self, axes: tuple[int, ...]) -> "Stored":
    """The array with its axes in another order."""
    return Stored(
      tuple(self.shape[axis] for axis in axes),
      self.dtype,
      lambda: np.ascontiguousarray(self.load().transpose(axes)),
    )

  def reshaped(self, shape: tuple[int, ...]) -> "Stored":
    """The array in another shape of the same size."""
    return Stored(shape, self.dtype, lambda: self.load().reshape(shape))


_LONGEST_NAME = 500


def check_name(name: str) -> None:
  """Raises WeightsError if an array's name is fit for no message."""
  if len(name) > _LONGEST_NAME or not name.isprintable():
    raise WeightsError(
      f"It has an array whose name is no plain text of at most {_LONGEST_NAME} "
      f"characters: {name[:50]!a}."
    )


# Nested dicts with names as keys and `Stored` as leaves.
Tree = Mapping[str, Any]


def flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Yields ("group0_block0/conv0/kernel", leaf) for all leaves, in order."""
  for name, sub in tree.items():
    path = f"{prefix}{name}"
    if isinstance(sub, Mapping):
      yield from flat(sub, f"{path}/")
    else:
      yield path, sub


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The tree of which `flat` gives `leaves`.

  Raises:
    WeightsError: one path goes through another's leaf.
  """
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *sections, name = path.split("/")
    node = tree
    for section in sections:
      node = node.setdefault(section, {})
      if not isinstance(node, dict):
        raise WeightsError(f"It has an array at {path!r} and one above it.")
    if name in node:
      raise WeightsError(
        f"It has two arrays at {path!r}, or one above another."
      )
    node[name] = leaf
  return tree


def read(
  tree: Tree, put: Callable[[np.ndarray], Any] = lambda array: array
) -> dict[str, Any]:
  """Reads all arrays of a tree, one after another.

  Args:
    tree: of `Stored`.
    put: what to make of each array, before the next one is read.

  Raises:
    WeightsError: an array is damaged, or holds NaN, infinity, or a number that
      float32 cannot hold.
  """
  found = {}
  for path, stored in flat(tree):
    array = stored.load()
    with np.errstate(over="ignore"):
      narrow = array.astype(np.float32, copy=False)
    if array.dtype.kind == "f" and not np.isfinite(narrow).all():
      raise WeightsError(
        f"Its {path} holds values that are not finite numbers."
      )
    found[path] = put(array)
  return nested(found)
