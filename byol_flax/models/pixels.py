"""How the pixels of an image enter a network."""

from typing import Any

import jax
import jax.numpy as jnp

# Mean and deviation of ImageNet's channels; the authors normalise every data
# set by them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images: jax.Array, dtype: Any) -> jax.Array:
  """Scales uint8 [..., 3] to [0, 1], then by ImageNet's mean and deviation."""
  shape = (1,) * (images.ndim - 1) + (3,)
  mean = jnp.asarray(IMAGENET_MEAN, dtype).reshape(shape)
  std = jnp.asarray(IMAGENET_STD, dtype).reshape(shape)
  return (images.astype(dtype) / 255 - mean) / std
