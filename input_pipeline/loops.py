"""Loops over numbers that Numba compiles, when they are first called."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, fastmath: bool) -> Callable[[Callable[..., Any]], Any]:
  """A decorator; what it compiles is kept on disk where there is a place.

  Args:
    fastmath: whether the order of operations may be changed, which is faster
      and changes the last bits of a result.
  """
  options: dict[str, Any] = {
    "nogil": True,  # threads of a worker run side by side
    "fastmath": fastmath,
    "error_model": "numpy",  # no check for a division by zero
  }

  def decorate(function: Callable[..., Any]) -> Any:
    try:
      return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the home can be written to
      return numba.njit(**options)(function)

  return decorate
