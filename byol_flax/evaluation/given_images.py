"""Images that a caller of the Python API gives: checked, cropped, shown."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from byol_flax import sharding
from input_pipeline import augment
from input_pipeline.errors import UsageError


def batch(images: Any) -> np.ndarray:
  """Returns `images` as an array if they are uint8 [B, H, W, 3].

  Raises:
    UsageError: they are not.
  """
  found = _array(images)
  if found.dtype != np.uint8 or not _is_coloured(found, axes=4):
    raise UsageError(
      f"Expected a batch of images, uint8 [B, H, W, 3], but {_kind(found)} "
      f"came.{_advice(found)}"
    )
  return found


def cropped(images: Any, crop: augment.EvalCrop) -> np.ndarray:
  """Cuts and resizes an image, or several of any sizes, as evaluations do.

  Args:
    images: uint8 [H, W, 3], or a list or an array of such images.
    crop: to S × S pixels.

  Returns:
    uint8 [S, S, 3] of one image, [B, S, S, 3] of several.

  Raises:
    UsageError: an image is of another kind.
  """
  several = isinstance(images, list | tuple)
  if not several:
    images = _array(images)
    several = images.ndim == 4
  if several:
    found = np.empty((len(images), crop.size, crop.size, 3), np.uint8)
    for i, image in enumerate(images):
      found[i] = _cropped_one(_array(image), crop)
    return found
  return _cropped_one(images, crop)


def _cropped_one(image: np.ndarray, crop: augment.EvalCrop) -> np.ndarray:
  if image.dtype != np.uint8 or not _is_coloured(image, axes=3):
    raise UsageError(
      f"Expected an image, uint8 [H, W, 3], but {_kind(image)} "
      f"came.{_advice(image)}"
    )
  found: np.ndarray = crop.map({"image": image})["image"]
  return found


def rows_for(mesh: Mesh, images: np.ndarray) -> jax.Array:
  """Cuts a batch [B, ...] among the devices, filled up with rows of zeros."""
  missing = -len(images) % mesh.size
  empty = np.zeros((missing, *images.shape[1:]), images.dtype)
  filled = np.concatenate([images, empty]) if missing else images
  return jax.device_put(filled, sharding.split(mesh))


def _array(images: Any) -> np.ndarray:
  try:
    return np.asarray(images)
  except ValueError:
    raise UsageError(
      "The images differ in shape, so they are no batch; "
      "`encoder.preprocess(images)` makes one of them."
    ) from None


def _is_coloured(images: np.ndarray, axes: int) -> bool:
  """Whether there are three channels, and pixels, on so many axes."""
  return (
    images.ndim == axes
    and images.shape[-1] == 3
    and all(images.shape[axes - 3 :])
  )


def _kind(array: np.ndarray) -> str:
  return f"{array.dtype} {list(array.shape)}"


def _advice(array: np.ndarray) -> str:
  """What the caller probably has to do, as a sentence of its own."""
  if array.ndim == 3 and _is_coloured(array, axes=3):
    return " One image is a batch as image[None]."
  if np.issubdtype(array.dtype, np.floating):
    return " The encoder scales pixels by itself: give whole numbers 0..255."
  if array.ndim and array.shape[-1] in (1, 4):
    return " Give red, green and blue, in this order."
  return ""
