"""FCRN: a depth for every fourth pixel of an image (paper.md §7.3).

The decoder is that of Laina et al. (arXiv 1606.00373) as their code has it, in
network.py of iro-cp/FCRN-DepthPrediction.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from byol_flax.models import grouping, initializers, layers, resnet

# Each up-projection halves the channels, as the layer before them does.
_UP_PROJECTIONS = 4
# Of the four convolutions: kernel, and zeros before and after in each axis.
_INTERLEAVED = {
  "a": ((3, 3), ((1, 1), (1, 1))),
  "b": ((2, 3), ((1, 0), (1, 1))),
  "c": ((3, 2), ((1, 1), (1, 0))),
  "d": ((2, 2), ((1, 0), (1, 0))),
}


class Part(nn.Module):
  """What all parts of the decoder share.

  Attributes:
    channels: of the output.
    kernel_init: initialiser of the convolutions; biases start at 0.
    norm: makes a BatchNorm.
    dtype: of activations.
    param_dtype: of weights and of depths.
  """

  channels: int
  kernel_init: initializers.Initializer
  norm: Any
  dtype: Any
  param_dtype: Any

  @nn.nowrap
  def conv(self, kernel: tuple[int, int], **changes: Any) -> layers.Conv:
    """A convolution with bias; `changes` are made to what a part has most."""
    options = {
      "features": self.channels,
      "strides": 1,
      "padding": "same",
      "kernel_init": self.kernel_init,
      "dtype": self.dtype,
      "param_dtype": self.param_dtype,
    }
    return layers.Conv(
      kernel_size=kernel, use_bias=True, **{**options, **changes}
    )


class UpConvolution(Part):
  """Four convolutions whose outputs are interleaved to twice the size."""

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [b, V, h, w, C'] to [b, V, 2h, 2w, C]."""
    found = {
      name: self.conv(kernel, padding=padding, name=name)(x)
      for name, (kernel, padding) in _INTERLEAVED.items()
    }
    x = interleave(found["a"], found["b"], found["c"], found["d"])
    y: jax.Array = self.norm(name="norm")(x, train=train)
    return y


def interleave(
  a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array
) -> jax.Array:
  """Four maps [b, V, h, w, C] -> [b, V, 2h, 2w, C].

  Even columns have `a` in even and `b` in odd rows, odd columns have `c` in
  even and `d` in odd rows.
  """
  left, right = (
    jnp.stack(rows, axis=3).reshape(*a.shape[:2], -1, *a.shape[3:])
    for rows in ((a, b), (c, d))
  )
  both = jnp.stack([left, right], axis=4)
  return both.reshape(*left.shape[:3], -1, a.shape[-1])


class UpProjection(Part):
  """A residual block that doubles height and width."""

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [b, V, h, w, C'] to [b, V, 2h, 2w, C]."""

    def up(name: str) -> jax.Array:
      return UpConvolution(
        self.channels,
        kernel_init=self.kernel_init,
        norm=self.norm,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )(x, train=train)

    y = self.conv((3, 3), name="conv")(nn.relu(up("up")))
    y = self.norm(name="norm")(y, train=train)
    return nn.relu(y + up("shortcut"))


class Head(Part):
  """The decoder; `channels` are half of those that come from the encoder."""

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [b, V, h, w, C] to depths [b, V, 16h, 16w], in metres."""
    x = self.conv((1, 1), name="reduce")(x)
    x = self.norm(name="norm")(x, train=train)
    for i in range(_UP_PROJECTIONS):
      x = UpProjection(
        self.channels // 2 ** (i + 1),
        kernel_init=self.kernel_init,
        norm=self.norm,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f"up{i}",
      )(x, train=train)
    x = self.conv((3, 3), features=1, dtype=self.param_dtype, name="depth")(x)
    return jnp.squeeze(x, axis=-1)


class Fcrn(nn.Module):
  """Encoder and decoder.

  Attributes:
    encoder: of output stride 32; of C channels, which are a multiple of 32.
    batch_groups: V, see `grouping`.
    frozen_norm: whether the encoder normalises by its running averages even in
      training. The decoder's BatchNorm has no averages before, so it never
      does.
  """

  encoder: resnet.ResNet
  batch_groups: int
  frozen_norm: bool

  def setup(self) -> None:
    """Takes from the encoder all that the decoder shares with it."""
    encoder = self.encoder
    self.head = Head(
      encoder.channels // 2,
      kernel_init=encoder.kernel_init,
      norm=encoder.norm,
      dtype=encoder.dtype,
      param_dtype=encoder.param_dtype,
    )

  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    """Maps images, uint8 [B, H, W, 3], to depths, float32 [B, 16 h, 16 w].

    The encoder's map has h × w places: 8 × 10 of 228 × 304 pixels.
    """
    x = grouping.grouped(images, self.batch_groups)
    x = self.encoder.feature_maps(x, train=train and not self.frozen_norm)[-1]
    return grouping.ungrouped(self.head(x, train=train))


def reverse_huber(
  predicted: jax.Array, true: jax.Array, share: float
) -> tuple[jax.Array, jax.Array]:
  """Laina's loss over the valid pixels of a batch, and the mean of |e|.

  With e = predicted - true it is |e| up to c, and (e² + c²) / 2c beyond, which
  has there the same value and slope; c is `share` of the largest |e| in the
  whole batch, wherever its images lie, and is a constant for the gradient.

  Args:
    predicted: float32 [B, H, W], in metres.
    true: float32 [B, H, W], in metres; pixels of 0 are not valid.
    share: 0.2 in Laina et al.

  Returns:
    Mean loss and mean error, both []; 0 if no pixel is valid.
  """
  valid = true > 0
  size = jnp.abs(jnp.where(valid, predicted - true, 0))
  c = jax.lax.stop_gradient(share * jnp.max(size))
  squared = (size**2 + c**2) / (2 * jnp.where(c > 0, c, 1))
  each = jnp.where(size <= c, size, squared)
  count = jnp.maximum(jnp.sum(valid), 1)
  return jnp.sum(each) / count, jnp.sum(size) / count
