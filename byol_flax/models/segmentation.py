"""FCN-16s: a class for every pixel of an image (paper.md §7.1)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from byol_flax.models import grouping, initializers, layers, resnet

# Two 3×3 convolutions, of so many channels and taps so far apart.
_CHANNELS, _DILATION, _LAYERS = 256, 6, 2


class Head(nn.Module):
  """Scores of the classes at each place of the encoder's map.

  Attributes:
    num_classes: K.
    kernel_init: initialiser of the 3×3 convolutions.
    norm: makes a BatchNorm.
    dtype: of activations.
    param_dtype: of weights and of the scores.
  """

  num_classes: int
  kernel_init: initializers.Initializer
  norm: Any
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [b, V, h, w, C] to [b, V, h, w, K]."""
    for i in range(_LAYERS):
      x = layers.Conv(
        _CHANNELS,
        (3, 3),
        strides=1,
        padding="same",
        dilation=_DILATION,
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f"conv{i}",
      )(x)
      x = nn.relu(self.norm(name=f"norm{i}")(x, train=train))
    # A convolution of 1×1 is a linear layer at each place.
    return layers.Linear(
      self.num_classes,
      use_bias=True,
      kernel_init=initializers.fan_in,
      dtype=self.param_dtype,
      param_dtype=self.param_dtype,
      name="classes",
    )(x)


class Fcn(nn.Module):
  """Encoder, head, and enlargement to the size of the image.

  Attributes:
    encoder: with `dilate_last` for an output stride of 16, without for 32.
    num_classes: K.
    batch_groups: V, see `grouping`.
    frozen_norm: whether the encoder normalises by its running averages even in
      training. The head's BatchNorm has no averages before, so it never does.
  """

  encoder: resnet.ResNet
  num_classes: int
  batch_groups: int
  frozen_norm: bool

  def setup(self) -> None:
    """Takes from the encoder all that the head shares with it."""
    self.head = Head(
      self.num_classes,
      kernel_init=self.encoder.kernel_init,
      norm=self.encoder.norm,
      dtype=self.encoder.dtype,
      param_dtype=self.encoder.param_dtype,
    )

  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    """Maps images, uint8 [B, H, W, 3], to logits, float32 [B, H, W, K]."""
    x = grouping.grouped(images, self.batch_groups)
    x = self.encoder.feature_maps(x, train=train and not self.frozen_norm)[-1]
    scores = grouping.ungrouped(self.head(x, train=train))
    return enlarge(scores, images.shape[1:3], self.encoder.output_stride)


def enlarge(scores: jax.Array, size: Sequence[int], stride: int) -> jax.Array:
  """Interpolates a map between the pixels that its places stand for.

  Place i stands for pixel i · stride. In images of n · stride + 1 pixels, such
  as 513 with a stride of 16, that is exact: each layer of stride 2 is centred
  on every second pixel. There it equals interpolation with aligned corners. The
  usual half-pixel convention would shift the classes outwards, by 7 of 513
  pixels at the edges, because it takes a map of 33 places for the whole image
  cut into 33 parts. Pixels after the last place get its scores.

  Args:
    scores: [B, h, w, K].
    size: height and width of the image.
    stride: see `ResNet.output_stride`.

  Returns:
    float [B, H, W, K].
  """
  rows, columns = (
    _weights(pixels, places, stride).astype(scores.dtype)
    for pixels, places in zip(size, scores.shape[1:3], strict=True)
  )
  tall = jnp.einsum("bhwk,yh->bywk", scores, rows, precision="highest")
  return jnp.einsum("bywk,xw->byxk", tall, columns, precision="highest")


def _weights(pixels: int, places: int, stride: int) -> jax.Array:
  """What each place counts for each pixel, [pixels, places]; rows add to 1."""
  at = jnp.minimum(jnp.arange(pixels) / stride, places - 1)
  distance = jnp.abs(at[:, None] - jnp.arange(places)[None])
  return jnp.maximum(1 - distance, 0)


def cross_entropy(
  logits: jax.Array, classes: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean loss over the pixels of a batch that have a class, and accuracy there.

  Args:
    logits: float32 [B, H, W, K].
    classes: uint8 [B, H, W]; a pixel of K or more, such as a void one, does not
      count.

  Returns:
    Softmax cross-entropy and the share of pixels whose class has the highest
    score, both []; 0 if no pixel counts.
  """
  known = classes < logits.shape[-1]
  # A comparison with all classes is cheaper on accelerators than an index.
  own = classes[..., None] == jnp.arange(logits.shape[-1])[None, None, None]
  score = jnp.sum(jnp.where(own, logits, 0), axis=-1)
  each = jax.nn.logsumexp(logits, axis=-1) - score
  hits = jnp.argmax(logits, axis=-1) == classes
  count = jnp.maximum(jnp.sum(known), 1)
  return (
    jnp.sum(jnp.where(known, each, 0)) / count,
    jnp.sum(known & hits) / count,
  )
