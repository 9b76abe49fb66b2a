"""Mappings and named tuples of Haiku, Optax and BYOL's authors in a pickle."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from byol_flax.weights import pickled_arrays
from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_calls import Buildable, Calls, Named
from byol_flax.weights.pickle_input import shown

_MAX_FIELDS: Final = 64
_DILL: Final = ("dill._dill", "dill.dill")
_SCALE: Final = ("ScaleState", "EmptyState")
# Named tuples by module and name, with their fields.
_KNOWN: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
  ("byol.byol_experiment", "_ByolExperimentState"): (
    "online_params",
    "target_params",
    "online_state",
    "target_state",
    "opt_state",
  ),
  ("byol.utils.optimizers", "ScaleByLarsState"): ("mu",),
  ("byol.utils.optimizers", "AddWeightDecayState"): (),
  **{
    (module, name): ()
    for module in ("optax._src.transform", "optax.transform", "optax._src.base")
    for name in _SCALE
  },
}


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
  """A named tuple.

  Attributes:
    name: of its class, such as "byol.byol_experiment._ByolExperimentState".
    fields: name -> value.
  """

  name: str
  fields: Mapping[str, Any]


class Ordered(dict[Any, Any], Buildable):
  """A collections.OrderedDict; attributes of it are dropped."""

  def build(self, state: Any) -> None:
    """Takes attributes, such as PyTorch's `_metadata`, and drops them."""


def ordered(items: Any = ()) -> Ordered:
  """collections.OrderedDict: empty, or of a list of pairs."""
  made = Ordered()
  if not isinstance(items, list | tuple):
    raise WeightsError("It has an OrderedDict that is not of pairs.")
  for item in items:
    match item:
      case (str(key), value) | [str(key), value]:
        made[key] = value
      case _:
        raise WeightsError("It has an OrderedDict that is not of pairs.")
  return made


def admitted() -> pickled_arrays.Admitted:
  """What a checkpoint of BYOL's authors may name besides arrays."""
  functions: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): ordered,
  }
  # Since 2020 Haiku has given its mappings three names and two homes.
  for name in ("frozendict", "FlatMapping", "FlatMap"):
    functions["haiku._src.data_structures", name] = _mapping
  for dill in _DILL:
    functions[dill, "_create_namedtuple"] = _record_class
    functions[dill, "_create_array"] = pickled_arrays.restated
  for (module, name), fields in _KNOWN.items():
    record = functools.partial(_record, f"{module}.{name}", fields)
    functions[module, name] = record
  return functions


def looked_up(
  table: pickled_arrays.Admitted,
) -> dict[tuple[str, str], Callable[..., Any]]:
  """What dill calls to find functions of C modules, as it did until 2021.

  Instead of a name it writes _get_attr(_import_module("_codecs"), "encode").
  Here no module is imported: the two texts are a name of the table, or refused.

  Args:
    table: all else that the pickle may name.
  """

  def get_attr(module: Any, name: Any) -> Named:
    if not isinstance(module, _Module):
      raise WeightsError("It takes an attribute of something.")
    return Calls(table, None).named(module.name, name)

  def load_type(name: Any) -> Named:
    return Calls(table, None).named("builtins", name)

  functions: dict[tuple[str, str], Callable[..., Any]] = {}
  for dill in _DILL:
    functions[dill, "_import_module"] = _Module
    functions[dill, "_get_attr"] = get_attr
    functions[dill, "_load_type"] = load_type
  return functions


@dataclasses.dataclass(frozen=True, eq=False)
class _Module:
  """The name of a module."""

  name: Any
  safe: Any = False


def _mapping(content: Any) -> dict[Any, Any]:
  if not isinstance(content, dict):
    raise WeightsError("It has a mapping of Haiku that is made of no dict.")
  return content


def _record(name: str, fields: tuple[str, ...], *values: Any) -> Record:
  if len(values) != len(fields):
    raise WeightsError(
      f"It has a {shown(name)} of {len(values)} values; expected {len(fields)}."
    )
  return Record(name, dict(zip(fields, values, strict=True)))


def _record_class(
  name: Any, fields: Any, module: Any, defaults: Any = None
) -> Named:
  """dill's way to name a class of named tuples; `_KNOWN` is not asked."""
  if not isinstance(name, str) or not isinstance(module, str):
    raise WeightsError("It has a named tuple without a name.")
  if (
    not isinstance(fields, tuple | list)
    or len(fields) > _MAX_FIELDS
    or not all(isinstance(field, str) for field in fields)
  ):
    raise WeightsError("It has a named tuple without names of fields.")
  name = f"{module}.{name}"
  return Named(name, functools.partial(_record, name, tuple(fields)))
