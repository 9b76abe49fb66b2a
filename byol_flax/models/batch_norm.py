"""BatchNorm with statistics per view and de-biased running averages."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
  """Normalises each channel over batch and space, separately for each view.

  It differs from `nn.BatchNorm` in two ways. Axis 1 of the input holds the
  views, and each has its own statistics, so that one call on two views equals
  two calls on one (paper.md §1.4). The running averages are de-biased as in
  Haiku: update t moves them by (1 - d) / (1 - d^t), so the first batch replaces
  the initial values. The variance is the biased E[x²] - E[x]²; if rounding
  makes it negative, as it can in a channel of large and constant values, it
  is 0. Under `jit` with the batch sharded over a mesh the statistics are those
  of the global batch.

  Attributes:
    decay: d of the running averages.
    epsilon: added to the variance.
    dtype: of the output.
    param_dtype: of parameters, statistics and the normalisation itself.
    scale_init: initialiser of the scale; the offset starts at 0.
    use_offset: whether there is an offset.
    groups: whether axis 1 holds groups of images of one view, see `grouping`.
      The averages then move once, towards the mean of the groups' statistics.
  """

  decay: float
  epsilon: float
  dtype: Any
  param_dtype: Any
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  use_offset: bool = True
  groups: bool = False

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool,
    max_pool: Callable[[jax.Array], jax.Array] | None = None,
  ) -> jax.Array:
    """Normalises `x` [B, V, ..., C].

    Args:
      x: activations.
      train: whether to normalise by the statistics of `x`, and add them to the
        running averages; otherwise `x` is normalised by the averages.
      max_pool: pools the normalised `x`. The pooling is done first, with the
        same result, so that only a quarter of the values is normalised and
        kept for the gradient.
    """
    shape = (x.shape[-1],)
    scale = self.param("scale", self.scale_init, shape, self.param_dtype)
    if self.use_offset:
      offset = self.param(
        "offset", nn.initializers.zeros, shape, self.param_dtype
      )
    average = {
      "mean": self.variable(
        "batch_stats", "mean", jnp.zeros, shape, self.param_dtype
      ),
      "variance": self.variable(
        "batch_stats", "variance", jnp.ones, shape, self.param_dtype
      ),
    }
    count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)

    kept = x
    if max_pool:
      # A negative scale reverses the order of a channel's values, so such a
      # channel changes its sign before the pooling and again after it. The
      # sign changes in `x` itself, so that only one array need be stored.
      sign = jnp.where(scale < 0, -1, 1).reshape((1,) * (x.ndim - 1) + (-1,))
      x = x * sign.astype(x.dtype)
      kept = max_pool(x) * sign.astype(x.dtype)
    kept = kept.astype(self.param_dtype)
    if train:
      axes = (0, *range(2, x.ndim - 1))
      x = x.astype(self.param_dtype)
      mean = jnp.mean(x, axes)  # [V, C]
      variance = jnp.maximum(jnp.mean(x**2, axes) - mean**2, 0)  # [V, C]
      if max_pool:
        mean *= sign.reshape(1, -1)
      if not self.is_initializing():
        seen = {"mean": mean, "variance": variance}
        if self.groups:
          seen = {
            name: jnp.mean(each, axis=0, keepdims=True)
            for name, each in seen.items()
          }
        for view in range(1 if self.groups else x.shape[1]):
          count.value += 1
          weight = (1 - self.decay) / (1 - self.decay**count.value)
          weight = weight.astype(self.param_dtype)
          for name, each in seen.items():
            old = average[name].value
            average[name].value = old + weight * (each[view] - old)
    else:
      mean = average["mean"].value[None]  # [1, C]
      variance = average["variance"].value[None]

    def spread(statistic: jax.Array) -> jax.Array:
      """[V, C] -> [1, V, 1, ..., C], to meet the activations."""
      views, channels = statistic.shape
      return statistic.reshape(1, views, *(1,) * (kept.ndim - 3), channels)

    multiplier = jax.lax.rsqrt(variance + self.epsilon) * scale[None]
    y = (kept - spread(mean)) * spread(multiplier)
    if self.use_offset:
      y = y + spread(offset[None])
    return y.astype(self.dtype)
