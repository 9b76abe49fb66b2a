"""Mean intersection over union of a whole split, counted in integers.

All pixels of a split go into one confusion matrix [K, K], whose rows are the
true classes and whose columns are the predicted ones. So the measure does not
depend on how the images were put into batches.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Of an image: float32 holds all whole numbers up to this one.
MOST_PIXELS = 2**24


def confusion(
  predicted: jax.Array, true: jax.Array, counted: jax.Array, num_classes: int
) -> jax.Array:
  """Counts the pixels of a batch, int32 [K, K]; exact, on any devices.

  Products of one-hot vectors count, because accelerators multiply matrices
  faster than they add to single places of an array.

  Args:
    predicted: int [B, H, W], from 0 to K - 1.
    true: uint8 [B, H, W]; pixels of no class, such as void ones, do not count.
    counted: bool [B]; images with False do not count.
    num_classes: K.

  Raises:
    ValueError: an image has more than 2^24 pixels, which float32 cannot count.
  """
  pixels = true[0].size
  if pixels > MOST_PIXELS:
    raise ValueError(f"An image has {pixels:,} pixels, over {MOST_PIXELS:,}.")

  def one_hot(classes: jax.Array) -> jax.Array:
    """[B, H, W] -> [B, H W, K]; all zeros for a pixel of no class."""
    flat = classes.reshape(len(classes), -1)
    return jax.nn.one_hot(flat, num_classes, dtype=jnp.bfloat16)

  per_image = jnp.einsum(
    "bpt,bpq->btq",
    one_hot(true),
    one_hot(predicted),
    preferred_element_type=jnp.float32,
  )
  counts = per_image.astype(jnp.int32) * counted[:, None, None]
  return jnp.sum(counts, axis=0)


def measures(
  counts: np.ndarray, class_names: Sequence[str] = ()
) -> dict[str, Any]:
  """What a confusion matrix says.

  Args:
    counts: int [K, K], rows are the true classes.
    class_names: of the K classes; numbers stand for them if there are none.

  Returns:
    "mean_iou", over the classes that are true or predicted somewhere;
    "per_class", the IoU of each class by name, None if it is neither; and
    "pixel_accuracy". The first and the last are NaN if no pixel counts.
  """
  counts = np.asarray(counts, np.int64)
  hits, true, predicted = (
    np.diagonal(counts),
    counts.sum(axis=1),
    counts.sum(axis=0),
  )
  union = true + predicted - hits
  occurs = union > 0
  iou = hits / np.where(occurs, union, 1)
  total = int(counts.sum())
  names = class_names or [str(k) for k in range(len(counts))]
  return {
    "mean_iou": float(iou[occurs].mean()) if total else float("nan"),
    "per_class": {
      name: float(value) if there else None
      for name, value, there in zip(names, iou, occurs, strict=True)
    },
    "pixel_accuracy": int(hits.sum()) / total if total else float("nan"),
  }
