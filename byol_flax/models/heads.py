"""Projector and predictor: one MLP shape (paper §3.3, networks.py)."""

from typing import Any

import flax.linen as nn
import jax

from byol_flax.models import layers
from byol_flax.models.initializers import Initializer


class MLP(nn.Module):
  """Linear layers; BatchNorm and ReLU follow each but the last (App. F.1).

  Without layers it is the identity, and has no parameters.

  Attributes:
    layers: how many linear layers; the paper has two.
    hidden_size: width of all but the last.
    output_size: D.
    final_bias: bias of the last layer; off in the authors' code, on in the
      paper's pseudo-code (paper.md §10 row 2).
    final_norm: whether a BatchNorm without offset follows the last layer, as
      in SimCLR (paper.md §9.4).
    kernel_init: initialiser of the weights.
    norm: makes a BatchNorm.
    dtype: of activations.
    param_dtype: of weights and of the output.
  """

  layers: int
  hidden_size: int
  output_size: int
  final_bias: bool
  final_norm: bool
  kernel_init: Initializer
  norm: Any
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, V, F] to [B, V, D]; to itself if there are no layers."""
    for i in range(self.layers):
      last = i == self.layers - 1
      x = layers.Linear(
        self.output_size if last else self.hidden_size,
        use_bias=self.final_bias if last else True,
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f"linear{i}",
      )(x)
      if not last:
        # The first has no number, as when there were never more than one.
        name = f"norm{i}" if i else "norm"
        x = nn.relu(self.norm(name=name)(x, train=train))
      elif self.final_norm:
        norm = self.norm(
          name="final_norm", use_offset=False, dtype=self.param_dtype
        )
        x = norm(x, train=train)
    return x.astype(self.param_dtype)
