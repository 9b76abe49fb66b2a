"""Convolution and linear layer whose gradients have the weights' own type.

Flax casts the weights to the type of the activations, so their gradients have
that type too, and the devices add them up in it. On accelerators it is
bfloat16, which holds three digits. These layers also compute values in the
type of the activations, but each device's part of a gradient has the type in
which the weight was handed in. If that is float32, the part is what the
accelerator itself has summed, before any rounding to bfloat16.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_LAYOUT = ("NHWC", "HWIO", "NHWC")

# A name of `pads`, or the zeros before and after the rows and the columns.
Padding = str | tuple[tuple[int, int], tuple[int, int]]


class Conv(nn.Module):
  """Two-dimensional convolution.

  Attributes:
    features: output channels.
    kernel_size: height and width.
    strides: in both directions.
    padding: see `pads`.
    dilation: how many pixels apart the kernel's taps lie; where it is not 1,
      `strides` is.
    kernel_init: initialiser of the kernel [height, width, C, features].
    dtype: of activations.
    param_dtype: of the kernel and the bias.
    use_bias: whether to add a bias for each of `features`, which starts at 0.
  """

  features: int
  kernel_size: tuple[int, int]
  strides: int
  padding: Padding
  kernel_init: nn.initializers.Initializer
  dtype: Any
  param_dtype: Any
  dilation: int = 1
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., H, W, C] to [..., H/strides, W/strides, features].

    Sizes that `strides` does not divide are rounded up.
    """
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    images = x.reshape(-1, *x.shape[-3:]).astype(self.dtype)
    y = _convolve(images, kernel, self.strides, self.padding, self.dilation)
    if self.use_bias:
      bias = self.param(
        "bias", nn.initializers.zeros, (self.features,), self.param_dtype
      )
      y = _add(y, bias)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


class Linear(nn.Module):
  """x W + b.

  Attributes:
    features: F.
    use_bias: whether to add b, which starts at 0.
    kernel_init: initialiser of W [C, F].
    dtype: of activations.
    param_dtype: of W and b.
  """

  features: int
  use_bias: bool
  kernel_init: nn.initializers.Initializer
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., C] to [..., F]."""
    shape = (x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    y = _multiply(x.astype(self.dtype), kernel)
    if self.use_bias:
      bias = self.param(
        "bias", nn.initializers.zeros, (self.features,), self.param_dtype
      )
      y = _add(y, bias)
    return y


def pads(
  sizes: Sequence[int], taps: Sequence[int], strides: int, padding: Padding
) -> list[tuple[int, int]]:
  """Zeros before and after each axis of an image.

  Args:
    sizes: height and width of the image.
    taps: height and width of the kernel; odd, unless `padding` is numbers.
    strides: in both directions.
    padding: the zeros themselves, or a name for them. "same" is TensorFlow's,
      and the authors': as few zeros as the output needs, and if their number is
      odd, the greater part comes after. "symmetric" is PyTorch's: half a kernel
      on both sides. The two differ only where a kernel moves by more than one
      pixel.
  """
  if not isinstance(padding, str):
    return list(padding)
  if padding == "symmetric":
    return [(tap // 2, tap // 2) for tap in taps]
  return jax.lax.padtype_to_pads(sizes, taps, (strides, strides), "SAME")


def _plain_convolve(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding, dilation: int
) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(strides, strides),
    padding=pads(x.shape[1:3], _reach(kernel, dilation), strides, padding),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=_LAYOUT,
  )


def _reach(kernel: jax.Array, dilation: int) -> list[int]:
  """Height and width in pixels of a kernel whose taps lie apart."""
  return [dilation * (taps - 1) + 1 for taps in kernel.shape[:2]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding, dilation: int
) -> jax.Array:
  """x [N, H, W, C], kernel [h, w, C, F] -> [N, H/strides, W/strides, F]."""
  return _plain_convolve(x, kernel, strides, padding, dilation)


def _convolve_forward(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _convolve(x, kernel, strides, padding, dilation), (x, kernel)


def _convolve_backward(
  strides: int,
  padding: Padding,
  dilation: int,
  kept: tuple[jax.Array, jax.Array],
  g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  x, kernel = kept
  of_x = jax.linear_transpose(
    lambda x: _plain_convolve(x, kernel, strides, padding, dilation), x
  )
  sizes, outputs = x.shape[1:3], g.shape[1:3]
  reach = _reach(kernel, dilation)
  begins = pads(sizes, reach, strides, padding)
  # A weight meets pixels that lie `strides` apart and begin at its own place in
  # the padded image. Its gradient is the sum of these pixels, each times its
  # value of `g`, over all images. So this is a convolution too: `g` is its
  # kernel, dilated by `strides`, and the images of the batch are its channels.
  # Weights that lie `dilation` apart meet every `dilation`-th place of it.
  ends = [
    (before, taps + (output - 1) * strides - size - before)
    for (before, _), taps, output, size in zip(
      begins, reach, outputs, sizes, strict=True
    )
  ]
  of_kernel = jax.lax.conv_general_dilated(
    x,
    g,
    window_strides=(dilation, dilation),
    padding=ends,
    rhs_dilation=(strides, strides),
    dimension_numbers=("CHWN", "IHWO", "HWNC"),
    preferred_element_type=kernel.dtype,
  )
  return of_x(g)[0], of_kernel


_convolve.defvjp(_convolve_forward, _convolve_backward)


@jax.custom_vjp
def _multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x [..., C], kernel [C, F] -> [..., F]."""
  return x @ kernel.astype(x.dtype)


def _multiply_forward(
  x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _multiply(x, kernel), (x, kernel)


def _multiply_backward(
  kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = kept
  rows = tuple(range(x.ndim - 1))
  of_kernel = jax.lax.dot_general(
    x, g, ((rows, rows), ((), ())), preferred_element_type=kernel.dtype
  )
  return g @ kernel.astype(x.dtype).T, of_kernel


_multiply.defvjp(_multiply_forward, _multiply_backward)


@jax.custom_vjp
def _add(y: jax.Array, bias: jax.Array) -> jax.Array:
  """y [..., F] + bias [F]."""
  return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def _add_forward(y: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
  return _add(y, bias), bias


def _add_backward(bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
  return g, jnp.sum(g, tuple(range(g.ndim - 1)), dtype=bias.dtype)


_add.defvjp(_add_forward, _add_backward)
