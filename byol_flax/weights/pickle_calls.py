"""What a pickle may name and call: the part of the machine that could do harm.

A name is looked up in the caller's table and nowhere else, so nothing is ever
imported. What stands there is a function of ours that makes harmless data.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from byol_flax.weights.errors import WeightsError
from byol_flax.weights.pickle_input import shown

_MAX_PASSED: Final = 64 << 20  # bytes
_ITEM: Final = 64  # bytes that an item of a container may take in a copy


@dataclasses.dataclass(frozen=True, eq=False)
class Named:
  """An admitted name: all that a pickle may call.

  A function of the table gets one where the pickle passes a name on, and
  returns one where the pickle shall call its result.

  Attributes:
    name: such as "numpy.ndarray".
    call: what the caller of `load` has admitted under this name.
  """

  name: str
  call: Callable[..., Any]


class Buildable:
  """An object that a pickle may give a state once it is made."""

  def build(self, state: Any) -> None:
    """Takes the state, or raises WeightsError."""
    raise NotImplementedError


class Calls:
  """Names, calls, states and persistent ids of one pickle.

  A small pickle could pass a long list to a million calls, each of which may
  copy it. So the sum of all that is passed is bounded.
  """

  def __init__(
    self,
    admitted: Mapping[tuple[str, str], Callable[..., Any]],
    persistent: Callable[[Any], Any] | None,
  ) -> None:
    self._admitted = admitted
    self._persistent = persistent
    self._passed = 0

  def named(self, module: Any, name: Any) -> Named:
    """What the table has under a name."""
    if not isinstance(module, str) or not isinstance(name, str):
      raise WeightsError("It asks for a name that is no text.")
    if (module, name) not in self._admitted:
      raise WeightsError(
        f"It asks for {shown(f'{module}.{name}')}, which is not among the "
        "names that a weight file may use."
      )
    return Named(f"{module}.{name}", self._admitted[module, name])

  def call(self, function: Any, arguments: Any) -> Any:
    """function(*arguments), if the function is an admitted name."""
    if not isinstance(function, Named):
      raise WeightsError(
        f"It calls an object of type {type(function).__name__}, which is not "
        "among the names that a weight file may use."
      )
    if type(arguments) is not tuple:
      raise WeightsError(f"It calls {shown(function.name)} without a tuple.")
    self._pass(arguments)
    try:
      return function.call(*arguments)
    except TypeError:
      raise WeightsError(
        f"It calls {shown(function.name)} with arguments that do not fit."
      ) from None

  def build(self, target: Any, state: Any) -> None:
    """Gives an object of ours its state."""
    if not isinstance(target, Buildable):
      raise WeightsError(
        f"It gives a state to an object of type {type(target).__name__}, "
        "which takes none."
      )
    self._pass(state if type(state) is tuple else (state,))
    target.build(state)

  def refer(self, identity: Any) -> Any:
    """What a persistent id stands for."""
    if self._persistent is None:
      raise WeightsError(
        "It refers to an object outside of the pickle (a persistent id)."
      )
    self._pass(identity if type(identity) is tuple else (identity,))
    return self._persistent(identity)

  def _pass(self, arguments: tuple[Any, ...]) -> None:
    """Adds up the sizes of what is passed, one level deep."""
    self._passed += _ITEM * len(arguments)
    for value in arguments:
      if isinstance(value, tuple | list | dict):
        self._passed += _ITEM * len(value)
      elif isinstance(value, str | bytes):
        self._passed += len(value)
    if self._passed > _MAX_PASSED:
      raise WeightsError("It passes more to calls than a weight file needs.")
