"""Lets Numba compile loops over numbers when they are first called."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, fastmath: bool) -> Callable[[Callable[..., Any]], Any]:
  """Returns a decorator; what it compiles is kept on disk if there is a place.

  Args:
    fastmath: whether the compiler may change the order of operations, which is
      faster but changes the last bits of a result.
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
