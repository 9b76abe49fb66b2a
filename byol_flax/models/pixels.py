"""How the pixels of an image enter a network."""

from typing import Any

import jax
import jax.numpy as jnp

# Mean and deviation of ImageNet's channels; the authors normalise every data
# set by them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def scale(images: jax.Array, how: str, dtype: Any) -> jax.Array:
  """Turns uint8 [..., 3] into `dtype` [..., 3].

  Args:
    images: pixels.
    how: "unit" scales them to [0, 1], as SimCLR does (paper.md §4.8).
      "imagenet" then subtracts the means of ImageNet's channels and divides by
      their deviations, as the authors do (paper.md §4.1).
    dtype: of the result.
  """
  if how == "unit":
    return images.astype(dtype) / 255
  shape = (1,) * (images.ndim - 1) + (3,)
  mean = jnp.asarray(IMAGENET_MEAN, dtype).reshape(shape)
  std = jnp.asarray(IMAGENET_STD, dtype).reshape(shape)
  return (images.astype(dtype) / 255 - mean) / std
