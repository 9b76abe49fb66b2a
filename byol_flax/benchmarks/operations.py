"""Counts the floating-point operations of a function before it is compiled.

XLA's own count of the compiled program is of no use on a GPU: it leaves out all
that a library does, such as convolutions. Here convolutions and products of
matrices are counted before anything is compiled, so the count is the same on
every platform. All else is some two per cent of a ResNet.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core


def count(function: Callable[..., Any], *arguments: Any) -> int:
  """Floating-point operations of `function(*arguments)` on all devices.

  A multiplication and an addition count as two. What is computed again for the
  gradient counts again.

  Args:
    function: any that JAX can trace, jitted or not.
    *arguments: trees of arrays or of their shapes.
  """
  return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr: Any) -> int:
  total = 0
  for equation in jaxpr.eqns:
    match equation.primitive.name:
      case "dot_general":
        total += 2 * _of_product(equation)
      case "conv_general_dilated":
        total += 2 * _of_convolution(equation)
      case "cond":
        total += max(map(_of_part, equation.params["branches"]))
      case name:
        times = equation.params["length"] if name == "scan" else 1
        total += times * sum(map(_of_part, equation.params.values()))
  return total


def _of_part(value: Any) -> int:
  """Counts a parameter of an operation, which may be a program itself."""
  if isinstance(value, core.ClosedJaxpr):
    return _of_jaxpr(value.jaxpr)
  return _of_jaxpr(value) if isinstance(value, core.Jaxpr) else 0


def _of_product(equation: Any) -> int:
  """Multiplications of a `dot_general`."""
  (contracted, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  summed = math.prod(left[axis] for axis in contracted)
  return summed * equation.outvars[0].aval.size


def _of_convolution(equation: Any) -> int:
  """Multiplications of a `conv_general_dilated`, without those by padding."""
  params = equation.params
  numbers = params["dimension_numbers"]
  image, kernel = (x.aval.shape for x in equation.invars)
  result = equation.outvars[0].aval.shape
  # How many input channels each output channel looks at.
  channels = kernel[numbers.rhs_spec[1]]
  batch, features = (result[axis] for axis in numbers.out_spec[:2])
  pairs = [
    _pairs(image[i], kernel[k], result[o], *window)
    for i, k, o, *window in zip(
      numbers.lhs_spec[2:],
      numbers.rhs_spec[2:],
      numbers.out_spec[2:],
      params["window_strides"],
      params["padding"],
      params["lhs_dilation"],
      params["rhs_dilation"],
      strict=True,
    )
  ]
  return batch * features * channels * math.prod(pairs)


def _pairs(
  size: int,
  taps: int,
  outputs: int,
  stride: int,
  padding: tuple[int, int],
  spread: int,
  tap_spread: int,
) -> int:
  """How many pairs of an output and a tap meet a pixel, along one axis.

  The others meet padding, or a gap between the pixels of a spread image, as in
  the gradient of a convolution with a stride.
  """
  output, tap = np.ogrid[:outputs, :taps]
  place = output * stride + tap * tap_spread - padding[0]
  inside = (place >= 0) & (place <= (size - 1) * spread)
  return int(np.sum(inside & (place % spread == 0)))
