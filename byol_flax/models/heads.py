"""Projector and predictor: one MLP shape (paper §3.3, networks.py)."""

from typing import Any

import flax.linen as nn
import jax

from byol_flax.models import initializers, layers


class MLP(nn.Module):
  """Linear, BatchNorm, ReLU, linear.

  Attributes:
    hidden_size: width of the hidden layer.
    output_size: D.
    final_bias: bias of the last layer; off in the authors' code, on in the
      paper's pseudo-code (paper.md §10 row 2).
    norm: makes a BatchNorm.
    dtype: of activations.
    param_dtype: of weights and of the output.
  """

  hidden_size: int
  output_size: int
  final_bias: bool
  norm: Any
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, V, F] to [B, V, D]."""
    x = linear(self.hidden_size, True, self.dtype, self.param_dtype, "linear0")(
      x
    )
    x = nn.relu(self.norm(name="norm")(x, train=train))
    x = linear(
      self.output_size, self.final_bias, self.dtype, self.param_dtype, "linear1"
    )(x)
    return x.astype(self.param_dtype)


def linear(
  size: int, bias: bool, dtype: Any, param_dtype: Any, name: str | None = None
) -> layers.Linear:
  """A linear layer with the authors' initialisation."""
  return layers.Linear(
    size,
    use_bias=bias,
    kernel_init=initializers.fan_in,
    dtype=dtype,
    param_dtype=param_dtype,
    name=name,
  )
